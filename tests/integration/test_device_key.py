"""key_source = "device": the key is made here, is durable before AWS hears of it, and never travels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from claimd_sandbox.registry import Status
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import KeyKind
from device import Device, assert_gone, configuration

QUICK = Settings(key_kind=KeyKind.EC, connects_per_second=None)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), QUICK) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, sandbox: Sandbox) -> Iterator[Device]:
    made = Device(tmp_path / "root")
    yield made
    sandbox.faults.clear()


def own_key(*, algorithm: str = "P-256") -> str:
    return f'key_source = "device"\nkey_algorithm = "{algorithm}"'


def device_keys(device: Device) -> list[bytes]:
    return [data for path, data in device.files().items() if path.endswith("device.key")]


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("P-256", ec.EllipticCurvePrivateKey), ("RSA-2048", rsa.RSAPrivateKey)]
)
def test_the_key_is_made_here(device: Device, sandbox: Sandbox, algorithm: str, kind: type) -> None:
    device.configure(configuration(sandbox, more=own_key(algorithm=algorithm), thing=f"own-{algorithm}"))
    claim = sandbox.create_claim()
    device.put("claim.json", json.dumps(claim))
    before = len(sandbox.connections)
    result = device.provision()
    assert result["outcome"] == "active", result
    key = load_pem_private_key((device.identity / "private.key").read_bytes(), password=None)
    assert isinstance(key, kind)
    certificate = sandbox.registry.certificate(result["certificate_id"])
    assert certificate is not None and certificate.status is Status.ACTIVE
    packets = [p for p in sandbox.connections[before].packets if p.startswith("<")]
    assert packets == ["< CONNECT", "< SUBSCRIBE", "< PUBLISH", "< PUBLISH", "< DISCONNECT"]
    assert device_keys(device) == [], "it is in the identity alone"
    assert_gone(device, claim)


def test_a_lost_answer_costs_an_unused_certificate_and_nothing_else(device: Device, sandbox: Sandbox) -> None:
    quick = configuration(sandbox, more=own_key(), thing="lost", timeouts="answer_seconds = 1")
    device.configure(quick)
    device.put("claim.json", json.dumps(sandbox.create_claim()))
    sandbox.faults.set("lose-answer step=create-csr times=1")
    assert device.provision()["outcome"] == "no-answer"
    (made,) = device_keys(device)
    issued = len(sandbox.registry.certificates)
    assert device.run("provision").returncode == 0
    assert (device.identity / "private.key").read_bytes() == made, "the same key, certified again"
    assert len(sandbox.registry.certificates) == issued + 1


def test_it_is_durable_before_anything_is_asked_for(device: Device, sandbox: Sandbox) -> None:
    device.configure(configuration(sandbox, more=own_key(), thing="before"))
    device.put("claim.json", json.dumps(sandbox.create_claim()))
    sandbox.faults.set("refuse step=connect who=claim code=0x88 times=1")
    assert device.provision()["exit"] != 0
    (made,) = device_keys(device)
    assert device.run("provision").returncode == 0
    assert (device.identity / "private.key").read_bytes() == made
