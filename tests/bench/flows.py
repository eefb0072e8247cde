"""From the drop to the proven identity, and the SDK's own client over the same relay."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awscrt import mqtt5, mqtt_request_response
from awsiot import iotidentity, mqtt5_client_builder

from bench.processes import settled
from claimd_sandbox.journal import ConnectionRecord
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import TEMPLATE
from device import Device, wait_for
from relay import Direction, Passage, Relay

RUNS = 5
TIMEOUT = 35
CONFIGURATION = """
endpoint = "localhost"
port = {port}
ca_file = "{ca}"
[template]
name = "{template}"
[template.parameters]
ThingName = "{thing}"
"""


@dataclass(frozen=True)
class Flow:
    """One device, or one use of the SDK. Times in seconds.

    `online`: from the opened connection to RegisterThing's answer, as the relay saw it.
    `total`: from the file in the drop directory to `current`; the SDK has none.
    """

    online: float
    round_trips: int
    packets: tuple[str, ...]
    total: float | None = None
    until_open: float | None = None


def median(flows: Sequence[Flow], value: Callable[[Flow], float | None]) -> float:
    return statistics.median(found for flow in flows if (found := value(flow)) is not None)


def answered(passage: Passage, one_way: float) -> tuple[float, int]:
    """When RegisterThing's answer was with the client, and how many round trips it took.

    One for TCP's handshake, then one for each flight of the server's before DISCONNECT, the last the
    client sends.
    """
    flights = passage.flights
    last_sent = max(number for number, flight in enumerate(flights) if flight.direction is Direction.UP)
    down = [flight for flight in flights[:last_sent] if flight.direction is Direction.DOWN]
    return down[-1].at + one_way, 1 + len(down)


def sent(record: ConnectionRecord) -> tuple[str, ...]:
    return tuple(packet[2:] for packet in record.packets if packet.startswith("<"))


def of_claimd(delay: float) -> list[Flow]:
    """The service is at rest; a claim in one file appears at once, the worst case for it."""
    found = []
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(connects_per_second=None)
        with (
            Sandbox.start(Path(directory) / "sandbox", settings) as sandbox,
            Relay(sandbox.mqtt_port, delay=delay) as relay,
        ):
            for number in range(RUNS + 1):
                device = Device(Path(directory) / f"device-{number}")
                text = CONFIGURATION.format(
                    port=relay.port, ca=sandbox.ca_file, template=TEMPLATE, thing=f"bench-{number}"
                )
                device.configure(text)
                found.append(_one_device(sandbox, relay, device))
    return found[1:]  # the first one fills the caches


def _one_device(sandbox: Sandbox, relay: Relay, device: Device) -> Flow:
    device.start()
    try:
        settled(device)
        claim = json.dumps(sandbox.create_claim())
        passages, connections = len(relay.passages), len(sandbox.connections)
        hidden = device.put(".claim", claim)
        began = time.time()
        hidden.rename(device.drop / "claim.json")
        while not os.path.lexists(device.identity):
            time.sleep(0.001)
        total = time.time() - began
    finally:
        device.stop()
    wait_for(lambda: len(sandbox.connections) >= connections + 2, "the records of the sandbox")
    passage = relay.passages[passages]
    heard, round_trips = answered(passage, relay.delay)
    return Flow(
        online=heard - passage.opened,
        round_trips=round_trips,
        packets=sent(sandbox.connections[connections]),
        total=total,
        until_open=passage.opened - began,
    )


def of_sdk(delay: float) -> list[Flow]:
    """IotIdentityClientV2's two calls alone: no start of a process, no file, no proof of the identity."""
    found = []
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(connects_per_second=None)
        with (
            Sandbox.start(Path(directory) / "sandbox", settings) as sandbox,
            Relay(sandbox.mqtt_port, delay=delay) as relay,
        ):
            for number in range(RUNS + 1):
                found.append(_one_use_of_the_sdk(sandbox, relay, f"sdk-{number}"))
    return found[1:]


def _one_use_of_the_sdk(sandbox: Sandbox, relay: Relay, client_id: str) -> Flow:
    claim = sandbox.create_claim()
    passages, connections = len(relay.passages), len(sandbox.connections)
    stopped: list[Any] = []
    client = mqtt5_client_builder.mtls_from_bytes(
        claim["certificatePem"].encode(),
        claim["keyPair"]["PrivateKey"].encode(),
        endpoint="localhost",
        port=relay.port,
        ca_filepath=str(sandbox.ca_file),
        client_id=client_id,
        on_lifecycle_stopped=stopped.append,
    )
    identity = iotidentity.IotIdentityClientV2(client, mqtt_request_response.ClientOptions(4, 0, TIMEOUT))
    client.start()
    created = identity.create_keys_and_certificate(iotidentity.CreateKeysAndCertificateRequest()).result(
        TIMEOUT
    )
    request = iotidentity.RegisterThingRequest(
        template_name=TEMPLATE,
        certificate_ownership_token=created.certificate_ownership_token,
        parameters={"ThingName": client_id},
    )
    identity.register_thing(request).result(TIMEOUT)
    client.stop(mqtt5.DisconnectPacket())
    wait_for(lambda: stopped and len(sandbox.connections) > connections, "the end of the connection")
    wait_for(lambda: "< DISCONNECT" in sandbox.connections[connections].packets, "DISCONNECT")
    passage = relay.passages[passages]
    heard, round_trips = answered(passage, relay.delay)
    return Flow(heard - passage.opened, round_trips, sent(sandbox.connections[connections]))


def stop_in_mid_attempt() -> float:
    """From SIGTERM to the service's end while RegisterThing's answer is awaited."""
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(connects_per_second=None)
        with Sandbox.start(Path(directory) / "sandbox", settings) as sandbox:
            device = Device(Path(directory) / "device")
            text = CONFIGURATION.format(
                port=sandbox.mqtt_port, ca=sandbox.ca_file, template=TEMPLATE, thing="stopped"
            )
            device.configure(text)
            sandbox.faults.set("delay step=register ms=60000 times=1")
            device.put("claim.json", json.dumps(sandbox.create_claim()))
            device.start()
            wait_for(lambda: (device.status()["attempt"] or {}).get("state") == "registering", "registering")
            began = time.perf_counter()
            device.stop()
            return time.perf_counter() - began
