from __future__ import annotations

import json
import os
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from claimd import verdict
from claimd.model import Layout
from claimd.supervision import Supervision, holder, take_lock, utc

PROBLEM = {"code": "x-y", "message": "it is so", "remedy": "do it"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "run/claimd").mkdir(parents=True)
    return Layout(str(tmp_path))


def document(layout: Layout) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(layout.supervisor_file).read_text())
    return found


class TestTheLock:
    def test_one_at_a_time(self, layout: Layout) -> None:
        first = take_lock(layout)
        assert first is not None
        assert take_lock(layout) is None
        os.close(first)
        again = take_lock(layout)
        assert again is not None
        os.close(again)

    def test_its_directory_is_made(self, tmp_path: Path) -> None:
        """/run is empty after every boot."""
        layout = Layout(str(tmp_path))
        lock = take_lock(layout)
        assert lock is not None
        os.close(lock)
        assert stat.S_IMODE((tmp_path / "run/claimd").stat().st_mode) & 0o022 == 0

    def test_a_file_in_the_place_of_the_directory(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run/claimd").touch()
        with pytest.raises(OSError):
            take_lock(Layout(str(tmp_path)))

    def test_who_holds_it(self, layout: Layout) -> None:
        Supervision(layout).publish()
        assert holder(layout) == str(os.getpid())

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": "x"}', '{"pid": null}', "\xff"])
    def test_a_file_that_does_not_tell(self, layout: Layout, text: str) -> None:
        Path(layout.supervisor_file).write_text(text, encoding="latin-1")
        assert holder(layout) == "unknown"


class TestTheFile:
    def test_for_everybody_to_read(self, layout: Layout) -> None:
        Supervision(layout).publish()
        assert stat.S_IMODE(os.stat(layout.supervisor_file).st_mode) == 0o644
        assert document(layout)["pid"] == os.getpid()

    def test_written_when_something_changed(self, layout: Layout) -> None:
        supervision = Supervision(layout)
        supervision.publish()
        first = os.stat(layout.supervisor_file).st_ino
        supervision.publish()
        assert os.stat(layout.supervisor_file).st_ino == first
        supervision.pass_began(4711)
        supervision.publish()
        assert document(layout)["worker"]["pid"] == 4711
        assert document(layout)["state"] == "running"

    def test_a_pass_s_beginning_is_told_from_what_came_in_the_same_second(self, layout: Layout) -> None:
        supervision = Supervision(layout)
        before = datetime.now(timezone.utc)
        supervision.pass_began(4711)
        supervision.publish()
        began = datetime.fromisoformat(document(layout)["worker"]["started_at"])
        assert before - timedelta(microseconds=1) <= began <= datetime.now(timezone.utc)

    def test_a_place_that_takes_no_file(
        self, tmp_path: Path, layout: Layout, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The service goes on, says so once, and writes as soon as it can."""
        supervision = Supervision(layout)
        (tmp_path / "run/claimd").rmdir()
        supervision.publish()
        supervision.publish()
        assert len(caplog.records) == 1
        assert "claimd status will not show the service" in caplog.text
        (tmp_path / "run/claimd").mkdir()
        supervision.publish()
        assert document(layout)["state"] == "watching"


class TestTheWords:
    def test_at_rest(self, layout: Layout) -> None:
        assert Supervision(layout).words() == f"watching {layout.drop_directory}"

    def test_at_work(self, layout: Layout) -> None:
        supervision = Supervision(layout)
        supervision.pass_began(1)
        assert supervision.words() == "a pass is running; details: claimd status"

    def test_stopping(self, layout: Layout) -> None:
        supervision = Supervision(layout)
        supervision.pass_began(1)
        supervision.stopping()
        assert supervision.words() == "stopping"

    def test_everything_that_is_wrong(self, layout: Layout) -> None:
        supervision = Supervision(layout)
        supervision.configured(verdict.Configuration(problem=PROBLEM))
        supervision.pass_ended(verdict.timed_out(5), 70, 1)
        supervision.next_pass(0.0)
        supervision.watching("no inotify")
        supervision.publish()
        assert supervision.words() == (
            f"watching {layout.drop_directory}; it is so; the pass did not end within 5 s and was stopped;"
            f" next pass at {document(layout)['next_pass_at']}; no inotify; looking every few seconds instead"
        )

    def test_all_well_again(self, layout: Layout) -> None:
        supervision = Supervision(layout)
        supervision.watching("no inotify")
        supervision.watching(None)
        supervision.next_pass(5.0)
        supervision.next_pass(None)
        supervision.pass_ended(verdict.Verdict("active", None, None, failed=False), 0, 0)
        assert supervision.words() == f"watching {layout.drop_directory}"


def test_a_time_is_utc_and_says_so() -> None:
    assert utc(0.9) == "1970-01-01T00:00:00+00:00"
