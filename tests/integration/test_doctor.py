"""`claimd doctor`: the whole of a good device, and each trouble named by its own check."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import peers
import without_ipv6
from claimd import doctor
from claimd.doctor_disk import protection
from claimd.inquiry import Finding, Found, examine
from claimd.patient import Patient
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import KeyKind
from device import DEADLINE_SECONDS
from provocations import Stage

QUICK = Settings(key_kind=KeyKind.EC, connects_per_second=None)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), QUICK) as running:
        yield running


@pytest.fixture
def stage(tmp_path: Path, sandbox: Sandbox) -> Iterator[Stage]:
    made = Stage(tmp_path, sandbox)
    yield made
    made.device.stop()


def verdicts(stage: Stage, *only: str) -> dict[str, Found]:
    answers = doctor.diagnose(stage.device.layout, None, only=only)
    return {answer.id: answer.found for answer in answers}


def without_rights() -> list[str]:
    """What stands before a command so that root is bound by modes, as everybody is."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root reads everything")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


class TestAGoodDevice:
    def test_nothing_fails_and_no_claim_is_used(self, stage: Stage) -> None:
        stage.claim()
        assert stage.device.provision()["exit"] == 0
        kept = stage.device.put("claim.json", json.dumps(stage.sandbox.create_claim()))
        before = stage.device.files()
        issued = len(stage.sandbox.registry.certificates)
        connected = sum(r.client_id is not None for r in stage.sandbox.connections)
        found = verdicts(stage)
        assert [(i, f.evidence) for i, f in found.items() if f.verdict is Finding.FAILED] == []
        assert found["tls-chain"].evidence.startswith("trusted; anchor: ")
        assert found["identity-connects"].verdict is Finding.OK
        assert stage.device.files() == before, "nothing changed"
        assert kept.exists() and len(stage.sandbox.registry.certificates) == issued
        assert sum(r.client_id is not None for r in stage.sandbox.connections) == connected, "no MQTT CONNECT"

    def test_text_and_json_are_the_same_results(self, stage: Stage) -> None:
        text, said = stage.device.run("doctor"), stage.device.run("doctor", "--json")
        assert text.returncode == said.returncode == 0, text.stdout
        document = json.loads(said.stdout)
        assert [check["id"] for check in document["checks"]] == list(doctor.IDS)
        for check in document["checks"]:
            assert f"{check['verdict']:<9}{check['id']}:" in text.stdout
        assert sum(document["summary"].values()) == len(doctor.IDS)

    def test_strict_list_only_and_skip(self, stage: Stage) -> None:
        assert stage.device.run("doctor", "--only", "config-endpoint").returncode == 0
        assert stage.device.run("doctor", "--only", "config-endpoint", "--strict").returncode == 1
        listed = stage.device.run("doctor", "--list").stdout.splitlines()
        assert [line.split()[0] for line in listed] == list(doctor.IDS)
        told = json.loads(stage.device.run("doctor", "--json", "--only", "tls-host,config-parse").stdout)
        assert [check["id"] for check in told["checks"]] == ["config-parse", "tls-host"]
        told = json.loads(stage.device.run("doctor", "--json", "--skip", "network-dns").stdout)
        skipped = {c["id"]: c["evidence"] for c in told["checks"] if c["verdict"] == "skipped"}
        assert skipped["network-dns"] == "as asked" and skipped["network-route"] == "because of network-dns"
        assert stage.device.run("doctor", "--only", "everything").returncode == 2


def _no_configuration(stage: Stage) -> None:
    Path(stage.device.layout.config_file).unlink()


def _drop_in_of_another_name(stage: Stage) -> None:
    folder = Path(stage.device.layout.config_directory, "conf.d")
    folder.mkdir()
    (folder / "10-site.conf").write_text("")


def _torn_record(stage: Stage) -> None:
    Path(stage.device.layout.state_directory, "attempt.json").write_text("{")


