"""A real Mosquitto on a loopback port, and a small responder behind it that plays AWS's two requests.

Mosquitto shares no line with claimd, its sandbox or AWS's SDK: what passes here is MQTT 5 and TLS in a
third opinion. It hands every answer to everybody who subscribed, which AWS does not: it is no sandbox.

Invariant: both end with the test that started them.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from device import wait_for
from material import CLAIM_BACKDATED, CLAIM_LIFE, DEVICE_NOT_AFTER, Authority, Pair, key_pem, new_key

CREATE = "$aws/certificates/create/json"
REGISTER = re.compile(r"\$aws/provisioning-templates/([^/]+)/provision/json")
REGISTER_FILTER = "$aws/provisioning-templates/+/provision/json"
TEMPLATE = "Behind_Mosquitto"
TIMEOUT = 20.0  # seconds, for a slow machine
# Debian installs daemons where an ordinary user's PATH does not look.
_WHERE = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))

CONFIGURATION = """
per_listener_settings true
user root
listener {port} 127.0.0.1
cafile {directory}/ca.pem
certfile {directory}/server.pem
keyfile {directory}/server.key
require_certificate true
tls_version {tls}
allow_anonymous true
log_dest stderr
log_type all
"""


def program() -> str:
    """Where mosquitto is. `make test` installs it; without it the test is skipped, in CI it fails."""
    found = shutil.which("mosquitto", path=_WHERE)
    if found is None:
        why = "mosquitto is not installed: apt-get install mosquitto, as make test does"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


def leaf(authority: Authority, name: str, *hosts: str, life: timedelta = timedelta(hours=1)) -> Pair:
    """A certificate that is valid now, by the real clock."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    key = new_key()
    return Pair(authority.issue(name, key, now - CLAIM_BACKDATED, now + life, *hosts), key_pem(key))


def claim_text(authority: Authority) -> str:
    """A claim as `aws iot create-provisioning-claim` prints it."""
    made = leaf(authority, "a claim", life=CLAIM_LIFE)
    return json.dumps({"certificatePem": made.certificate, "keyPair": {"PrivateKey": made.key}})


@dataclass
class Broker:
    port: int
    directory: Path
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def lines_of(self, client_id: str, verb: str) -> list[str]:
        """What Mosquitto says that a client sent, such as "Received SUBSCRIBE"."""
        return [line for line in self.log().splitlines() if f"{verb} from {client_id}" in line]


@contextlib.contextmanager
def running(directory: Path, authority: Authority, tls: str) -> Iterator[Broker]:
    """Mosquitto with client certificates required. `tls`: "tlsv1.2" or "tlsv1.3", and no other."""
    directory.mkdir()
    server = leaf(authority, "localhost", "localhost")
    (directory / "ca.pem").write_bytes(authority.pem)
    (directory / "server.pem").write_text(server.certificate)
    (directory / "server.key").write_text(server.key)
    log_file = directory / "log"
    with log_file.open("wb") as log, socket.socket() as taken:
        # Mosquitto has no "any free port"; a port that was bound a moment ago is free.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        text = CONFIGURATION.format(port=port, directory=directory, tls=tls)
        (directory / "mosquitto.conf").write_text(text)
        command = [program(), "-c", str(directory / "mosquitto.conf")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        broker = Broker(port, directory, log_file)
        wait_for(lambda: process.poll() is not None or _listens(port), "mosquitto")
        assert process.poll() is None, broker.log()
        yield broker
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass
class Responder:
    """Answers CreateKeysAndCertificate and RegisterThing as AWS does, one after another."""

    broker: Broker
    authority: Authority
    # What came in: (topic, body). A test reads it once the flow is over.
    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    _tokens: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[Responder]:
        own = leaf(self.authority, "the responder")
        certificate, key = self.broker.directory / "responder.pem", self.broker.directory / "responder.key"
        certificate.write_text(own.certificate)
        key.write_text(own.key)
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="responder", protocol=paho.MQTTv5)
        client.tls_set(str(self.broker.directory / "ca.pem"), str(certificate), str(key))
        subscribed: queue.Queue[list[ReasonCode]] = queue.Queue()
        client.on_subscribe = lambda _c, _u, _m, codes, _p: subscribed.put(codes)
        client.on_message = lambda _c, _u, message: self._answer(client, message)
        client.connect("localhost", self.broker.port)
        client.loop_start()
        try:
            client.subscribe([(CREATE, 1), (REGISTER_FILTER, 1)])
            assert not any(code.is_failure for code in subscribed.get(timeout=TIMEOUT))
            yield self
            assert not self.failures, self.failures
        finally:
            client.disconnect()
            client.loop_stop()

    def _answer(self, client: paho.Client, message: paho.MQTTMessage) -> None:
        try:
            body = json.loads(message.payload)
            self.heard.append((message.topic, body))
            accepted, answer = self._act(message.topic, body)
        except Exception as error:
            self.failures.append(error)
            raise
        outcome = "accepted" if accepted else "rejected"
        client.publish(f"{message.topic}/{outcome}", json.dumps(answer), qos=1)

    def _act(self, topic: str, body: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        if topic == CREATE:
            return True, self._create_keys()
        found = REGISTER.fullmatch(topic)
        assert found is not None, topic
        if found[1] != TEMPLATE:
            return False, _rejection(404, "ResourceNotFound", "the template is not there")
        if body["certificateOwnershipToken"] not in self._tokens:
            return False, _rejection(400, "InvalidCertificateOwnershipToken", "invalid token")
        return True, {"deviceConfiguration": {"Room": "7"}, "thingName": body["parameters"]["ThingName"]}

    def _create_keys(self) -> dict[str, Any]:
        certificate_id = f"{len(self._tokens) + 1:064x}"
        token = f"token-{certificate_id}"
        self._tokens[token] = certificate_id
        key = new_key()
        now = datetime.now(timezone.utc).replace(microsecond=0)
        certificate = self.authority.issue("a device", key, now - CLAIM_BACKDATED, DEVICE_NOT_AFTER)
        return {
            "certificateId": certificate_id,
            "certificatePem": certificate,
            "privateKey": key_pem(key),
            "certificateOwnershipToken": token,
        }


def _rejection(status: int, code: str, message: str) -> dict[str, Any]:
    return {"statusCode": status, "errorCode": code, "errorMessage": message}
