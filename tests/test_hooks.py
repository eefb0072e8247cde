"""Hooks: each sees each identity once, whatever died in between, and nobody but root decides what runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from claimd import program
from claimd.durable import Disk
from claimd.errors import Exit
from claimd.hooks import Hooks, hook_environment
from claimd.model import Layout
from claimd.store import Identity
from device import wait_for

OLD, NEW = "0a" * 32, "0b" * 32
EXAMPLE = Path(__file__).parents[1] / "packaging/hooks/50-aws-iot-device-client"


def identity(certificate_id: str, folder: str = "/identity", **members: object) -> Identity:
    path = f"{folder}/{certificate_id}"
    document: dict[str, Any] = {
        "endpoint": "broker.example",
        "port": 8883,
        "template": "Fleet",
        "client_id": "gateway-1",
        "thing_name": "gateway-1",
        "certificate_not_after": "2049-12-31T23:59:59+00:00",
        "paths": {
            "private_key": f"{path}/private.key",
            "certificate": f"{path}/certificate.pem",
            "root_ca": f"{path}/root-ca.pem",
        },
    }
    return Identity(certificate_id, path, document | members)


@dataclass
class Identities:
    now: Identity | None

    def current(self) -> Identity | None:
        return self.now


@dataclass
class Ran:
    """A runner that remembers, and answers as told."""

    ran: list[tuple[str, str, str]] = field(default_factory=list)
    trouble: dict[str, str] = field(default_factory=dict)
    meanwhile: Callable[[str], None] = lambda name: None

    def __call__(
        self, path: str, environment: Mapping[str, str], seconds: float, say: Callable[[str], None], /
    ) -> str | None:
        name = os.path.basename(path)
        self.ran.append(
            (
                name,
                environment["CLAIMD_CERTIFICATE_ID"][:2],
                environment["CLAIMD_PREVIOUS_CERTIFICATE_ID"][:2],
            )
        )
        self.meanwhile(name)
        return self.trouble.get(name)

    def taken(self) -> list[tuple[str, str, str]]:
        taken, self.ran = self.ran, []
        return taken


class Bench:
    def __init__(self, root: Path) -> None:
        self.layout = Layout(str(root))
        self.folder = Path(self.layout.hooks_directory)
        self.folder.mkdir(parents=True)
        Path(self.layout.hooks_state_directory).parent.mkdir(parents=True)
        self.identities = Identities(identity(OLD))
        self.runner = Ran()

    def add(self, name: str, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def run(self, *, again: bool = False) -> Exit:
        """As at a new start: nothing is remembered but what is on disk."""
        hooks = Hooks(self.layout, self.identities, Disk())
        with hooks.locked():
            return hooks.run(self.runner, 10.0, {}, again=again)

    def ran(self, *, again: bool = False) -> list[tuple[str, str, str]]:
        self.run(again=again)
        return self.runner.taken()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_once_a_change_in_order_with_the_identity_before(bench: Bench) -> None:
    bench.add("20-second")
    bench.add("10-first")
    assert bench.ran() == [("10-first", "0a", ""), ("20-second", "0a", "")]
    assert bench.ran() == []
    bench.identities.now = identity(NEW)
    assert bench.ran() == [("10-first", "0b", "0a"), ("20-second", "0b", "0a")]
    assert bench.ran() == []
    assert bench.ran(again=True) == [("10-first", "0b", "0b"), ("20-second", "0b", "0b")]


def test_without_an_identity_nothing_runs(bench: Bench) -> None:
    bench.add("hook")
    bench.identities.now = None
    assert bench.run() is Exit.NOTHING_TO_DO
    assert bench.runner.taken() == []


def test_what_failed_is_run_again_and_the_others_are_not(bench: Bench) -> None:
    bench.add("10-bad")
    bench.add("20-good")
    bench.runner.trouble["10-bad"] = "exit code 1"
    assert bench.run() is Exit.RETRY
    assert bench.runner.taken() == [("10-bad", "0a", ""), ("20-good", "0a", "")]
    bench.runner.trouble.clear()
    assert bench.run() is Exit.OK
    assert bench.runner.taken() == [("10-bad", "0a", "")]


def test_a_power_cut_while_a_hook_runs_leaves_none_out(bench: Bench) -> None:
    bench.add("10-first")
    bench.add("20-second")

    def cut(name: str) -> None:
        if name == "20-second":
            raise KeyboardInterrupt

    bench.runner.meanwhile = cut
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    bench.runner.taken()
    bench.runner.meanwhile = lambda name: None
    assert bench.ran() == [("20-second", "0a", "")]


def test_an_identity_that_changes_meanwhile_is_seen_by_all(bench: Bench) -> None:
    """No event is needed for it: the manager may not have listened just then."""
    bench.add("10-first")
    bench.add("20-second")

    def change(name: str) -> None:
        if name == "10-first":
            bench.identities.now = identity(NEW)

    bench.runner.meanwhile = change
    assert bench.ran() == [("10-first", "0a", ""), ("10-first", "0b", "0a"), ("20-second", "0b", "")]


def test_a_hook_that_is_new_sees_the_identity_that_serves(bench: Bench) -> None:
    bench.add("10-first")
    bench.run()
    bench.runner.taken()
    bench.add("20-late")
    assert bench.ran() == [("20-late", "0a", "")]


def test_a_damaged_record_runs_every_hook_once_more(bench: Bench) -> None:
    bench.add("hook")
    bench.run()
    bench.runner.taken()
    state = Path(bench.layout.hooks_state_directory) / "seen.json"
    assert state.stat().st_mode & 0o777 == 0o600
    for damage in ("", "{", "[]", '{"schema": 2, "seen": {}}', '{"schema": 1, "seen": []}'):
        state.write_text(damage)
        assert bench.ran() == [("hook", "0a", "")], damage
        assert bench.ran() == []


def test_what_others_could_have_changed_is_refused(bench: Bench, tmp_path: Path) -> None:
    bench.add("10-writable", mode=0o775)
    bench.add("20-not-executable", mode=0o644)
    (bench.folder / "30-folder").mkdir()
    (bench.folder / "40-dangling").symlink_to("/nowhere/at/all")
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    target = open_folder / "program"
    target.write_text("#!/bin/sh\n")
    target.chmod(0o755)
    (bench.folder / "50-in-an-open-folder").symlink_to(target)
    assert bench.run() is Exit.RETRY
    assert bench.runner.taken() == []
    said = {hook.name: hook.objection for hook in Hooks(bench.layout, bench.identities, Disk()).found()}
    words = ["others may write", "is not executable", "no ordinary file", "No such file", "others may write"]
    assert len(said) == len(words)
    for (name, objection), word in zip(sorted(said.items()), words, strict=True):
        assert objection is not None and word in objection, name


def test_links_that_lead_in_a_circle_stop_no_other_hook(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One to itself, two to each other, and one to a loop elsewhere: each is named and left out."""
    bench.add("10-before")
    (bench.folder / "20-itself").symlink_to("20-itself")
    (bench.folder / "30-each").symlink_to("40-other")
    (bench.folder / "40-other").symlink_to("30-each")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (bench.folder / "50-elsewhere").symlink_to(tmp_path / "loop")
    bench.add("60-after")
    assert bench.run() is Exit.RETRY
    assert bench.runner.taken() == [("10-before", "0a", ""), ("60-after", "0a", "")]
    for name in ("20-itself", "30-each", "40-other", "50-elsewhere"):
        said = f"hook {name} is not run: {bench.folder / name}: Too many levels of symbolic links"
        assert caplog.messages.count(said) == 1, caplog.messages


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_another_is_refused(bench: Bench) -> None:
    os.chown(bench.add("theirs"), 12345, -1)
    assert bench.run() is Exit.RETRY
    os.chown(bench.folder / "theirs", 0, 0)
    os.chown(bench.folder, 12345, -1)
    assert bench.run() is Exit.RETRY
    assert bench.runner.taken() == []
    os.chown(bench.folder, 0, 0)
    assert bench.run() is Exit.OK


