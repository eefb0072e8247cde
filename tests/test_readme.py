"""The README is true: its commands run as they stand, and its tables are complete."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from claimd.errors import Exit
from claimd.model import DeviceState
from claimd.news import MessageId

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DEADLINE_SECONDS = 120.0
_MAKE_TARGETS = sorted(set(re.findall(r"(?:`|^    )make ([a-z][a-z0-9-]*)", README, re.MULTILINE)))


def _block(containing: str) -> str:
    found = [block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if containing in block]
    assert len(found) == 1
    return str(found[0])


def _shell(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """As a person types it: in bash, with this environment's programs, and it stops at the first error."""
    programs = str(Path(sys.executable).parent)
    # Files, for pipes would stay open as long as what it has left running at an error.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            ["bash", "-e", "-u", "-o", "pipefail", "-c", script],
            cwd=directory,
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(directory)},
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            process.wait(DEADLINE_SECONDS)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # nothing was left running
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(script, process.returncode, out.read(), err.read())


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory in which it ran, and what it showed."""
    directory = tmp_path_factory.mktemp("quick-start")
    commands = _block("claimd --root device run &")
    activation = ". .venv/bin/activate\n"
    assert commands.startswith(activation)
    ended = _shell(commands.removeprefix(activation) + "wait\n", directory)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return directory, ended.stdout


def test_the_quick_start_runs_as_it_stands(quick_start: tuple[Path, str]) -> None:
    directory, shown = quick_start
    assert "the configuration is right" in shown
    assert "provisioned, this device has its permanent identity" in shown
    assert '"thing_name": "sandbox-device"' in shown
    assert list((directory / "device/var/spool/claimd/drop").iterdir()) == []


def test_the_sandbox_s_commands_run_as_they_stand(tmp_path: Path) -> None:
    serve, *others = _block("claimd-sandbox serve --dir aws --mqtt-port").splitlines()
    command = re.sub(r"port \d+", "port 0", serve.partition("#")[0])  # somebody else may hold these ports
    ready = "until [ -e aws/endpoint.json ]; do sleep 0.1; done"
    ended = _shell("\n".join([f"{command} &", ready, *others, "kill %1", "wait"]), tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "claim.json").read_text().startswith("{")


def test_the_identity_s_members_are_documented(quick_start: tuple[Path, str]) -> None:
    """Every member of identity.json stands in the table, and no other."""
    directory, _ = quick_start
    section = README.partition("### identity.json")[2].partition("\n#")[0]
    documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))))
    text = (directory / "device/var/lib/claimd/identity/current/identity.json").read_text()
    assert documented == set(json.loads(text))


def test_exit_codes_and_states_are_documented() -> None:
    codes = re.findall(r"^\| (\d+) \|", README, re.MULTILINE)
    assert sorted(map(int, codes)) == sorted(map(int, Exit))
    states = re.search(r"^States: (.*)\.$", README, re.MULTILINE)
    assert states is not None
    assert states.group(1) == ", ".join(f"`{state.value}`" for state in DeviceState)


def test_files_that_it_points_to_are_there() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    for target in targets:
        assert (REPOSITORY / target).exists(), target


@pytest.mark.parametrize("target", _MAKE_TARGETS)
def test_make_targets_that_it_names_exist(target: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), f"no target {target} with a line of help"


def test_the_makefile_explains_every_target() -> None:
    ended = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    phony = re.findall(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for target in " ".join(phony).split():
        assert re.search(rf"^  make {target} +\S", ended.stdout, re.MULTILINE), target


def test_the_message_ids_are_documented() -> None:
    assert set(re.findall(r"`([0-9a-f]{32})`", README)) == {one.value for one in MessageId}
