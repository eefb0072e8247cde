"""One pass, state by state, against the model of the cloud: what a registered identity can count on."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from claimd.attempt import Attempt, ClaimRecord, Event, Record, State, advance, begin
from claimd.durable import Disk
from claimd.ensure import ConfigurationFiles
from claimd.errors import ClaimdError, Code, Problem, fail, problem
from claimd.fleet import Credentials, LinkError, Trouble
from claimd.inspection import not_yet_valid
from claimd.intake import Intake
from claimd.model import Layout, Target
from claimd.provision import Pass
from claimd.recovery import identity_of
from claimd.steps import REFUSALS_BEFORE_POLICY
from claimd.store import Identity, Store
from claimd.world import DEFAULTS, STALE_LOOK_SECONDS, Result, Settings, World
from faults.cloud import Cloud, CloudLink, Fault, MemoryJournal, What, certificate_id
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


class Broken(Configured):
    """Whatever is asked of it."""

    def settings(self) -> Settings:
        raise fail(Code.CONFIG_INVALID, file="claimd.toml", place="line 1", detail="no value")

    def target(self, fingerprint: str, ca_sha256: str) -> Target:
        raise fail(Code.CONFIG_INVALID, file="claimd.toml", place="line 1", detail="no value")

    def roots(self) -> bytes:
        raise fail(Code.CONFIG_INVALID, file="claimd.toml", place="line 1", detail="no value")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(Layout(str(tmp_path)), Disk())
    os.makedirs(made.layout.state_directory)
    made.prepare()
    return made


def run(store: Store, cloud: Cloud, now: datetime, configuration: Configured | None = None) -> Result:
    world = replace(_world(store, cloud), now=lambda: now, configuration=configuration or Configured())
    return Pass(world, NOTHING_DROPPED).run()


def _world(store: Store, cloud: Cloud) -> World:
    return World(
        store=store,
        configuration=Configured(),
        transport=lambda seconds: cloud,
        now=lambda: NOW,
        elapsed=lambda: 1e6,
        random=lambda: 0.5,
        stopping=lambda: False,
        progress=lambda stage, sentence: None,
        publish=lambda record, trouble: None,
        sleep=lambda seconds: None,
    )


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


def registered_and_known(store: Store) -> Cloud:
    """Registered, in a cloud that lets the identity connect."""
    registered(store)
    cloud = Cloud(MemoryJournal(), lambda: NOW)
    key = store.load_staged(ID).certificate.public_key_id
    cloud.note("issued", id=ID, key=key, token="t", at=NOW.isoformat())
    cloud.note("activated", id=ID)
    return cloud


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


def blocked_after_a_lost_answer(store: Store) -> tuple[Cloud, Result]:
    mine = claim()
    store.secure_claim(mine)
    faults = (Fault("register", 0, What.LOSE_REQUEST), Fault("register", 1, What.REFUSED_PARAMETERS))
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[mine.certificate.pem], faults=faults)
    run(store, cloud, NOW)
    blocked = run(store, cloud, NOW + 2 * SECOND)
    return cloud, blocked


def test_a_correction_is_used_also_after_a_lost_answer(store: Store) -> None:
    cloud, blocked = blocked_after_a_lost_answer(store)
    assert blocked.problem is not None and blocked.problem.code is Code.PARAMETERS_REFUSED
    assert blocked.record.attempt is not None and blocked.record.attempt.ambiguous
    staged = blocked.record.attempt.certificate_id
    corrected = Configured("corrected", template="Corrected", endpoint="other.example")
    result = run(store, cloud, NOW + 3 * SECOND, corrected)
    serving = store.current()
    assert serving is not None and result.problem is None
    assert serving.certificate_id == staged, "the key that may have been active is the one that serves"
    # The token is the first endpoint's.
    assert (serving.document["template"], serving.document["endpoint"]) == ("Corrected", "e.example")
    assert serving.document["client_id"] == "corrected"


def test_blocked_after_a_lost_answer_the_certificate_is_tried_all_the_same(store: Store) -> None:
    """What blocks the claim says nothing about the request before it, which AWS may just have carried out."""
    cloud, blocked = blocked_after_a_lost_answer(store)
    attempt = blocked.record.attempt
    assert attempt is not None and attempt.state is State.BLOCKED and attempt.ambiguous
    assert blocked.after_seconds is not None and blocked.after_seconds < 10
    assert attempt.certificate_id is not None
    cloud.note("activated", id=attempt.certificate_id)
    run(store, cloud, NOW + 2 * SECOND + timedelta(seconds=blocked.after_seconds))
    serving = store.current()
    assert serving is not None and serving.certificate_id == attempt.certificate_id


@pytest.mark.parametrize("code", [Code.PARAMETERS_REFUSED, Code.CA_UNUSABLE])
def test_blocked_and_the_configuration_is_broken_no_pass_follows_at_once(store: Store, code: Code) -> None:
    """Somebody is at it with an editor; what is saved next is a hint of its own."""
    attempt = registering(store)
    moved = replace(advance(attempt, Event.BLOCKED, NOW), resume=State.REGISTERING, config_sha256="c")
    fields = {"template": "T", "detail": "d", "path": "p"}
    moved = replace(moved, problem=problem(code, **fields), failures=1, retry_at=NOW + SECOND)
    store.save_record(Record(moved))
    result = run(store, Cloud(MemoryJournal(), lambda: NOW), NOW + 2 * SECOND, Broken())
    assert attempt.claim is not None
    assert result.after_seconds == (attempt.claim.not_after - NOW).total_seconds() - 2


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


def _lost_claim(store: Store) -> Cloud:
    """The answer to RegisterThing was lost, the claim is over, AWS has activated the certificate."""
    attempt = registering(store)
    assert attempt.claim is not None
    store.destroy_claim(attempt.claim.fingerprint)
    store.save_record(Record(replace(attempt, claim=None)))
    cloud = Cloud(MemoryJournal(), lambda: NOW)
    key = store.load_staged(ID).certificate.public_key_id
    cloud.note("issued", id=ID, key=key, token="t", at=NOW.isoformat())
    cloud.note("activated", id=ID)
    return cloud


class Busy(Cloud):
    """Answers every CONNECT with `code`; None: it hangs up."""

    code: int | None = 0x97

    def open(
        self, host: str, port: int, client_id: str, credentials: Credentials, *, as_guest: bool = False
    ) -> CloudLink:
        code = self.code

        class TurnedAway(CloudLink):
            def wait_connected(self, seconds: float) -> bool:
                raise LinkError(Trouble.REFUSED, "CONNACK", code=code)

        return TurnedAway(self, credentials)


class Offline(Cloud):
    """Nobody is reached."""

    def open(
        self, host: str, port: int, client_id: str, credentials: Credentials, *, as_guest: bool = False
    ) -> CloudLink:
        class Unreachable(CloudLink):
            def wait_connected(self, seconds: float) -> bool:
                raise LinkError(Trouble.UNREACHABLE, "1059")

        return Unreachable(self, credentials)

    def diagnose(self, host: str, port: int, roots: bytes) -> Problem | None:
        return problem(Code.DNS_FAILED, endpoint=host)


@pytest.mark.parametrize("code", [0x89, 0x97, 0x87, None])
def test_without_a_claim_a_key_that_may_be_active_is_never_given_up(store: Store, code: int | None) -> None:
    cloud = _lost_claim(store)
    busy = Busy(cloud.journal, lambda: NOW)
    busy.code = code
    now = NOW + timedelta(hours=2)
    for _ in range(3):
        result = run(store, busy, now)
        assert result.after_seconds is not None and result.after_seconds > 0
        now += timedelta(seconds=result.after_seconds)
    run(store, cloud, now)
    serving = store.current()
    assert serving is not None and serving.certificate_id == ID


def test_after_an_hour_it_is_tried_slowly(store: Store) -> None:
    cloud = _lost_claim(store)
    attempt = store.load_record().attempt
    assert attempt is not None
    store.save_record(Record(replace(attempt, failures=100)))
    assert run(store, Busy(cloud.journal, lambda: NOW), NOW).after_seconds == 1800.0


@pytest.mark.parametrize("failures", [0, 5, 9])
def test_a_busy_endpoint_costs_no_key_while_a_claim_lives(store: Store, failures: int) -> None:
    attempt = registering(store)
    store.save_record(Record(replace(attempt, failures=failures)))
    busy = Busy(MemoryJournal(), lambda: NOW)
    result = run(store, busy, NOW + timedelta(minutes=1))
    assert result.problem is not None and result.problem.code is Code.CONNECT_REFUSED
    assert result.after_seconds is not None and result.after_seconds >= 1.5
    after = result.record.attempt
    assert after is not None and (after.state, after.certificate_id) == (State.REGISTERING, ID)


def test_a_claim_that_aws_does_not_take_costs_no_key_that_may_be_active(store: Store) -> None:
    """Anybody can drop one, also one for next week."""
    cloud = _lost_claim(store)
    later = NOW + timedelta(hours=2)
    store.secure_claim(claim(not_before=later - SECOND, not_after=later + timedelta(minutes=5)))
    store.secure_claim(claim(not_before=later + timedelta(days=3), not_after=later + timedelta(days=4)))
    unwelcome = Cloud(MemoryJournal(), lambda: later)
    now = later
    for _ in range(3):
        result = run(store, unwelcome, now)
        assert result.problem is not None
        assert result.after_seconds is not None and result.after_seconds > 0
        now += timedelta(seconds=result.after_seconds)
    run(store, cloud, now)
    serving = store.current()
    assert serving is not None and serving.certificate_id == ID


def test_a_certificate_is_tried_slowly_while_a_claim_waits_for_its_time(store: Store) -> None:
    _lost_claim(store)
    later = NOW + timedelta(hours=2)
    store.secure_claim(claim(not_before=later + timedelta(days=3), not_after=later + timedelta(days=4)))
    result = run(store, Cloud(MemoryJournal(), lambda: later), later)
    assert result.record.attempt is not None
    assert result.record.attempt.retry_at == later + 1.5 * SECOND
    assert result.record.attempt.certificate_id == ID


def test_a_key_that_is_set_aside_is_named(store: Store) -> None:
    """The token is over, the certificate is not welcome, and a claim is here that gets another."""
    registering(store)
    later = NOW + timedelta(hours=2)
    fresh = claim(not_before=later - SECOND, not_after=later + timedelta(minutes=5))
    store.secure_claim(fresh)
    cloud = Cloud(MemoryJournal(), lambda: later, claims=[fresh.certificate.pem])
    run(store, cloud, later)
    serving = store.current()
    assert serving is not None and serving.certificate_id != ID
    assert ID in store.staged(), "the key stays"
    named = [outcome for outcome in store.load_record().history if outcome.certificate_id == ID]
    assert [(o.claim, o.result, o.code) for o in named] == [("", "failed", Code.TOKEN_INVALID)]


def test_trouble_that_nobody_tries_again_calls_no_next_pass(store: Store) -> None:
    attempt = registering(store)
    assert attempt.claim is not None
    store.destroy_claim(attempt.claim.fingerprint)
    staged = replace(attempt, state=State.KEYS_STAGED, ambiguous=False, claim=None)
    store.save_record(Record(replace(staged, problem=problem(Code.DNS_FAILED, endpoint="e"), failures=3)))
    result = run(store, Cloud(MemoryJournal(), lambda: NOW), NOW + timedelta(hours=2))
    assert result.record.attempt is not None and result.record.attempt.state is State.CLAIMED
    assert (result.problem, result.after_seconds) == (None, None)
    assert ID not in store.staged(), "it was never sent: AWS has activated nothing"


def test_a_claim_that_ends_during_a_probe_leaves_the_certificate_a_next_try(store: Store) -> None:
    """The probe is refused while the claim lives, and then it does not any more."""
    attempt = registering(store)
    assert attempt.claim is not None
    end = attempt.claim.not_after
    clock = [end - SECOND]

    class Late(Cloud):
        def open(
            self, host: str, port: int, client_id: str, credentials: Credentials, *, as_guest: bool = False
        ) -> CloudLink:
            clock[0] = end
            return super().open(host, port, client_id, credentials, as_guest=as_guest)

    world = _world(store, Late(MemoryJournal(), lambda: NOW))
    result = Pass(replace(world, now=lambda: clock[0]), NOTHING_DROPPED).run()
    assert result.record.attempt is not None and result.record.attempt.claim is None
    assert result.record.attempt.state is State.REGISTERING
    assert result.after_seconds == 0.0


def test_only_the_token_s_own_refusals_count_against_it(store: Store) -> None:
    """A lost answer, no network, and then the first word about the token."""
    attempt = registering(store)
    store.save_record(Record(replace(attempt, failures=5)))
    assert attempt.claim is not None
    kept = store.load_claim(attempt.claim.fingerprint)
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[kept.certificate.pem])
    now = NOW + SECOND
    for number in (1, 2):
        result = run(store, cloud, now)
        assert result.problem is not None and result.problem.code is Code.TOKEN_INVALID
        assert result.record.attempt is not None and result.record.attempt.certificate_id == ID
        assert result.record.attempt.refusals == number
        assert result.after_seconds is not None
        now += timedelta(seconds=result.after_seconds)
        assert "another certificate, with the same claim while it lives" in result.problem.remedy
    result = run(store, cloud, now)
    assert result.record.attempt is not None and result.record.attempt.certificate_id is None
    assert result.after_seconds is not None
    run(store, cloud, now + timedelta(seconds=result.after_seconds))
    serving, used = store.current(), store.load_record().history[-1]
    assert serving is not None and serving.certificate_id != ID
    assert (used.claim, used.result) == (attempt.claim.fingerprint, "active")


def test_who_asks_by_hand_again_and_again_leaves_the_token_alone(store: Store) -> None:
    attempt = registering(store)
    assert attempt.claim is not None
    kept = store.load_claim(attempt.claim.fingerprint)
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[kept.certificate.pem])
    clock = [NOW + SECOND]
    world = replace(_world(store, cloud), now=lambda: clock[0], by_hand=True)
    for _ in range(5):
        Pass(world, NOTHING_DROPPED).run()
        clock[0] += 0.1 * SECOND
    after = store.load_record().attempt
    assert after is not None and (after.certificate_id, after.refusals) == (ID, 1)


class Stuck(Store):
    """No claim's folder can be removed."""

    def destroy_claim(self, fingerprint: str) -> None:
        raise OSError(errno.EIO, "Input/output error")


