"""What a crash, a power cut or a disk can leave behind, case by case, and how each goes on.

`settle` runs under the lock before anything else and compares the record with the disk. A crash can
come between any two durable writes; every combination of attempt and disk that this leaves has a
line in `Found`, with a sentence in `SENTENCES`, and its way on in one of the functions below it.

    record            disk                                      way on
    none              claims/<f>                                a new attempt takes the claim
    none              one whole identity, no `current`          an attempt is made for it: REGISTERED
    none, ended       a key with its token                      the key is kept aside, the token goes
    claimed           the claim is gone                         CLAIM_LOST
    keys-requested    a key with its token                      KEYS_STAGED: the answer was stored
    keys-requested    nothing                                   CLAIMED: the answer is asked for again
    keys-staged       the key is gone or damaged                CLAIMED: never registered, a new one
    registering       identity.json                             REGISTERED: the answer was stored
    registering       no identity.json                          a probe with the key itself asks, for ever
                                                                while no claim could get another key
    registering       the key is gone or damaged                CLAIMED, and history names the certificate
    both              the token is gone                         with a claim the key is kept aside
    registered        documents gone                            written again from the record
    registered        `current` names it already                ACTIVE: it was proved before the switch
    registered        the key is gone or damaged                waits, says so; a new claim begins anew
    proved once       `current` gone or nowhere                 pointed at it again: the history proves it
    active, failed    it is damaged                             says so; a new claim makes a new identity
    blocked           as the state that it will go back to
    any               a key or token with a wider mode          its own mode again, and says so

Invariant: nothing is regenerated silently and no key that AWS may have activated is removed.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from .attempt import ENDED, Attempt, Event, Outcome, Record, State, advance
from .errors import Code, problem
from .model import Target, short
from .placeholder import escape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from .store import Store

log = logging.getLogger(__name__)


class Found(str, Enum):
    """What is out of the ordinary; without one of these the record and the disk agree."""

    CLAIM_DAMAGED = "claim-damaged"
    CLAIM_GONE = "claim-gone"
    ANSWER_STORED = "answer-stored"
    ANSWER_LOST = "answer-lost"
    UNUSED_KEY_GONE = "unused-key-gone"
    REGISTRATION_STORED = "registration-stored"
    REGISTRATION_UNKNOWN = "registration-unknown"
    SENT_KEY_GONE = "sent-key-gone"
    TOKEN_GONE = "token-gone"  # noqa: S105  the name of a case
    TOKEN_LEFT = "token-left"  # noqa: S105  the name of a case
    DOCUMENTS_GONE = "documents-gone"
    LINK_SWITCHED = "link-switched"
    REGISTERED_KEY_GONE = "registered-key-gone"
    LINK_GONE = "link-gone"
    ACTIVE_DAMAGED = "active-damaged"
    RECORD_GONE = "record-gone"
    SEVERAL_IDENTITIES = "several-identities"
    SECRET_OPEN = "secret-open"  # noqa: S105  the name of a case


SENTENCES: Mapping[Found, str] = MappingProxyType(
    {
        Found.CLAIM_DAMAGED: "a kept claim is damaged and can't be used: it is removed",
        Found.CLAIM_GONE: "the claim of the attempt is not on disk any more: the attempt waits for another",
        Found.ANSWER_STORED: "a key that was stored before the interruption is used",
        Found.ANSWER_LOST: "the request for a certificate was interrupted: it is asked for again",
        Found.UNUSED_KEY_GONE: "the disk lost a key that was never registered: another is asked for",
        Found.REGISTRATION_STORED: "the registration was stored before the interruption",
        Found.REGISTRATION_UNKNOWN: "whether AWS has registered the certificate is not known: it is tried",
        Found.SENT_KEY_GONE: "the disk lost a key that AWS may have registered: see the history",
        Found.TOKEN_GONE: "the ownership token was given up before the interruption: a new key is needed",
        Found.TOKEN_LEFT: "a key whose record is gone lies here, AWS may have activated it: it is kept aside",
        Found.DOCUMENTS_GONE: "the documents of the registered identity are written again from the record",
        Found.LINK_SWITCHED: "the new identity was proved and in place before the interruption",
        Found.REGISTERED_KEY_GONE: "the disk lost the key of the registered identity: only a new claim helps",
        Found.LINK_GONE: "`current` did not point to the identity: it is pointed there again",
        Found.ACTIVE_DAMAGED: "the identity that serves is damaged: only a new claim helps",
        Found.RECORD_GONE: "a registered identity lies here and the record of it is gone: it is tried out",
        Found.SEVERAL_IDENTITIES: "several identities lie here and the record is gone: none is chosen",
        Found.SECRET_OPEN: "others could read a secret, whose mode somebody had changed; it is shut again",
    }
)


def settle(store: Store, record: Record, now: datetime) -> Record:
    """The record after every finished write was taken into account, saved when it changed."""
    _shut_secrets(store)
    record = _without_damaged_claims(store, record, now)
    if record.attempt is None or record.attempt.state in ENDED:
        _let_go_of_tokens(store)
    try:
        serve_again(store, record)
    except OSError as error:
        log.warning("`current` can't be pointed to the identity now: %s", error.strerror)
    if record.attempt is None:
        settled = _without_record(store, record, now)
    else:
        settled = _settled(store, record, record.attempt, now)
    if settled is not record:
        store.save_record(settled)
    _announce(store)
    return settled


def _say(found: Found, what: str | None = None) -> None:
    level = logging.INFO if found in _ORDINARY else logging.WARNING
    log.log(level, "%s%s", SENTENCES[found], f": {what}" if what else "")


_ORDINARY = frozenset(
    {Found.ANSWER_STORED, Found.ANSWER_LOST, Found.REGISTRATION_STORED, Found.REGISTRATION_UNKNOWN}
    | {Found.LINK_SWITCHED}
)


def _shut_secrets(store: Store) -> None:
    """Before they are used. Who read them meanwhile is not known: that is for a person to judge."""
    for path, widest in store.open_secrets():
        try:
            store.disk.narrow(path, widest)
        except OSError as error:
            log.warning("others can read %s, and it can't be shut: %s", path, error.strerror)
        else:
            _say(Found.SECRET_OPEN, path)


def _let_go_of_tokens(store: Store) -> None:
    """No request is open. A token that lies here is of a record that is lost, and its key may be active: the
    next request must not take it for its own answer, for of that AWS has activated nothing."""
    for certificate_id in store.staged_with_token():
        _say(Found.TOKEN_LEFT, certificate_id)
        store.forget_token(certificate_id)


# -- claims


def _without_damaged_claims(store: Store, record: Record, now: datetime) -> Record:
    """Claims whose files are wrong for good are named and removed. One that can't be read now is left."""
    for fingerprint in store.claim_names():
        try:
            damage = store.claim_damage(fingerprint)
        except OSError as error:
            log.warning("a kept claim can't be read: %s: %s", short(fingerprint), error.strerror)
            continue
        if damage is None:
            continue
        _say(Found.CLAIM_DAMAGED, f"{short(fingerprint)}: {damage}")
        if not any(o.claim == fingerprint and o.code is Code.CLAIM_DAMAGED for o in record.history):
            record = record.with_outcome(Outcome(now, fingerprint, "failed", None, None, Code.CLAIM_DAMAGED))
            store.save_record(record)
        try:
            store.destroy_claim(fingerprint)
        except OSError as error:
            log.warning("a damaged claim can't be removed: %s: %s", short(fingerprint), error.strerror)
    return record


