"""The one table of an attempt's states and events, and the record that is kept of it.

Invariant: every change of state is a row of TABLE; anything else raises and changes nothing.
Time comes in as an argument. Intents (KEYS_REQUESTED, REGISTERING) are recorded before they
are sent, facts (KEYS_STAGED, REGISTERED, ACTIVE) after they are synced to disk.

    CLAIMED -> KEYS_REQUESTED -> KEYS_STAGED -> REGISTERING -> REGISTERED -> ACTIVE
       BLOCKED (configuration or cloud can cure it), FAILED (never from REGISTERED on)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .errors import Code, Problem
    from .model import Claim, Target

SCHEMA = 1
HISTORY_LENGTH = 50

# The certificate ownership token lives one hour (AWS IoT developer guide, "Device provisioning MQTT API").
TOKEN_LIFE = timedelta(hours=1)


class State(str, Enum):
    CLAIMED = "claimed"
    KEYS_REQUESTED = "keys-requested"
    KEYS_STAGED = "keys-staged"
    REGISTERING = "registering"
    REGISTERED = "registered"
    ACTIVE = "active"
    BLOCKED = "blocked"
    FAILED = "failed"


class Event(str, Enum):
    KEYS_REQUEST_RECORDED = "keys-request-recorded"
    KEYS_REQUEST_FAILED = "keys-request-failed"
    KEYS_STAGED = "keys-staged"
    REGISTRATION_RECORDED = "registration-recorded"
    REGISTRATION_REJECTED = "registration-rejected"
    REGISTRATION_PROVED = "registration-proved"
    TOKEN_LAPSED = "token-lapsed"  # noqa: S105  the name of an event
    CLAIM_ADOPTED = "claim-adopted"
    CLAIM_LOST = "claim-lost"
    BLOCKED = "blocked"
    UNBLOCKED_AFRESH = "unblocked-afresh"
    UNBLOCKED_WITH_KEYS = "unblocked-with-keys"
    UNBLOCKED_IN_REGISTRATION = "unblocked-in-registration"
    IDENTITY_ACTIVATED = "identity-activated"


# fmt: off
TABLE: Mapping[tuple[State, Event], State] = MappingProxyType({
    (State.CLAIMED, Event.KEYS_REQUEST_RECORDED): State.KEYS_REQUESTED,
    (State.CLAIMED, Event.BLOCKED): State.BLOCKED,
    (State.CLAIMED, Event.CLAIM_ADOPTED): State.CLAIMED,
    (State.CLAIMED, Event.CLAIM_LOST): State.FAILED,
    # A lost answer leaves nothing lasting: AWS deletes a certificate that is never activated
    # (AWS IoT developer guide, CreateKeysAndCertificate MQTT API).
    (State.KEYS_REQUESTED, Event.KEYS_REQUEST_FAILED): State.CLAIMED,
    (State.KEYS_REQUESTED, Event.KEYS_STAGED): State.KEYS_STAGED,
    (State.KEYS_REQUESTED, Event.BLOCKED): State.BLOCKED,
    # From here on a key is on disk that AWS knows: the claim may die, the attempt goes on with the next.
    (State.KEYS_STAGED, Event.REGISTRATION_RECORDED): State.REGISTERING,
    (State.KEYS_STAGED, Event.CLAIM_ADOPTED): State.KEYS_STAGED,
    (State.KEYS_STAGED, Event.CLAIM_LOST): State.KEYS_STAGED,
    (State.KEYS_STAGED, Event.TOKEN_LAPSED): State.CLAIMED,
    (State.KEYS_STAGED, Event.BLOCKED): State.BLOCKED,
    (State.REGISTERING, Event.REGISTRATION_PROVED): State.REGISTERED,
    # /rejected says that this request registered nothing; the event is for attempts that sent no other.
    (State.REGISTERING, Event.REGISTRATION_REJECTED): State.KEYS_STAGED,
    (State.REGISTERING, Event.REGISTRATION_RECORDED): State.REGISTERING,
    (State.REGISTERING, Event.CLAIM_ADOPTED): State.REGISTERING,
    (State.REGISTERING, Event.CLAIM_LOST): State.REGISTERING,
    # The staged key stays on disk: an earlier request may have registered it.
    (State.REGISTERING, Event.TOKEN_LAPSED): State.CLAIMED,
    (State.REGISTERING, Event.BLOCKED): State.BLOCKED,
    # No failure and no deadline from here on.
    (State.REGISTERED, Event.IDENTITY_ACTIVATED): State.ACTIVE,
    (State.BLOCKED, Event.UNBLOCKED_AFRESH): State.CLAIMED,
    (State.BLOCKED, Event.UNBLOCKED_WITH_KEYS): State.KEYS_STAGED,
    (State.BLOCKED, Event.UNBLOCKED_IN_REGISTRATION): State.REGISTERING,
})
# fmt: on

# A finished attempt makes way for the next claim; the registered one is never given up.
ENDED = frozenset({State.ACTIVE, State.FAILED})
HOLDS_KEYS = frozenset({State.KEYS_STAGED, State.REGISTERING, State.REGISTERED})


class IllegalTransitionError(Exception):
    """A state and an event that TABLE does not know: a fault in the program."""


@dataclass(frozen=True)
class ClaimRecord:
    """What the record keeps of a claim: no key."""

    fingerprint: str
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(cls, claim: Claim) -> ClaimRecord:
        return cls(claim.fingerprint, claim.certificate.not_before, claim.certificate.not_after)


@dataclass(frozen=True)
class Attempt:
    """One try to turn claims into an identity.

    `ambiguous`: a RegisterThing request was sent whose answer is not known.
    `config_sha256`: of the configuration in force when it last failed or was blocked, empty when that was
    broken, None when not known; with another one it is tried at once.
    `retry_at`: no earlier than this, unless a person asks or the configuration changes.
    `replaces`: the certificate id that serves until this attempt is active.
    `refused`: fingerprints of claims that the endpoint turned away, the last one last.
    `failures`: in a row, of any kind; `refusals`: how often AWS turned the registered identity away, or
    before that the ownership token.
    """

    state: State
    started_at: datetime
    claim: ClaimRecord | None = None
    target: Target | None = None
    certificate_id: str | None = None
    token_received_at: datetime | None = None
    thing_name: str | None = None
    thing_name_known: bool = False
    ambiguous: bool = False
    replaces: str | None = None
    resume: State | None = None
    config_sha256: str | None = None
    failures: int = 0
    refusals: int = 0
    retry_at: datetime | None = None
    problem: Problem | None = None
    stages: tuple[tuple[State, datetime], ...] = ()
    refused: tuple[str, ...] = ()

    def token_usable(self, now: datetime) -> bool:
        received = self.token_received_at
        # A clock that jumped can't prove that the token is dead: then it is tried.
        return received is not None and now - received < TOKEN_LIFE


@dataclass(frozen=True)
class Outcome:
    """A line of history: how an attempt, or a claim without one, ended.

    "not-needed" without a code: a spare, another claim was used in its place.
    """

    at: datetime
    claim: str
    result: str  # "active", "failed", "not-needed"
    certificate_id: str | None
    thing_name: str | None
    code: Code | None

    @property
    def is_spare(self) -> bool:
        return self.result == "not-needed" and self.code is None


@dataclass(frozen=True)
class Record:
    """What attempt.json holds: the open attempt, if any, and the last outcomes."""

    attempt: Attempt | None = None
    history: tuple[Outcome, ...] = ()

    def with_attempt(self, attempt: Attempt | None) -> Record:
        return replace(self, attempt=attempt)

    def with_outcome(self, outcome: Outcome) -> Record:
        """Where there are too many, what names a certificate outlives what a worthless claim came to."""
        lines = (*self.history, outcome)
        if len(lines) > HISTORY_LENGTH:
            first = next((n for n, o in enumerate(lines) if o.certificate_id is None), 0)
            lines = lines[:first] + lines[first + 1 :]
        return replace(self, history=lines)


def begin(claim: ClaimRecord, now: datetime, replaces: str | None) -> Attempt:
    return Attempt(State.CLAIMED, now, claim=claim, replaces=replaces, stages=((State.CLAIMED, now),))


def preference(
    claim: ClaimRecord, refused: tuple[str, ...], now: datetime
) -> tuple[bool, bool, int, datetime]:
    """The greater, the rather a claim is used: alive, valid by this clock, not turned away or longest ago,
    living long. So nobody's worthless claim keeps an honest one from its turn, however long it lives."""
    turn = -1 - refused.index(claim.fingerprint) if claim.fingerprint in refused else 0
    return now < claim.not_after, now >= claim.not_before, turn, claim.not_after


