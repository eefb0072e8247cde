"""What the watcher compares, and when its watch is whole. Events themselves: integration/test_watcher.py."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claimd.watch import MAX_ENTRIES, Place, Watch, entries, files
from device import wait_for


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    made = tmp_path / "drop"
    made.mkdir()
    return made


def new_file(drop: Path) -> None:
    (drop / "b").write_text("x")


def grown(drop: Path) -> None:
    with (drop / "a").open("a") as file:
        file.write("more")


def replaced(drop: Path) -> None:
    (drop / "c").write_text("a file")
    (drop / "c").replace(drop / "a")


def mode_changed(drop: Path) -> None:
    """A file that could not be read may be readable now."""
    (drop / "a").chmod(0o600)


def directory_replaced(drop: Path) -> None:
    drop.rename(drop.with_name("old"))
    drop.mkdir()
    os.link(drop.with_name("old") / "a", drop / "a")


class TestEntries:
    @pytest.mark.parametrize("happen", [new_file, grown, replaced, mode_changed, directory_replaced])
    def test_what_comes_or_changes_is_news(self, drop: Path, happen: Callable[[Path], None]) -> None:
        (drop / "a").write_text("a file")
        before = entries(str(drop))
        # The kernel's time of a change has the grain of a tick: 4 ms at 250 Hz.
        threading.Event().wait(0.02)
        happen(drop)
        assert entries(str(drop)) - before

    def test_what_stays_or_goes_is_none(self, drop: Path) -> None:
        (drop / "a").write_text("a file")
        (drop / "b").write_text("a file")
        before = entries(str(drop))
        assert not entries(str(drop)) - before
        (drop / "a").unlink()
        assert not entries(str(drop)) - before

    def test_a_directory_that_comes_back_is_news(self, drop: Path) -> None:
        drop.rename(drop.with_name("away"))
        before = entries(str(drop))
        drop.with_name("away").rename(drop)
        assert entries(str(drop)) - before

    def test_in_a_flood_the_directory_s_own_times_tell(self, drop: Path) -> None:
        for number in range(MAX_ENTRIES + 5):
            (drop / str(number)).touch()
        before = entries(str(drop))
        assert len(before) == MAX_ENTRIES + 2, "its own two lines"
        threading.Event().wait(0.02)
        (drop / "one more").touch()
        assert entries(str(drop)) - before

    def test_a_link_is_not_followed_where_strangers_write(self, drop: Path) -> None:
        target = drop.with_name("target")
        target.write_text("x")
        (drop / "link").symlink_to(target)
        before, followed = entries(str(drop)), entries(str(drop), follow=True)
        threading.Event().wait(0.02)
        target.write_text("longer")
        assert entries(str(drop)) == before
        assert entries(str(drop), follow=True) - followed

    def test_a_fifo_is_looked_at_and_not_opened(self, drop: Path) -> None:
        os.mkfifo(drop / "pipe")
        assert {name for name, *_ in entries(str(drop))} == {".", "pipe"}


class TestFiles:
    def test_one_that_comes_changes_and_goes(self, tmp_path: Path) -> None:
        path = tmp_path / "claimd.toml"
        seen = [files(str(path))]
        path.write_text("a")
        seen.append(files(str(path)))
        path.write_text("ab")
        seen.append(files(str(path)))
        path.unlink()
        assert files(str(path)) == seen[0]
        assert len(set(seen)) == 3


class Rung:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def rung() -> Rung:
    return Rung()


@pytest.fixture
def watch(drop: Path, rung: Rung) -> Iterator[Watch]:
    made = Watch((Place(str(drop)), Place(str(drop.parent), contents=False)), rung)
    hook = threading.excepthook
    yield made
    made.close()
    threading.excepthook = hook


def problem(watch: Watch) -> str | None:
    """Read afresh: mypy takes an attribute for what it last was."""
    return watch.problem


class TestWatch:
    def test_a_hint_is_taken_once(self, watch: Watch, drop: Path) -> None:
        watch.renew(thorough=True)
        assert problem(watch) is None and not watch.take_hint()
        new_file(drop)
        wait_for(watch.take_hint, "a hint")
        # Created and closed are two events; both are over when nothing more comes.
        wait_for(lambda: not watch.take_hint(), "quiet")

    def test_hints_that_nobody_took_ring_once(self, watch: Watch, drop: Path, rung: Rung) -> None:
        watch.renew(thorough=True)
        for number in range(50):
            (drop / str(number)).touch()
        wait_for(lambda: rung.count, "the bell")
        assert rung.count == 1

    def test_other_directories_beside_it_are_no_matter(self, watch: Watch, drop: Path, rung: Rung) -> None:
        watch.renew(thorough=True)
        (drop.parent / "a file").touch()
        (drop.parent / "a file").unlink()
        new_file(drop)
        wait_for(lambda: rung.count, "the bell")
        assert rung.count == 1

    def test_a_missing_directory_is_named(self, watch: Watch, drop: Path) -> None:
        drop.rmdir()
        watch.renew(thorough=False)
        assert problem(watch) == f"{drop} is no directory that can be read"
        drop.mkdir()
        watch.renew(thorough=False)
        assert problem(watch) is None

    def test_a_thread_of_the_watch_that_dies(self, watch: Watch, drop: Path) -> None:
        """Until the next thorough renewal the caller looks by itself; then the watch is made anew."""
        watch.listen_to_failures()
        watch.renew(thorough=True)

        def die() -> None:
            raise OSError("a bug in somebody's thread")

        dying = threading.Thread(target=die)
        dying.start()
        dying.join()
        assert watch.take_hint()
        watch.renew(thorough=False)
        assert problem(watch) == 'a thread of the watch died: OSError("a bug in somebody\'s thread")'
        watch.renew(thorough=True)
        assert problem(watch) is None
        new_file(drop)
        wait_for(watch.take_hint, "a hint")

    def test_an_observer_that_stopped_is_made_anew(self, watch: Watch, drop: Path) -> None:
        watch.renew(thorough=True)
        watch.close()
        watch.renew(thorough=True)
        new_file(drop)
        wait_for(watch.take_hint, "a hint")

    def test_its_descriptors_are_for_no_child(self, watch: Watch) -> None:
        watch.renew(thorough=True)
        for name in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                continue  # the listing's own
            assert "inotify" not in target or not os.get_inheritable(int(name)), target
