"""What a failure of a step means for the attempt: blocked, tried again and when, or its key given up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from . import attempt as table
from . import blocked, lapse
from .attempt import Event, State
from .durable import disk_problem
from .errors import Code, Kind, Problem
from .logbook import Logbook
from .world import STALE_LOOK_SECONDS

# What another claim may well be spared: of this account, and made for this template.
TURNED_AWAY = frozenset({Code.CLAIM_NOT_ACCEPTED, Code.SUBSCRIBE_REFUSED, Code.PUBLISH_REFUSED})
# Named by what they are, and still passing by themselves.
_CURED_BY_ITSELF = frozenset({Code.IDENTITY_DAMAGED})


def failed(book: Logbook, why: Problem) -> None:
    attempt = book.record.attempt
    if attempt is None:
        return
    now = book.now()
    if lapse.is_key_used_up(book, attempt, why):
        lapse.let_token_lapse(book, attempt, why.code)
        attempt = book.record.attempt or attempt
    if why.code in TURNED_AWAY:
        attempt = table.turned_away(attempt, book.store.claim_names())
    if why.kind is Kind.BLOCKED and attempt.state is not State.REGISTERED:
        resume = State.CLAIMED if attempt.state is State.KEYS_REQUESTED else attempt.state
        stuck = table.advance(attempt, Event.BLOCKED, now)
        sha256 = book.sha256()
        stuck = replace(stuck, resume=resume, config_sha256=sha256, problem=why, retry_at=None)
        if blocked.is_looked_at_again(stuck):
            stuck = book.due_again(replace(stuck, failures=stuck.failures + 1))
        book.save(stuck)
        return
    if attempt.state is State.KEYS_REQUESTED:
        attempt = table.advance(attempt, Event.KEYS_REQUEST_FAILED, now)
    refused = why.code is Code.IDENTITY_REFUSED or lapse.counts_against_the_token(book, attempt, why)
    attempt = replace(
        attempt, failures=attempt.failures + 1, refusals=attempt.refusals + refused, problem=why
    )
    again = why.kind is Kind.RETRY or attempt.state is State.REGISTERED or why.code in _CURED_BY_ITSELF
    attempt = book.due_again(attempt) if again else replace(attempt, retry_at=None)
    book.save(replace(attempt, config_sha256=book.sha256()))


def disk_trouble(book: Logbook, error: OSError) -> Problem:
    """The disk failed in a step. What is on it decides at the next pass where the attempt goes on."""
    found = disk_problem(error, book.store.layout.state_directory)
    attempt = book.record.attempt
    if attempt is None:
        return found
    attempt = book.due_again(replace(attempt, failures=attempt.failures + 1, problem=found))
    try:
        book.save(attempt)
    except OSError:
        # The disk has its own opinion: said, not kept. Nor are the failures counted, so there is no first
        # and next delay: it is looked at as seldom as a disk that can't be read.
        again = book.now() + timedelta(seconds=STALE_LOOK_SECONDS)
        book.record, book.is_kept = book.record.with_attempt(replace(attempt, retry_at=again)), False
    return found
