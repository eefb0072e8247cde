"""Claims that look right and are worth nothing, by accident or by malice, beside an honest one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import material
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import FOREIGN_ACCOUNT, OTHER_TEMPLATE, KeyKind
from device import Device

QUICK = Settings(key_kind=KeyKind.EC, connects_per_second=None)
CONFIGURATION = """
endpoint = "localhost"
port = {port}
ca_file = "{ca}"
[template]
name = "TrustedUserProvisioningTemplate"
[template.parameters]
ThingName = "{thing}"
[timeouts]
grace_seconds = 0
"""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), QUICK) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, sandbox: Sandbox) -> Device:
    made = Device(tmp_path / "root")
    made.configure(CONFIGURATION.format(port=sandbox.mqtt_port, ca=sandbox.ca_file, thing=tmp_path.name))
    return made


def invented(*, begins: timedelta = timedelta(minutes=-2), lives: timedelta = timedelta(hours=20)) -> str:
    """Anybody can make one; only AWS can tell."""
    start = datetime.now(timezone.utc).replace(microsecond=0) + begins
    made = material.pair(not_before=start, not_after=start + lives)
    return made.certificate + made.key


def test_a_longer_life_does_not_keep_the_honest_one_waiting(device: Device, sandbox: Sandbox) -> None:
    for number in range(3):
        device.put(f"invented-{number}", invented())
    device.put("claim.json", json.dumps(sandbox.create_claim()))
    result = device.provision()
    assert result["outcome"] == "active", result
    assert device.dropped() == []


def test_a_key_that_the_tls_library_refuses_does_not_either(device: Device, sandbox: Sandbox) -> None:
    start = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(minutes=2)
    key = material.odd_rsa_key(composite=True)
    made = material.pair(not_before=start, not_after=start + timedelta(hours=20), key=key)
    device.put("poison", made.certificate + made.key)
    assert device.provision()["outcome"] == "claim-not-accepted"
    device.put("claim.json", json.dumps(sandbox.create_claim()))
    assert device.provision()["outcome"] == "active"


def test_a_claim_from_the_future_does_not_either(device: Device, sandbox: Sandbox) -> None:
    device.put("later", invented(begins=timedelta(hours=2)))
    assert device.provision()["outcome"] == "claim-not-yet-valid"
    device.put("claim.json", json.dumps(sandbox.create_claim()))
    assert device.provision()["outcome"] == "active"


def test_of_two_accounts_the_right_one(device: Device, sandbox: Sandbox) -> None:
    device.put("theirs.json", json.dumps(sandbox.create_claim(account=FOREIGN_ACCOUNT, life=900)))
    device.put("ours.json", json.dumps(sandbox.create_claim()))
    assert device.provision()["outcome"] == "active"


def test_one_for_another_template_blocks_nobody(device: Device, sandbox: Sandbox) -> None:
    """Also one that lives longer than the right one that comes later."""
    device.put("wrong", json.dumps(sandbox.create_claim(template=OTHER_TEMPLATE, life=900)))
    assert device.provision()["outcome"] == "subscribe-refused"
    device.put("right", json.dumps(sandbox.create_claim()))
    assert device.provision()["outcome"] == "active"


def test_beside_one_for_another_template(device: Device, sandbox: Sandbox) -> None:
    device.put("wrong", json.dumps(sandbox.create_claim(template=OTHER_TEMPLATE, life=900)))
    device.put("right", json.dumps(sandbox.create_claim()))
    assert device.provision()["outcome"] == "active"


def test_alone_it_is_tried_again_while_it_lives(device: Device, sandbox: Sandbox) -> None:
    device.put("invented", invented())
    result = device.provision()
    assert (result["outcome"], result["next"]) == ("claim-not-accepted", "again")
    assert device.provision()["outcome"] == "claim-not-accepted"
    device.put("claim.json", json.dumps(sandbox.create_claim()))
    assert device.provision()["outcome"] == "active"