def _claim_gone(store: Store, attempt: Attempt, now: datetime) -> Attempt:
    claim = attempt.claim
    if claim is None or claim.fingerprint in store.claim_names():
        return attempt
    _say(Found.CLAIM_GONE, short(claim.fingerprint))
    gone = problem(Code.CLAIM_DAMAGED, claim=short(claim.fingerprint), detail="its files are gone")
    back = out_of_blocked(attempt, now)
    return replace(advance(back, Event.CLAIM_LOST, now), claim=None, problem=gone, retry_at=None)


def out_of_blocked(attempt: Attempt, now: datetime) -> Attempt:
    """BLOCKED back to where it was, without asking the configuration; any other state as it is."""
    if attempt.state is not State.BLOCKED:
        return attempt
    events = {
        State.KEYS_STAGED: Event.UNBLOCKED_WITH_KEYS,
        State.REGISTERING: Event.UNBLOCKED_IN_REGISTRATION,
    }
    event = events.get(attempt.resume or State.CLAIMED, Event.UNBLOCKED_AFRESH)
    return replace(advance(attempt, event, now), resume=None, config_sha256=None)


# -- attempts


def _settled(store: Store, record: Record, attempt: Attempt, now: datetime) -> Record:
    if attempt.state in ENDED:
        return record
    if attempt.state is State.REGISTERED:
        return _registered(store, record, attempt, now)
    if attempt.state is State.KEYS_REQUESTED:
        attempt = _keys_requested(store, attempt, now)
    if attempt.state is State.REGISTERING:
        attempt = _registering(store, attempt, now)
    if attempt.state is not State.REGISTERED:
        record, attempt = _key_gone(store, record, attempt, now)
        attempt = _claim_gone(store, attempt, now)
    return record if attempt is record.attempt else record.with_attempt(attempt)


