from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimd import attempt as table
from claimd.attempt import (
    CLAIM_DELAYS_SECONDS,
    ENDED,
    HASTY_FAILURES,
    HISTORY_LENGTH,
    HOLDS_KEYS,
    JITTER,
    TABLE,
    TOKEN_LIFE,
    VERIFY_DELAYS_SECONDS,
    Attempt,
    ClaimRecord,
    Event,
    IllegalTransitionError,
    Outcome,
    Record,
    State,
    Step,
    advance,
    begin,
    delay_seconds,
    due_in_seconds,
    next_step,
    preference,
    turned_away,
)
from claimd.errors import Code, problem
from material import CLAIM_BACKDATED, CLAIM_LIFE, NOW, claim

SECOND = timedelta(seconds=1)
PAIRS = list(itertools.product(State, Event))


def attempt_in(state: State) -> Attempt:
    """An attempt with something in every field, so that a change shows."""
    return Attempt(
        state,
        NOW - SECOND,
        claim=ClaimRecord("f1" * 32, NOW, NOW + CLAIM_LIFE),
        certificate_id="c0" * 32,
        token_received_at=NOW,
        ambiguous=True,
        failures=2,
        retry_at=NOW + SECOND,
        problem=problem(Code.DNS_FAILED, endpoint="e"),
        stages=((State.CLAIMED, NOW - SECOND),),
    )


# -- the table


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair in TABLE])
def test_a_legal_event_moves_to_the_state_of_the_table(state: State, event: Event) -> None:
    before = attempt_in(state)
    after = advance(before, event, NOW)
    target = TABLE[state, event]
    if target is state:
        assert after == before
    else:
        assert after == replace(before, state=target, stages=(*before.stages, (target, NOW)))


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in TABLE])
def test_any_other_event_raises_and_changes_nothing(state: State, event: Event) -> None:
    before = attempt_in(state)
    kept = replace(before)
    with pytest.raises(IllegalTransitionError) as caught:
        advance(before, event, NOW)
    assert str(caught.value) == f"{event.value} in state {state.value}"
    assert before == kept


def test_the_table_can_not_be_changed() -> None:
    with pytest.raises(TypeError):
        TABLE[State.ACTIVE, Event.BLOCKED] = State.BLOCKED  # type: ignore[index]


def test_every_state_is_reached_and_every_event_used() -> None:
    assert {*TABLE.values(), State.CLAIMED} == set(State)
    assert {event for _, event in TABLE} == set(Event)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_an_ended_attempt_stays_ended(state: State) -> None:
    assert not [event for origin, event in TABLE if origin is state]


def reachable(start: State) -> set[State]:
    found = {start}
    while more := {end for (origin, _), end in TABLE.items() if origin in found} - found:
        found |= more
    return found


def test_from_registered_on_there_is_no_failure() -> None:
    assert reachable(State.REGISTERED) == {State.REGISTERED, State.ACTIVE}


@pytest.mark.parametrize("state", sorted(set(State) - ENDED))
def test_every_open_state_leads_to_an_identity(state: State) -> None:
    assert State.ACTIVE in reachable(state)


def test_a_claim_that_dies_ends_only_an_attempt_without_keys() -> None:
    losers = {origin for (origin, event), end in TABLE.items() if end is State.FAILED}
    assert losers == {State.CLAIMED}
    assert State.FAILED not in HOLDS_KEYS


def test_an_identity_is_activated_only_when_registered() -> None:
    assert [pair for pair, end in TABLE.items() if end is State.ACTIVE] == [
        (State.REGISTERED, Event.IDENTITY_ACTIVATED)
    ]


# -- values


def test_an_attempt_begins_with_its_claim() -> None:
    made = claim()
    begun = begin(ClaimRecord.of(made), NOW, "c1" * 32)
    assert begun == Attempt(
        State.CLAIMED,
        NOW,
        claim=ClaimRecord(made.fingerprint, NOW - CLAIM_BACKDATED, NOW + CLAIM_LIFE),
        replaces="c1" * 32,
        stages=((State.CLAIMED, NOW),),
    )


@pytest.mark.parametrize(
    ("age", "usable"),
    [
        (None, False),
        (timedelta(0), True),
        (TOKEN_LIFE - SECOND, True),
        (TOKEN_LIFE, False),
        (timedelta(days=9000), False),
        (timedelta(days=-9000), True),  # a clock set back: unknown, so it is tried
    ],
)
def test_a_token_is_usable_for_an_hour(age: timedelta | None, usable: bool) -> None:
    received = None if age is None else NOW - age
    assert replace(attempt_in(State.KEYS_STAGED), token_received_at=received).token_usable(NOW) is usable