class BadSector(Store):
    """The identity that serves can't be read."""

    def current(self) -> Identity | None:
        raise OSError(errno.EIO, "Input/output error")


def test_an_identity_that_can_t_be_read_now_is_not_taken_for_none(store: Store) -> None:
    """With reprovision = "never" a second one would be made."""
    first = claim()
    store.secure_claim(first)
    run(store, Cloud(MemoryJournal(), lambda: NOW, claims=[first.certificate.pem]), NOW)
    serving = store.current_link()
    second = claim(not_after=NOW + timedelta(minutes=9))
    store.secure_claim(second)
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[second.certificate.pem])
    with pytest.raises(OSError):
        run(BadSector(store.layout, Disk()), cloud, NOW + SECOND)
    assert cloud.known().asked == {} and store.current_link() == serving
    assert store.claim_names() == [second.fingerprint], "it waits"


def test_an_old_identity_that_can_t_be_read_now_makes_no_way_for_a_refused_one(store: Store) -> None:
    attempt = registered(store)
    store.save_record(Record(replace(attempt, refusals=REFUSALS_BEFORE_POLICY)))
    result = run(BadSector(store.layout, Disk()), Cloud(MemoryJournal(), lambda: NOW), NOW + SECOND)
    assert result.problem is not None and result.problem.code is Code.DISK_FAILED
    assert store.current_link() is None