def _keys_requested(store: Store, attempt: Attempt, now: datetime) -> Attempt:
    """The answer to CreateKeys was stored and the record not yet written, or there was no answer."""
    for certificate_id in store.staged_with_token():
        _say(Found.ANSWER_STORED, certificate_id)
        staged = advance(attempt, Event.KEYS_STAGED, now)
        # The record's own time of the request: no later than the token's.
        return replace(staged, certificate_id=certificate_id, token_received_at=attempt.stages[-1][1])
    _say(Found.ANSWER_LOST)
    return advance(attempt, Event.KEYS_REQUEST_FAILED, now)


def _registering(store: Store, attempt: Attempt, now: datetime) -> Attempt:
    """RegisterThing was accepted and its documents (partly) written, or the answer is unknown."""
    certificate_id = attempt.certificate_id
    if certificate_id is None:
        return attempt
    document = store.document(certificate_id)
    if document is None or store.staged_damage(certificate_id) is not None:
        if attempt.ambiguous:
            _say(Found.REGISTRATION_UNKNOWN, certificate_id)
        return attempt
    if store.is_complete(certificate_id):
        store.forget_token(certificate_id)  # the last thing that `complete` does
    else:
        store.complete(certificate_id, document)
    _say(Found.REGISTRATION_STORED, certificate_id)
    name = document.get("thing_name")
    return replace(
        advance(attempt, Event.REGISTRATION_PROVED, now),
        thing_name=name if isinstance(name, str) else None,
        thing_name_known=bool(document.get("thing_name_known")),
        ambiguous=False,
        failures=0,
        refusals=0,
        problem=None,
        retry_at=None,
    )


def _key_gone(store: Store, record: Record, attempt: Attempt, now: datetime) -> tuple[Record, Attempt]:
    """A staged key that is missing or damaged for good: a new certificate, and nothing is hidden."""
    certificate_id = attempt.certificate_id
    back = attempt.resume if attempt.state is State.BLOCKED else attempt.state
    if certificate_id is None or back not in (State.KEYS_STAGED, State.REGISTERING):
        return record, attempt
    try:
        damage = store.staged_damage(certificate_id)
    except OSError:
        return record, attempt  # it may get well: the step that needs the key says what is wrong
    if damage is None:
        if attempt.token_received_at is not None and certificate_id not in store.staged_with_token():
            _say(Found.TOKEN_GONE, certificate_id)
            attempt = replace(attempt, token_received_at=None)
        return record, attempt
    if attempt.ambiguous:
        _say(Found.SENT_KEY_GONE, f"{certificate_id}: {damage}")
        # Not the end of a claim: one that lives gets another key.
        lost = Outcome(now, "", "failed", certificate_id, attempt.thing_name, Code.IDENTITY_DAMAGED)
        record = record.with_outcome(lost)
    else:
        _say(Found.UNUSED_KEY_GONE, f"{certificate_id}: {damage}")
    store.forget_token(certificate_id)
    attempt = advance(out_of_blocked(attempt, now), Event.TOKEN_LAPSED, now)
    return record, without_key(attempt)


def without_key(attempt: Attempt) -> Attempt:
    """What the attempt knew of a key that it goes on without."""
    return replace(
        attempt, certificate_id=None, token_received_at=None, target=None, ambiguous=False, refusals=0
    )


def _registered(store: Store, record: Record, attempt: Attempt, now: datetime) -> Record:
    certificate_id = attempt.certificate_id
    if certificate_id is None or attempt.target is None:
        return record
    try:
        damage = store.staged_damage(certificate_id)
        if damage is None:
            _mend(store, attempt, certificate_id)
    except OSError as error:
        log.warning("the registered identity can't be read or mended now: %s", error.strerror)
        return record
    if damage is not None:
        _say(Found.REGISTERED_KEY_GONE, f"{certificate_id}: {damage}")
        return record
    # With verify.on_refusal the link is switched to an identity that is not proved yet, and what failed
    # last may be something else than the refusal: where anything failed it is proved again.
    unproved = attempt.problem is not None
    if unproved or store.current_link() != certificate_id or not store.is_complete(certificate_id):
        return record
    _say(Found.LINK_SWITCHED, certificate_id)
    return activated(record, attempt, now)