def test_the_record_keeps_the_last_fifty_outcomes() -> None:
    record = Record()
    for number in range(HISTORY_LENGTH + 7):
        record = record.with_outcome(Outcome(NOW, str(number), "failed", None, None, None))
    assert [outcome.claim for outcome in record.history] == [str(n) for n in range(7, HISTORY_LENGTH + 7)]


def test_the_record_takes_and_gives_up_an_attempt() -> None:
    kept = attempt_in(State.CLAIMED)
    record = Record(history=(Outcome(NOW, "f", "failed", None, None, None),))
    assert record.with_attempt(kept).attempt is kept
    assert record.with_attempt(kept).with_attempt(None) == record


# -- the next step

NO_CLAIM, LIVE, EXPIRED, EARLY = range(4)
CLAIMS = {
    NO_CLAIM: None,
    LIVE: ClaimRecord("f1" * 32, NOW - SECOND, NOW + SECOND),
    EXPIRED: ClaimRecord("f1" * 32, NOW - CLAIM_LIFE, NOW),
    EARLY: ClaimRecord("f1" * 32, NOW + SECOND, NOW + CLAIM_LIFE),
}
WITHOUT_KEYS = (Step.WAIT_FOR_CLAIM, Step.REQUEST_KEYS, Step.LOSE_CLAIM, Step.WAIT_FOR_CLOCK)
WITH_KEYS = (Step.WAIT_FOR_CLAIM, Step.REGISTER, Step.LOSE_CLAIM, Step.WAIT_FOR_CLOCK)
LAPSED = (Step.LET_TOKEN_LAPSE, Step.LET_TOKEN_LAPSE, Step.LOSE_CLAIM, Step.LET_TOKEN_LAPSE)
UNKNOWN = (Step.PROBE, Step.PROBE, Step.LOSE_CLAIM, Step.PROBE)
CURE = (Step.WAIT_FOR_CURE, Step.WAIT_FOR_CURE, Step.LOSE_CLAIM, Step.WAIT_FOR_CURE)


def steps(state: State, token: bool, ambiguous: bool, probed: bool) -> tuple[Step, ...]:
    """What is right in this situation with: no claim, a live, an expired, an early one."""
    if state in (State.ACTIVE, State.FAILED):
        return (Step.FINISH,) * 4
    if state is State.REGISTERED:
        return (Step.VERIFY,) * 4
    if state is State.BLOCKED:
        return CURE
    if state in (State.CLAIMED, State.KEYS_REQUESTED):
        return WITHOUT_KEYS
    if state is State.REGISTERING and ambiguous and not probed:
        return UNKNOWN
    if state is State.REGISTERING and ambiguous and not token:
        # Without a claim, or with one for later, nothing is gained by giving up a key that may be active.
        return (Step.WAIT_FOR_CLAIM, Step.LET_TOKEN_LAPSE, Step.LOSE_CLAIM, Step.WAIT_FOR_CLOCK)
    return WITH_KEYS if token else LAPSED


BOTH = (False, True)


@pytest.mark.parametrize("probed", BOTH)
@pytest.mark.parametrize("ambiguous", BOTH)
@pytest.mark.parametrize("token", BOTH)
@pytest.mark.parametrize("which", CLAIMS)
@pytest.mark.parametrize("state", State)
def test_the_next_step(state: State, which: int, token: bool, ambiguous: bool, probed: bool) -> None:
    attempt = Attempt(
        state,
        NOW - CLAIM_LIFE,
        claim=CLAIMS[which],
        token_received_at=NOW if token else NOW - TOKEN_LIFE,
        ambiguous=ambiguous,
    )
    assert next_step(attempt, NOW, probed=probed) is steps(state, token, ambiguous, probed)[which]


@pytest.mark.parametrize("state", sorted(HOLDS_KEYS - {State.REGISTERED}))
def test_keys_without_any_token_can_not_be_registered(state: State) -> None:
    attempt = Attempt(state, NOW, claim=CLAIMS[LIVE], token_received_at=None)
    assert next_step(attempt, NOW) is Step.LET_TOKEN_LAPSE


@pytest.mark.parametrize(
    ("at", "step"),
    [
        (NOW - SECOND - timedelta(microseconds=1), Step.WAIT_FOR_CLOCK),
        (NOW - SECOND, Step.REQUEST_KEYS),
        (NOW + SECOND - timedelta(microseconds=1), Step.REQUEST_KEYS),
        (NOW + SECOND, Step.LOSE_CLAIM),
    ],
)
def test_a_claim_lives_from_its_first_instant_to_before_its_last(at: datetime, step: Step) -> None:
    assert next_step(Attempt(State.CLAIMED, NOW, claim=CLAIMS[LIVE]), at) is step


