"""However much lies in the drop directory, and whatever lies in place of the status: nobody is told that
a device has no identity which has one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from claimd.errors import Code, Exit
from claimd.report import MAX_NAMED
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import TEMPLATE, KeyKind
from device import CONFIGURATION, Device

# 252 bytes of a name, and in JSON three times as many.
LONG = "\U0001f600" * 63
FOLDERS, FILES = 16, 16


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    settings = Settings(key_kind=KeyKind.EC, connects_per_second=None)
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Device:
    """One that has its identity."""
    made = Device(tmp_path_factory.mktemp("device") / "root")
    made.configure(
        CONFIGURATION.format(
            port=sandbox.mqtt_port,
            ca=sandbox.ca_file,
            more="",
            template=TEMPLATE,
            parameters='ThingName = "flooded"',
            tables="",
            timeouts="",
        )
    )
    made.put("claim.json", json.dumps(sandbox.create_claim()))
    assert made.provision()["outcome"] == "active"
    return made


def test_of_a_flood_of_long_names_some_are_named_and_the_identity_is(device: Device) -> None:
    for folder in range(FOLDERS):
        place = os.path.join(device.layout.drop_directory, f"{folder:02}{LONG}")
        os.mkdir(place)
        for file in range(FILES):
            Path(place, f"{file:02}{LONG}").write_bytes(b"\x89PNG")
    device.provision()
    document = device.status()
    assert document["state"] == "provisioned" and document["identity"] is not None
    assert len(document["drop"]) == MAX_NAMED
    assert document["drop_more"] == FOLDERS * FILES - MAX_NAMED
    assert os.path.getsize(device.layout.status_file) < 512 * 1024
    shown = device.run("status")
    assert f"and {FOLDERS * FILES - 5} more that are no claim, or not yet" in " ".join(shown.stdout.split())
    # All of it has been looked at, also what is not named: there is nothing to wait for.
    waited = device.run("wait", "--timeout", "60s")
    assert waited.returncode == Exit.OLD_IDENTITY_SERVES, waited.stderr


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"schema": 99}\n', "it is not what this version of claimd writes"),
        (b'{"schema": 1, "state"', "it is no JSON document"),
        (b" " * (4 * 1024 * 1024 + 1), "it has more than 4194304 bytes"),
    ],
)
def test_a_status_that_can_t_be_read_denies_no_identity(device: Device, content: bytes, why: str) -> None:
    path = Path(device.layout.status_file)
    path.unlink()
    path.write_bytes(content)
    for command in (("status",), ("status", "--json"), ("wait", "--timeout", "60s")):
        told = device.run(*command)
        assert (told.returncode, told.stdout) == (Exit.DISK, ""), told
        assert f"{path} can't be read: {why}" in " ".join(told.stderr.split())
        assert "sudo claimd provision" in told.stderr
    assert Code.STATUS_UNREADABLE.value in device.run("explain").stdout
    assert device.run("explain", Code.STATUS_UNREADABLE.value).returncode == 0
    # As the words say.
    device.provision()
    assert device.status()["state"] == "provisioned"