def turned_away(attempt: Attempt, kept: Collection[str]) -> Attempt:
    """The endpoint does not want the attempt's claim: another one's turn comes before its next.

    `kept`: fingerprints of the claims on disk. None of these is forgotten, however many somebody invents:
    one that is would count as never tried, and come before the honest one behind it.
    """
    if attempt.claim is None:
        return attempt
    mine = attempt.claim.fingerprint
    refused = (*(each for each in attempt.refused if each != mine and each in kept), mine)
    return replace(attempt, refused=refused)


def advance(attempt: Attempt, event: Event, now: datetime) -> Attempt:
    """The attempt after `event`; its problem is cleared when it moved on. Raises IllegalTransitionError."""
    try:
        state = TABLE[attempt.state, event]
    except KeyError:
        raise IllegalTransitionError(f"{event.value} in state {attempt.state.value}") from None
    if state is attempt.state:
        return attempt
    return replace(attempt, state=state, stages=(*attempt.stages, (state, now)))


class Step(str, Enum):
    """What to do next: imperative."""

    REQUEST_KEYS = "request-keys"
    REGISTER = "register"
    PROBE = "probe"
    VERIFY = "verify"
    WAIT_FOR_CLAIM = "wait-for-claim"
    WAIT_FOR_CLOCK = "wait-for-clock"
    WAIT_FOR_CURE = "wait-for-cure"
    LOSE_CLAIM = "lose-claim"
    LET_TOKEN_LAPSE = "let-token-lapse"  # noqa: S105  the name of a step
    FINISH = "finish"


