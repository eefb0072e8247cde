"""A selection of the errno sweep, and every jump of the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import clocks, errnos
from faults.scenarios import LOST_REGISTER, PLAIN, Scenario

# One point of so many; `make faults` takes all.
SELECTION = 53


@pytest.mark.parametrize("persistent", [False, True], ids=["once", "lasting"])
def test_a_disk_that_fails_costs_nothing(persistent: bool, memory: Path) -> None:
    row = errnos.sweep(PLAIN, memory, persistent=persistent, every=SELECTION)
    assert row.objections() == []
    assert row.struck == row.recovered == row.points > 20


def test_a_clock_that_is_wrong_at_the_start(memory: Path) -> None:
    row = clocks.starts_wrong(memory)
    assert row.objections() == []
    assert row.recovered == row.points == 2


@pytest.mark.parametrize("scenario", [PLAIN, LOST_REGISTER], ids=lambda s: s.name)
def test_a_clock_that_jumps_at_any_boundary(scenario: Scenario, memory: Path) -> None:
    row = clocks.jumps(scenario, memory)
    assert row.objections() == []
    assert row.recovered == row.points > 20