def test_a_link_to_a_program_in_closed_places_is_run(bench: Bench, tmp_path: Path) -> None:
    shared = tmp_path / "usr/share/claimd/hooks"
    shared.mkdir(parents=True)
    (shared / "example").write_text("#!/bin/sh\n")
    (shared / "example").chmod(0o755)
    (bench.folder / "50-example").symlink_to(shared / "example")
    assert bench.ran() == [("50-example", "0a", "")]


@pytest.mark.parametrize(
    "name", [".hidden", "hook~", "#hook#", "hook.dpkg-old", "hook.bak", "a b", "hook.swp"]
)
def test_what_editors_and_dpkg_leave_behind_is_no_hook(bench: Bench, name: str) -> None:
    bench.add(name)
    assert bench.ran() == []


def test_the_environment_tells_all_and_hides_the_manager() -> None:
    caller = {"NOTIFY_SOCKET": "/run/n", "CLAIMD_PRIVATE_KEY": "planted", "HTTP_PROXY": "p", "PATH": "/bin"}
    told = hook_environment(identity(NEW), OLD, caller)
    assert told["CLAIMD_PRIVATE_KEY"] == f"/identity/{NEW}/private.key"
    assert told["CLAIMD_PREVIOUS_CERTIFICATE_ID"] == OLD
    assert (told["CLAIMD_ENDPOINT"], told["CLAIMD_PORT"]) == ("broker.example", "8883")
    assert (told["HTTP_PROXY"], told["PATH"]) == ("p", "/bin")
    assert "NOTIFY_SOCKET" not in told