def next_step(attempt: Attempt, now: datetime, *, probed: bool = False) -> Step:
    """The one thing to do in this state at this time. Pure: the same arguments, the same step.

    `probed`: the staged certificate was tried in this pass and did not connect, which proves nothing.
    """
    if attempt.state in ENDED:
        return Step.FINISH
    if attempt.state is State.REGISTERED:
        return Step.VERIFY
    if attempt.claim is not None and now >= attempt.claim.not_after:
        return Step.LOSE_CLAIM
    if attempt.state is State.BLOCKED:
        return Step.WAIT_FOR_CURE
    if attempt.state is State.REGISTERING and attempt.ambiguous and not probed:
        return Step.PROBE
    if attempt.state in HOLDS_KEYS and not attempt.token_usable(now) and not _is_worth_keeping(attempt, now):
        return Step.LET_TOKEN_LAPSE
    if attempt.claim is None:
        return Step.WAIT_FOR_CLAIM
    if now < attempt.claim.not_before:
        return Step.WAIT_FOR_CLOCK
    return Step.REGISTER if attempt.state in HOLDS_KEYS else Step.REQUEST_KEYS


def _is_worth_keeping(attempt: Attempt, now: datetime) -> bool:
    """A key that AWS may have activated, and no claim that could get another now: it is tried again."""
    without = attempt.claim is None or now < attempt.claim.not_before
    return attempt.state is State.REGISTERING and attempt.ambiguous and without


# Delays after the n-th failure in a row, in seconds, before jitter; the last one repeats.
# Never under 1 s even with jitter: AWS takes one CONNECT a second from a client id (AWS IoT Core quotas).
#            elapsed:      1.5   4    9   19   39   69  then every 60 s
CLAIM_DELAYS_SECONDS = (1.5, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
# From REGISTERED on there is no hurry and no end: 1.5 s for a fresh certificate that AWS has not
# spread yet, then slowly, so that a thousand refused devices don't knock all day.
#            elapsed:      1.5  3.5  8.5 18.5 48.5 108  408  then every 30 min
VERIFY_DELAYS_SECONDS = (1.5, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
JITTER = 0.25
# Without a claim a certificate that may be active is tried every minute for about an hour, then as slowly as
# a registered one.
HASTY_FAILURES = 60


def delay_seconds(attempt: Attempt, random: float) -> float:
    """Seconds until the next try. `random` in [0, 1) spreads a fleet by plus or minus a quarter."""
    return _middle_delay(attempt) * (1 - JITTER + 2 * JITTER * random)


def _middle_delay(attempt: Attempt) -> float:
    table = VERIFY_DELAYS_SECONDS if attempt.state is State.REGISTERED else CLAIM_DELAYS_SECONDS
    if attempt.claim is None and attempt.failures > HASTY_FAILURES:
        table = VERIFY_DELAYS_SECONDS
    return table[min(max(attempt.failures - 1, 0), len(table) - 1)]


def due_in_seconds(attempt: Attempt, now: datetime) -> float:
    """Seconds until `retry_at`; 0 when due, or when the clock jumped so that the time makes no sense.

    More than this attempt's own delay is left only when the clock was set back: a claim of five minutes
    must not wait for it as long as a verification may.
    """
    if attempt.retry_at is None:
        return 0.0
    left = (attempt.retry_at - now).total_seconds()
    # A microsecond more, for the record keeps no smaller part of a time.
    longest = _middle_delay(attempt) * (1 + JITTER) + 1e-6
    return left if 0 < left <= longest else 0.0
