"""A selection of what `make faults` does with the machine's own means: strace, a real ext4."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import conditions, ext4, straced


def test_killed_at_a_real_call_of_the_real_command(memory: Path) -> None:
    row = straced.sweep(memory, every=37)
    if row.note:
        pytest.skip(row.note)
    assert row.objections() == []
    assert row.struck == row.recovered == row.points >= 3


def test_a_power_cut_on_a_real_ext4() -> None:
    row = ext4.row_of_a_program(every=23)
    if row.note:
        pytest.skip(row.note)
    assert row.objections() == []
    assert row.struck == row.recovered == row.points >= 10


def test_a_name_that_is_not_found_for_a_while() -> None:
    """One of the bad networks; the others take their time."""
    rows = conditions.rows_of_a_program("DNS fails")
    if rows[0].note.startswith("skipped"):
        pytest.skip(rows[0].note)
    assert [row.objections() for row in rows] == [[]]
    assert rows[0].note.startswith("first pass: dns-failed")


@pytest.mark.parametrize("word", ["two addresses", conditions.WEB_ALONE])
def test_a_way_that_is_half_blocked(word: str) -> None:
    """Dead addresses, or a dead port: provisioned in the first pass all the same."""
    rows = conditions.rows_of_a_program(word)
    if rows[0].note.startswith("skipped"):
        pytest.skip(rows[0].note)
    assert [row.objections() for row in rows] == [[]] * len(rows)
    assert all(row.note.startswith("first pass: done") for row in rows)