def test_no_claim_s_folder_keeps_a_registered_identity_from_serving(store: Store) -> None:
    registered(store)
    cloud = Cloud(MemoryJournal(), lambda: NOW)
    key = store.load_staged(ID).certificate.public_key_id
    cloud.note("issued", id=ID, key=key, token="t", at=NOW.isoformat())
    cloud.note("activated", id=ID)
    result = run(Stuck(store.layout, Disk()), cloud, NOW)
    assert result.problem is not None and result.problem.code is Code.DISK_FAILED
    assert store.current_link() == ID, "it serves, and what is in the way is said"
    assert run(store, cloud, NOW + timedelta(minutes=1)).problem is None
    assert store.claim_names() == []


def test_a_claim_that_can_t_be_removed_ends_in_the_history_once(store: Store) -> None:
    dead = claim()
    store.secure_claim(dead)
    late = NOW + timedelta(hours=1)
    good = claim(not_before=late - SECOND, not_after=late + timedelta(minutes=5))
    cloud = Cloud(MemoryJournal(), lambda: late, claims=[good.certificate.pem])
    stuck = Stuck(store.layout, Disk())
    for _ in range(3):
        assert run(stuck, cloud, late).problem is None
    assert [o.claim for o in store.load_record().history] == [dead.fingerprint]
    store.secure_claim(good)
    assert run(stuck, cloud, late).record.attempt is not None
    run(stuck, cloud, late + timedelta(minutes=1))
    assert store.current() is not None, "the next claim goes its way"