# --- the real thing that runs them


def _script(folder: Path, text: str) -> str:
    path = folder / "hook"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def test_a_program_and_its_words(tmp_path: Path) -> None:
    said: list[str] = []
    path = _script(tmp_path, 'echo "hello $NAME"; printf "\\033[31mred" >&2; exit 3')
    assert program.run(path, {"NAME": "you", "PATH": os.environ["PATH"]}, 60, said.append) == "exit code 3"
    assert said == ["hello you", "\\x1b[31mred"]
    assert program.run(_script(tmp_path, "exit 0"), {}, 60, said.append) is None
    assert program.run(_script(tmp_path, "kill -9 $$"), {}, 60, said.append) == "it was killed by SIGKILL"
    trouble = program.run(str(tmp_path / "missing"), {}, 60, said.append)
    assert trouble == "it can't be started: No such file or directory"


def test_one_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    said: list[str] = []
    path = _script(tmp_path, "trap '' TERM; sleep 1000 & echo $!; sleep 1000; sleep 1000")
    trouble = program.run(path, {"PATH": os.environ["PATH"]}, 1, said.append)
    assert trouble == "it took longer than 1 s and was ended"
    wait_for(lambda: not _is_alive(int(said[0])), "the end of what it started")


def test_one_that_leaves_a_process_behind_holds_nobody_up(tmp_path: Path) -> None:
    said: list[str] = []
    assert (
        program.run(_script(tmp_path, "sleep 1000 & echo $!"), {"PATH": os.environ["PATH"]}, 60, said.append)
        is None
    )
    wait_for(lambda: not _is_alive(int(said[0])), "the end of what it left behind")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- the shipped example


@dataclass
class DeviceClient:
    """A home for the Device Client, and an identity to hand over."""

    root: Path

    def make(self, certificate_id: str) -> Path:
        source = self.root / "identity" / certificate_id
        source.mkdir(parents=True)
        for name in ("private.key", "certificate.pem", "root-ca.pem"):
            (source / name).write_text(f"{name} of {certificate_id}")
        return source

    def hand_over(self, certificate_id: str) -> subprocess.CompletedProcess[str]:
        """Run the hook with what the runner tells it."""
        told = hook_environment(identity(certificate_id, str(self.root / "identity")), "", {})
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        settings = {
            "DEVICE_CLIENT_USER": user,
            "DEVICE_CLIENT_CONFIG": str(self.config),
            "DEVICE_CLIENT_KEYS": str(self.keys),
            "DEVICE_CLIENT_SERVICE": "",
        }
        return subprocess.run(
            [sys.executable, "-I", str(EXAMPLE)],
            env=told | settings,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def config(self) -> Path:
        return self.root / "etc/.aws-iot-device-client/aws-iot-device-client.conf"

    @property
    def keys(self) -> Path:
        return self.root / "client/keys"

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.config.read_text())
        return document


