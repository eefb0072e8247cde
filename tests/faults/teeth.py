"""The teeth of the replay: each promise of the order on disk taken away in turn.

Every fsync is left out, every rename moved ahead of the fsync before it, every two neighbouring steps
exchanged, every write moved behind the request that follows. Each change leads to a bad state, or it is
in REASONS with why the device comes to rest all the same. Invariant: a reason for a change that is
caught after all, or that nobody makes any more, is an error too: the table stays true.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from faults.judge import Finding, Kind
from faults.powercut import (
    Court,
    Trace,
    caught,
    record,
    with_each_pair_of_steps_swapped,
    with_each_rename_early,
    with_each_step_behind_the_next_request,
    without_each_sync,
)
from faults.scenarios import LOST_REGISTER, PLAIN
from faults.table import Row

CHANGES = (
    without_each_sync,
    with_each_rename_early,
    with_each_pair_of_steps_swapped,
    with_each_step_behind_the_next_request,
)

# By the change's label: why it is survived.
REASONS: dict[str, str] = {}


def bitten(traces: Iterable[Trace], court: Court) -> dict[str, str | None]:
    """By label: the first finding in any of the traces, or None."""
    found: dict[str, str | None] = {}
    for trace in traces:
        for change in CHANGES:
            for label, how in caught(trace, change(trace), court).items():
                found[label] = found.get(label) or how
    return found


def job(place: Path) -> list[Row]:
    """A point is a change; it is bad when it is neither caught nor explained, or explained and caught."""
    (place / "court").mkdir()
    traces = [record(s, place / str(n)) for n, s in enumerate((PLAIN, LOST_REGISTER))]
    found = bitten(traces, Court(place / "court"))
    row = Row("teeth: an fsync or an order taken away")
    for label, how in found.items():
        bad = []
        if how is None and label not in REASONS:
            bad.append(Finding(Kind.STUCK, "not caught, and no reason is written down"))
        row.add(label, bad, struck=int(how is not None))
    for label in REASONS.keys() - found.keys():
        row.add(label, [Finding(Kind.STUCK, "a reason for a change that nobody can make")], struck=0)
    return [row]
