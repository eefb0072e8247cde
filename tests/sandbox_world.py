"""A sandbox in this process and MQTT 5 clients for it, as fixtures.

Loaded by `pytest_plugins` in the modules that use it. The clients read with the `mqtt5` package: every
packet that the sandbox emits to them is decoded by somebody else's decoder.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import mqtt5
import pytest

from claimd_sandbox.journal import ConnectionRecord
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import TEMPLATE, AccountSpec, KeyKind, Refusal
from wire import decoded, encoded, topic_filter

TIMEOUT = 20.0  # seconds, for a slow machine
CREATE = "$aws/certificates/create/json"
# Quick keys, no limits a second, and refusals that can be read.
QUICK = Settings(
    key_kind=KeyKind.EC, connects_per_second=None, operations_per_second=None, refusal=Refusal.CONNACK
)
P = TypeVar("P")


class Now:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self._started = time.time()
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._started + self.ahead


@dataclass(frozen=True)
class Credentials:
    certificate: str
    key: str = field(repr=False)

    @classmethod
    def of_claim(cls, claim: dict[str, Any]) -> Credentials:
        return cls(claim["certificatePem"], claim["keyPair"]["PrivateKey"])

    @classmethod
    def of_created(cls, created: dict[str, Any], key: str | None = None) -> Credentials:
        """From CreateKeysAndCertificate's answer, or from CreateCertificateFromCsr's and its key."""
        return cls(created["certificatePem"], created["privateKey"] if key is None else key)


class Client:
    """A blocking MQTT 5 client over one TLS connection."""

    def __init__(self, sandbox: Sandbox, directory: Path, credentials: Credentials, server_name: str) -> None:
        pem = directory / f"client-{time.monotonic_ns()}.pem"
        pem.write_text(credentials.certificate + credentials.key)
        context = ssl.create_default_context(cafile=str(sandbox.ca_file))
        context.load_cert_chain(pem)
        raw = socket.create_connection(("127.0.0.1", sandbox.mqtt_port), timeout=TIMEOUT)
        self._socket = context.wrap_socket(raw, server_hostname=server_name)
        self._buffer = bytearray()
        self._next_id = 0
        self.kept: list[mqtt5.PublishPacket] = []  # messages that came while something else was awaited

    def send(self, packet: Any) -> None:
        self._socket.sendall(encoded(packet))

    def send_bytes(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> Any:
        """The next packet; None at the connection's end."""
        while True:
            try:
                packet, used = decoded(self._buffer)
            except IndexError:
                data = self._read()
                if not data:
                    return None
                self._buffer += data
            else:
                del self._buffer[:used]
                return packet

    def _read(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except ConnectionError:
            return b""

    def receive_bytes(self) -> bytes:
        """All bytes until the connection's end."""
        while data := self._read():
            self._buffer += data
        return bytes(self._buffer)

    def expect(self, kind: type[P]) -> P:
        """The next packet of a kind; messages that come before it are kept."""
        while True:
            packet = self.receive()
            if isinstance(packet, kind):
                return packet
            assert isinstance(packet, mqtt5.PublishPacket), packet
            self.kept.append(packet)

    def connect(self, client_id: str, **more: Any) -> mqtt5.ConnAckPacket:
        self.send(mqtt5.ConnectPacket(client_id, **{"clean_start": True, "keep_alive": 60, **more}))
        return self.expect(mqtt5.ConnAckPacket)

    def subscribe(self, *topics: str, qos: int = 0) -> list[int]:
        filters = [topic_filter(topic, max_qos=mqtt5.QoS(qos)) for topic in topics]
        self.send(mqtt5.SubscribePacket(self.packet_id(), filters))
        return [int(code) for code in self.expect(mqtt5.SubAckPacket).reason_codes]

    def publish(self, topic: str, payload: bytes | dict[str, Any], **more: Any) -> int:
        """Publish at QoS 1; gives the PUBACK's reason."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        packet_id = self.packet_id()
        packet = mqtt5.PublishPacket(
            topic, payload=body, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id, **more
        )
        self.send(packet)
        answer = self.expect(mqtt5.PubAckPacket)
        assert answer.packet_id == packet_id
        return int(answer.reason_code)

    def message(self) -> mqtt5.PublishPacket:
        """The next message; acknowledges it."""
        packet = self.kept.pop(0) if self.kept else self.expect(mqtt5.PublishPacket)
        if packet.packet_id is not None:
            self.send(mqtt5.PubAckPacket(packet.packet_id))
        return packet

    def packet_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def request(self, topic: str, payload: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """One request of the provisioning API, subscribed beforehand; gives outcome and body."""
        assert self.subscribe(f"{topic}/accepted", f"{topic}/rejected") == [0, 0]
        assert self.publish(topic, payload) == 0
        answer = self.message()
        return answer.topic.removeprefix(f"{topic}/"), json.loads(answer.payload)

    def create(self) -> dict[str, Any]:
        """CreateKeysAndCertificate."""
        outcome, created = self.request(CREATE, {})
        assert outcome == "accepted", created
        return created

    def register(
        self, created: dict[str, Any], template: str = TEMPLATE, **parameters: str
    ) -> tuple[str, dict[str, Any]]:
        topic = f"$aws/provisioning-templates/{template}/provision/json"
        token = created["certificateOwnershipToken"]
        return self.request(topic, {"certificateOwnershipToken": token, "parameters": parameters})

    def disconnect(self) -> None:
        self.send(mqtt5.DisconnectPacket())
        self.close()

    def close(self) -> None:
        self._socket.close()


class World:
    """A sandbox, and the clients of one test."""

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        self.sandbox = sandbox
        self._directory = directory
        self._clients: list[Client] = []

    def client(self, credentials: Credentials, server_name: str = "localhost") -> Client:
        client = Client(self.sandbox, self._directory, credentials, server_name)
        self._clients.append(client)
        return client

    def client_of_account(self, account: AccountSpec) -> Client:
        """A client with an account's claim at that account's endpoint, not yet connected."""
        claim = Credentials.of_claim(self.sandbox.create_claim(account=account.id))
        return self.client(claim, account.server_names[0])

    def of_created(self, created: dict[str, Any], key: str | None = None) -> Client:
        """A client with a device's certificate, not yet connected."""
        return self.client(Credentials.of_created(created, key))

    def of_claim(self, **claim: Any) -> Client:
        """A client with a new claim, not yet connected."""
        return self.client(Credentials.of_claim(self.sandbox.create_claim(**claim)))

    def claim(self, client_id: str = "claim", connect: dict[str, Any] | None = None, **claim: Any) -> Client:
        """A connected client with a new claim."""
        client = self.of_claim(**claim)
        assert client.connect(client_id, **(connect or {})).reason_code == 0
        return client

    def device(self, thing: str) -> Credentials:
        """A provisioned device."""
        client = self.claim(f"claim-of-{thing}")
        created = client.create()
        assert client.register(created, ThingName=thing)[0] == "accepted"
        client.disconnect()
        return Credentials.of_created(created)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)

    def record(self, client_id: str) -> ConnectionRecord:
        """The last connection of a client id, once it has ended."""
        self.wait_for(lambda: self.ended(client_id) > 0)
        return [record for record in self.sandbox.connections if record.client_id == client_id][-1]

    def ended(self, client_id: str) -> int:
        """How many connections of a client id have ended."""
        return sum(r.client_id == client_id and r.closed is not None for r in self.sandbox.connections)

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def seeded() -> Callable[[], bytes]:
    """Pseudo-random packets, the same in every run."""
    source = random.Random(1)

    def packet() -> bytes:
        body = source.randbytes(source.randrange(60))
        head = bytes([0x10, 15 + len(body)]) + b"\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02r1"
        first = source.choice((0x10, 0x30, 0x32, 0x40, 0x82, 0xA2, 0xE0, source.randrange(256)))
        own = bytes([first, len(body)]) + body
        return source.choice((own, head[:1] + b"\x0f" + head[2:] + own))

    return packet


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    """Starts a sandbox with QUICK settings and changes to them."""
    with contextlib.ExitStack() as stack:

        def make(**changes: Any) -> World:
            sandbox = stack.enter_context(Sandbox.start(tmp_path / "sandbox", replace(QUICK, **changes)))
            world = World(sandbox, tmp_path)
            stack.callback(world.close)
            return world

        yield make


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()


@pytest.fixture
def now() -> Now:
    return Now()
