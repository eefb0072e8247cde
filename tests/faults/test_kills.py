"""A selection of the fork-and-kill sweep, and what it finds in a claimd that is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from claimd.durable import Disk
from claimd.store import Store
from faults import mutants
from faults.judge import Kind
from faults.kills import sweep
from faults.scenarios import ALL, PLAIN, Scenario
from faults.table import Row

# One point of so many; `make faults` takes all.
SELECTION = 61


@pytest.mark.parametrize("scenario", ALL, ids=lambda s: s.name)
def test_nothing_is_lost(scenario: Scenario, memory: Path) -> None:
    row = sweep(scenario, memory, seeds=(1,), every=SELECTION)
    assert row.objections() == []
    assert row.struck >= row.points > 4
    assert row.recovered == row.points


def broken(memory: Path, every: int, *, disk: Callable[..., Disk] = Disk, keeper: type[Store] = Store) -> Row:
    rig = replace(PLAIN.make(memory / "start"), disk=disk, keeper=keeper)
    return sweep(PLAIN, memory, seeds=(1,), every=every, change=rig)


class TestTheTeeth:
    """The same sweep over a broken claimd is red."""

    def test_the_key_is_stored_behind_the_registration(self, memory: Path) -> None:
        row = broken(memory, 13, keeper=mutants.LateStore)
        assert row.found[Kind.LOST] > 0
        assert row.objections()

    def test_a_file_is_overwritten_in_place(self, memory: Path) -> None:
        row = broken(memory, 17, disk=mutants.InPlaceDisk)
        assert row.found[Kind.HALF] > 0

    def test_a_key_gets_its_mode_after_its_contents(self, memory: Path) -> None:
        row = broken(memory, 17, disk=mutants.ChmodLaterDisk)
        assert row.found[Kind.LEAKED] > 0

    def test_a_harness_that_kills_nothing_is_no_pass(self) -> None:
        assert Row("nothing").objections() == ["nothing: nothing was struck, so nothing is proved"]
