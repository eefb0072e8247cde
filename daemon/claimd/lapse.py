"""How an attempt parts with a key: its token is dead, the disk lost it, or it belongs to no request any more.

Invariant: a key that AWS may have activated stays on disk, and the history names its certificate.
"""

from __future__ import annotations

from dataclasses import replace

from . import attempt as table
from .attempt import Attempt, Event, Outcome, State
from .errors import Code, Kind, Problem
from .logbook import Logbook
from .recovery import without_key

# So often a token may be called invalid before it is given up: each time the certificate is tried first,
# and one that was registered a moment ago may be refused for some seconds.
_TOKEN_REFUSALS = 3


def let_token_lapse(book: Logbook, attempt: Attempt, why: Code = Code.TOKEN_INVALID) -> None:
    set_key_aside(book, attempt)
    now, record = book.now(), book.record
    if attempt.ambiguous:
        # Nothing tries it any more: a person can, and finds here which one it is. No claim's end.
        record = record.with_outcome(Outcome(now, "", "failed", attempt.certificate_id, None, why))
    moved = without_key(table.advance(attempt, Event.TOKEN_LAPSED, now))
    if moved.claim is None and moved.problem is not None and moved.problem.kind is Kind.RETRY:
        moved = replace(moved, problem=None)  # without a claim nothing is tried again
    book.keep(record.with_attempt(moved))


def set_key_aside(book: Logbook, attempt: Attempt) -> None:
    """No RegisterThing can use it any more. It stays, unless AWS provably never activated it."""
    if attempt.certificate_id is None:
        return
    if attempt.ambiguous:
        book.store.forget_token(attempt.certificate_id)
    else:
        book.store.discard_staged(attempt.certificate_id)


def is_key_lost(book: Logbook, attempt: Attempt) -> bool:
    """The disk lost the key of a registered identity: nothing but a new claim helps this device."""
    try:
        return attempt.certificate_id is None or book.store.staged_damage(attempt.certificate_id) is not None
    except OSError:
        return False  # a disk that has trouble may get well; the key is not given up for that


def give_up_lost(book: Logbook, attempt: Attempt) -> None:
    """Make way for the new claim. The folder stays, and history names the certificate."""
    claim = attempt.claim.fingerprint if attempt.claim else ""
    lost = Outcome(
        book.now(),
        claim,
        "failed",
        attempt.certificate_id,
        attempt.thing_name,
        Code.IDENTITY_DAMAGED,
    )
    book.keep(book.record.with_attempt(None).with_outcome(lost))


def is_key_used_up(book: Logbook, attempt: Attempt, why: Problem) -> bool:
    """A staged key that can't be registered any more: its token is dead, or the disk lost it."""
    if attempt.state not in (State.KEYS_STAGED, State.REGISTERING):
        return False
    if why.code is Code.IDENTITY_DAMAGED:
        return True
    return attempt.refusals + 1 >= _TOKEN_REFUSALS and counts_against_the_token(book, attempt, why)


def counts_against_the_token(book: Logbook, attempt: Attempt, why: Problem) -> bool:
    """Who asks again and again by hand leaves AWS no time to spread a fresh certificate."""
    return why.code is Code.TOKEN_INVALID and table.due_in_seconds(attempt, book.now()) <= 0
