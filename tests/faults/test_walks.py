"""Some walks, and what they find in a claimd that is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from claimd.durable import Disk
from claimd.store import Store
from faults import mutants, walks
from faults.calls import Counting
from faults.judge import Kind
from faults.rig import Rig
from faults.table import Row
from material import pair

# `make faults` goes many more.
SEEDS = range(1, 7)


def test_every_walk_comes_to_rest_with_nothing_lost(memory: Path) -> None:
    row = Row("walks")
    for seed in SEEDS:
        walk = walks.one(memory / str(seed), seed, row)
        assert len(walk.said) == walks.ACTS or row.bad
    assert row.objections() == []
    assert row.struck > len(SEEDS)


def test_the_strikes_reach_all_of_a_pass(memory: Path) -> None:
    counting = Counting()
    Rig.new(memory).one_pass(counting, counting.boundary)
    assert 200 < len(counting.names) <= max(walks.FARTHEST_CALLS)


@pytest.mark.parametrize(
    ("kind", "disk", "keeper"),
    [
        (Kind.LOST, Disk, mutants.LateStore),
        (Kind.LEAKED, mutants.ChmodLaterDisk, Store),
        (Kind.WASTED, Disk, mutants.WastefulStore),
    ],
)
def test_the_same_walks_through_a_broken_claimd_are_red(
    memory: Path, kind: Kind, disk: Callable[..., Disk], keeper: type[Store]
) -> None:
    row = Row("broken")
    for seed in range(1, 100):
        place = memory / str(seed)
        walks.one(place, seed, row, replace(Rig.new(place, (pair(),)), disk=disk, keeper=keeper))
        if row.found[kind]:
            return
    raise AssertionError(f"not caught: {row.found}")
