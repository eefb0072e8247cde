"""What the intake remembers survives a restart, and nothing damaged is believed."""

from __future__ import annotations

import json

import pytest

from claimd.ledger import MAX_SEEN, MAX_TAKEN, Ledger, Seen, Taken, decode, encode, place

ONE = Taken("f0" * 32, "a1" * 32, ("claim.json", "k\udcff"), "2026-03-01 12:05:00 UTC")


def test_it_comes_back_as_it_was() -> None:
    ledger = Ledger().with_taken(ONE).with_seen(12.5, [("a\nb", 7, 8)])
    assert decode(encode(ledger)) == ledger


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"schema": 2}', b'{"schema": 1}', b"\xff", b'{"schema":1,"taken":[[1]],"seen":{}}'],
)
def test_a_damaged_one_is_empty(text: bytes) -> None:
    assert decode(text) == Ledger()


def test_the_numbers_are_bounded() -> None:
    ledger = Ledger()
    for number in range(MAX_TAKEN + 10):
        ledger = ledger.with_taken(Taken(str(number), "k", (), ""))
    assert len(ledger.taken) == MAX_TAKEN and ledger.taken[-1].fingerprint == str(MAX_TAKEN + 9)
    ledger = ledger.with_seen(0, [(str(number), 1, 1) for number in range(MAX_SEEN + 10)])
    assert len(ledger.seen) == MAX_SEEN
    assert len(json.loads(encode(ledger))["seen"]) == MAX_SEEN


def test_whatever_the_names_it_stays_small() -> None:
    worst = "\udcff" * 511
    ledger = Ledger().with_seen(0, [(f"{worst}{number}", 2**63, 2**63) for number in range(MAX_SEEN)])
    for number in range(MAX_TAKEN):
        ledger = ledger.with_taken(Taken(f"{number:064}", "a1" * 32, (worst,) * 300, "2026"))
    assert len(encode(ledger)) < 1024 * 1024


class TestSince:
    def test_a_file_keeps_its_first_time_until_it_changes(self) -> None:
        ledger = Ledger().with_seen(1, [("a", 7, 8)]).with_seen(5, [("a", 7, 8)])
        assert ledger.seen[place("a")] == Seen(7, 8, 1)
        assert ledger.with_seen(9, [("a", 7, 9)]).seen[place("a")] == Seen(7, 9, 9)

    def test_a_time_of_another_boot_does_not_count(self) -> None:
        ledger = Ledger().with_seen(5000, [("a", 7, 8)])
        assert ledger.with_seen(3, [("a", 7, 8)]).seen[place("a")].at == 3

    def test_what_is_gone_is_forgotten(self) -> None:
        ledger = Ledger().with_seen(1, [("a", 7, 8)])
        assert not ledger.with_seen(2, []).seen
        assert ledger.with_seen(2, [], all_of_them=False).seen
