"""From the dropped claim to the proven identity: the real command, TLS and MQTT, against the sandbox."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import peers
from claimd.errors import Exit
from claimd_sandbox.registry import Status
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import (
    FOREIGN_ACCOUNT,
    OTHER_TEMPLATE,
    TEMPLATE,
    ConnectRule,
    KeyKind,
    Refusal,
)
from device import DEADLINE_SECONDS, Device, assert_gone, configuration, key_of, wait_for

QUICK = Settings(key_kind=KeyKind.EC, connects_per_second=None)


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


def assert_provisioned(device: Device, sandbox: Sandbox) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((device.identity / "identity.json").read_text())
    certificate = sandbox.registry.certificate(document["certificate_id"])
    assert certificate is not None and certificate.status is Status.ACTIVE
    return document


@contextmanager
def nobody_at(listener: str) -> Iterator[int]:
    """A descriptor to print to. Writing fails with EPIPE, EIO or ENOSPC."""
    if listener == "a full disk":
        gone = os.open("/dev/full", os.O_WRONLY)
    else:
        other, gone = os.pipe() if listener == "a pipe with no reader" else os.openpty()
        os.close(other)
    try:
        yield gone
    finally:
        os.close(gone)


def _run_to(stdout: int, stderr: int, device: Device, *more: str) -> subprocess.CompletedProcess[str]:
    command = device.command("provision", *more)
    return subprocess.run(command, stdout=stdout, stderr=stderr, text=True, timeout=180, check=False)


class TestTheStraightLine:
    def test_a_claim_becomes_an_identity(self, device: Device, sandbox: Sandbox) -> None:
        claim = sandbox.create_claim()
        device.put("claim.json", json.dumps(claim))
        result = device.provision()
        assert (result["outcome"], result["exit"], result["next"]) == ("active", 0, "done")
        document = assert_provisioned(device, sandbox)
        assert document["thing_name"] == result["thing_name"]
        assert document["client_id"] == document["thing_name"]
        assert device.dropped() == []
        assert_gone(device, claim)
        status = device.status()
        assert status["state"] == "provisioned"
        assert status["identity"]["certificate_id"] == result["certificate_id"]
        assert [o["result"] for o in status["history"]] == ["active"]

    def test_what_lies_on_disk_has_the_documented_modes(self, device: Device, sandbox: Sandbox) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        assert device.provision()["exit"] == 0
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in device.identity.resolve().iterdir()}
        assert modes == dict.fromkeys(
            (
                "private.key",
                "certificate.pem",
                "root-ca.pem",
                "identity.json",
                "identity.env",
                "manifest.json",
            ),
            0o640,
        )
        assert os.readlink(device.identity) == device.identity.resolve().name
        activated = (device.root / "var/lib/claimd/activated").read_text()
        assert activated == device.identity.resolve().name + "\n"
        assert stat.S_IMODE((device.root / "var/lib/claimd/attempt.json").stat().st_mode) == 0o600

    def test_the_workshop_s_swapped_files(self, device: Device, sandbox: Sandbox) -> None:
        claim = sandbox.create_claim()
        device.put("device-client-fp.pem.crt", key_of(claim).replace("\n", "\\n"))
        device.put("device-client-fp.private.pem.key", claim["certificatePem"].replace("\n", "\\n"))
        assert device.provision()["outcome"] == "active"
        assert_gone(device, claim)

    def test_a_second_pass_has_nothing_to_do(self, device: Device, sandbox: Sandbox) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        assert device.provision()["exit"] == 0
        again = device.provision()
        assert (again["outcome"], again["exit"], again["next"]) == ("idle", 4, "again")
        assert again["after_seconds"] == 7 * 86400  # to look at the end of the certificate

    def test_six_round_trips(self, device: Device, sandbox: Sandbox) -> None:
        """TCP, TLS, and four packets: CONNECT, one SUBSCRIBE, two PUBLISH. Then DISCONNECT."""
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        before = len(sandbox.connections)
        assert device.provision()["exit"] == 0
        claim, permanent = sandbox.connections[before:]
        sent = [packet for packet in claim.packets if packet.startswith("<")]
        assert sent == ["< CONNECT", "< SUBSCRIBE", "< PUBLISH", "< PUBLISH", "< DISCONNECT"]
        assert [p for p in permanent.packets if p.startswith("<")] == ["< CONNECT", "< DISCONNECT"]

    @pytest.mark.parametrize("listener", ["a pipe with no reader", "a terminal that hung up", "a full disk"])
    def test_a_pass_goes_on_when_nobody_listens_any_more(
        self, device: Device, sandbox: Sandbox, listener: str
    ) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        with nobody_at(listener) as gone:
            ended = _run_to(gone, subprocess.PIPE, device)
            assert ended.returncode == Exit.OK
            assert "claimd:" not in ended.stderr
            assert_provisioned(device, sandbox)
            # The usual exit where there is something else to say, and that is said where somebody listens.
            device.configure("nonsense")
            device.put("claim.json", json.dumps(sandbox.create_claim()))
            ended = _run_to(gone, subprocess.PIPE, device)
            assert ended.returncode == Exit.CONFIGURATION
            assert "claimd explain config-invalid" in ended.stderr
            assert _run_to(gone, gone, device).returncode == Exit.CONFIGURATION
            assert _run_to(gone, gone, device, "--json").returncode == Exit.CONFIGURATION
        assert device.record()["attempt"]["problem"] is None

    def test_progress_for_a_person(self, device: Device, sandbox: Sandbox) -> None:
        claim = sandbox.create_claim()
        device.put("claim.json", json.dumps(claim))
        ended = device.run("provision")
        sentences = [line[12:].strip() for line in ended.stdout.splitlines()]
        assert sentences[1] == "connected to localhost"
        assert sentences[-2] == "the identity is in place"
        assert " left" in ended.stdout
        assert sentences[-1].endswith(device.identity.resolve().name) or "done" in ended.stdout
        assert ended.returncode == 0

    def test_a_template_without_a_parameter_for_its_name(self, device: Device, sandbox: Sandbox) -> None:
        device.configure(configuration(sandbox, template=OTHER_TEMPLATE, parameters='SerialNumber = "4711"'))
        device.put("claim.json", json.dumps(sandbox.create_claim(template=OTHER_TEMPLATE)))
        assert device.provision()["thing_name"] == "Sandbox_4711"
        document = assert_provisioned(device, sandbox)
        assert document["device_configuration"] == {
            "FallbackUrl": "https://www.example.com/test-site",
            "LocationUrl": "https://example.aws",
        }

    def test_443_with_alpn(self, tmp_path: Path) -> None:
        """The port that demands ALPN stands in for 443; claimd sends it on 443 alone, so this one refuses."""
        settings = replace(QUICK, alpn_port=0)
        with Sandbox.start(tmp_path / "sandbox", settings) as sandbox:
            device = Device(tmp_path / "root")
            device.configure(configuration(sandbox, port=sandbox.alpn_port))
            device.put("claim.json", json.dumps(sandbox.create_claim()))
            assert device.provision()["outcome"] != "active"


class TestTheService:
    def test_a_claim_trickling_in_through_a_pipe(self, device: Device, sandbox: Sandbox) -> None:
        device.start()
        wait_for(lambda: device.status()["service"], "the service")
        claim = sandbox.create_claim()
        text = json.dumps(claim, indent=4)
        step = len(text) // 10 + 1
        with (device.drop / "claim").open("w") as file:
            for start in range(0, len(text), step):
                file.write(text[start : start + step])
                file.flush()
                os.fsync(file.fileno())
                time.sleep(0.1)  # the slow link itself, not a wait for claimd
        device.wait_for_state("provisioned")
        assert_provisioned(device, sandbox)
        assert_gone(device, claim)
        assert key_of(claim).splitlines()[1] not in device.stop()

    def test_configured_after_the_claim_came(self, device: Device, sandbox: Sandbox) -> None:
        wanted = Path(device.layout.config_file).read_text()
        Path(device.layout.config_file).unlink()
        device.start()
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        wait_for(lambda: device.dropped() == [], "the claim taken in")
        wait_for(lambda: device.code() == "not-configured", "not configured")
        device.configure(wanted)
        device.wait_for_state("provisioned")

    def _blocked(self, device: Device, sandbox: Sandbox) -> None:
        """The service waits for somebody, and has no timer but the claim's end."""
        sandbox.faults.set("reject step=register status=403 times=1")
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        device.start()
        device.wait_for_state("blocked")
        wait_for(lambda: device.status()["service"]["state"] == "watching", "the end of the pass")

    def test_what_a_pass_by_hand_left_open_goes_on(self, device: Device, sandbox: Sandbox) -> None:
        self._blocked(device, sandbox)
        sandbox.faults.set("reject step=register status=429 times=1")
        assert device.run("provision").returncode == Exit.RETRY
        wait_for(lambda: device.status()["state"] == "provisioned", "the service's try", 60)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
    def test_what_a_pass_by_hand_died_over_goes_on(
        self, device: Device, sandbox: Sandbox, number: signal.Signals
    ) -> None:
        """Ctrl-C, a terminal that is lost, the kernel short of memory."""
        self._blocked(device, sandbox)
        fault = sandbox.faults.set("delay step=subscribe ms=60000 times=1")
        by_hand = subprocess.Popen(
            device.command("provision"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: sandbox.faults.used(fault), "a subscription")
            by_hand.send_signal(number)
        finally:
            by_hand.communicate(timeout=DEADLINE_SECONDS)
        wait_for(lambda: device.status()["state"] == "provisioned", "the service's try", 60)

    def test_sigterm_in_mid_attempt_ends_within_two_seconds(self, device: Device, sandbox: Sandbox) -> None:
        sandbox.faults.set("delay step=register ms=60000 times=1")
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        device.start()
        wait_for(lambda: (device.status()["attempt"] or {}).get("state") == "registering", "registering")
        began = time.monotonic()
        device.stop()
        took = time.monotonic() - began
        sandbox.faults.clear()
        assert took < 10, "it stops; the two seconds are measured by the bench, not by a loaded machine"
        assert device.provision()["outcome"] in ("active", "connection-lost", "idle", "client-id-taken")
        device.start()
        device.wait_for_state("provisioned")
        assert_provisioned(device, sandbox)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_stopped_while_a_subscription_is_awaited(
        self, device: Device, sandbox: Sandbox, number: signal.Signals
    ) -> None:
        """Not what the network did, and not after the ten seconds that an answer has."""
        fault = sandbox.faults.set("delay step=subscribe ms=60000 times=1")
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        working = subprocess.Popen(
            device.command("provision", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            wait_for(lambda: sandbox.faults.used(fault), "a subscription")
            working.send_signal(number)
        finally:
            said, _ = working.communicate(timeout=DEADLINE_SECONDS)
        assert working.returncode == 75
        assert json.loads(said.splitlines()[-1])["outcome"] == "interrupted"
        assert device.provision()["outcome"] == "active"


class TestBadInput:
    """Each has its own sentence, and nothing is lost or half done."""

    def test_a_pair_that_does_not_match(self, device: Device, sandbox: Sandbox) -> None:
        one, other = sandbox.create_claim(), sandbox.create_claim()
        device.put("cert.pem", one["certificatePem"])
        device.put("key.pem", key_of(other))
        assert device.provision()["outcome"] == "claim-key-mismatch"
        assert device.status()["problem"]["message"] == (
            "the private key (key.pem) does not belong to the certificate (cert.pem)"
        )
        assert device.dropped() == ["cert.pem", "key.pem"]
        device.put("key.pem", key_of(one))
        assert device.provision()["outcome"] == "active"

    def test_an_incomplete_pair(self, device: Device, sandbox: Sandbox) -> None:
        claim = sandbox.create_claim()
        device.put("cert.pem", claim["certificatePem"])
        result = device.provision()
        assert (result["outcome"], result["exit"], result["next"]) == ("claim-key-missing", 75, "again")
        status = device.status()
        assert status["state"] == "waiting"
        assert status["problem"]["message"] == (
            "the certificate is here (cert.pem), its private key is missing"
        )
        device.put("key.pem", key_of(claim))
        assert device.provision()["outcome"] == "active"

    def test_an_expired_claim(self, device: Device, sandbox: Sandbox) -> None:
        claim = sandbox.create_claim(life=-10)
        device.put("claim.json", json.dumps(claim))
        result = device.provision()
        assert (result["outcome"], result["exit"]) == ("claim-expired", 65)
        assert device.dropped() == []
        assert_gone(device, claim)
        status = device.status()
        assert status["state"] == "refused"
        assert status["history"][-1]["code"] == "claim-expired"
        command = f"aws iot create-provisioning-claim --template-name {TEMPLATE}"
        assert status["problem"]["commands"] == [command, "date -u"], "as it can be pasted"
        latest = (device.root / "var/spool/claimd/result/latest.txt").read_text()
        assert command in latest.replace("\n" + " " * 15, " ")

    def test_a_claim_not_yet_valid_waits(self, device: Device, sandbox: Sandbox, tmp_path: Path) -> None:
        with Sandbox.start(tmp_path / "ahead", replace(QUICK, clock=lambda: time.time() + 600)) as ahead:
            claim = ahead.create_claim(life=900)
        device.put("claim.json", json.dumps(claim))
        result = device.provision()
        assert (result["outcome"], result["exit"], result["next"]) == ("claim-not-yet-valid", 75, "again")
        status = device.status()
        assert status["state"] == "waiting"
        assert "set the clock: sudo date -u -s '" in status["problem"]["remedy"]
        assert ", not valid yet\n" in device.run("status").stdout, "and no number by a clock that is behind"
        assert len(status["claims"]) == 1, "it is kept"

    def test_a_permanent_certificate(self, device: Device, sandbox: Sandbox) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        assert device.provision()["exit"] == 0
        identity = device.identity.resolve()
        other = Device(device.root.parent / "other")
        other.configure(configuration(sandbox))
        other.put("cert.pem", (identity / "certificate.pem").read_bytes())
        other.put("key.pem", (identity / "private.key").read_bytes())
        assert other.provision()["outcome"] == "claim-is-permanent"
        assert other.dropped() == ["cert.pem", "key.pem"], "somebody's identity is not ours to remove"

    @pytest.mark.parametrize("refusal", [Refusal.ALERT, Refusal.HANG_UP])
    def test_a_claim_of_another_account(self, tmp_path: Path, refusal: Refusal) -> None:
        with Sandbox.start(tmp_path / "sandbox", replace(QUICK, refusal=refusal)) as sandbox:
            device = Device(tmp_path / "root")
            device.configure(configuration(sandbox))
            device.put("claim.json", json.dumps(sandbox.create_claim(account=FOREIGN_ACCOUNT)))
            result = device.provision()
            assert result["outcome"] == "claim-not-accepted"
            message = device.status()["problem"]["message"]
            assert "which lives until" in message and "expired" not in message
            assert "another AWS account or region" in device.status()["problem"]["cause"]

    def test_a_claim_of_another_template(self, device: Device, sandbox: Sandbox) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim(template=OTHER_TEMPLATE)))
        result = device.provision()
        assert (result["outcome"], result["exit"]) == ("subscribe-refused", 69)
        status = device.status()
        assert status["state"] == "blocked"
        assert "another provisioning template" in status["problem"]["cause"]
        assert len(status["claims"]) == 1, "the live claim is kept"
        device.configure(configuration(sandbox, template=OTHER_TEMPLATE, parameters='SerialNumber = "0815"'))
        assert device.provision()["outcome"] == "active"

    def test_two_claims_at_once(self, device: Device, sandbox: Sandbox) -> None:
        shorter, longer = sandbox.create_claim(life=200), sandbox.create_claim(life=400)
        sandbox.faults.set("reject step=create-keys status=500 times=1")
        device.put("a.json", json.dumps(shorter))
        device.put("b.json", json.dumps(longer))
        assert device.provision()["outcome"] == "aws-unavailable"
        status = device.status()
        ends = {c["fingerprint"]: c["not_after"] for c in status["claims"]}
        assert len(ends) == 2
        assert status["attempt"]["claim"]["not_after"] == max(ends.values())
        assert [p["code"] for p in status["notes"]] == ["claim-superseded"]
        ended = device.run("provision")
        assert ended.returncode == 0, ended.stderr
        assert_gone(device, shorter)
        assert_gone(device, longer)

    @pytest.mark.parametrize("content", [b"hello\n", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04zip"])
    def test_garbage(self, device: Device, content: bytes) -> None:
        device.put("holiday photo.jpg", content)
        result = device.provision()
        assert (result["outcome"], result["exit"]) == ("claim-not-recognised", 65)
        assert device.status()["state"] == "refused"
        assert device.dropped() == ["holiday photo.jpg"]

    def test_a_claim_on_a_provisioned_device(self, device: Device, sandbox: Sandbox) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        assert device.provision()["exit"] == 0
        identity = device.identity.resolve()
        second = sandbox.create_claim()
        device.put("claim.json", json.dumps(second))
        result = device.provision()
        assert (result["outcome"], result["exit"]) == ("claim-not-needed", 4)
        assert device.identity.resolve() == identity
        assert_gone(device, second)


class TestRefusals:
    def test_an_unknown_template(self, device: Device, sandbox: Sandbox) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        sandbox.faults.set("reject step=register status=404 times=1")
        assert device.provision()["outcome"] == "template-not-found"
        assert device.status()["state"] == "blocked"
        again = device.run("provision")  # a person says: try again
        assert again.returncode == 0, again.stderr

    @pytest.mark.parametrize(
        ("status", "code", "state"),
        [
            (400, "parameters-refused", "blocked"),
            (403, "registration-denied", "blocked"),
            (429, "throttled", "waiting"),
            (500, "aws-unavailable", "waiting"),
        ],
    )
    def test_register_refused(
        self, device: Device, sandbox: Sandbox, status: int, code: str, state: str
    ) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        sandbox.faults.set(f"reject step=register status={status} times=1")
        issued = len(sandbox.registry.certificates)
        assert device.provision()["outcome"] == code
        assert device.status()["state"] == state
        again = device.run("provision")
        assert again.returncode == 0, again.stderr
        assert len(sandbox.registry.certificates) == issued + 1, (
            "the staged key was used, no second one asked for"
        )

    @pytest.mark.parametrize(("status", "tried"), [(403, False), (429, True)])
    def test_a_person_hears_of_the_next_try_where_there_is_one(
        self, device: Device, sandbox: Sandbox, status: int, *, tried: bool
    ) -> None:
        """At the end of a blocked attempt's claim a pass comes, and tries nothing."""
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        sandbox.faults.set(f"reject step=register status={status} times=1")
        said = device.run("provision").stderr
        assert ("next try: " in said) is tried, said

    def test_what_only_goes_with_time_is_no_next_try(self, device: Device, sandbox: Sandbox) -> None:
        claim = json.dumps(sandbox.create_claim())
        device.put("claim.json", claim)
        sandbox.faults.set("reject step=register status=403 times=1")
        assert device.provision()["outcome"] == "registration-denied"
        assert device.run("provision").returncode == 0
        device.put("claim.json", claim)
        said = device.run("provision").stderr
        assert "claim-already-taken-in" in said and "next try: " not in said, said

    def test_after_ctrl_c_the_claim_s_end_is_no_next_try(self, device: Device, sandbox: Sandbox) -> None:
        fault = sandbox.faults.set("delay step=subscribe ms=60000 times=1")
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        by_hand = subprocess.Popen(
            device.command("provision"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            wait_for(lambda: sandbox.faults.used(fault), "a subscription")
            by_hand.send_signal(signal.SIGINT)
        finally:
            _, said = by_hand.communicate(timeout=DEADLINE_SECONDS)
        assert "(claimd explain interrupted)" in said and "next try: " not in said, said

    def test_a_wrong_parameter_is_cured_in_the_configuration(self, device: Device, sandbox: Sandbox) -> None:
        good = Path(device.layout.config_file).read_text()
        device.configure(configuration(sandbox, parameters='Thing = "typo"'))
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        assert device.provision()["outcome"] == "parameters-refused"
        device.configure(good)
        assert device.provision()["outcome"] == "active"

    def test_a_lost_answer_to_register(self, device: Device, sandbox: Sandbox) -> None:
        """AWS has registered the device and the answer never came: a probe with the staged key tells."""
        device.configure(configuration(sandbox, timeouts="answer_seconds = 1"))
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        sandbox.faults.set("lose-answer step=register times=1")
        assert device.provision()["outcome"] == "no-answer"
        things = len(sandbox.registry.things)
        assert device.run("provision").returncode == 0
        assert len(sandbox.registry.things) == things
        document = assert_provisioned(device, sandbox)
        assert document["thing_name_known"] is False and document["device_configuration"] == "unknown"

    def test_a_lost_answer_to_create_keys(self, device: Device, sandbox: Sandbox) -> None:
        device.configure(configuration(sandbox, timeouts="answer_seconds = 1"))
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        sandbox.faults.set("lose-answer step=create-keys times=1")
        assert device.provision()["outcome"] == "no-answer"
        assert device.run("provision").returncode == 0
        assert_provisioned(device, sandbox)

    def test_registered_but_refused(self, device: Device, sandbox: Sandbox) -> None:
        """The permanent policy denies: named, kept, tried again, and cured without a claim."""
        device.configure(configuration(sandbox, tables='[verify]\non_refusal = "wait"', thing="denied"))
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        sandbox.faults.set("refuse step=connect who=permanent code=0x87")
        result = device.provision()
        assert (result["outcome"], result["next"]) == ("identity-refused", "again")
        assert device.status()["state"] == "refused"
        assert not device.identity.exists()
        sandbox.faults.clear()
        assert device.run("provision").returncode == 0
        assert assert_provisioned(device, sandbox)["thing_name"] == "denied"

    def test_a_connection_cut_after_the_answer(self, device: Device, sandbox: Sandbox) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        sandbox.faults.set("hang-up step=register when=answered times=1")
        assert device.provision()["outcome"] == "active"

    def test_an_answer_that_comes_twice(self, device: Device, sandbox: Sandbox) -> None:
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        sandbox.faults.set("answer-twice step=create-keys")
        assert device.provision()["outcome"] == "active"


class TestTheWay:
    def test_nobody_listens(self, device: Device, sandbox: Sandbox) -> None:
        device.configure(configuration(sandbox, port=peers.closed_port()))
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        result = device.provision()
        assert (result["outcome"], result["exit"], result["next"]) == ("connection-refused", 75, "again")
        assert device.status()["state"] == "waiting"
        device.configure(configuration(sandbox))
        assert device.provision()["outcome"] == "active"

    def test_an_untrusted_server_is_named_at_once(
        self, device: Device, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        with Sandbox.start(tmp_path / "another", QUICK) as another:
            device.configure(configuration(sandbox, port=another.mqtt_port))
            device.put("claim.json", json.dumps(sandbox.create_claim()))
            assert device.provision()["outcome"] == "tls-untrusted-ca"
        assert len(device.status()["claims"]) == 1

    def test_a_name_that_does_not_exist(self, device: Device, sandbox: Sandbox) -> None:
        text = configuration(sandbox).replace('endpoint = "localhost"', 'endpoint = "claimd.invalid"')
        device.configure(text)
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        assert device.provision()["outcome"] == "dns-failed"


class TestTwoAtOnce:
    def test_the_loser_names_the_holder(self, device: Device, sandbox: Sandbox) -> None:
        sandbox.faults.set("delay step=register ms=60000 times=1")
        device.put("claim.json", json.dumps(sandbox.create_claim()))
        first = subprocess.Popen(
            [sys.executable, "-m", "claimd", "--root", str(device.root), "provision", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: (device.status()["attempt"] or {}).get("state") == "registering", "registering")
            second = device.provision()
            assert (second["outcome"], second["exit"]) == ("pass-running", 75)
            assert second["problem"]["message"] == f"another pass is at work (process {first.pid})"
        finally:
            first.send_signal(signal.SIGTERM)
            first.communicate(timeout=60)
        assert first.returncode == 75


class TestConnectRules:
    def test_policy_denies_the_client_id(self, device: Device, sandbox: Sandbox) -> None:
        """With "activate" and no earlier identity, `current` is set though nobody could connect yet."""
        device.configure(
            configuration(
                sandbox, tables='[verify]\non_refusal = "activate"\n[identity]\nclient_id = "other"'
            )
        )
        account, template = sandbox.settings.default_account.id, "TrustedUserProvisioningTemplate"
        sandbox.registry.set_connect_rule(account, ConnectRule.THING_NAME, template=template)
        try:
            device.put("claim.json", json.dumps(sandbox.create_claim()))
            for _ in range(3):
                ended = device.run("provision")
                assert ended.returncode == 69, ended.stderr
            assert device.identity.exists()
            assert device.status()["state"] == "refused"
            assert device.code() == "identity-refused"
        finally:
            sandbox.registry.set_connect_rule(account, ConnectRule.ALLOW, template=template)
