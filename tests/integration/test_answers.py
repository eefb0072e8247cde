"""What the technician finds in the result directory after each drop, and before any."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import KeyKind
from device import Device, wait_for

QUICK = Settings(key_kind=KeyKind.EC, connects_per_second=None)


def configuration(sandbox: Sandbox, *, thing: str = "thing", port: int | None = None) -> str:
    return f"""
endpoint = "localhost"
port = {port or sandbox.mqtt_port}
ca_file = "{sandbox.ca_file}"
[template]
name = "TrustedUserProvisioningTemplate"
[template.parameters]
ThingName = "{thing}"
[timeouts]
grace_seconds = 0.3
"""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), QUICK) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, sandbox: Sandbox) -> Iterator[Device]:
    made = Device(tmp_path / "root")
    made.configure(configuration(sandbox, thing=f"thing-{tmp_path.name}"))
    yield made
    made.stop()
    sandbox.faults.clear()


def answers(device: Device) -> dict[str, str]:
    place = Path(device.layout.result_directory)
    return {path.name: path.read_text() for path in place.iterdir()} if place.is_dir() else {}


def latest(device: Device) -> str:
    return answers(device).get("latest.txt", "")


class TestADrop:
    def test_done(self, device: Device, sandbox: Sandbox) -> None:
        device.put("Mein Schlüssel.json", json.dumps(sandbox.create_claim()))
        result = device.provision()
        said = answers(device)
        assert set(said) == {"Mein Schlüssel.json.txt", "latest.txt"}
        assert said["latest.txt"] == said["Mein Schlüssel.json.txt"]
        lines = said["latest.txt"].splitlines()
        assert lines[0] == "DONE"
        assert f"thing:         {result['thing_name']}" in lines
        assert f"certificate:   {result['certificate_id']}" in lines

    def test_half_of_it_then_the_other(self, device: Device, sandbox: Sandbox) -> None:
        claim = sandbox.create_claim()
        device.put("cert.pem", claim["certificatePem"])
        device.provision()
        assert answers(device)["cert.pem.txt"].startswith("WAITING\n\nThe certificate is here (cert.pem)")
        device.put("key.pem", claim["keyPair"]["PrivateKey"])
        device.provision()
        said = answers(device)
        assert {name: text.splitlines()[0] for name, text in said.items()} == {
            "cert.pem.txt": "DONE",
            "key.pem.txt": "DONE",
            "latest.txt": "DONE",
        }

    def test_expired(self, device: Device, sandbox: Sandbox) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim(life=-10)))
        device.provision()
        said = latest(device)
        assert said.startswith("REFUSED\n") and "expired at" in said and "The file was destroyed" in said
        device.provision()
        assert latest(device) == said, "somebody still has to read it"

    def test_what_was_dropped_last_is_what_latest_answers_to(self, device: Device, sandbox: Sandbox) -> None:
        device.put("a-holiday.txt", "a postcard\n")
        device.provision()
        assert latest(device).startswith("REFUSED\n\na-holiday.txt holds no claim"), "its name as it is"
        device.put("z-photo.txt", "a photo\n")
        device.provision()
        assert latest(device).startswith("REFUSED\n\nz-photo.txt holds no claim")
        device.put("claim.json", json.dumps(sandbox.create_claim(life=-10)))
        device.provision()
        assert "code:          claim-expired" in latest(device), "not the photo that still lies there"
        device.provision()
        assert "code:          claim-expired" in latest(device), "nor in a later pass"
        device.put("half.pem", sandbox.create_claim()["certificatePem"])
        device.provision()
        assert latest(device).startswith("WAITING\n\nThe certificate is here (half.pem)")

    def test_a_copy_that_comes_back_beside_junk(self, device: Device, sandbox: Sandbox) -> None:
        claim = json.dumps(sandbox.create_claim())
        device.put("holiday.txt", "a postcard\n")
        device.put("claim.json", claim)
        assert device.provision()["exit"] == 0
        device.put("again.json", claim)
        device.provision()
        assert latest(device).startswith("DONE\n") and "already taken in" in " ".join(latest(device).split())

    def test_waiting_for_aws_says_until_when(self, device: Device, sandbox: Sandbox) -> None:
        sandbox.faults.set("reject step=register status=404 times=1")
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        device.provision()
        said = latest(device)
        assert (
            said.startswith("BLOCKED\n") and "template-not-found" in said and "claim lives:   until" in said
        )

    def test_a_copy_that_comes_back(self, device: Device, sandbox: Sandbox) -> None:
        claim = sandbox.create_claim()
        device.put("claim.json", json.dumps(claim))
        assert device.provision()["exit"] == 0
        device.put("claim.pem.key", claim["keyPair"]["PrivateKey"])
        again = device.provision()
        assert again["outcome"] == "claim-already-taken-in"
        assert again["after_seconds"] == 600, "status says it for a while"
        assert device.dropped() == []
        said = latest(device)
        assert said.startswith("DONE\n")
        assert "already taken in; sed and chmod are not needed" in " ".join(said.split())

    def test_no_answer_holds_a_secret(self, device: Device, sandbox: Sandbox) -> None:
        claim = sandbox.create_claim()
        device.put("half.pem", claim["keyPair"]["PrivateKey"][:200])
        device.put("claim.json", json.dumps(claim))
        device.provision()
        secret = claim["keyPair"]["PrivateKey"].splitlines()[1][:24]
        assert secret not in "".join(answers(device).values())


class TestReady:
    def test_a_device_that_waits_for_a_claim(self, device: Device) -> None:
        device.start()
        wait_for(lambda: device.status()["service"], "the service")
        ended = device.run("ready")
        assert ended.returncode == 0 and ended.stdout.startswith("READY\n"), ended
        assert json.loads(device.run("ready", "--json").stdout) == {
            "schema": 1,
            "ready": True,
            "problem": None,
        }
        assert device.run("explain").stdout.startswith("nothing is wrong now")

    def test_a_service_that_does_not_run(self, device: Device) -> None:
        start = f"claimd --root {device.root} run"
        ended = device.run("ready")
        assert ended.returncode == 75 and ended.stdout.startswith("NOT READY\n\nThe service is not running")
        said = json.loads(device.run("ready", "--json").stdout)
        assert (said["ready"], said["problem"]["code"]) == (False, "service-stopped")
        assert said["problem"]["commands"] == [start]
        explained = device.run("explain").stdout
        assert explained.startswith("service-stopped\n")
        for text in (ended.stdout, explained):
            assert any(line.endswith(start) for line in text.splitlines()), text

    def test_a_device_that_needs_no_claim(self, device: Device, sandbox: Sandbox) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        assert device.provision()["exit"] == 0
        ended = device.run("ready")
        assert ended.returncode == 4, ended
        assert ended.stdout.startswith("DONE\n") and "would be destroyed unused" in ended.stdout
        assert json.loads(device.run("ready", "--json").stdout)["ready"] is False
        device.configure('reprovision = "replace"' + configuration(sandbox))
        device.start()
        wait_for(lambda: device.status()["service"], "the service")
        assert device.run("ready").stdout.startswith("READY\n")


class TestWithoutTheDropDirectory:
    def test_a_claim_that_is_kept_finds_its_way(self, device: Device, sandbox: Sandbox) -> None:
        sandbox.faults.set("hang-up step=create-keys times=1")
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        assert device.provision()["outcome"] == "connection-lost"
        device.drop.rename(device.drop.with_name("away"))
        wait_for(lambda: device.provision()["exit"] == 0, "the identity")
        assert device.provision()["outcome"] == "drop-directory-missing"


class TestBeforeAnyDrop:
    def test_ready(self, device: Device, sandbox: Sandbox) -> None:
        result = device.provision()
        assert (result["exit"], result["after_seconds"]) == (4, 3600)
        assert latest(device).startswith("READY\n\nThis device waits for a claim.")

    def test_not_configured(self, device: Device) -> None:
        device.configure("")
        assert device.provision()["after_seconds"] == 60
        assert latest(device).startswith("NOT READY\n\nNot configured: set endpoint and template.name.")

    def test_a_parameter_that_can_t_be_filled_in(self, device: Device, sandbox: Sandbox) -> None:
        device.configure(configuration(sandbox, thing="{file:/nowhere}"))
        device.provision()
        assert latest(device).startswith("NOT READY\n") and "parameter-unresolved" in latest(device)

    def test_a_port_that_is_closed(self, device: Device, sandbox: Sandbox) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            device.configure(configuration(sandbox, port=closed.getsockname()[1]))
            device.provision()
        assert latest(device).startswith("NOT READY\n") and "connection-refused" in latest(device)

    def test_the_service_says_it_at_every_change(self, device: Device, sandbox: Sandbox) -> None:
        device.start()
        wait_for(lambda: latest(device).startswith("READY\n"), "ready")
        device.configure("")
        wait_for(lambda: latest(device).startswith("NOT READY\n"), "not ready")
        device.configure(configuration(sandbox))
        wait_for(lambda: latest(device).startswith("READY\n"), "ready again")
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        wait_for(lambda: latest(device).startswith("DONE\n"), "done")

    def test_a_provisioned_device_says_so(self, device: Device, sandbox: Sandbox) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        assert device.provision()["exit"] == 0
        device.provision()
        assert latest(device).startswith("DONE\n")
