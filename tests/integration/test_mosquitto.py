"""claimd completes its flow through a real Mosquitto, on TLS 1.2 and on TLS 1.3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import mosquitto
from device import Device
from material import Authority
from mosquitto import CREATE, TEMPLATE, Broker, Responder, claim_text

CONFIGURATION = """
endpoint = "localhost"
port = {port}
ca_file = "{ca}"
[template]
name = "{template}"
[template.parameters]
ThingName = "mosquito-net"
"""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("Mosquitto's own")


@pytest.fixture(scope="module", params=["tlsv1.2", "tlsv1.3"])
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Broker]:
    directory = tmp_path_factory.mktemp("broker") / "mosquitto"
    with mosquitto.running(directory, authority, request.param) as found:
        yield found


@pytest.fixture
def responder(broker: Broker, authority: Authority) -> Iterator[Responder]:
    with Responder(broker, authority).at_work() as found:
        yield found


@pytest.fixture
def device(tmp_path: Path, broker: Broker) -> Device:
    made = Device(tmp_path / "root")
    made.configure(configuration(broker))
    return made


def configuration(broker: Broker, template: str = TEMPLATE) -> str:
    return CONFIGURATION.format(port=broker.port, ca=broker.directory / "ca.pem", template=template)


def test_a_claim_becomes_an_identity(
    device: Device, broker: Broker, responder: Responder, authority: Authority
) -> None:
    device.put("claim.json", claim_text(authority))
    result = device.provision()
    assert (result["outcome"], result["exit"]) == ("active", 0)
    document = json.loads((device.identity / "identity.json").read_text())
    assert document["thing_name"] == "mosquito-net"
    assert document["device_configuration"] == {"Room": "7"}

    create, register = responder.heard
    assert create == (CREATE, {})
    assert register[0] == f"$aws/provisioning-templates/{TEMPLATE}/provision/json"
    assert register[1]["parameters"] == {"ThingName": "mosquito-net"}

    claim_id = "claimd-" + device.status()["history"][-1]["claim"]
    assert len(broker.lines_of(claim_id, "Received SUBSCRIBE")) == 1, "one SUBSCRIBE with all four topics"
    assert len(broker.lines_of(claim_id, "Received PUBLISH")) == 2
    assert len(broker.lines_of(claim_id, "Received DISCONNECT")) == 1
    assert len(broker.lines_of("mosquito-net", "Received DISCONNECT")) >= 1, "the identity was proved here"


def test_a_template_that_is_not_there(
    device: Device, broker: Broker, responder: Responder, authority: Authority
) -> None:
    device.configure(configuration(broker, "Another"))
    device.put("claim.json", claim_text(authority))
    result = device.provision()
    assert (result["outcome"], result["exit"]) == ("template-not-found", 69)
    assert device.status()["state"] == "blocked"
    device.configure(configuration(broker))
    assert device.provision()["outcome"] == "active"
    assert [topic for topic, _ in responder.heard].count(CREATE) == 2, "the new template got its own key"


def test_nobody_answers(device: Device, broker: Broker, authority: Authority) -> None:
    """Without the responder Mosquitto takes the PUBLISH: "no matching subscribers" is a success code."""
    device.configure(configuration(broker) + "[timeouts]\nanswer_seconds = 1\n")
    device.put("claim.json", claim_text(authority))
    result = device.provision()
    assert (result["outcome"], result["exit"]) == ("no-answer", 75)
    assert len(device.status()["claims"]) == 1, "it is kept"


def test_a_claim_that_mosquitto_does_not_know(device: Device, responder: Responder) -> None:
    device.put("claim.json", claim_text(Authority.new("somebody else's")))
    result = device.provision()
    assert (result["outcome"], result["exit"]) == ("claim-not-accepted", 69)
    assert responder.heard == []
