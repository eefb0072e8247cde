"""A state directory that arrived from another device: said everywhere, and never acted on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from claimd import cli
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import KeyKind
from device import Device, configuration, wait_for

QUICK = Settings(key_kind=KeyKind.EC, connects_per_second=None)
HERE, ELSEWHERE = "1" * 32, "2" * 32


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), QUICK) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, sandbox: Sandbox) -> Iterator[Device]:
    made = Device(tmp_path / "root")
    made.configure(configuration(sandbox, thing=f"thing-{tmp_path.name}"))
    _machine(made, HERE)
    yield made
    made.stop()
    sandbox.faults.clear()


def _machine(device: Device, machine_id: str) -> None:
    Path(device.layout.under("/etc/machine-id")).write_text(machine_id + "\n")


def _drop(device: Device, sandbox: Sandbox) -> None:
    device.put("claim.json", json.dumps(sandbox.create_claim()))


def _kept(device: Device) -> dict[str, bytes]:
    """All that lies below state and drop directory."""
    places = ("var/lib/claimd/", "var/spool/claimd/drop/")
    return {path: data for path, data in device.files().items() if path.startswith(places)}


@pytest.fixture
def provisioned(device: Device, sandbox: Sandbox) -> Device:
    _drop(device, sandbox)
    assert device.provision()["exit"] == 0
    return device


def test_the_machine_id_itself_is_kept_nowhere(provisioned: Device) -> None:
    held = [path for path, data in _kept(provisioned).items() if HERE.encode() in data]
    assert held == []
    path = provisioned.root / "var/lib/claimd/machine.json"
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_is_said_and_nothing_is_touched(provisioned: Device, sandbox: Sandbox) -> None:
    _drop(provisioned, sandbox)
    before, connections = _kept(provisioned), len(sandbox.connections)
    _machine(provisioned, ELSEWHERE)
    for _ in range(2):
        result = provisioned.provision()
        assert (result["outcome"], result["exit"], result["next"]) == ("state-of-another-device", 78, "again")
    assert provisioned.run("provision").returncode == 78, "no person is taken for an answer by asking"
    status = provisioned.status()
    assert (status["state"], status["problem"]["code"]) == ("blocked", "state-of-another-device")
    assert "sudo claimd forget" in status["problem"]["remedy"]
    assert "sudo claimd provision --adopt" in provisioned.run("status").stdout
    assert _kept(provisioned) == before
    assert len(sandbox.connections) == connections
    _machine(provisioned, HERE)
    assert provisioned.provision()["outcome"] == "claim-not-needed", "back on its own device it goes on"


def test_who_waits_or_asks_is_told(provisioned: Device, sandbox: Sandbox) -> None:
    """A copy has the other device's identity and its history of success in its state directory."""
    _machine(provisioned, ELSEWHERE)
    _says_not_ready(provisioned.run("ready"))
    assert json.loads(provisioned.run("ready", "--json").stdout)["ready"] is False
    assert provisioned.run("provision").returncode == 78
    ended = provisioned.run("wait", "--timeout", "60")
    assert (ended.returncode, "done:" in ended.stdout) == (69, False), ended
    assert "state-of-another-device" in ended.stderr
    claim = provisioned.root / "claim.json"
    claim.write_text(json.dumps(sandbox.create_claim()))
    ended = provisioned.run("put", "--wait", "--timeout", "60", str(claim))
    assert ended.returncode == 69 and "state-of-another-device" in ended.stderr, ended


