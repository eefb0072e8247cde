"""The support bundle: whole, and without a secret, wherever one was put. And the configuration as shown."""

from __future__ import annotations

import json
import shlex
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import material
from claimd.redaction import SECRET
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import OTHER_TEMPLATE, KeyKind
from provocations import Stage

PARTS = {
    "status.txt",
    "status.json",
    "doctor.txt",
    "doctor.json",
    "configuration.txt",
    "versions.txt",
    "journal.txt",
}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    settings = Settings(key_kind=KeyKind.EC, connects_per_second=None)
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), settings) as running:
        yield running


@pytest.fixture
def stage(tmp_path: Path, sandbox: Sandbox) -> Stage:
    return Stage(tmp_path, sandbox)


def bundle(stage: Stage) -> tuple[str, dict[str, str]]:
    """What the command printed, and the bundle's files."""
    path = stage.directory / "report.tar.gz"
    run = stage.device.run("report", "--output", str(path))
    assert run.returncode == 0, run.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    found = {}
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            found[Path(member.name).name] = file.read().decode()
    return run.stdout, found


def test_it_prints_what_it_contains(stage: Stage) -> None:
    printed, found = bundle(stage)
    assert set(found) == PARTS
    assert all(f"  {part}: " in printed for part in PARTS)
    assert json.loads(found["status.json"])["schema"] == json.loads(found["doctor.json"])["schema"] == 1
    assert "claimd " in found["versions.txt"] and "Python 3" in found["versions.txt"]


def test_no_secret_is_in_it_wherever_one_was_put(stage: Stage) -> None:
    canary = material.pair().key
    one_line = canary.replace("\n", "\\\\n")
    stage.claim(template=OTHER_TEMPLATE)  # is kept: the template is another one
    stage.configure(parameters=f'ThingName = "x"\nHookPassword = "hunter2 and more"\nNote = "{one_line}"')
    stage.device.provision()
    stage.device.put("key.pem", canary)
    stage.device.put(f"{'-'.join(canary.split()[5:6])[:40].replace('/', '_')}.pem", canary)
    status = json.loads(Path(stage.device.layout.status_file).read_text())
    status["notes"] = [{"code": "x", "message": canary}]
    Path(stage.device.layout.status_file).write_text(json.dumps(status))
    held = [p.read_text() for p in Path(stage.device.layout.state_directory).rglob("private.key")]
    assert held, "the claim's own key is on disk"
    _, found = bundle(stage)
    everything = "\n".join(found.values())
    for key in (canary, *held):
        lines = [line for line in key.splitlines() if not line.startswith("-----")]
        assert not [line for line in lines if line in everything]
        assert not [line for line in lines if line[:32] in everything]
    assert "PRIVATE KEY" not in everything and "hunter2" not in everything
    assert f'template.parameters.HookPassword = "{SECRET}"' in found["configuration.txt"]


def test_the_command_that_it_names_unpacks_it(stage: Stage) -> None:
    name = "the report of today.tar.gz"
    run = stage.device.run("report", "--output", str(stage.directory / name))
    command = run.stdout.splitlines()[-1]
    assert command.removeprefix("sudo ").startswith("tar xzf ")
    subprocess.run(shlex.split(command.removeprefix("sudo ")), cwd=stage.directory, check=True, timeout=60)
    assert {path.name for path in (stage.directory / "claimd-report").iterdir()} == PARTS


def test_it_overwrites_nothing(stage: Stage) -> None:
    path = stage.directory / "report.tar.gz"
    path.write_text("mine")
    run = stage.device.run("report", "--output", str(path))
    assert run.returncode == 2 and path.read_text() == "mine"


class TestConfigShow:
    def test_values_their_files_and_what_they_are_here(self, stage: Stage) -> None:
        (stage.device.root / "etc/serial").write_text("4711\n")
        stage.configure(parameters='ThingName = "pump-{file:/etc/serial}"\nPassword = "hunter2"')
        folder = Path(stage.device.layout.config_directory, "conf.d")
        folder.mkdir()
        (folder / "20-site.toml").write_text('reprovision = "replace"\n')
        shown = stage.device.run("config", "show").stdout
        main = stage.device.layout.config_file
        line = f'template.parameters.ThingName = "pump-{{file:/etc/serial}}"    # {main}; here "pump-4711"'
        assert line in shown.splitlines()
        assert f'reprovision = "replace"    # {folder}/20-site.toml' in shown.splitlines()
        assert 'claim.client_id = "claimd-{fingerprint}"    # default' in shown.splitlines()
        checked = stage.device.run("config", "check").stdout
        assert "hunter2" not in shown + checked and "note: " not in checked

    def test_a_value_without_effect_is_named(self, stage: Stage) -> None:
        stage.configure()
        folder = Path(stage.device.layout.config_directory, "conf.d")
        folder.mkdir()
        (folder / "50-setup.toml").write_text('[template]\nname = "Another"\n')
        run = stage.device.run("config", "check")
        assert run.returncode == 0
        (note,) = [line for line in run.stdout.splitlines() if line.startswith("note: ")]
        assert note.startswith(f"note: {stage.device.layout.config_file}:")
        assert note.endswith(f": template.name has no effect: {folder}/50-setup.toml sets it again")


def test_put_and_wait(stage: Stage) -> None:
    stage.device.start()
    try:
        path = stage.directory / "claim.json"
        path.write_text(json.dumps(stage.sandbox.create_claim()))
        run = stage.device.run("put", "--wait", str(path))
        assert run.returncode == 0, run.stderr
        assert "done: provoked has its identity" in run.stdout
        path.write_text(json.dumps(stage.sandbox.create_claim()))
        assert stage.device.run("put", "--wait", "--timeout", "60s", str(path)).returncode == 3
    finally:
        stage.device.stop()
