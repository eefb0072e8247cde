from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from claimd.attempt import Attempt, ClaimRecord, Event, Record, State, advance, begin
from claimd.documents import MAX_STORED_BYTES
from claimd.durable import Disk
from claimd.errors import ClaimdError, Code, problem
from claimd.fleet import identity_client_id
from claimd.model import Layout, Target
from claimd.recovery import SENTENCES, Found, activated, identity_of, settle
from claimd.store import Identity, Store
from material import NOW, claim, issued

SECOND = timedelta(seconds=1)
ID, OTHER_ID = "c0" * 32, "c1" * 32
TARGET = Target("endpoint.example", (8883, 443), "T", (("ThingName", "t"),), "claimd-x", "{thing_name}", "ca")
CLAIM = claim()


@dataclass
class Machine:
    """A state directory, with every step of the straight line as a method."""

    store: Store
    record: Record = field(default_factory=Record)

    @property
    def state(self) -> Path:
        return Path(self.store.layout.state_directory)

    def folder(self, certificate_id: str = ID) -> Path:
        return self.state / "identity" / certificate_id

    def claimed(self) -> Attempt:
        self.store.secure_claim(CLAIM)
        attempt = Attempt(
            State.CLAIMED, NOW, claim=ClaimRecord.of(CLAIM), stages=((State.CLAIMED, NOW),), target=TARGET
        )
        return self.keep(attempt)

    def keep(self, attempt: Attempt) -> Attempt:
        self.record = self.record.with_attempt(attempt)
        self.store.save_record(self.record)
        return attempt

    def requested(self) -> Attempt:
        return self.keep(advance(self.claimed(), Event.KEYS_REQUEST_RECORDED, NOW + SECOND))

    def stored_answer(self) -> Attempt:
        attempt = self.requested()
        self.store.stage(issued(ID), b"roots")
        return attempt

    def staged(self) -> Attempt:
        attempt = advance(self.stored_answer(), Event.KEYS_STAGED, NOW + SECOND)
        return self.keep(replace(attempt, certificate_id=ID, token_received_at=NOW + SECOND))

    def registering(self) -> Attempt:
        attempt = advance(self.staged(), Event.REGISTRATION_RECORDED, NOW + SECOND)
        return self.keep(replace(attempt, ambiguous=True))

    def blocked(self, attempt: Attempt) -> Attempt:
        moved = advance(attempt, Event.BLOCKED, NOW + SECOND)
        return self.keep(replace(moved, resume=attempt.state, config_sha256="c"))

    def documents(self, attempt: Attempt, certificate_id: str = ID) -> dict[str, Any]:
        named = replace(attempt, certificate_id=certificate_id, thing_name="thing-1", thing_name_known=True)
        return identity_of(self.store, named, {"a": "b"}, NOW + SECOND)

    def registered(self) -> Attempt:
        attempt = self.registering()
        self.store.complete(ID, self.documents(attempt))
        moved = advance(attempt, Event.REGISTRATION_PROVED, NOW + SECOND)
        self.store.destroy_claim(CLAIM.fingerprint)
        return self.keep(replace(moved, thing_name="thing-1", thing_name_known=True, ambiguous=False))

    def active(self) -> Attempt:
        attempt = self.registered()
        self.store.activate(ID)
        return self.keep(advance(attempt, Event.IDENTITY_ACTIVATED, NOW + SECOND))

    def settle(self) -> Attempt | None:
        """As the next process sees it: everything is read from the disk, before and after."""
        store = Store(self.store.layout, Disk())
        store.prepare()
        settled = settle(store, store.load_record(), NOW + 10 * SECOND)
        assert Store(self.store.layout, Disk()).load_record() == settled, "what changed was saved"
        self.record = settled
        return settled.attempt


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    store = Store(Layout(str(tmp_path)), Disk())
    os.makedirs(store.layout.state_directory)
    store.prepare()
    return Machine(store)


def _damaged_claim(m: Machine) -> None:
    m.claimed()
    (m.state / "claims" / CLAIM.fingerprint / "private.key").write_text("-----BEGIN")