def activated(record: Record, attempt: Attempt, now: datetime) -> Record:
    """The record of an identity that serves, with its line of history."""
    active = advance(attempt, Event.IDENTITY_ACTIVATED, now)
    claim = attempt.claim.fingerprint if attempt.claim else ""
    outcome = Outcome(now, claim, "active", attempt.certificate_id, attempt.thing_name, None)
    return record.with_attempt(replace(active, problem=None, failures=0, retry_at=None)).with_outcome(outcome)


def _mend(store: Store, attempt: Attempt, certificate_id: str) -> None:
    """Key and certificate are whole; the documents beside them can be made again."""
    if store.is_complete(certificate_id):
        return
    _say(Found.DOCUMENTS_GONE, certificate_id)
    store.complete(certificate_id, store.document(certificate_id) or identity_of(store, attempt))


def identity_of(
    store: Store, attempt: Attempt, configuration: object = None, registered_at: datetime | None = None
) -> dict[str, object]:
    """identity.json from what the attempt knows; what AWS said once and nobody kept is "unknown"."""
    from . import fleet
    from .documents import identity_document

    assert attempt.target is not None and attempt.certificate_id is not None
    target, certificate_id, thing = attempt.target, attempt.certificate_id, attempt.thing_name
    return identity_document(
        certificate_id=certificate_id,
        certificate=store.load_staged(certificate_id).certificate,
        endpoint=target.endpoint,
        port=target.ports[0],
        template=target.template,
        client_id=fleet.identity_client_id(target, thing, certificate_id),
        thing_name=thing,
        thing_name_known=attempt.thing_name_known,
        device_configuration=configuration if isinstance(configuration, dict) else None,
        registered_at=registered_at or attempt.stages[-1][1],
        replaces=attempt.replaces,
        replaced_thing=_thing_of(store, attempt.replaces),
    )


def _thing_of(store: Store, certificate_id: str | None) -> str | None:
    try:
        document = None if certificate_id is None else store.document(certificate_id)
    except OSError:
        return None  # a hint for a person; the new identity is not kept waiting for it
    name = None if document is None else document.get("thing_name")
    return name if isinstance(name, str) else None


def serve_again(store: Store, record: Record) -> None:
    """What the record says was proved last, against what `current` says, whatever was dropped since.

    Raises OSError: nothing is decided on what can't be read now, and may serve all the same.
    """
    proved = [o.certificate_id for o in record.history if o.result == "active"]
    certificate_id = proved[-1] if proved else None
    attempt = record.attempt
    if attempt is not None and attempt.state is State.ACTIVE:
        certificate_id = attempt.certificate_id
    if certificate_id is None:
        return
    if store.serving() is not None:
        return
    if store.is_complete(certificate_id):
        store.activate(certificate_id)
        _say(Found.LINK_GONE, certificate_id)
    elif attempt is not None and attempt.state in ENDED:
        _say(Found.ACTIVE_DAMAGED, certificate_id)


def _without_record(store: Store, record: Record, now: datetime) -> Record:
    """No attempt. An identity that nothing serves from is what is left when the record was lost."""
    if record.history:
        return record
    current = store.current_link()
    whole = [name for name in store.staged() if name != current and store.is_complete(name)]
    if current is not None:
        whole = [n for n in whole if (store.document(n) or {}).get("replaces_certificate_id") == current]
    if len(whole) > 1:
        _say(Found.SEVERAL_IDENTITIES, ", ".join(short(name) for name in whole))
    if len(whole) != 1:
        return record
    document = store.document(whole[0])
    if document is None:
        return record
    _say(Found.RECORD_GONE, whole[0])
    return record.with_attempt(replace(_attempt_of(whole[0], document, now), replaces=current))


def _attempt_of(certificate_id: str, document: Mapping[str, object], now: datetime) -> Attempt:
    """The attempt that wrote this identity.json, as far as it needs to be known to prove the identity."""
    name, port = document.get("thing_name"), document.get("port")
    target = Target(
        endpoint=str(document["endpoint"]),
        ports=(port,) if isinstance(port, int) else (8883,),
        template=str(document["template"]),
        parameters=(),
        claim_client_id="",
        identity_client_id=escape(str(document["client_id"])),
        ca_sha256="",
    )
    return Attempt(
        State.REGISTERED,
        now,
        target=target,
        certificate_id=certificate_id,
        thing_name=name if isinstance(name, str) else None,
        thing_name_known=bool(document.get("thing_name_known")),
        stages=((State.REGISTERED, now),),
    )


def _announce(store: Store) -> None:
    """The link was switched and `activated` not yet written."""
    try:
        current = store.serving()
    except OSError:
        return  # named by status; nothing is announced that is not whole, or that can't be read
    if current is not None:
        store.announce(current.certificate_id)