def test_the_device_client_gets_copies_with_its_exact_modes(tmp_path: Path) -> None:
    client = DeviceClient(tmp_path)
    client.make(OLD)
    assert (ended := client.hand_over(OLD)).returncode == 0, ended.stderr
    document = client.document()
    assert Path(document["key"]).read_text() == f"private.key of {OLD}"
    assert (document["endpoint"], document["thing-name"]) == ("broker.example", "gateway-1")
    assert document["fleet-provisioning"] == {"enabled": False}
    files = [Path(document[member]) for member in ("key", "cert", "root-ca")]
    places = [*files, client.keys, client.keys.parent, client.config]
    assert [place.stat().st_mode & 0o777 for place in places] == [0o600, 0o644, 0o644, 0o700, 0o700, 0o640]


def test_a_new_identity_replaces_the_copies_and_nothing_else(tmp_path: Path) -> None:
    client = DeviceClient(tmp_path)
    client.make(OLD)
    client.hand_over(OLD)
    mine = client.document() | {"jobs": {"enabled": True, "handler-directory": "/opt/jobs"}}
    mine["fleet-provisioning"] = {"enabled": True, "template-name": "theirs"}
    client.config.write_text(json.dumps(mine))
    (client.keys / "something-else").write_text("not ours")
    client.make(NEW)
    assert client.hand_over(NEW).returncode == 0
    document = client.document()
    assert document["jobs"] == {"enabled": True, "handler-directory": "/opt/jobs"}
    assert document["fleet-provisioning"] == {"enabled": False, "template-name": "theirs"}
    assert Path(document["key"]).read_text() == f"private.key of {NEW}"
    names = sorted(path.name for path in client.keys.iterdir())
    assert names == [
        f"{NEW}-certificate.pem.crt",
        f"{NEW}-private.pem.key",
        f"{NEW}-root-ca.pem",
        "something-else",
    ]


def test_a_configuration_that_is_broken_is_left_to_a_person(tmp_path: Path) -> None:
    client = DeviceClient(tmp_path)
    client.config.parent.mkdir(parents=True)
    client.config.write_text("{ not json")
    client.make(OLD)
    ended = client.hand_over(OLD)
    assert ended.returncode == 1 and "is not JSON, and so it was left alone" in ended.stderr
    assert client.config.read_text() == "{ not json"


def test_a_link_planted_for_the_key_is_not_followed(tmp_path: Path) -> None:
    client = DeviceClient(tmp_path)
    key = client.make(OLD) / "private.key"
    (tmp_path / "shadow").write_text("root's")
    key.unlink()
    key.symlink_to(tmp_path / "shadow")
    assert client.hand_over(OLD).returncode != 0
    assert [path.name for path in client.keys.iterdir() if "root's" in path.read_text()] == []
    key.unlink()
    os.link(tmp_path / "shadow", key)
    assert client.hand_over(OLD).returncode != 0
    assert [path.name for path in client.keys.iterdir() if "root's" in path.read_text()] == []


def test_by_command_one_run_at_a_time(tmp_path: Path) -> None:
    """The command below a root of its own; nothing to do there is said by its code, which the unit knows."""
    bench = Bench(tmp_path)
    bench.add("10-hook")
    command = [sys.executable, "-m", "claimd", "--root", str(tmp_path), "hooks"]
    listed = subprocess.run([*command, "--list"], capture_output=True, text=True, check=False)
    assert listed.stdout == "10-hook: has seen no identity yet\n"
    hooks = Hooks(bench.layout, bench.identities, Disk())
    with hooks.locked():
        second = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert second.stderr is not None
        assert "waiting for their end" in second.stderr.readline()
        assert second.poll() is None
    assert second.wait(60) == Exit.NOTHING_TO_DO
    second.stderr.close()
