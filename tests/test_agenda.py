from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimd.agenda import (
    CRASH_DELAYS_SECONDS,
    HINT_DELAYS_SECONDS,
    QUIET_SECONDS,
    SHORTEST_RETURN_SECONDS,
    Agenda,
)


def passed(agenda: Agenda, now: float, after_seconds: float | None = None) -> None:
    """A pass that takes no time."""
    agenda.started(now)
    agenda.ended(now, after_seconds)


def test_nothing_is_due_of_itself() -> None:
    assert Agenda().due is None


def test_the_first_hint_is_due_at_once() -> None:
    agenda = Agenda()
    agenda.hint(7.0)
    assert agenda.due == 7.0


def test_a_started_pass_is_due_no_more() -> None:
    agenda = Agenda()
    agenda.hint(7.0)
    agenda.started(7.0)
    assert agenda.due is None


def test_a_hint_while_a_pass_works_is_kept() -> None:
    agenda = Agenda()
    agenda.started(0.0)
    agenda.hint(1.0)
    agenda.ended(2.0, None)
    assert agenda.due == 1.0


def test_hints_in_a_row_come_slower_and_slower() -> None:
    agenda, now, waited = Agenda(), 0.0, []
    for _ in range(8):
        agenda.hint(now)
        assert agenda.due is not None
        waited.append(agenda.due - now)
        now = agenda.due
        passed(agenda, now)
    # The very first of all follows none.
    assert waited == [0.0, *HINT_DELAYS_SECONDS, 5.0]


def test_after_quiet_hints_count_anew() -> None:
    agenda, now = Agenda(), 0.0
    for _ in range(8):
        agenda.hint(now)
        now = agenda.due or now
        passed(agenda, now)
    now += QUIET_SECONDS
    agenda.hint(now)
    assert agenda.due == now


def test_the_worker_names_the_next_pass() -> None:
    agenda = Agenda()
    passed(agenda, 10.0, 60.0)
    assert agenda.due == 70.0


def test_a_worker_that_wants_to_come_back_at_once_waits_a_moment() -> None:
    agenda = Agenda()
    passed(agenda, 10.0, 0.0)
    assert agenda.due == 10.0 + SHORTEST_RETURN_SECONDS


def test_a_hint_brings_a_pass_forward() -> None:
    agenda = Agenda()
    passed(agenda, 10.0, 60.0)
    agenda.hint(11.0)
    assert agenda.due == 11.0


def test_a_hint_never_puts_a_pass_off() -> None:
    agenda, now = Agenda(), 0.0
    for _ in range(8):
        agenda.hint(now)
        passed(agenda, now)
    agenda.ended(now, 1.0)
    agenda.hint(now)  # by itself due in 5 s
    assert agenda.due == now + 1.0


def test_crashes_in_a_row_come_slower_and_slower() -> None:
    agenda, now, waited = Agenda(), 0.0, []
    for count in range(1, 9):
        agenda.started(now)
        agenda.crashed(now)
        assert agenda.crashes_in_row == count
        assert agenda.due is not None
        waited.append(agenda.due - now)
        now = agenda.due
    assert waited == [*CRASH_DELAYS_SECONDS, 60.0, 60.0]


def test_a_pass_that_ends_well_ends_the_row() -> None:
    agenda = Agenda()
    agenda.crashed(0.0)
    agenda.ended(1.0, None)
    assert agenda.crashes_in_row == 0
    agenda.crashed(2.0)
    assert agenda.due == 2.0 + CRASH_DELAYS_SECONDS[0]


def test_returns_that_the_worker_named_are_no_hints() -> None:
    """A retry every second must not slow down the person who drops the next claim."""
    agenda, now = Agenda(), 0.0
    for _ in range(8):
        passed(agenda, now, 1.0)
        now += 1.0
    agenda.hint(now)
    assert agenda.due == now


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hint", "pass", "crash"]),
        st.floats(0, 100),
        st.none() | st.floats(0, 1000),
    )
)


@given(STEPS)
def test_a_reason_is_never_lost_and_never_far(steps: list[tuple[str, float, float | None]]) -> None:
    agenda, now = Agenda(), 0.0
    for what, elapsed, after in steps:
        now += elapsed
        if what == "hint":
            agenda.hint(now)
            assert agenda.due is not None
            assert agenda.due <= now + max(HINT_DELAYS_SECONDS)
        elif what == "pass":
            passed(agenda, now, after)
            assert (agenda.due is None) == (after is None)
        else:
            agenda.started(now)
            agenda.crashed(now)
            assert agenda.due is not None
            assert now < agenda.due <= now + max(CRASH_DELAYS_SECONDS)


@pytest.mark.parametrize("delays", [CRASH_DELAYS_SECONDS, HINT_DELAYS_SECONDS])
def test_the_tables_only_grow(delays: tuple[float, ...]) -> None:
    assert list(delays) == sorted(delays)


def test_a_hint_while_a_pass_works_is_not_put_off_by_a_pass_that_comes_back_late() -> None:
    agenda = Agenda()
    agenda.started(0.0)
    agenda.hint(1.0)
    agenda.ended(2.0, 3600.0)
    assert agenda.due == 1.0


def test_a_pass_that_comes_back_sooner_than_a_hint_is_due_then() -> None:
    agenda = Agenda()
    agenda.hint(100.0)
    agenda.ended(2.0, 1.0)
    assert agenda.due == 3.0
