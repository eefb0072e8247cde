"""The result directory: replaced whole, bounded, and never in the way."""

from __future__ import annotations

import os
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from claimd.answer import REMEMBERED
from claimd.durable import Disk
from claimd.result import KEPT, MAX_ANSWERS, ResultDirectory

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)
DONE = ["DONE", "", "words"]
JUNK = ["REFUSED", "", "words"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "result"


@pytest.fixture
def result(place: Path) -> ResultDirectory:
    return ResultDirectory(str(place), Disk())


def test_an_answer_and_the_latest(result: ResultDirectory, place: Path) -> None:
    result.write({"claim.json": ["DONE", "", "words"]}, ["DONE", "", "words"], NOW)
    text = "DONE\n\nwords\n\n2026-03-01 12:00:00 UTC\n"
    assert {path.name: path.read_text() for path in place.iterdir()} == {
        "claim.json.txt": text,
        "latest.txt": text,
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o640}


def test_what_says_the_same_is_not_written_again(result: ResultDirectory, place: Path) -> None:
    result.write({}, ["READY"], NOW)
    before = (place / "latest.txt").stat()
    result.write({}, ["READY"], NOW + timedelta(hours=1))
    assert (place / "latest.txt").stat().st_ino == before.st_ino
    result.write({}, ["NOT READY"], NOW + timedelta(hours=1))
    assert (place / "latest.txt").read_text().startswith("NOT READY\n")


def test_no_name_leaves_the_directory(result: ResultDirectory, place: Path) -> None:
    result.write({"../../evil": ["x"], "a/../../b": ["x"], os.fsdecode(b"\xff"): ["x"]}, None, NOW)
    assert len(list(place.iterdir())) == 3 and not list(place.parent.glob("*evil*"))


def test_old_ones_go(result: ResultDirectory, place: Path) -> None:
    now = datetime.now(timezone.utc)
    result.write({"old": ["x"], "new": ["x"]}, ["x"], now)
    long_ago = (now - KEPT - timedelta(minutes=1)).timestamp()
    for name in ("old.txt", "latest.txt"):
        os.utime(place / name, (long_ago, long_ago))
    result.age_out(now)
    assert sorted(os.listdir(place)) == ["latest.txt", "new.txt"]


def test_too_many_go_the_oldest_first(result: ResultDirectory, place: Path) -> None:
    place.mkdir()
    now = datetime.now(timezone.utc)
    for number in range(MAX_ANSWERS + 5):
        (place / f"{number}.txt").touch()
        os.utime(place / f"{number}.txt", (now.timestamp() - 1000 + number,) * 2)
    result.age_out(now)
    assert len(os.listdir(place)) == MAX_ANSWERS and not (place / "4.txt").exists()


def test_of_many_in_a_few_minutes_none_goes_before_it_could_be_read(
    result: ResultDirectory, place: Path
) -> None:
    now = datetime.now(timezone.utc)
    result.write({str(number): ["x"] for number in range(MAX_ANSWERS + 50)}, None, now)
    result.age_out(now)
    assert len(os.listdir(place)) == MAX_ANSWERS + 50
    result.age_out(now + REMEMBERED + timedelta(minutes=1))
    assert len(os.listdir(place)) == MAX_ANSWERS


@pytest.mark.parametrize(("word", "refuses"), [("REFUSED", True), ("WAITING", False), ("DONE", False)])
def test_what_latest_refuses_it_refuses_for_some_minutes(
    result: ResultDirectory, word: str, refuses: bool
) -> None:
    now = datetime.now(timezone.utc)
    assert not result.refuses(now)
    result.write({}, [word], now)
    assert result.refuses(now) is refuses
    assert not result.refuses(now + REMEMBERED + timedelta(minutes=1))


def test_what_a_crash_left_is_swept(place: Path) -> None:
    place.mkdir()
    (place / ".tmp-0123").touch()
    ResultDirectory(str(place), Disk()).write({}, ["READY"], NOW)
    assert os.listdir(place) == ["latest.txt"]


class TestTheAnswerToADrop:
    @pytest.mark.parametrize(("word", "remembered"), [("REFUSED", True), ("WAITING", True), ("READY", False)])
    def test_it_is_there_to_be_read(self, result: ResultDirectory, word: str, remembered: bool) -> None:
        now = datetime.now(timezone.utc)
        result.write({}, [word], now)
        assert result.tells_of_a_drop(now) is remembered
        assert not result.tells_of_a_drop(now + timedelta(minutes=11))

    def test_what_came_before_it_is_no_news(self, result: ResultDirectory, place: Path) -> None:
        result.write({"photo.jpg": JUNK}, JUNK, NOW)
        result.write({"claim.json": DONE}, DONE, NOW)
        changed = datetime.fromtimestamp((place / "latest.txt").stat().st_mtime, timezone.utc)
        later = changed + timedelta(seconds=60)
        assert not result.is_news("photo.jpg", 61, later), "it had its answer"
        assert result.is_news("photo.jpg", 59, later), "it came after the claim"
        assert not result.is_latest("photo.jpg") and result.is_latest("claim.json")

    def test_what_is_told_there_may_change(self, result: ResultDirectory) -> None:
        result.write({"photo.jpg": JUNK}, JUNK, NOW)
        assert result.is_latest("photo.jpg") and result.is_news("photo.jpg", 1e6, NOW)

    @pytest.mark.parametrize("word", ["READY", "NOT READY"])
    def test_any_drop_is_news_to_a_device_that_waits_for_one(
        self, result: ResultDirectory, word: str
    ) -> None:
        result.write({}, [word, "", "words"], NOW)
        assert result.is_news("photo.jpg", 1e6, NOW)

    def test_nothing_was_said_yet(self, result: ResultDirectory) -> None:
        assert not result.tells_of_a_drop(NOW)