def test_a_corrected_endpoint_is_where_the_next_claim_is_asked_about(store: Store) -> None:
    """Where the lost request went nobody takes claims any more, or nobody is any more."""

    class Moved(Cloud):
        gone = False

        def open(
            self, host: str, port: int, client_id: str, credentials: Credentials, *, as_guest: bool = False
        ) -> CloudLink:
            if host == "new.example":
                return super().open(host, port, client_id, credentials, as_guest=as_guest)
            other = Offline if self.gone else Cloud
            return other(MemoryJournal(), self.now).open(host, port, client_id, credentials)

        def diagnose(self, host: str, port: int, roots: bytes) -> Problem | None:
            return problem(Code.DNS_FAILED, endpoint=host) if self.gone and host == "e.example" else None

    later = NOW + timedelta(hours=2)
    for gone in (False, True):
        _lost_claim(store)
        good = claim(not_before=later - SECOND, not_after=later + timedelta(minutes=5))
        store.secure_claim(good)
        cloud = Moved(MemoryJournal(), lambda: later, claims=[good.certificate.pem])
        cloud.gone = gone
        run(store, cloud, later, Configured(endpoint="new.example"))
        serving = store.current()
        assert serving is not None and serving.document["endpoint"] == "new.example"
        assert ID in store.staged()
        store.forget()
        store.prepare()


