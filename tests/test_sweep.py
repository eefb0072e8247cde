"""The sweep removes what was set aside, all of it, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from claimd import sweep as sweep_module
from claimd.durable import Disk
from claimd.sweep import MAX_DEPTH, PREFIX, Swept, remove_as_far_as_possible, sweep


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "drop"
    path.mkdir()
    return path


def test_only_what_was_set_aside(place: Path) -> None:
    (place / f"{PREFIX}1").mkdir()
    (place / f"{PREFIX}1" / "key").write_text("secret")
    (place / f"{PREFIX}2").write_text("a file")
    (place / "claim").write_text("stays")
    (place / "claimd-sweep-3").mkdir()
    assert sweep(Disk(), str(place)) == Swept(removed=3, left=0)
    assert sorted(os.listdir(place)) == ["claim", "claimd-sweep-3"]


def test_no_link_is_followed(place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("stays")
    (place / f"{PREFIX}1").symlink_to(outside)
    (place / f"{PREFIX}2").mkdir()
    (place / f"{PREFIX}2" / "link").symlink_to(outside)
    assert sweep(Disk(), str(place)).left == 0
    assert not os.listdir(place)
    assert (outside / "precious").read_text() == "stays"


def test_however_deep(place: Path) -> None:
    path = place / f"{PREFIX}1"
    for _ in range(MAX_DEPTH * 3):
        path = path / "d"
    path.mkdir(parents=True)
    (path / "key").write_text("secret")
    assert sweep(Disk(), str(place)).left == 0
    assert not os.listdir(place)


class _Refusing(Disk):
    """Whose files with "stuck" in their name stay."""

    def unlink_in(self, directory: int, name: str) -> None:
        if "stuck" in name:
            raise OSError("it can't be removed")
        super().unlink_in(directory, name)


def test_what_can_t_be_removed_keeps_nobody_s_key_waiting(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many such names come first in the directory's own order."""
    monkeypatch.setattr(sweep_module, "NAMES_AT_ONCE", 3)
    for n in range(20):
        (place / f"{PREFIX}stuck-{n}").write_text("")
        (place / f"{PREFIX}key-{n}").write_text("secret")
    assert sweep(_Refusing(), str(place)) == Swept(removed=20, left=20)


def test_a_run_ends_where_too_much_was_piled_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's: the next run takes the rest, and looks at no name in this one that it can't remove any more."""
    monkeypatch.setattr(sweep_module, "NAMES_AT_ONCE", 3)
    monkeypatch.setattr(sweep_module, "MAX_REMOVALS", 7)
    monkeypatch.setattr(sweep_module, "MAX_REMOVALS_OF_A_USER", 7)
    for n in range(40):
        (place / f"{PREFIX}{n}").write_text("")
    assert sweep(Disk(), str(place)) == Swept(removed=7, left=33)


def test_a_directory_that_is_a_link_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(OSError):
        sweep(Disk(), str(tmp_path / "link"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second account")
class TestAnotherAccountsFolder:
    UID = 12345

    @pytest.fixture
    def folder(self, place: Path) -> Path:
        """Closed, as a technician's umask may have it."""
        path = place / f"{PREFIX}1"
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "key").write_text("secret")
        os.chown(place, self.UID + 7, self.UID + 7)  # the daemon's, as on a device
        for each in (path / "inner" / "key", path / "inner", path):
            os.chown(each, self.UID, self.UID)
            each.chmod(0o700)
        return path

    def test_its_neighbour_can_t_and_root_can(self, place: Path, folder: Path) -> None:
        place.chmod(0o1777)
        for each in (place.parent, *list(place.parents)[:4]):
            each.chmod(each.stat().st_mode | 0o055)
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(self.UID + 1)
            os.setuid(self.UID + 1)
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            os._exit(int(remove_as_far_as_possible(Disk(), directory, folder.name)))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "it says that it could not"
        assert (folder / "inner" / "key").exists()
        assert sweep(Disk(), str(place)).left == 0
        assert not os.listdir(place)

    def test_somebody_else_s_directory_in_it_stays(self, place: Path, folder: Path) -> None:
        """Its owner could not have removed it himself: root does not do it for him."""
        victim = folder / "inner" / "theirs"
        victim.mkdir()
        (victim / "work").write_text("of years")
        for each in (victim / "work", victim):
            os.chown(each, self.UID + 1, self.UID + 1)
            each.chmod(0o700)
        assert sweep(Disk(), str(place)).left == 1
        (left,) = place.rglob("work")
        assert left.read_text() == "of years"
        assert left.parent.stat().st_uid == self.UID + 1
        assert list(place.rglob("key")) == [], "what is the owner's own is gone"
        assert sweep(Disk(), str(place)).left == 1, "and again"
        assert left.exists() or list(place.rglob("work"))

    def test_nor_when_it_lies_too_deep(self, place: Path) -> None:
        os.chown(place, self.UID + 7, self.UID + 7)
        top = deepest = place / f"{PREFIX}1"
        for number in range(40):
            deepest = deepest / f"{number}"
        deepest.mkdir(parents=True)
        (deepest / "work").write_text("of years")
        for each in (top, *top.rglob("*")):
            os.chown(each, self.UID, self.UID)
        for each in (deepest, deepest / "work"):
            os.chown(each, self.UID + 1, self.UID + 1)
        assert sweep(Disk(), str(place)).left > 0
        (left,) = place.rglob("work")
        assert left.read_text() == "of years"

    def test_what_an_interrupted_run_took_over_is_removed(self, place: Path, folder: Path) -> None:
        folder.rename(place / f"{PREFIX}of-{self.UID}-0123456789abcdef")
        (top,) = place.iterdir()
        for each in (top, top / "inner"):
            os.chown(each, 0, self.UID + 7)
        assert sweep(Disk(), str(place)).left == 0
        assert not os.listdir(place)

    def test_a_name_alone_makes_nobody_else_of_its_maker(self, place: Path, folder: Path) -> None:
        victim = folder / "theirs"
        victim.mkdir()
        (victim / "work").write_text("of years")
        os.chown(victim, self.UID + 1, self.UID + 1)
        folder.rename(place / f"{PREFIX}of-{self.UID + 1}-0123456789abcdef")
        assert sweep(Disk(), str(place)).left == 1
        assert [each.read_text() for each in place.rglob("work")] == ["of years"]