# The events that a step can lead to; a step whose event the table does not know would stop the device.
CONSEQUENCES = {
    Step.REQUEST_KEYS: {Event.KEYS_REQUEST_RECORDED, Event.BLOCKED},
    Step.REGISTER: {Event.REGISTRATION_RECORDED, Event.BLOCKED},
    Step.PROBE: {Event.REGISTRATION_PROVED, Event.BLOCKED},
    Step.VERIFY: {Event.IDENTITY_ACTIVATED},
    Step.LET_TOKEN_LAPSE: {Event.TOKEN_LAPSED},
    Step.LOSE_CLAIM: {Event.CLAIM_LOST},
}


@pytest.mark.parametrize(
    ("state", "which", "token", "ambiguous"), list(itertools.product(State, CLAIMS, BOTH, BOTH))
)
def test_every_step_leads_to_a_legal_event(state: State, which: int, token: bool, ambiguous: bool) -> None:
    if state in (State.KEYS_REQUESTED, State.BLOCKED):
        return  # left by settling and by unblocking, before a step is taken
    received = NOW if token else None
    attempt = Attempt(state, NOW, claim=CLAIMS[which], token_received_at=received, ambiguous=ambiguous)
    for event in CONSEQUENCES.get(next_step(attempt, NOW), set()):
        assert (state, event) in TABLE


# -- delays


@pytest.mark.parametrize("state", State)
def test_delays_follow_the_table_and_the_last_one_repeats(state: State) -> None:
    delays = VERIFY_DELAYS_SECONDS if state is State.REGISTERED else CLAIM_DELAYS_SECONDS
    shown = [delay_seconds(replace(attempt_in(state), failures=n), 0.5) for n in range(1, len(delays) + 4)]
    assert shown == [*delays, delays[-1], delays[-1], delays[-1]]


@pytest.mark.parametrize("state", sorted(HOLDS_KEYS))
def test_without_a_claim_an_hour_is_hasty_and_then_it_is_slow(state: State) -> None:
    """A certificate that may be active has no claim that would end: a device knocks for years."""
    alone = replace(attempt_in(state), claim=None)
    hasty, slow = (delay_seconds(replace(alone, failures=HASTY_FAILURES + n), 0.5) for n in (0, 1))
    assert slow == VERIFY_DELAYS_SECONDS[-1]
    if state is not State.REGISTERED:
        assert hasty == CLAIM_DELAYS_SECONDS[-1]
        claimed = replace(attempt_in(state), failures=HASTY_FAILURES + 1)
        assert delay_seconds(claimed, 0.5) == CLAIM_DELAYS_SECONDS[-1], "a claim ends the haste by itself"


def test_no_failure_waits_as_long_as_the_first() -> None:
    assert delay_seconds(replace(attempt_in(State.CLAIMED), failures=0), 0.5) == CLAIM_DELAYS_SECONDS[0]


@pytest.mark.parametrize("delays", [CLAIM_DELAYS_SECONDS, VERIFY_DELAYS_SECONDS])
def test_delays_only_grow(delays: tuple[float, ...]) -> None:
    assert list(delays) == sorted(delays)


@given(
    state=st.sampled_from(State),
    failures=st.integers(0, 10**6),
    random=st.floats(0, 1, exclude_max=True),
)
def test_jitter_spreads_by_a_quarter_and_never_below_a_second(
    state: State, failures: int, random: float
) -> None:
    attempt = replace(attempt_in(state), failures=failures)
    middle, delay = delay_seconds(attempt, 0.5), delay_seconds(attempt, random)
    assert middle * (1 - JITTER) <= delay < middle * (1 + JITTER) + 1e-9
    assert delay >= 1.0  # AWS takes one CONNECT a second from a client id


def test_jitter_uses_its_whole_width() -> None:
    attempt = replace(attempt_in(State.CLAIMED), failures=7)
    assert delay_seconds(attempt, 0.0) == 45.0
    assert delay_seconds(attempt, 0.999999) == pytest.approx(75.0, rel=1e-5)


# -- when it is due

LONGEST = VERIFY_DELAYS_SECONDS[-1] * (1 + JITTER)