def test_while_the_token_lives_the_endpoint_is_the_one_that_was_asked(store: Store) -> None:
    registering(store)
    offline = Offline(MemoryJournal(), lambda: NOW)
    result = run(store, offline, NOW + SECOND, Configured(endpoint="new.example"))
    assert result.problem is not None and result.problem.code is Code.DNS_FAILED
    assert result.record.attempt is not None and result.record.attempt.certificate_id == ID


@pytest.mark.parametrize("damage", [b"", b"\0" * 6])
@pytest.mark.parametrize("make", [registering, registered])
def test_damaged_roots_are_no_refusal_and_are_written_again(
    store: Store, damage: bytes, make: Callable[[Store], Attempt]
) -> None:
    attempt = make(store)
    assert attempt.target is not None
    target = replace(attempt.target, ca_sha256=hashlib.sha256(b"roots").hexdigest())
    store.save_record(Record(replace(attempt, target=target)))
    cloud = Cloud(MemoryJournal(), lambda: NOW)
    key = store.load_staged(ID).certificate.public_key_id
    cloud.note("issued", id=ID, key=key, token="t", at=NOW.isoformat())
    cloud.note("activated", id=ID)
    roots = Path(store.layout.identity_directory) / ID / "root-ca.pem"
    roots.write_bytes(damage)
    run(store, cloud, NOW + SECOND)
    serving = store.current()
    assert serving is not None and serving.certificate_id == ID
    assert roots.read_bytes() == b"roots"


def test_what_the_tls_library_can_t_use_is_no_refusal_of_the_identity(store: Store) -> None:
    class Unusable(Cloud):
        def open(
            self, host: str, port: int, client_id: str, credentials: Credentials, *, as_guest: bool = False
        ) -> CloudLink:
            raise LinkError(Trouble.UNUSABLE, "1033")

    registered(store)
    result = run(store, Unusable(MemoryJournal(), lambda: NOW), NOW + SECOND)
    assert result.problem is not None and result.problem.code is Code.IDENTITY_UNPROVEN
    assert result.record.attempt is not None and result.record.attempt.refusals == 0


class Appearing(Configured):
    """What the configuration names is not there at first."""

    def __init__(self, code: Code) -> None:
        super().__init__()
        self.trouble: Problem | None = problem(
            code, parameter="Site", file="/run/serial", detail="no such file"
        )

    def target(self, fingerprint: str, ca_sha256: str) -> Target:
        if self.trouble is not None and self.trouble.code is Code.PARAMETER_UNRESOLVED:
            raise ClaimdError(self.trouble)
        return super().target(fingerprint, ca_sha256)

    def roots(self) -> bytes:
        if self.trouble is not None and self.trouble.code is Code.CA_UNUSABLE:
            raise ClaimdError(self.trouble)
        return super().roots()


@pytest.mark.parametrize("code", [Code.PARAMETER_UNRESOLVED, Code.CA_UNUSABLE])
def test_what_appears_after_the_boot_is_found_while_the_claim_lives(store: Store, code: Code) -> None:
    mine = claim()
    store.secure_claim(mine)
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[mine.certificate.pem])
    configuration, now, waits = Appearing(code), NOW, []
    for _ in range(4):
        result = run(store, cloud, now, configuration)
        assert result.record.attempt is not None and result.record.attempt.state is State.BLOCKED
        assert result.problem is not None and result.problem.code is code
        assert result.after_seconds is not None
        waits.append(result.after_seconds)
        now += timedelta(seconds=result.after_seconds)
    assert waits == [1.5, 2.5, 5.0, 10.0]
    configuration.trouble = None
    run(store, cloud, now, configuration)
    assert store.current() is not None