def _claim_gone(m: Machine) -> None:
    m.claimed()
    m.store.destroy_claim(CLAIM.fingerprint)


def _unused_key_gone(m: Machine) -> None:
    m.staged()
    shutil.rmtree(m.folder())


def _blocked_key_gone(m: Machine) -> None:
    m.blocked(m.staged())
    shutil.rmtree(m.folder())


def _registration_stored(m: Machine) -> None:
    attempt = m.registering()
    m.store.complete(ID, m.documents(attempt))


def _sent_key_damaged(m: Machine) -> None:
    m.registering()
    (m.folder() / "private.key").write_bytes(issued(OTHER_ID).key.pem.reveal())


def _record_moved_aside(m: Machine) -> None:
    """As `attempt-unreadable` says; or the disk lost it."""
    m.registering()
    os.unlink(m.state / "attempt.json")


def _token_gone(m: Machine) -> None:
    m.registering()
    m.store.forget_token(ID)


def _documents_gone(m: Machine) -> None:
    m.registered()
    for name in ("identity.json", "manifest.json"):
        (m.folder() / name).unlink()


def _link_switched(m: Machine) -> None:
    m.registered()
    m.store.activate(ID)


def _registered_key_gone(m: Machine) -> None:
    m.registered()
    (m.folder() / "private.key").unlink()


def _link_gone(m: Machine) -> None:
    m.active()
    Path(m.store.layout.current_identity).unlink()


def _link_gone_with_a_new_claim(m: Machine) -> Attempt:
    attempt = m.registered()
    m.store.activate(ID)
    m.record = activated(m.record, attempt, NOW + SECOND)
    begun = begin(ClaimRecord.of(CLAIM), NOW + 2 * SECOND, ID)
    m.store.secure_claim(CLAIM)
    Path(m.store.layout.current_identity).unlink()
    return m.keep(begun)


def _link_gone_after_a_worthless_claim(m: Machine) -> None:
    m.keep(advance(_link_gone_with_a_new_claim(m), Event.CLAIM_LOST, NOW + 3 * SECOND))


def _link_to_nowhere(m: Machine) -> None:
    m.active()
    m.store.disk.replace_symlink(m.store.layout.current_identity, OTHER_ID)


def _active_damaged(m: Machine) -> None:
    m.active()
    (m.folder() / "certificate.pem").write_text("")


def _record_gone(m: Machine) -> None:
    m.registered()
    (m.state / "attempt.json").unlink()


def _record_of_a_replacement_gone(m: Machine) -> None:
    """The new identity waits for its approval beside the one that serves."""
    attempt = m.active()
    m.store.stage(issued(OTHER_ID), b"roots")
    m.store.complete(OTHER_ID, m.documents(replace(attempt, replaces=ID), OTHER_ID))
    (m.state / "attempt.json").unlink()


def _several(m: Machine) -> None:
    attempt = m.registered()
    m.store.stage(issued(OTHER_ID), b"roots")
    m.store.complete(OTHER_ID, m.documents(attempt, OTHER_ID))
    (m.state / "attempt.json").unlink()


def _key_open(m: Machine) -> None:
    m.active()
    (m.folder() / "private.key").chmod(0o644)


def _token_open(m: Machine) -> None:
    m.staged()
    (m.folder() / "ownership-token").chmod(0o660)


def _claim_open(m: Machine) -> None:
    m.claimed()
    (key,) = m.state.glob("claims/*/private.key")
    key.chmod(0o606)


