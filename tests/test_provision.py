"""One pass, state by state, against the model of the cloud: what a registered identity can count on."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from claimd.attempt import Attempt, ClaimRecord, Event, Record, State, advance
from claimd.durable import Disk
from claimd.ensure import ConfigurationFiles
from claimd.errors import Code, Problem, fail, problem
from claimd.fleet import Credentials, LinkError, Trouble
from claimd.inspection import not_yet_valid
from claimd.intake import Intake
from claimd.model import Layout, Target
from claimd.provision import DEFAULTS, REFUSALS_BEFORE_POLICY, Pass, Result, Settings, World
from claimd.recovery import identity_of
from claimd.store import Store
from faults.cloud import Cloud, CloudLink, Fault, MemoryJournal, What
from material import NOW, claim, issued

ID = "c0" * 32
SECOND = timedelta(seconds=1)
NOTHING_DROPPED = Intake((), (), {}, incomplete=False, signature=frozenset())


@dataclass
class Configured:
    client_id: str = "{thing_name}"
    template: str = "T"
    endpoint: str = "e.example"

    def settings(self) -> Settings:
        return replace(DEFAULTS, sha256=self.template + self.endpoint)

    def target(self, fingerprint: str, ca_sha256: str) -> Target:
        return Target(self.endpoint, (8883,), self.template, (), "claimd-x", self.client_id, ca_sha256)

    def roots(self) -> bytes:
        return b"roots"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(Layout(str(tmp_path)), Disk())
    os.makedirs(made.layout.state_directory)
    made.prepare()
    return made


def run(store: Store, cloud: Cloud, now: datetime, configuration: Configured | None = None) -> Result:
    world = World(
        store=store,
        configuration=configuration or Configured(),
        transport=lambda seconds: cloud,
        now=lambda: now,
        random=lambda: 0.5,
        stopping=lambda: False,
        progress=lambda stage, sentence: None,
        publish=lambda record, trouble: None,
        sleep=lambda seconds: None,
    )
    return Pass(world, NOTHING_DROPPED).run()


def registering(store: Store) -> Attempt:
    """The answer to RegisterThing is not known, and the claim is still there."""
    mine = claim()
    store.secure_claim(mine)
    store.stage(issued(ID), b"roots")
    attempt = Attempt(State.CLAIMED, NOW, claim=ClaimRecord.of(mine), stages=((State.CLAIMED, NOW),))
    for event in (Event.KEYS_REQUEST_RECORDED, Event.KEYS_STAGED, Event.REGISTRATION_RECORDED):
        attempt = advance(attempt, event, NOW)
    attempt = replace(
        attempt,
        target=Configured().target("", "ca"),
        certificate_id=ID,
        token_received_at=NOW,
        ambiguous=True,
    )
    store.save_record(Record(attempt))
    return attempt


@pytest.mark.parametrize("client_id", ["line'1-{thing_name}", "a'b\"c$d`e\\f"])
def test_no_client_id_keeps_a_registered_identity_from_serving(store: Store, client_id: str) -> None:
    mine = claim()
    store.secure_claim(mine)
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[mine.certificate.pem])
    run(store, cloud, NOW, Configured(client_id))
    serving = store.current()
    assert serving is not None and store.claim_names() == []
    script = f'. "{serving.path}/identity.env"; printf %s "$CLAIMD_CLIENT_ID"'
    said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True)
    assert said.stdout == serving.document["client_id"]


def test_a_registered_identity_is_tried_slowly_after_the_claim_s_end(store: Store) -> None:
    registered(store)
    cloud, now, waits = Cloud(MemoryJournal(), lambda: NOW), NOW + timedelta(minutes=6), []
    for _ in range(8):
        result = run(store, cloud, now)
        assert result.problem is not None and result.problem.code is Code.IDENTITY_REFUSED
        assert result.after_seconds is not None
        waits.append(result.after_seconds)
        now += timedelta(seconds=result.after_seconds)
    assert waits == [1.5, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0]


def registered(store: Store) -> Attempt:
    attempt = registering(store)
    store.complete(ID, identity_of(store, attempt, registered_at=NOW))
    moved = replace(advance(attempt, Event.REGISTRATION_PROVED, NOW), ambiguous=False)
    store.save_record(Record(moved))
    return moved


def test_only_refusals_count_as_refusals(store: Store) -> None:
    attempt = registered(store)
    # A morning without network, and then AWS's first word.
    store.save_record(Record(replace(attempt, failures=7)))
    cloud = Cloud(MemoryJournal(), lambda: NOW)
    for number in range(1, REFUSALS_BEFORE_POLICY + 1):
        result = run(store, cloud, NOW + timedelta(hours=number))
        assert result.record.attempt is not None and result.record.attempt.refusals == number
        assert (store.current_link() is not None) == (number == REFUSALS_BEFORE_POLICY)


def test_the_port_that_is_open_is_the_identity_s(store: Store) -> None:
    class ClosedLink(CloudLink):
        def wait_connected(self, seconds: float) -> bool:
            raise LinkError(Trouble.UNREACHABLE, "1047")

    class OneClosed(Cloud):
        def open(
            self, host: str, port: int, client_id: str, credentials: Credentials, *, as_guest: bool = False
        ) -> CloudLink:
            return ClosedLink(self, credentials) if port == 8883 else CloudLink(self, credentials)

        def diagnose(self, host: str, port: int, roots: bytes) -> Problem | None:
            return problem(Code.CONNECTION_REFUSED, endpoint=host, port=port) if port == 8883 else None

    class BothPorts(Configured):
        def target(self, fingerprint: str, ca_sha256: str) -> Target:
            return replace(super().target(fingerprint, ca_sha256), ports=(8883, 443))

    mine = claim()
    store.secure_claim(mine)
    run(store, OneClosed(MemoryJournal(), lambda: NOW, claims=[mine.certificate.pem]), NOW, BothPorts())
    serving = store.current()
    assert serving is not None and serving.document["port"] == 443


def test_a_claim_that_begins_at_the_end_of_time_is_named() -> None:
    last = datetime.max.replace(tzinfo=NOW.tzinfo)
    found = not_yet_valid("f" * 64, last, NOW)
    assert (found.code, found.fields["date"]) == (Code.CLAIM_NOT_YET_VALID, "9999-12-31 23:59:59")
    assert not_yet_valid("f" * 64, NOW, NOW - SECOND).fields["date"] == "2026-03-01 12:02:00"


def test_a_correction_is_used_also_after_a_lost_answer(store: Store) -> None:
    mine = claim()
    store.secure_claim(mine)
    faults = (Fault("register", 0, What.LOSE_REQUEST), Fault("register", 1, What.REFUSED_PARAMETERS))
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[mine.certificate.pem], faults=faults)
    run(store, cloud, NOW)
    blocked = run(store, cloud, NOW + 2 * SECOND)
    assert blocked.problem is not None and blocked.problem.code is Code.PARAMETERS_REFUSED
    assert blocked.record.attempt is not None and blocked.record.attempt.ambiguous
    staged = blocked.record.attempt.certificate_id
    corrected = Configured(template="Corrected", endpoint="other.example")
    result = run(store, cloud, NOW + 3 * SECOND, corrected)
    serving = store.current()
    assert serving is not None and result.problem is None
    assert serving.certificate_id == staged, "the key that may have been active is the one that serves"
    # The token is the first endpoint's.
    assert (serving.document["template"], serving.document["endpoint"]) == ("Corrected", "e.example")


def test_a_correction_that_can_t_be_read_leaves_the_request_as_it_was(store: Store) -> None:
    class Unresolved(Configured):
        def target(self, fingerprint: str, ca_sha256: str) -> Target:
            raise fail(Code.PARAMETER_UNRESOLVED, key="Site", file="claimd.toml", cause="it is empty")

    attempt = registering(store)
    moved = advance(attempt, Event.BLOCKED, NOW)
    store.save_record(Record(replace(moved, resume=State.REGISTERING, config_sha256="another")))
    assert attempt.claim is not None
    cloud = Cloud(MemoryJournal(), lambda: NOW)
    result = run(store, cloud, NOW + SECOND, Unresolved())
    assert result.record.attempt is not None
    assert result.record.attempt.target == attempt.target
    assert result.record.attempt.state is State.REGISTERING


def test_an_unknown_registration_without_a_claim_is_tried_again_by_itself(store: Store) -> None:
    attempt = registering(store)
    assert attempt.claim is not None
    store.destroy_claim(attempt.claim.fingerprint)
    store.save_record(Record(replace(attempt, claim=None)))
    cloud = Cloud(MemoryJournal(), lambda: NOW)
    now, waits = NOW, []
    for _ in range(8):
        result = run(store, cloud, now)
        assert result.after_seconds is not None
        waits.append(result.after_seconds)
        now += timedelta(seconds=result.after_seconds)
    assert waits == [1.5, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 60.0]
    # AWS lets the certificate in at last.
    key = store.load_staged(ID).certificate.public_key_id
    cloud.note("issued", id=ID, key=key, token="t", at=NOW.isoformat())
    cloud.note("activated", id=ID)
    run(store, cloud, now)
    serving = store.current()
    assert serving is not None and serving.certificate_id == ID


def test_the_defaults_are_the_configuration_s(tmp_path: Path) -> None:
    """They stand in for one that can't be read: they are what a file means that says nothing of them."""
    file = tmp_path / "claimd.toml"
    file.write_text('endpoint = "a1b2c3-ats.iot.eu-west-1.amazonaws.com"\n[template]\nname = "T"\n')
    settings = ConfigurationFiles(Layout(str(tmp_path)), str(file)).settings()
    assert settings.sha256 and replace(settings, sha256="") == DEFAULTS
