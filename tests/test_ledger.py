"""What the intake remembers survives a restart, and nothing damaged is believed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from claimd.ledger import MAX_SEEN, MAX_TAKEN, Ledger, Moment, Seen, Taken, decode, encode, place

ONE = Taken("f0" * 32, "a1" * 32, ("claim.json", "k\udcff"), "2026-03-01 12:05:00 UTC")


THEN = Moment(datetime(2026, 3, 1, 12, 1, tzinfo=timezone.utc), 40.0)
END = THEN.wall + timedelta(minutes=4)
IN_2031 = datetime(2031, 1, 1, tzinfo=timezone.utc)


def test_it_comes_back_as_it_was() -> None:
    timed = replace(ONE, fingerprint="f1" * 32, at=THEN)
    ledger = Ledger().with_taken(ONE).with_taken(timed).with_seen(12.5, [("a\nb", 7, 8)])
    assert decode(encode(ledger)) == ledger


def test_one_of_an_earlier_version_is_read() -> None:
    body = json.loads(encode(Ledger().with_taken(ONE)))
    body["taken"][0].pop()
    assert decode(json.dumps(body).encode()) == Ledger().with_taken(ONE)


@pytest.mark.parametrize(
    "at", [["2026-03-01T12:01:00", 1.0], ["2026-03-01T12:01:00+00:00", "inf"], [1], "no"]
)
def test_a_moment_that_is_none_is_not_believed(at: object) -> None:
    body = json.loads(encode(Ledger().with_taken(ONE)))
    body["taken"][0][-1] = at
    assert decode(json.dumps(body).encode()) == Ledger()


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


def test_whose_a_kept_claim_is_stays_known_however_many_come_after_it() -> None:
    kept = [str(number) for number in range(12)]
    ledger = Ledger()
    for number in kept:
        ledger = ledger.with_taken(Taken(number, "k", ("claim.json",), "", owner=1000), kept)
    for later in range(1000, 1000 + MAX_TAKEN * 3):
        ledger = ledger.with_taken(Taken(str(later), "k", (), "", owner=1000), kept)
    ledger = decode(encode(ledger))
    assert [t.fingerprint for t in ledger.taken if t.owner == 1000 and t.fingerprint in kept] == kept
    assert len(ledger.taken) == MAX_TAKEN + len(kept)
    assert ledger.with_taken(Taken("last", "k", (), ""), ()).taken[-1].fingerprint == "last"


def test_a_name_that_is_another_file_s_now_tells_of_no_claim() -> None:
    ledger = Ledger().with_taken(Taken("a", "k", ("cert.pem", "key.pem"), ""))
    assert ledger.without_names({"photo.jpg"}) is ledger
    assert [t.names for t in ledger.without_names({"key.pem"}).taken] == [("cert.pem",)]


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


class TestTimeFor:
    LEDGER = Ledger().with_taken(replace(ONE, at=THEN))

    def judged(self, wall: datetime, after_seconds: float) -> datetime:
        return self.LEDGER.time_for(ONE.fingerprint, END, Moment(wall, THEN.elapsed + after_seconds))

    def test_a_clock_that_jumped_ahead_gives_way_to_the_time_that_has_passed(self) -> None:
        assert self.judged(IN_2031, 90) == THEN.wall + timedelta(seconds=90)

    def test_and_the_claim_still_comes_to_its_end(self) -> None:
        assert self.judged(IN_2031, 240) == END

    def test_a_clock_that_may_be_right_is_believed(self) -> None:
        wall = END + timedelta(seconds=60)  # it was four minutes late when the claim came, and is right now
        assert self.judged(wall, 60) == wall

    def test_a_clock_that_was_set_back_is_believed(self) -> None:
        wall = datetime(1970, 1, 1, tzinfo=timezone.utc)
        assert self.judged(wall, 90) == wall

    def test_a_machine_that_started_since_has_not_run_backwards(self) -> None:
        assert self.judged(IN_2031, -30) == THEN.wall

    def test_of_a_claim_that_it_does_not_know_the_clock_decides(self) -> None:
        assert self.LEDGER.time_for("e0" * 32, END, Moment(IN_2031, 50)) == IN_2031
        assert Ledger().with_taken(ONE).time_for(ONE.fingerprint, END, Moment(IN_2031, 50)) == IN_2031
