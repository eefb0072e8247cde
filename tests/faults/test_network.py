"""A selection of what `make faults` does to the real SDK: killed at boundaries, cut at TLS records."""

from __future__ import annotations

from pathlib import Path

from faults import network


def test_killed_at_a_boundary_of_the_network(memory: Path) -> None:
    row = network.kills(memory, times=1, every=5)
    assert row.objections() == []
    assert row.struck == row.recovered == row.points >= 3


def test_cut_at_a_tls_record(memory: Path) -> None:
    """Coprime to the five ways and odd, so that all of them and both directions are among them."""
    row = network.cuts(memory, benches=3, every=27)
    assert row.objections() == []
    assert row.recovered == row.points >= 5
    assert row.struck >= row.points * network.MOSTLY
