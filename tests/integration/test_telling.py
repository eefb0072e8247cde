"""The journal's entries of whole passes, received by a socket that stands for journald, and warnings of an
end that comes near, with a clock that runs ahead."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from claimd import news
from claimd.ensure import Outside, Request, ensure
from claimd.errors import Code
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import KeyKind
from device import DEADLINE_SECONDS, Device

JOURNAL = Path(__file__).resolve().parent.parent / "journal.py"
END = datetime(2049, 12, 31, 23, 59, 59, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    settings = Settings(key_kind=KeyKind.EC, connects_per_second=None)
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), settings) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, sandbox: Sandbox) -> Device:
    made = Device(tmp_path / "root")
    made.configure((sandbox.directory / "claimd.toml").read_text())
    return made


def journal_of(device: Device, *arguments: str) -> list[dict[str, str]]:
    """The entries that this command sends to the journal."""
    pytest.importorskip("systemd.journal", reason="python3-systemd is not installed")
    namespace = ["unshare", "--mount", "--propagation", "private"]
    namespace += [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    hidden = "mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd"
    if subprocess.run([*namespace, "sh", "-c", hidden], check=False, capture_output=True).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    file = device.root / "entries"
    command = [sys.executable, str(JOURNAL), str(file), sys.executable, "-m", "claimd"]
    command += ["--root", str(device.root), *arguments]
    ended = subprocess.run(
        [*namespace, "sh", "-c", f'{hidden} && exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert file.exists(), ended.stderr
    assert ended.stderr == "", "what went to the journal's stream instead of its socket"
    return [json.loads(line) for line in file.read_text().splitlines()]


def with_id(entries: list[dict[str, str]], wanted: news.MessageId) -> list[dict[str, str]]:
    return [entry for entry in entries if entry.get("MESSAGE_ID") == wanted.value]


def test_a_provisioned_device_is_in_the_journal_once(device: Device, sandbox: Sandbox) -> None:
    device.put("claim.json", json.dumps(sandbox.create_claim()))
    entries = journal_of(device, "provision", "--json")
    (told,) = with_id(entries, news.MessageId.PROVISIONED)
    identity = json.loads((device.identity / "identity.json").read_text())
    assert told["CLAIMD_CERTIFICATE_ID"] == identity["certificate_id"]
    assert told["CLAIMD_THING_NAME"] == identity["thing_name"]
    assert (told["PRIORITY"], told["SYSLOG_IDENTIFIER"]) == ("5", "claimd")
    stages = [entry["CLAIMD_STAGE"] for entry in entries if "CLAIMD_STAGE" in entry]
    assert stages == ["connected", "keys", "registered", "verified", "active", "active"]
    assert {entry["PRIORITY"] for entry in entries} == {"5", "6"}
    assert with_id(journal_of(device, "provision", "--json"), news.MessageId.PROVISIONED) == []


def test_a_blocked_attempt_is_in_the_journal_once(device: Device, sandbox: Sandbox) -> None:
    text = (sandbox.directory / "claimd.toml").read_text()
    device.configure(text.replace("TrustedUserProvisioningTemplate", "NoSuchTemplate"))
    device.put("claim.json", json.dumps(sandbox.create_claim()))
    (told,) = with_id(journal_of(device, "provision", "--json"), news.MessageId.BLOCKED)
    assert told["CLAIMD_ERROR_CODE"] == Code.SUBSCRIBE_REFUSED.value
    assert (told["CLAIMD_STAGE"], told["PRIORITY"]) == ("blocked", "3")
    assert "; what to do: " in told["MESSAGE"]
    assert with_id(journal_of(device, "provision", "--json"), news.MessageId.BLOCKED) == []


def test_a_claim_that_has_expired_is_refused_in_the_journal(device: Device, sandbox: Sandbox) -> None:
    device.put("claim.json", json.dumps(sandbox.create_claim(life=-60)))
    (told,) = with_id(journal_of(device, "provision", "--json"), news.MessageId.REFUSED)
    assert told["CLAIMD_ERROR_CODE"] == Code.CLAIM_EXPIRED.value


def test_no_key_is_in_the_journal(device: Device, sandbox: Sandbox) -> None:
    claim = sandbox.create_claim()
    device.put("claim.json", json.dumps(claim))
    text = json.dumps(journal_of(device, "provision", "--json"))
    stored = (device.identity / "private.key").read_text()
    for key in (claim["keyPair"]["PrivateKey"], stored):
        for line in key.splitlines()[1:-1]:
            assert line not in text


def a_pass(device: Device, now: datetime) -> float | None:
    """As the service runs it, at another time. When to come back."""
    request = Request(device.layout, None, False, lambda: False, lambda stage, sentence: None)
    return ensure(request, Outside(now=lambda: now)).after_seconds


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    fields: list[dict[str, Any]] = [getattr(record, "journal", {}) for record in caplog.records]
    caplog.clear()
    return [f["CLAIMD_ERROR_CODE"] for f in fields if f.get("MESSAGE_ID") == news.MessageId.EXPIRY_NEAR.value]


def test_an_end_that_comes_near_is_warned_of_once_and_shown(
    device: Device, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    device.put("claim.json", json.dumps(sandbox.create_claim()))
    assert device.provision()["exit"] == 0
    caplog.set_level(logging.INFO)

    assert a_pass(device, END - timedelta(days=32)) == 2 * 86400
    assert warned(caplog) == []
    assert device.status()["notes"] == []
    for days, code, again in (
        (30, Code.IDENTITY_EXPIRES, 7 * 86400),
        (7, Code.IDENTITY_EXPIRES, 6 * 86400),
        (1, Code.IDENTITY_EXPIRES, 86400),
        (0, Code.IDENTITY_EXPIRED, None),
    ):
        now = END - timedelta(days=days)
        assert a_pass(device, now) == again
        assert warned(caplog) == [code.value]
        # Another process, as after a restart.
        assert a_pass(device, now) == again
        assert warned(caplog) == []
        (note,) = device.status()["notes"]
        assert note["code"] == code.value
        assert "2049-12-31 23:59:59 UTC" in device.run("status").stdout
    assert device.status()["state"] == "provisioned"


def test_what_was_told_survives_a_reboot(
    device: Device, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    device.put("claim.json", json.dumps(sandbox.create_claim()))
    assert device.provision()["exit"] == 0
    caplog.set_level(logging.INFO)
    a_pass(device, END - timedelta(days=5))
    assert warned(caplog) == ["identity-expires"]
    for path in Path(device.layout.run_directory).iterdir():
        path.unlink()
    a_pass(device, END - timedelta(days=4))
    assert warned(caplog) == []
    # What can't be read was not told.
    (Path(device.layout.state_directory) / "told.json").write_text("{")
    a_pass(device, END - timedelta(days=4))
    assert warned(caplog) == ["identity-expires"]