Make = Callable[[Machine], object]
# case, how it comes about, the state it goes on in
CASES: list[tuple[Found, Make, State | None]] = [
    (Found.CLAIM_DAMAGED, _damaged_claim, State.FAILED),
    (Found.CLAIM_GONE, _claim_gone, State.FAILED),
    (Found.ANSWER_STORED, Machine.stored_answer, State.KEYS_STAGED),
    (Found.ANSWER_LOST, Machine.requested, State.CLAIMED),
    (Found.UNUSED_KEY_GONE, _unused_key_gone, State.CLAIMED),
    (Found.UNUSED_KEY_GONE, _blocked_key_gone, State.CLAIMED),
    (Found.REGISTRATION_STORED, _registration_stored, State.REGISTERED),
    (Found.REGISTRATION_UNKNOWN, Machine.registering, State.REGISTERING),
    (Found.SENT_KEY_GONE, _sent_key_damaged, State.CLAIMED),
    (Found.TOKEN_GONE, _token_gone, State.REGISTERING),
    (Found.TOKEN_LEFT, _record_moved_aside, None),
    (Found.DOCUMENTS_GONE, _documents_gone, State.REGISTERED),
    (Found.LINK_SWITCHED, _link_switched, State.ACTIVE),
    (Found.REGISTERED_KEY_GONE, _registered_key_gone, State.REGISTERED),
    (Found.LINK_GONE, _link_gone, State.ACTIVE),
    (Found.LINK_GONE, _link_to_nowhere, State.ACTIVE),
    (Found.LINK_GONE, _link_gone_with_a_new_claim, State.CLAIMED),
    (Found.LINK_GONE, _link_gone_after_a_worthless_claim, State.FAILED),
    (Found.ACTIVE_DAMAGED, _active_damaged, State.ACTIVE),
    (Found.RECORD_GONE, _record_gone, State.REGISTERED),
    (Found.RECORD_GONE, _record_of_a_replacement_gone, State.REGISTERED),
    (Found.SEVERAL_IDENTITIES, _several, None),
    (Found.SECRET_OPEN, _key_open, State.ACTIVE),
    (Found.SECRET_OPEN, _token_open, State.KEYS_STAGED),
    (Found.SECRET_OPEN, _claim_open, State.CLAIMED),
]


def _keys(m: Machine) -> set[str]:
    """Certificate ids whose key lies on disk."""
    return {path.parent.name for path in m.state.glob("identity/c*/private.key")} - {"current"}


@pytest.mark.parametrize(("found", "make", "state"), CASES)
def test_each_case_has_its_sentence_and_its_way_on(
    machine: Machine, caplog: pytest.LogCaptureFixture, found: Found, make: Make, state: State | None
) -> None:
    make(machine)
    keys = _keys(machine)
    caplog.set_level(logging.INFO)
    attempt = machine.settle()
    assert (attempt.state if attempt else None) is state
    assert any(message.startswith(SENTENCES[found]) for message in caplog.messages)
    assert _keys(machine) == keys, "no key is removed"


@pytest.mark.parametrize("make", [_key_open, _token_open, _claim_open])
def test_a_secret_that_somebody_opened_is_shut(machine: Machine, make: Make) -> None:
    make(machine)
    assert machine.store.open_secrets()
    machine.settle()
    assert machine.store.open_secrets() == []
    modes = {path.name: path.stat().st_mode & 0o777 for path in machine.state.rglob("*") if path.is_file()}
    assert modes["private.key"] in (0o640, 0o600) and modes.get("ownership-token", 0o600) == 0o600


class Unwell(Store):
    """What `current` names can't be read now."""

    def current(self) -> Identity | None:
        raise OSError(errno.EIO, "Input/output error")


def test_what_can_t_be_read_now_is_not_replaced_by_what_can(machine: Machine) -> None:
    _link_gone_after_a_worthless_claim(machine)
    machine.store.disk.replace_symlink(machine.store.layout.current_identity, OTHER_ID)
    settle(Unwell(machine.store.layout, Disk()), machine.record, NOW)
    assert machine.store.current_link() == OTHER_ID