def _state_of_another(stage: Stage) -> None:
    machine_id = Path(stage.device.layout.under("/etc/machine-id"))
    machine_id.write_text("1" * 32)
    stage.device.put("claim.json", json.dumps(stage.sandbox.create_claim()))
    assert stage.device.provision()["exit"] == 0
    machine_id.write_text("2" * 32)


TROUBLES: list[tuple[str, str, Callable[[Stage], Any]]] = [
    ("config-parse", "failed", _no_configuration),
    ("config-drop-ins", "warning", _drop_in_of_another_name),
    ("config-hints", "warning", lambda s: s.configure(tables='[identity]\nclient_id = "one"')),
    ("config-endpoint", "warning", lambda s: s.configure(endpoint="1.2.3.4")),
    ("config-parameters", "failed", lambda s: s.configure(parameters='A = "{file:/etc/none}"')),
    ("config-serial", "failed", lambda s: s.configure(parameters='A = "{serial}"')),
    ("ca-bundle", "failed", lambda s: s.configure(ca="/none.pem")),
    ("network-dns", "failed", lambda s: s.configure(endpoint="claimd.invalid")),
    ("network-port", "failed", lambda s: s.configure(port=peers.closed_port())),
    ("drop-directory", "failed", lambda s: s.device.drop.rmdir()),
    ("state-directory", "failed", lambda s: Path(s.device.layout.state_directory).rmdir()),
    (
        "state-attempt",
        "failed",
        lambda s: Path(s.device.layout.state_directory, "attempt.json").write_text("{"),
    ),
    ("host-machine-id", "warning", lambda s: None),
    ("host-state", "failed", _state_of_another),
]


