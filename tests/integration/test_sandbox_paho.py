"""paho, which shares no line with the sandbox or with AWS's SDK, completes the flow on 3.1.1 and on 5."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from claimd_sandbox.registry import Status
from claimd_sandbox.server import Sandbox
from claimd_sandbox.settings import TEMPLATE
from sandbox_world import CREATE, QUICK, TIMEOUT

REGISTER = f"$aws/provisioning-templates/{TEMPLATE}/provision/json"
BOTH = pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), QUICK) as running:
        yield running


class Client:
    """paho with its callbacks turned into queues."""

    def __init__(
        self, sandbox: Sandbox, directory: Path, client_id: str, certificate: str, key: str, protocol: Any
    ) -> None:
        pem = directory / f"{client_id}.pem"
        pem.write_text(certificate + key)
        self.connected: queue.Queue[Any] = queue.Queue()
        self.subscribed: queue.Queue[list[Any]] = queue.Queue()
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.disconnected: queue.Queue[Any] = queue.Queue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol)
        self.client.tls_set(str(sandbox.ca_file), str(pem), str(pem))
        self.client.on_connect = lambda _c, _u, _f, code, _p: self.connected.put(code)
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: self.subscribed.put(codes)
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_disconnect = lambda _c, _u, _f, code, _p: self.disconnected.put(code)
        self.client.connect("localhost", sandbox.mqtt_port)
        self.client.loop_start()

    def request(self, topic: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        self.client.publish(topic, json.dumps(body), qos=1)
        message = self.messages.get(timeout=TIMEOUT)
        return message.topic.removeprefix(f"{topic}/"), json.loads(message.payload)

    def subscribe(self, *topics: str) -> list[Any]:
        self.client.subscribe([(topic, 1) for topic in topics])
        return self.subscribed.get(timeout=TIMEOUT)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


MakeClient = Callable[..., Client]


@pytest.fixture
def make_client(sandbox: Sandbox, tmp_path: Path) -> Iterator[MakeClient]:
    made: list[Client] = []

    def make(client_id: str, certificate: str, key: str, protocol: Any) -> Client:
        made.append(Client(sandbox, tmp_path, client_id, certificate, key, protocol))
        return made[-1]

    yield make
    for client in made:
        client.close()


def with_claim(sandbox: Sandbox, make_client: MakeClient, client_id: str, protocol: Any) -> Client:
    claim = sandbox.create_claim()
    client = make_client(client_id, claim["certificatePem"], claim["keyPair"]["PrivateKey"], protocol)
    assert not client.connected.get(timeout=TIMEOUT).is_failure
    return client


@BOTH
def test_the_flow(sandbox: Sandbox, make_client: MakeClient, protocol: MQTTProtocolVersion) -> None:
    thing = f"paho-{int(protocol)}"
    client = with_claim(sandbox, make_client, f"claim-{thing}", protocol)
    topics = [f"{topic}/{outcome}" for topic in (CREATE, REGISTER) for outcome in ("accepted", "rejected")]
    assert not any(code.is_failure for code in client.subscribe(*topics))
    outcome, created = client.request(CREATE, {})
    assert outcome == "accepted"
    token = created["certificateOwnershipToken"]
    outcome, registered = client.request(
        REGISTER, {"certificateOwnershipToken": token, "parameters": {"ThingName": thing}}
    )
    assert (outcome, registered["thingName"]) == ("accepted", thing)
    certificate = sandbox.registry.certificate(created["certificateId"])
    assert certificate is not None and certificate.status is Status.ACTIVE
    permanent = make_client(thing, created["certificatePem"], created["privateKey"], protocol)
    assert not permanent.connected.get(timeout=TIMEOUT).is_failure


@BOTH
def test_a_rejection_has_aws_s_own_form(
    sandbox: Sandbox, make_client: MakeClient, protocol: MQTTProtocolVersion
) -> None:
    client = with_claim(sandbox, make_client, f"rejected-{int(protocol)}", protocol)
    client.subscribe(f"{REGISTER}/rejected")
    outcome, body = client.request(REGISTER, {"certificateOwnershipToken": "wrong", "parameters": {}})
    assert outcome == "rejected"
    assert (body["statusCode"], body["errorCode"]) == (400, "InvalidCertificateOwnershipToken")


def test_a_refused_subscription(sandbox: Sandbox, make_client: MakeClient) -> None:
    """MQTT 5 gives the reason, and the connection stays."""
    client = with_claim(sandbox, make_client, "refused-5", MQTTProtocolVersion.MQTTv5)
    (code,) = client.subscribe("somebody/else")
    assert code.value == 0x87
    assert client.disconnected.empty()


def test_a_refused_subscription_on_3_1_1(sandbox: Sandbox, make_client: MakeClient) -> None:
    """Without reason codes the connection is closed, as AWS does."""
    client = with_claim(sandbox, make_client, "refused-311", MQTTProtocolVersion.MQTTv311)
    client.client.subscribe("somebody/else")
    client.disconnected.get(timeout=TIMEOUT)