def test_a_link_that_can_t_be_made_ends_no_pass(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """A backup was copied back with its links followed: `current` is a directory."""
    _link_gone_with_a_new_claim(machine)
    os.mkdir(machine.store.layout.current_identity)
    record = settle(machine.store, machine.store.load_record(), NOW)
    assert record.attempt is not None and record.attempt.state is State.CLAIMED
    assert "`current` can't be pointed to the identity now: Is a directory" in caplog.text


def test_a_link_in_a_secret_s_place_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    machine.active()
    other = tmp_path / "other"
    other.write_text("of somebody else")
    other.chmod(0o644)
    key = machine.folder() / "private.key"
    key.unlink()
    key.symlink_to(other)
    assert machine.store.open_secrets() == []
    with pytest.raises(OSError, match="symbolic links"):
        machine.store.disk.narrow(str(key), 0o640)
    assert other.stat().st_mode & 0o777 == 0o644


def test_a_secret_that_can_not_be_shut_is_named(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    class Shut(Disk):
        def narrow(self, path: str, widest: int) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    _key_open(machine)
    settled = settle(Store(machine.store.layout, Shut()), machine.record, NOW)
    assert settled == machine.record
    (said,) = caplog.messages
    assert (
        said
        == f"others can read {machine.folder()}/private.key, and it can't be shut: Operation not permitted"
    )


def test_every_case_is_tried() -> None:
    assert {found for found, _, _ in CASES} == set(Found)
    assert set(SENTENCES) == set(Found)


@pytest.mark.parametrize(
    "make", [Machine.claimed, Machine.staged, Machine.registered, Machine.active], ids=lambda m: m.__name__
)
def test_where_record_and_disk_agree_nothing_is_said_and_nothing_changes(
    machine: Machine, caplog: pytest.LogCaptureFixture, make: Make
) -> None:
    made = make(machine)
    caplog.set_level(logging.INFO)
    assert machine.settle() == made
    assert caplog.messages == []


@pytest.mark.parametrize(("found", "make", "state"), CASES)
def test_settling_twice_is_settling_once(
    machine: Machine, found: Found, make: Make, state: State | None
) -> None:
    make(machine)
    once = machine.settle()
    # In mid-registration the answer stays unknown, and a lost answer is asked for only once.
    assert machine.settle() == once


def test_a_lost_key_that_may_be_registered_is_named_in_the_history(machine: Machine) -> None:
    _sent_key_damaged(machine)
    machine.settle()
    (outcome,) = machine.record.history
    assert (outcome.result, outcome.certificate_id, outcome.code) == ("failed", ID, Code.IDENTITY_DAMAGED)
    assert outcome.claim == "", "a claim that lives has not failed with it"


def test_the_stored_answer_keeps_what_aws_said(machine: Machine) -> None:
    attempt = machine.registering()
    machine.store.complete(ID, machine.documents(attempt))
    (machine.folder() / "manifest.json").unlink()
    settled = machine.settle()
    assert settled is not None and settled.thing_name == "thing-1" and settled.thing_name_known
    assert machine.store.is_complete(ID)
    document = machine.store.document(ID)
    assert document is not None and document["device_configuration"] == {"a": "b"}


def test_documents_that_were_lost_say_what_is_unknown(machine: Machine) -> None:
    _documents_gone(machine)
    machine.settle()
    document = machine.store.document(ID)
    assert document is not None
    assert (document["thing_name"], document["device_configuration"]) == ("thing-1", "unknown")


def test_an_identity_activated_in_spite_of_a_refusal_is_still_to_be_proved(machine: Machine) -> None:
    attempt = machine.registered()
    machine.keep(replace(attempt, failures=3, problem=problem(Code.IDENTITY_REFUSED)))
    machine.store.activate(ID)
    settled = machine.settle()
    assert settled is not None and settled.state is State.REGISTERED


def test_a_claim_that_can_not_be_read_now_is_left(machine: Machine) -> None:
    """A directory in place of the key makes a read fail with EISDIR: the disk's trouble, not the claim's."""
    machine.claimed()
    key = machine.state / "claims" / CLAIM.fingerprint / "private.key"
    key.unlink()
    key.mkdir()
    settled = machine.settle()
    assert settled is not None and settled.state is State.CLAIMED
    assert machine.store.claim_names() == [CLAIM.fingerprint]
    assert machine.store.claims() == []


def test_temporaries_are_swept_wherever_they_lie(machine: Machine) -> None:
    machine.staged()
    places = [machine.state, machine.state / "claims", machine.state / "identity", machine.folder()]
    for place in places:
        (place / ".tmp-0123").write_text("half")
    (machine.state / "identity/.tmp-tree").mkdir()
    (machine.state / "identity/.tmp-tree/private.key").write_text("half")
    machine.settle()
    assert not list(machine.state.rglob(".tmp-*"))


@pytest.mark.parametrize("code", [Code.IDENTITY_UNPROVEN, Code.DISK_FULL])
def test_another_trouble_after_a_refusal_proves_nothing(machine: Machine, code: Code) -> None:
    attempt = machine.registered()
    machine.keep(replace(attempt, failures=4, problem=problem(code)))
    machine.store.activate(ID)
    settled = machine.settle()
    assert settled is not None and settled.state is State.REGISTERED


def test_a_client_id_with_braces_is_no_pattern_when_the_record_is_gone(machine: Machine) -> None:
    attempt = replace(machine.registering(), target=replace(TARGET, identity_client_id="x{{1}}-{thing_name}"))
    machine.store.complete(ID, machine.documents(attempt))
    (machine.state / "attempt.json").unlink()
    settled = machine.settle()
    assert settled is not None and settled.target is not None
    assert identity_client_id(settled.target, settled.thing_name, ID) == "x{1}-thing-1"


def test_a_record_that_is_too_large_is_named(machine: Machine) -> None:
    (machine.state / "attempt.json").write_bytes(b" " * (MAX_STORED_BYTES + 1))
    with pytest.raises(ClaimdError) as caught:
        machine.store.load_record()
    assert caught.value.problem.code is Code.ATTEMPT_UNREADABLE


def test_another_request_never_takes_an_older_key_for_its_answer(machine: Machine) -> None:
    """AWS may have activated that one, and what comes of a request that was never answered is removed."""
    _record_moved_aside(machine)
    machine.record = Record()
    machine.settle()
    machine.requested()
    attempt = machine.settle()
    assert attempt is not None
    assert (attempt.state, attempt.certificate_id) == (State.CLAIMED, None), "asked for again"
    assert _keys(machine) == {ID}


class _BadSector(Store):
    """In the folder of identity ID."""

    def _fail(self, certificate_id: str) -> None:
        if certificate_id == ID:
            raise OSError(errno.EIO, "Input/output error")

    def current(self) -> Identity | None:
        self._fail(self.current_link() or "")
        return super().current()

    def document(self, certificate_id: str) -> dict[str, Any] | None:
        self._fail(certificate_id)
        return super().document(certificate_id)

    def is_complete(self, certificate_id: str) -> bool:
        self._fail(certificate_id)
        return super().is_complete(certificate_id)


def test_a_bad_sector_in_the_identity_that_serves_stops_nothing(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.active()
    settled = settle(_BadSector(machine.store.layout, Disk()), machine.record, NOW)
    assert settled == machine.record
    assert caplog.messages == ["`current` can't be pointed to the identity now: Input/output error"]


def test_a_bad_sector_in_the_old_identity_keeps_no_new_one_waiting(machine: Machine) -> None:
    machine.active()
    machine.store.stage(issued(OTHER_ID), b"roots")
    attempt = replace(machine.record.attempt or machine.claimed(), replaces=ID, certificate_id=OTHER_ID)
    bad = _BadSector(machine.store.layout, Disk())
    bad.complete(OTHER_ID, identity_of(bad, replace(attempt, thing_name="thing-2"), None, NOW))
    registered = Record(replace(attempt, state=State.REGISTERED))
    assert settle(bad, registered, NOW).attempt is not None
    bad.activate(OTHER_ID)
    assert machine.store.current_link() == OTHER_ID


def test_a_replacement_whose_record_is_lost_still_replaces(machine: Machine) -> None:
    _record_of_a_replacement_gone(machine)
    attempt = machine.settle()
    assert attempt is not None
    assert (attempt.certificate_id, attempt.replaces) == (OTHER_ID, ID)
    assert machine.store.current_link() == ID, "not before it is proved"