def test_a_kernel_without_ipv6(stage: Stage) -> None:
    """The check does not break: that there is no such way is what it looks for."""
    stage.configure(tables='[proxy]\nhost = "::1"')
    root = str(stage.device.root)
    asked = subprocess.run(
        without_ipv6.command("--root", root, "doctor", "--json", "--only", "network-route"),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    (route,) = json.loads(asked.stdout)["checks"]
    assert (route["verdict"], route["commands"]) == ("failed", ["ip route"])
    assert route["evidence"] == "::1: Address family not supported by protocol"


class TestTroubles:
    @pytest.mark.parametrize(("check", "verdict", "make"), TROUBLES, ids=[t[0] for t in TROUBLES])
    def test_each_is_named_by_its_own_check(
        self, stage: Stage, check: str, verdict: str, make: Callable[[Stage], Any]
    ) -> None:
        make(stage)
        found = verdicts(stage, check)[check]
        assert found.verdict.value == verdict, found
        assert found.evidence and found.remedy

    def test_an_inspecting_proxy(self, stage: Stage) -> None:
        other = peers.TlsFiles(stage.directory / "other", "Corporate Inspection")
        with peers.tls(other.context()) as peer:
            stage.configure(port=peer.port)
            found = verdicts(stage, "tls-interception", "tls-chain", "tls-version")
        assert found["tls-interception"].verdict is Finding.FAILED
        assert "Corporate Inspection" in found["tls-interception"].evidence
        assert found["tls-chain"].verdict is Finding.FAILED
        assert found["tls-version"] == Found(Finding.SKIPPED, "because of tls-chain")

    def test_a_server_with_another_name_or_an_old_certificate(self, stage: Stage) -> None:
        files = peers.TlsFiles(stage.directory / "tls")
        for context, words in (
            (files.context("another.example"), "another name"),
            (files.context(ends=timedelta(days=-1)), "not valid at this device's time"),
        ):
            with peers.tls(context) as peer:
                stage.configure(port=peer.port, ca=files.ca_file)
                assert words in verdicts(stage, "tls-chain")["tls-chain"].evidence

    def test_a_damaged_and_an_open_identity(self, stage: Stage) -> None:
        stage.claim()
        assert stage.device.provision()["exit"] == 0
        key = stage.device.identity.resolve() / "private.key"
        key.chmod(0o644)
        assert verdicts(stage, "identity-modes")["identity-modes"].verdict is Finding.FAILED
        key.chmod(0o640)
        key.write_bytes(b"")
        found = verdicts(stage, "identity", "identity-key")
        assert found["identity"].verdict is Finding.FAILED
        assert found["identity-key"].evidence == "because of identity"

    def test_a_clock_that_was_never_set(self, stage: Stage) -> None:
        class Early(Patient):
            @staticmethod
            def now() -> datetime:
                return datetime(1970, 1, 1, 0, 5, tzinfo=timezone.utc)

        (answer,) = examine(doctor.CHECKS, Early(stage.device.layout, None), only={"clock"})
        assert answer.found.verdict is Finding.FAILED and "1970-01-01 00:05:00 UTC" in answer.found.evidence
        assert answer.found.commands[-1] == "sudo date -u -s 'YYYY-MM-DD HH:MM:SS'", "a date would be pasted"

    def test_an_identity_that_only_root_may_see_is_not_called_damaged(self, stage: Stage) -> None:
        stage.claim()
        assert stage.device.provision()["exit"] == 0
        folder = stage.device.identity.parent
        mode = folder.stat().st_mode
        folder.chmod(0)
        try:
            ended = subprocess.run(
                [*without_rights(), *stage.device.command("doctor", "--only", "identity")],
                capture_output=True,
                text=True,
                timeout=DEADLINE_SECONDS,
                check=False,
            )
        finally:
            folder.chmod(mode)
        assert ended.returncode == 1, ended
        said = " ".join(ended.stdout.split())
        assert said.startswith(f"failed identity: {stage.device.identity}: Permission denied what to do: ")
        assert "run it as root: sudo claimd doctor" in said
        assert "damaged" not in said and "claim from" not in said
        assert verdicts(stage, "identity")["identity"].verdict is Finding.OK

    def test_what_lies_in_the_identity_s_place_is_named(self, stage: Stage) -> None:
        folder = stage.device.identity.parent
        folder.mkdir(parents=True)
        stage.device.identity.write_text("a file")
        assert (
            "current is damaged: it is no symbolic link" in verdicts(stage, "identity")["identity"].evidence
        )
        stage.device.identity.unlink()
        folder.rmdir()
        folder.write_text("a file")
        evidence = verdicts(stage, "identity")["identity"].evidence
        assert evidence.endswith("current is damaged: Not a directory")

    def test_a_certificate_that_the_endpoint_refuses(self, stage: Stage) -> None:
        stage.claim()
        assert stage.device.provision()["exit"] == 0
        number = stage.sandbox.faults.set("hang-up step=tls")
        try:
            found = verdicts(stage, "identity-connects")["identity-connects"]
        finally:
            stage.sandbox.faults.clear()
        assert number and found.verdict is Finding.FAILED
        assert found.commands[0].startswith("aws iot describe-certificate --certificate-id ")

    def test_a_device_without_configuration_has_one_cause_not_twenty(self, stage: Stage) -> None:
        _no_configuration(stage)
        found = verdicts(stage)
        assert [i for i, f in found.items() if f.verdict is Finding.FAILED] == ["config-parse"]


@pytest.mark.parametrize(
    ("switch", "verdict", "said"),
    [
        ("", Finding.SKIPPED, "this kernel has no fs.protected_regular"),
        ("0", Finding.WARNING, "fs.protected_regular is 0: a copy may land in a file that another"),
        ("1", Finding.OK, "fs.protected_regular is 1"),
        ("2", Finding.OK, "fs.protected_regular is 2"),
    ],
)
def test_whether_scp_can_be_led_into_another_s_file(switch: str, verdict: Finding, said: str) -> None:
    found = protection(switch)
    assert found.verdict is verdict and found.evidence.startswith(said)
    assert found.commands == (("sudo sysctl fs.protected_regular=1",) if switch == "0" else ())


def test_ids_are_kebab_case_and_each_has_its_needs_before_it() -> None:
    for number, check in enumerate(doctor.CHECKS):
        assert set(check.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert set(check.needs) <= set(doctor.IDS[:number]), check.id
    assert len(set(doctor.IDS)) == len(doctor.IDS)
