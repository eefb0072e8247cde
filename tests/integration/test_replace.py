"""A second claim on a provisioned device: the old identity serves until the new one has proved itself."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import KeyKind
from device import Device, wait_for

QUICK = Settings(key_kind=KeyKind.EC, connects_per_second=None)
CONFIGURATION = """
endpoint = "localhost"
port = {port}
ca_file = "{ca}"
reprovision = "replace"
[template]
name = "TrustedUserProvisioningTemplate"
[template.parameters]
ThingName = "{thing}"
[retention]
{retention}
[timeouts]
grace_seconds = 0.3
answer_seconds = 5
"""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), QUICK) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, sandbox: Sandbox) -> Iterator[Device]:
    """Provisioned, and told to replace its identity when a claim comes."""
    made = Device(tmp_path / "root")
    configure(made, sandbox)
    made.put("claim.json", json.dumps(sandbox.create_claim()))
    assert made.provision()["exit"] == 0
    yield made
    made.stop()
    sandbox.faults.clear()


def configure(device: Device, sandbox: Sandbox, retention: str = "") -> None:
    thing = f"thing-{device.root.parent.name}"
    device.configure(
        CONFIGURATION.format(port=sandbox.mqtt_port, ca=sandbox.ca_file, thing=thing, retention=retention)
    )


def drop_another(device: Device, sandbox: Sandbox) -> None:
    device.put("claim.json", json.dumps(sandbox.create_claim()))


def document(device: Device) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((device.identity / "identity.json").read_text())
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestAReplace:
    def test_the_new_identity_takes_over_and_the_old_one_is_named(
        self, device: Device, sandbox: Sandbox
    ) -> None:
        old, kept = document(device), contents(device.identity)
        drop_another(device, sandbox)
        result = device.provision()
        assert (result["outcome"], result["exit"]) == ("active", 0)
        new = document(device)
        assert new["certificate_id"] == result["certificate_id"] != old["certificate_id"]
        assert contents(device.identity.parent / old["certificate_id"]) == kept, "an old generation stays"

        old_id = old["certificate_id"]
        assert new["replaces_certificate_id"] == old_id
        replaced = new["replaced_certificate"]
        assert (replaced["certificate_id"], replaced["still_active"]) == (old_id, True)
        deactivate = f"aws iot update-certificate --certificate-id {old_id} --new-status INACTIVE"
        assert replaced["to_deactivate"][0] == deactivate
        detach = replaced["to_deactivate"][1]
        assert f"detach-thing-principal --thing-name {old['thing_name']} " in detach
        assert f'--principal "$(aws iot describe-certificate --certificate-id {old_id} ' in detach
        for notes in (result["notes"], device.status()["notes"]):
            assert [note["code"] for note in notes] == ["old-certificate-active"]
            assert notes[0]["commands"] == replaced["to_deactivate"]
        shown = [line.strip() for line in device.run("status").stdout.splitlines()]
        assert deactivate in shown and detach in shown, "each on a line of its own"

    def test_a_person_reads_the_command(self, device: Device, sandbox: Sandbox) -> None:
        old = document(device)["certificate_id"]
        drop_another(device, sandbox)
        said = device.run("provision").stdout
        assert f"aws iot update-certificate --certificate-id {old} --new-status INACTIVE" in said

    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            ("reject step=create-keys status=500", "aws-unavailable"),
            ("reject step=register status=403", "registration-denied"),
            ("hang-up step=register when=before", "connection-lost"),
            ("refuse step=connect who=permanent code=0x87", "identity-refused"),
            ("hang-up step=accept", "tls-failed"),
        ],
    )
    def test_a_failure_leaves_the_old_one_untouched(
        self, device: Device, sandbox: Sandbox, fault: str, code: str
    ) -> None:
        link, kept = os.readlink(device.identity), contents(device.identity)
        drop_another(device, sandbox)
        sandbox.faults.set(fault)
        result = device.provision()
        assert (result["outcome"], result["exit"]) == (code, 3)
        assert (os.readlink(device.identity), contents(device.identity)) == (link, kept)
        status = device.status()
        assert status["state"] == "provisioned"
        assert "old-identity-serves" in [note["code"] for note in status["notes"]]
        sandbox.faults.clear()
        assert device.run("provision").returncode == 0
        assert os.readlink(device.identity) != link

    def test_a_claim_that_dies_leaves_the_old_one_untouched(self, device: Device, sandbox: Sandbox) -> None:
        kept = contents(device.identity)
        sandbox.faults.set("reject step=create-keys status=500")
        for life in (3, 8, 16, 32, 64):  # on a busy machine it takes longer to be taken in
            device.put("claim.json", json.dumps(sandbox.create_claim(life=life)))
            if (ended := device.provision())["outcome"] == "aws-unavailable":
                break
        assert ended["exit"] == 3
        wait_for(lambda: device.provision()["outcome"] == "claim-ran-out", "the end of the claim")
        assert contents(device.identity) == kept
        assert "old-identity-serves" in [note["code"] for note in device.status()["notes"]]

    def test_never_declines(self, device: Device, sandbox: Sandbox) -> None:
        text = Path(device.layout.config_file).read_text()
        device.configure(text.replace('"replace"', '"never"'))
        kept = contents(device.identity)
        drop_another(device, sandbox)
        assert device.provision()["outcome"] == "claim-not-needed"
        assert contents(device.identity) == kept


class TestDamage:
    def test_a_claim_heals_a_device_whose_identity_is_damaged(self, device: Device, sandbox: Sandbox) -> None:
        """Also with "never": a device without a whole identity needs one."""
        text = Path(device.layout.config_file).read_text()
        device.configure(text.replace('"replace"', '"never"'))
        old = device.identity.resolve()
        (old / "certificate.pem").write_text("")
        damaged = device.provision()
        assert device.code() == "identity-damaged", damaged
        drop_another(device, sandbox)
        assert device.provision()["outcome"] == "active"
        assert device.identity.resolve() != old and (old / "private.key").exists()

    def test_a_link_to_nowhere_is_mended(self, device: Device) -> None:
        link = os.readlink(device.identity)
        device.identity.unlink()
        device.identity.symlink_to("ab" * 32)
        assert device.provision()["exit"] == 4
        assert os.readlink(device.identity) == link

    def test_a_lost_record_costs_nothing(self, device: Device) -> None:
        link = os.readlink(device.identity)
        (device.root / "var/lib/claimd/attempt.json").unlink()
        device.identity.unlink()
        assert device.provision()["outcome"] == "active"
        assert os.readlink(device.identity) == link


class TestRetention:
    def test_old_generations_go_by_age_and_number(self, device: Device, sandbox: Sandbox) -> None:
        made = [os.readlink(device.identity)]
        for _ in range(2):
            drop_another(device, sandbox)
            assert device.provision()["exit"] == 0
            made.append(os.readlink(device.identity))
        configure(device, sandbox, "generations = 1")
        assert device.provision()["after_seconds"] > 3000, "each is kept for an hour at least"
        assert self.generations(device) == set(made)

        self.replaced_long_ago(device, made[1], timedelta(hours=2))
        assert self.pass_after(device, timedelta(minutes=1)) == 59 * 60
        assert self.generations(device) == set(made), "the clock may not be set yet"
        self.pass_after(device, timedelta(hours=1))
        assert self.generations(device) == {made[1], made[2]}, "one earlier one is kept"

        self.replaced_long_ago(device, made[2], timedelta(days=31))
        self.pass_after(device, timedelta(hours=1))
        assert self.generations(device) == {made[2]}, "not for ever"
        assert device.status()["state"] == "provisioned"

    @staticmethod
    def pass_after(device: Device, uptime: timedelta) -> float:
        """A pass on a machine that started so long ago; when the next one is due."""
        from claimd.ensure import Outside, Request, ensure

        request = Request(device.layout, None, False, lambda: False, lambda stage, sentence: None)
        result = ensure(request, Outside(elapsed=uptime.total_seconds))
        assert result.exit == 4
        return result.after_seconds or 0.0

    @staticmethod
    def generations(device: Device) -> set[str]:
        return {path.name for path in device.identity.parent.iterdir()} - {"current"}

    @staticmethod
    def replaced_long_ago(device: Device, successor: str, ago: timedelta) -> None:
        """Rewrite when an identity took its predecessor's place."""
        from claimd.durable import Disk
        from claimd.store import Store

        store = Store(device.layout, Disk())
        record = store.load_record()
        then = datetime.now(timezone.utc) - ago
        switches = [replace(o, at=then) if o.certificate_id == successor else o for o in record.history]
        assert switches != list(record.history)
        store.save_record(replace(record, history=tuple(switches)))