def test_who_may_not_look_has_it_from_the_last_pass(
    provisioned: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(*given: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("claimd.origin.foreign", closed)
    assert cli.main(["--root", str(provisioned.root), "ready"]) == 4
    _machine(provisioned, ELSEWHERE)
    assert provisioned.run("provision").returncode == 78
    capsys.readouterr()
    assert cli.main(["--root", str(provisioned.root), "ready"]) == 78
    assert capsys.readouterr().out.startswith("NOT READY\n\nWhat lies in")


def _says_not_ready(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 78
    assert ended.stdout.startswith("NOT READY\n\nWhat lies in")
    assert "sudo claimd provision --adopt" in ended.stdout


def test_no_hook_hands_it_on(provisioned: Device) -> None:
    hook = Path(provisioned.layout.hooks_directory, "10-hook")
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {provisioned.root}/ran\n")
    hook.chmod(0o755)
    _machine(provisioned, ELSEWHERE)
    for again in ((), ("--again",)):
        ended = provisioned.run("hooks", *again)
        assert ended.returncode == 78 and "state-of-another-device" in ended.stderr, ended
    assert not (provisioned.root / "ran").exists()
    condition = ("doctor", "--only", "host-state")  # of a service that is not to start with it
    assert provisioned.run(*condition).returncode == 1
    assert provisioned.run("hooks", "--list").stdout == "10-hook: has seen no identity yet\n"
    assert provisioned.run("provision", "--adopt").returncode == 4
    assert provisioned.run(*condition).returncode == 0
    assert provisioned.run("hooks").returncode == 0
    assert (provisioned.root / "ran").exists()


def test_an_open_attempt_and_its_claim_are_left(device: Device, sandbox: Sandbox) -> None:
    _drop(device, sandbox)
    sandbox.faults.set("hang-up step=register when=before")
    assert device.provision()["outcome"] == "connection-lost"
    sandbox.faults.clear()
    before, connections = _kept(device), len(sandbox.connections)
    assert any("/claims/" in path for path in before)
    _machine(device, ELSEWHERE)
    assert device.run("provision").returncode == 78
    assert (_kept(device), len(sandbox.connections)) == (before, connections)
    assert device.run("provision", "--adopt").returncode == 0
    assert device.status()["state"] == "provisioned"


def test_the_same_device_goes_on_after_adopt(provisioned: Device) -> None:
    link = provisioned.identity.readlink()
    _machine(provisioned, ELSEWHERE)
    assert provisioned.run("provision").returncode == 78
    assert provisioned.run("provision", "--adopt").returncode == 4
    assert provisioned.provision()["exit"] == 4, "it is kept"
    status = provisioned.status()
    assert (status["state"], status["problem"]) == ("provisioned", None)
    assert provisioned.identity.readlink() == link


def test_a_copy_forgets_and_takes_a_claim_of_its_own(
    provisioned: Device, sandbox: Sandbox, tmp_path: Path
) -> None:
    shutil.copytree(provisioned.root, tmp_path / "copy", symlinks=True)
    copy = Device(tmp_path / "copy")
    _machine(copy, ELSEWHERE)
    _drop(copy, sandbox)
    assert copy.provision()["outcome"] == "state-of-another-device"
    assert copy.run("forget", "--yes").returncode == 0
    assert copy.provision()["outcome"] == "active"
    assert copy.identity.readlink() != provisioned.identity.readlink()


def test_an_image_without_a_claim_is_anybodys(device: Device, sandbox: Sandbox) -> None:
    assert device.provision()["exit"] == 4
    _machine(device, ELSEWHERE)
    _drop(device, sandbox)
    assert device.provision()["outcome"] == "active"


@pytest.mark.parametrize("text", ["", "uninitialized\n", "0" * 32, None])
def test_without_a_machine_id_nothing_is_compared(provisioned: Device, text: str | None) -> None:
    path = Path(provisioned.layout.under("/etc/machine-id"))
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert provisioned.provision()["exit"] == 4
    assert provisioned.status()["problem"] is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"schema": 1, "machine": 7}', b'{"schema": 2}'])
def test_a_damaged_note_locks_nobody_out(provisioned: Device, text: bytes) -> None:
    """It is written by one rename; what is torn all the same says nothing about another device."""
    note = provisioned.root / "var/lib/claimd/machine.json"
    whole = note.read_bytes()
    note.write_bytes(text)
    assert provisioned.provision()["exit"] == 4
    assert note.read_bytes() == whole


def test_the_service_says_it_where_technicians_look(provisioned: Device) -> None:
    (provisioned.root / "var/spool/claimd/result").mkdir(exist_ok=True)
    _machine(provisioned, ELSEWHERE)
    provisioned.start()
    latest = provisioned.root / "var/spool/claimd/result/latest.txt"
    wait_for(lambda: latest.exists() and "state-of-another-device" in latest.read_text(), "latest.txt")
    assert latest.read_text().startswith("NOT READY")