def test_a_certificate_that_can_not_be_used_is_never_registered(store: Store) -> None:
    class Malicious(Cloud):
        def check(self, credentials: Credentials) -> None:
            assert credentials.roots == b"roots"
            raise LinkError(Trouble.UNUSABLE, "a hostile key")

    mine = claim()
    store.secure_claim(mine)
    cloud = Malicious(MemoryJournal(), lambda: NOW, claims=[mine.certificate.pem])
    result = run(store, cloud, NOW)
    assert result.problem is not None and result.problem.code is Code.ANSWER_INVALID
    assert result.record.attempt is not None and result.record.attempt.state is State.CLAIMED
    assert cloud.known().asked == {"create": 1}
    assert (store.staged(), store.claim_names()) == ([], [mine.fingerprint])


def test_an_answer_under_the_id_of_a_key_that_is_here_touches_nothing_of_it(store: Store) -> None:
    """A key that was set aside may be active in AWS, whatever an endpoint says."""
    first = certificate_id(0)
    store.stage(issued(first), b"roots")
    store.forget_token(first)
    folder = Path(store.layout.identity_directory) / first
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    mine = claim()
    store.secure_claim(mine)
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[mine.certificate.pem])
    result = run(store, cloud, NOW)
    assert result.problem is not None and result.problem.code is Code.ANSWER_INVALID
    assert "is here already" in result.problem.happened
    assert result.after_seconds is not None and store.claim_names() == [mine.fingerprint]
    run(store, cloud, NOW + timedelta(seconds=result.after_seconds))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    serving = store.current()
    assert serving is not None and serving.certificate_id == certificate_id(1)


def test_claims_that_are_dead_are_written_down_once_for_all(store: Store) -> None:
    dead = [claim(not_after=NOW) for _ in range(5)]
    mine = claim()
    store.secure_claim(mine)
    store.secure_claim(dead[0])
    saved: list[int] = []

    class Counted(Store):
        def save_record(self, what: Record) -> None:
            saved.append(sum(o.code is Code.CLAIM_EXPIRED for o in what.history))
            super().save_record(what)

    counted = Counted(store.layout, store.disk)
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[mine.certificate.pem])
    Pass(_world(counted, cloud), replace(NOTHING_DROPPED, expired=tuple(dead))).run()
    assert saved[0] == 5 and set(saved) == {5}, "before anything else, in one write"
    assert counted.current() is not None and counted.claim_names() == []


def test_however_many_claims_somebody_invents_the_honest_one_has_its_turn_in_one_pass(store: Store) -> None:
    """They live longer, so they come first; each once."""
    mine = claim()
    store.secure_claim(mine)
    for number in range(40):
        store.secure_claim(claim(not_after=NOW + timedelta(days=1, seconds=number)))
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[mine.certificate.pem])
    run(store, cloud, NOW)
    assert store.current() is not None


def test_a_pass_over_invented_claims_alone_has_an_end(store: Store) -> None:
    for number in range(40):
        store.secure_claim(claim(not_after=NOW + timedelta(days=1, seconds=number)))
    cloud = Cloud(MemoryJournal(), lambda: NOW)
    result = run(store, cloud, NOW)
    assert result.problem is not None and result.problem.code is Code.CLAIM_NOT_ACCEPTED
    assert result.record.attempt is not None and len(result.record.attempt.refused) == 40
    assert result.after_seconds is not None and result.after_seconds > 0


def test_a_claim_that_runs_out_says_what_stood_in_its_way(store: Store) -> None:
    mine = claim()
    store.secure_claim(mine)
    result = run(store, Busy(MemoryJournal(), lambda: NOW), NOW)
    assert result.problem is not None and result.problem.code is Code.CONNECT_REFUSED
    ended = run(store, Cloud(MemoryJournal(), lambda: NOW), mine.certificate.not_after)
    assert ended.problem is not None and ended.problem.code is Code.CLAIM_RAN_OUT
    assert (
        "before AWS had confirmed the registration: e.example refused the MQTT connection"
        in ended.problem.happened
    )
    assert ended.problem.commands[0] == "claimd explain connect-refused"
    attempt = ended.record.attempt
    assert attempt is not None and (attempt.state, attempt.retry_at) == (State.FAILED, None)
    assert ended.record.history[-1].code is Code.CLAIM_RAN_OUT