class Consumer:
    """An application on the device: persistent session, QoS 1, a will, reconnecting by itself."""

    def __init__(self, sandbox: Sandbox, folder: Path, client_id: str) -> None:
        self.received: list[bytes] = []
        self.connects = 0
        self.changed = threading.Condition()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
        self.client.tls_set(sandbox.ca_file, str(folder / "certificate.pem"), str(folder / "private.key"))
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self._port = sandbox.mqtt_port

    def start(self, **connect: Any) -> None:
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self.client.connect("localhost", self._port, clean_start=False, properties=session, **connect)
        self.client.loop_start()

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _on_connect(self, client: paho.Client, data: Any, flags: Any, code: Any, properties: Any) -> None:
        assert not code.is_failure, code
        with self.changed:
            self.connects += 1
            if not flags.session_present:
                client.subscribe("orders/#", qos=1)
            self.changed.notify_all()

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        with self.changed:
            self.received.append(bytes(message.payload))


def test_a_consumer_loses_no_message_and_reconnects_once(
    device: Device, sandbox: Sandbox, tmp_path: Path
) -> None:
    other = Device(tmp_path / "other")
    configure(other, sandbox)
    other.configure(Path(other.layout.config_file).read_text().replace("thing-", "sender-"))
    other.put("claim.json", json.dumps(sandbox.create_claim()))
    assert other.provision()["exit"] == 0

    consumer = Consumer(sandbox, device.identity.resolve(), document(device)["client_id"])
    consumer.client.will_set("wills/consumer", b"gone", qos=1)
    sender = Consumer(sandbox, other.identity.resolve(), document(other)["client_id"])
    sent: list[bytes] = []
    done = threading.Event()

    def send() -> None:
        while not done.wait(0.01):
            payload = b"%d" % len(sent)
            sender.client.publish("orders/1", payload, qos=1).wait_for_publish(30)
            sent.append(payload)

    try:
        sender.start()
        consumer.start()
        wait_for(lambda: consumer.connects == 1 and sender.connects == 1, "both connected")
        sending = threading.Thread(target=send)
        sending.start()
        wait_for(lambda: consumer.received, "the first message")
        drop_another(device, sandbox)
        assert device.provision()["outcome"] == "active"
        wait_for(lambda: consumer.connects == 2, "the consumer is back")
        done.set()
        sending.join(60)
        wait_for(lambda: len(set(consumer.received)) == len(sent), "every message")
        assert sorted(set(consumer.received), key=int) == sent
        assert consumer.connects == 2
    finally:
        done.set()
        consumer.stop()
        sender.stop()