@pytest.mark.parametrize(
    ("seconds", "due"),
    [
        (0.0, 0.0),
        (12.5, 12.5),
        (LONGEST, LONGEST),
        (LONGEST + 1, 0.0),  # the clock was set back: the time makes no sense any more
        (86400.0 * 365 * 20, 0.0),
        (-1.0, 0.0),
        (-86400.0 * 365 * 20, 0.0),  # the clock was set forward: long due
    ],
)
def test_due_in_seconds_survives_a_jumping_clock(seconds: float, due: float) -> None:
    last = len(VERIFY_DELAYS_SECONDS)
    attempt = replace(attempt_in(State.REGISTERED), retry_at=NOW + timedelta(seconds=seconds), failures=last)
    assert due_in_seconds(attempt, NOW) == due


def test_a_clock_set_back_by_minutes_does_not_keep_a_claim_waiting() -> None:
    attempt = replace(attempt_in(State.CLAIMED), failures=1, retry_at=NOW + timedelta(seconds=1.5))
    assert due_in_seconds(attempt, NOW) == 1.5
    assert due_in_seconds(attempt, NOW - timedelta(minutes=10)) == 0.0


def test_without_a_time_it_is_due() -> None:
    assert due_in_seconds(replace(attempt_in(State.CLAIMED), retry_at=None), NOW) == 0.0


@given(state=st.sampled_from(State), failures=st.integers(1, 20), random=st.floats(0, 1, exclude_max=True))
def test_every_delay_that_is_given_is_also_kept(state: State, failures: int, random: float) -> None:
    attempt = replace(attempt_in(state), failures=failures)
    delay = delay_seconds(attempt, random)
    waiting = replace(attempt, retry_at=NOW + timedelta(seconds=delay))
    assert due_in_seconds(waiting, NOW) == pytest.approx(delay, abs=1e-5)


def test_the_schema_is_the_one_that_is_documented() -> None:
    assert table.SCHEMA == 1


class TestWhichClaim:
    ALIVE = ClaimRecord("a1" * 32, NOW - timedelta(minutes=2), NOW + timedelta(minutes=5))
    LONGER = ClaimRecord("b2" * 32, NOW - timedelta(minutes=2), NOW + timedelta(hours=20))
    LATER = ClaimRecord("c3" * 32, NOW + timedelta(hours=1), NOW + timedelta(hours=20))
    DEAD = ClaimRecord("d4" * 32, NOW - timedelta(hours=2), NOW - timedelta(hours=1))

    def best(self, *refused: ClaimRecord) -> ClaimRecord:
        names = tuple(claim.fingerprint for claim in refused)
        every = (self.ALIVE, self.LONGER, self.LATER, self.DEAD)
        return max(every, key=lambda claim: preference(claim, names, NOW))

    def test_the_longest_lived(self) -> None:
        assert self.best() is self.LONGER

    def test_not_one_that_was_turned_away(self) -> None:
        assert self.best(self.LONGER) is self.ALIVE

    def test_in_turn_when_all_were(self) -> None:
        assert self.best(self.LONGER, self.ALIVE) is self.LONGER
        assert self.best(self.ALIVE, self.LONGER) is self.ALIVE

    def test_turned_away_goes_to_the_end(self) -> None:
        attempt = Attempt(State.CLAIMED, NOW, claim=self.ALIVE, refused=("a1" * 32, "b2" * 32))
        assert turned_away(attempt, {"a1" * 32, "b2" * 32}).refused == ("b2" * 32, "a1" * 32)

    def test_of_a_flood_each_that_is_kept_is_remembered(self) -> None:
        names = tuple(map(str, range(100)))
        attempt = Attempt(State.CLAIMED, NOW, claim=self.ALIVE, refused=names)
        assert turned_away(attempt, names).refused == (*names, "a1" * 32)
        assert turned_away(attempt, ()).refused == ("a1" * 32,), "and no other"


def test_without_a_claim_nothing_is_turned_away() -> None:
    lost = replace(table.begin(ClaimRecord.of(claim()), NOW, None), claim=None)
    assert table.turned_away(lost, ()) == lost


def test_what_names_a_certificate_outlives_what_worthless_claims_came_to() -> None:
    named = Outcome(NOW, "", "failed", "c0" * 32, None, Code.TOKEN_INVALID)
    record = Record().with_outcome(named)
    for number in range(HISTORY_LENGTH * 2):
        record = record.with_outcome(Outcome(NOW, f"{number:064x}", "failed", None, None, Code.CLAIM_EXPIRED))
    assert len(record.history) == HISTORY_LENGTH
    assert record.history[0] == named and record.history[-1].claim == f"{HISTORY_LENGTH * 2 - 1:064x}"
    for _ in range(HISTORY_LENGTH):
        record = record.with_outcome(named)
    assert record.history == (named,) * HISTORY_LENGTH
    worthless = Outcome(NOW, "f1" * 32, "failed", None, None, Code.CLAIM_EXPIRED)
    assert record.with_outcome(worthless) == record