def test_a_registered_key_that_can_t_be_read_now_is_not_given_up_for_a_new_claim(store: Store) -> None:
    class Unreadable(Store):
        def staged_damage(self, certificate_id: str) -> str | None:
            raise OSError(errno.EIO, "Input/output error")

    registered(store)
    store.secure_claim(claim(not_after=NOW + timedelta(minutes=9)))
    unreadable = Unreadable(store.layout, Disk())
    kept = run(unreadable, Offline(MemoryJournal(), lambda: NOW), NOW + SECOND)
    assert kept.record.attempt is not None
    assert (kept.record.attempt.state, kept.record.attempt.certificate_id) == (State.REGISTERED, ID)
    assert all(outcome.certificate_id is None for outcome in kept.record.history)


def test_one_claim_that_can_t_be_removed_keeps_no_other(store: Store) -> None:
    registered(store)
    store.secure_claim(claim(not_after=NOW + timedelta(minutes=9)))
    first, _ = store.claim_names()

    class OneStuck(Store):
        def destroy_claim(self, fingerprint: str) -> None:
            if fingerprint == first:
                raise OSError(errno.EIO, "Input/output error")
            super().destroy_claim(fingerprint)

    run(OneStuck(store.layout, Disk()), Offline(MemoryJournal(), lambda: NOW), NOW)
    assert store.claim_names() == [first]


def test_a_claim_that_is_not_needed_and_can_t_be_removed_is_told_once(store: Store) -> None:
    first = claim()
    store.secure_claim(first)
    run(store, Cloud(MemoryJournal(), lambda: NOW, claims=[first.certificate.pem]), NOW)
    store.secure_claim(claim(not_after=NOW + timedelta(minutes=9)))

    class Unremovable(Store):
        def destroy_claim(self, fingerprint: str) -> None:
            raise OSError(errno.EIO, "Input/output error")

    for _ in range(3):
        with pytest.raises(OSError, match="Input/output"):
            run(Unremovable(store.layout, Disk()), Cloud(MemoryJournal(), lambda: NOW), NOW + SECOND)
    assert [outcome.result for outcome in store.load_record().history] == ["active", "not-needed"]


def test_an_edit_is_tried_at_once(store: Store) -> None:
    mine = claim()
    store.secure_claim(mine)
    faults = (Fault("create", 0, What.UNAVAILABLE),)
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[mine.certificate.pem], faults=faults)
    waits = run(store, cloud, NOW)
    assert waits.after_seconds is not None and waits.after_seconds > 1
    run(store, cloud, NOW + SECOND / 2)
    assert store.current() is None, "not yet"
    run(store, cloud, NOW + SECOND / 2, Configured(template="Edited"))
    assert store.current() is not None


def test_the_correction_of_a_broken_configuration_is_tried_at_once(store: Store) -> None:
    """As any other edit: what is missing may be the proxy, without which nobody is reached."""
    cloud = registered_and_known(store)
    offline = Offline(cloud.journal, lambda: NOW)
    waits = run(store, offline, NOW, Broken())
    assert waits.problem is not None and waits.problem.code is Code.IDENTITY_UNPROVEN
    assert run(store, cloud, NOW + SECOND, Broken()).after_seconds == 0.5, "nothing has changed"
    run(store, cloud, NOW + SECOND)
    assert store.current_link() == ID


def test_blocked_and_the_configuration_is_broken_a_better_claim_is_taken_all_the_same(store: Store) -> None:
    """The claim before it has an end of its own then, and its key goes."""
    first, better = claim(), claim(not_after=NOW + timedelta(hours=3))
    store.secure_claim(first)
    pems = [first.certificate.pem, better.certificate.pem]
    faults = (Fault("register", 0, What.REFUSED_PARAMETERS),)
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=pems, faults=faults)
    blocked = run(store, cloud, NOW)
    assert blocked.record.attempt is not None and blocked.record.attempt.state is State.BLOCKED
    store.secure_claim(better)
    result = run(store, cloud, NOW + SECOND, Broken())
    assert result.problem is not None and result.problem.code is Code.CONFIG_INVALID
    attempt = result.record.attempt
    assert attempt is not None and attempt.claim == ClaimRecord.of(better)
    run(store, cloud, first.certificate.not_after, Broken())
    assert store.claim_names() == [better.fingerprint]
    run(store, cloud, first.certificate.not_after + SECOND)
    assert store.current() is not None


def test_a_new_key_does_not_inherit_the_refusals_of_the_one_before(store: Store) -> None:
    attempt = replace(registering(store), state=State.KEYS_STAGED, ambiguous=False, refusals=2)
    blocked = replace(advance(attempt, Event.BLOCKED, NOW), resume=State.KEYS_STAGED, config_sha256="another")
    store.save_record(Record(blocked))
    assert attempt.claim is not None
    pem = store.load_claim(attempt.claim.fingerprint).certificate.pem
    faults = (Fault("register", 0, What.LOSE_REQUEST),)
    result = run(store, Cloud(MemoryJournal(), lambda: NOW, claims=[pem], faults=faults), NOW)
    after = result.record.attempt
    assert after is not None and after.certificate_id not in (None, ID)
    assert (after.state, after.refusals) == (State.REGISTERING, 0)


