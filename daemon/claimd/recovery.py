"""What an interrupted pass can leave behind, case by case, and how each goes on.

`settle` runs under the lock before anything else, and compares the record with the disk. A crash
can come between any two durable writes; each combination that leaves behind has its line here.
Invariant: nothing is regenerated silently and no key that AWS may have activated is removed.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from .attempt import Attempt, Event, Record, State, advance
from .errors import ClaimdError

if TYPE_CHECKING:
    from datetime import datetime

    from .store import Store

log = logging.getLogger(__name__)


def settle(store: Store, record: Record, now: datetime) -> Record:
    """The record after every finished write was taken into account, saved when it changed."""
    attempt = record.attempt
    if attempt is None:
        _announce(store)
        return record
    settled = _settled(store, attempt, now)
    if settled is not attempt:
        record = record.with_attempt(settled)
        store.save_record(record)
    _announce(store)
    return record


def _settled(store: Store, attempt: Attempt, now: datetime) -> Attempt:
    if attempt.state is State.KEYS_REQUESTED:
        return _keys_requested(store, attempt, now)
    if attempt.state is State.REGISTERING:
        return _registering(store, attempt, now)
    # CLAIMED, BLOCKED, FAILED: nothing was sent. KEYS_STAGED: the key is on disk, the token in its folder.
    # REGISTERED: verified again. ACTIVE: the link was switched before the record was written.
    return attempt


def _keys_requested(store: Store, attempt: Attempt, now: datetime) -> Attempt:
    """The answer to CreateKeys was stored and the record not yet written, or there was no answer."""
    for certificate_id in store.staged_with_token():
        log.info("a key that was stored before the interruption is used: %s", certificate_id)
        staged = advance(attempt, Event.KEYS_STAGED, now)
        # The record's own time of the request: no later than the token's.
        return replace(staged, certificate_id=certificate_id, token_received_at=attempt.stages[-1][1])
    log.info("the request for a certificate was interrupted: it is asked for again")
    return advance(attempt, Event.KEYS_REQUEST_FAILED, now)


def _registering(store: Store, attempt: Attempt, now: datetime) -> Attempt:
    """RegisterThing was accepted and its documents (partly) written, or the answer is unknown."""
    certificate_id = attempt.certificate_id
    if certificate_id is None:
        return attempt
    document = store.document(certificate_id)
    if document is None:
        return attempt
    if store.is_complete(certificate_id):
        store.forget_token(certificate_id)  # the last thing that `complete` does
    else:
        store.complete(certificate_id, document)
    log.info("the registration was stored before the interruption: %s", certificate_id)
    name = document.get("thing_name")
    return replace(
        advance(attempt, Event.REGISTRATION_PROVED, now),
        thing_name=name if isinstance(name, str) else None,
        thing_name_known=bool(document.get("thing_name_known")),
        ambiguous=False,
        failures=0,
        problem=None,
        retry_at=None,
    )


def _announce(store: Store) -> None:
    """The link was switched and `activated` not yet written."""
    try:
        current = store.current()
    except ClaimdError:
        return  # named by status; nothing is announced that is not whole
    if current is not None:
        store.announce(current.certificate_id)