def test_what_waits_for_a_consumer_still_waits_after_the_proof(device: Device, sandbox: Sandbox) -> None:
    consumer = Consumer(sandbox, device.identity.resolve(), document(device)["client_id"])
    consumer.start()
    wait_for(lambda: consumer.connects, "connected")
    wait_for(lambda: "> SUBACK" in sandbox.connections[-1].packets, "subscribed")
    consumer.stop()
    sender = Consumer(sandbox, device.identity.resolve(), "somebody else")
    sender.start()
    try:
        for number in range(3):
            sender.client.publish("orders/1", b"%d" % number, qos=1).wait_for_publish(30)
    finally:
        sender.stop()
    drop_another(device, sandbox)
    assert device.provision()["outcome"] == "active"
    packets = sandbox.connections[-1].packets
    assert "< PUBACK" not in packets, "nothing is acknowledged in the consumer's place"
    back = Consumer(sandbox, device.identity.resolve(), document(device)["client_id"])
    try:
        back.start()
        wait_for(lambda: len(set(back.received)) == 3, "what waited")
        assert "< SUBSCRIBE" not in sandbox.connections[-1].packets, "the session is the same"
    finally:
        back.stop()


def test_the_proof_begins_no_session_of_its_own(device: Device, sandbox: Sandbox) -> None:
    """A consumer that comes later must not be told of a session that it never had."""
    drop_another(device, sandbox)
    assert device.provision()["outcome"] == "active"
    consumer = Consumer(sandbox, device.identity.resolve(), document(device)["client_id"])
    try:
        consumer.start()
        wait_for(lambda: "> SUBACK" in sandbox.connections[-1].packets, "it begins a session: none was there")
    finally:
        consumer.stop()