@pytest.mark.parametrize("ambiguous", [False, True])
def test_a_claim_s_end_leaves_a_next_try_only_where_one_is_made(store: Store, ambiguous: bool) -> None:
    state = State.REGISTERING if ambiguous else State.KEYS_STAGED
    attempt = replace(registering(store), state=state, ambiguous=ambiguous)
    assert attempt.claim is not None
    end = attempt.claim.not_after
    trouble = problem(Code.DNS_FAILED, endpoint="e.example")
    store.save_record(Record(replace(attempt, problem=trouble, failures=1, retry_at=end + SECOND)))
    result = run(store, Cloud(MemoryJournal(), lambda: NOW), end)
    after = result.record.attempt
    assert after is not None and (after.state, after.claim) == (state, None)
    assert (after.retry_at, result.after_seconds) == ((end + SECOND, 1.0) if ambiguous else (None, None))


def test_a_clock_that_nobody_sets_wears_no_flash(store: Store) -> None:
    class Counting(Store):
        saves = 0

        def save_record(self, what: Record) -> None:
            self.saves += 1
            super().save_record(what)

    store.secure_claim(claim())
    counting, cloud = Counting(store.layout, Disk()), Cloud(MemoryJournal(), lambda: NOW)
    now = datetime(1970, 1, 1, tzinfo=NOW.tzinfo)
    for _ in range(60):
        result = run(counting, cloud, now)
        assert result.problem is not None and result.problem.code is Code.CLAIM_NOT_YET_VALID
        assert result.after_seconds == 10.0
        now += timedelta(seconds=result.after_seconds)
    assert counting.saves == 2, "taken in, and why it waits"
    wrong = run(counting, cloud, now + timedelta(days=10000)).problem
    assert wrong is not None and wrong.fields["now"].startswith("1997-05-19"), "set, and still behind"


class Full(Store):
    """The disk keeps nothing."""

    def save_record(self, what: Record) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def activate(self, certificate_id: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_keeps_nothing_is_looked_at_slowly(store: Store) -> None:
    mine = claim()
    store.secure_claim(mine)
    store.save_record(Record(begin(ClaimRecord.of(mine), NOW, None)))
    cloud = Cloud(MemoryJournal(), lambda: NOW, claims=[mine.certificate.pem])
    result = run(Full(store.layout, Disk()), cloud, NOW)
    assert result.after_seconds == STALE_LOOK_SECONDS
    attempt = result.record.attempt
    assert attempt is not None and attempt.problem == result.problem
    assert attempt.retry_at == NOW + timedelta(seconds=STALE_LOOK_SECONDS), "what is said is what happens"


def test_while_the_disk_keeps_nothing_a_live_connection_is_seldom_taken_over(store: Store) -> None:
    """Each proof of the new identity connects under the client id of whoever lives there."""
    cloud = registered_and_known(store)
    now = NOW
    while now < NOW + timedelta(minutes=5):
        result = run(Full(store.layout, Disk()), cloud, now)
        assert result.problem is not None and result.problem.code is Code.DISK_FULL
        assert result.after_seconds is not None
        now += timedelta(seconds=result.after_seconds)
    assert cloud.known().connected == 10
    run(store, cloud, now)
    assert store.current_link() == ID


def test_a_claim_s_end_that_the_disk_does_not_take_is_tried_when_it_is_due(store: Store) -> None:
    mine = claim()
    store.secure_claim(mine)
    store.save_record(Record(begin(ClaimRecord.of(mine), NOW, None)))

    class NoRoomForTheEnd(Store):
        def save_record(self, what: Record) -> None:
            if what.history:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().save_record(what)

    full, cloud = NoRoomForTheEnd(store.layout, Disk()), Cloud(MemoryJournal(), lambda: NOW)
    now, waits = NOW + timedelta(minutes=6), []
    for _ in range(3):
        result = run(full, cloud, now)
        assert result.problem is not None and result.problem.code is Code.DISK_FULL
        assert result.after_seconds is not None
        waits.append(result.after_seconds)
        now += timedelta(seconds=result.after_seconds)
    assert waits == [1.5, 2.5, 5.0]
    run(store, cloud, now)
    assert store.claim_names() == []
