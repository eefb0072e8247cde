"""Nothing that lies in the drop directory makes it read too much, block, or miss the honest claim."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import material
from claimd import drop as drop_module
from claimd import sweep
from claimd.drop import (
    LONGEST_TICK_NS,
    MAX_DEPTH,
    MAX_FILES_A_FOLDER,
    MAX_FOLDERS_A_SCAN,
    MAX_KEPT_ASIDE,
    MAX_MODES_A_FOLDER,
    MAX_THINNED_OUT,
    MAX_WAITS_A_SCAN,
    Drop,
    Entry,
    _ctime_clock,
    anybody_may_link,
    put,
)
from claimd.durable import TEMPORARY_PREFIX, Disk
from claimd.errors import ClaimdError, Code
from claimd.listing import ASIDE_PREFIX, MAX_ENTRIES_A_SCAN, MAX_QUEUES
from claimd.pem import MAX_FILE_BYTES
from faults.calls import Counting

NOBODY = 65534
SECRET = b"what nobody may read"

# Mounts FUSE for another user, and has one look. The kernel refuses everybody else before it asks the file
# system's program, so none is needed.
MUTE = """
import ctypes, json, os, sys
from claimd.drop import Drop
from claimd.durable import Disk
place = sys.argv[1]
options = f"fd={os.open('/dev/fuse', os.O_RDWR)},rootmode=100000,user_id=12345,group_id=12345"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"mute", os.fsencode(place + "/f/mute"), b"fuse", 6, options.encode()) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
found = Drop(place, Disk(), own_files=True).scan()
print(json.dumps({each.name: each.problem and each.problem.happened for each in found}))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "drop"
    path.mkdir()
    return path


@pytest.fixture
def drop(place: Path) -> Drop:
    return Drop(str(place), Disk(), own_files=True)


def only(entries: list[Entry]) -> Entry:
    assert len(entries) == 1, entries
    return entries[0]


def code(entry: Entry) -> Code | None:
    return None if entry.problem is None else entry.problem.code


class TestWhatIsRead:
    def test_a_file_with_any_name(self, drop: Drop, place: Path) -> None:
        for name in ("claim.json", "Bildschirmfoto 2026 übergröße.png", "a\nb", "\x1b[31m", "-rf", "n" * 255):
            (place / name).write_bytes(SECRET)
        read = {entry.name: entry.data for entry in drop.scan()}
        assert set(read) == {each.name for each in place.iterdir()}
        assert set(read.values()) == {SECRET}

    def test_a_name_that_is_no_utf_8_can_be_shown_and_removed(self, drop: Drop, place: Path) -> None:
        name = os.fsdecode(b"caf\xe9\xff")
        (place / name).write_bytes(b"x" * (MAX_FILE_BYTES + 1))
        entry = only(drop.scan())
        assert entry.problem is not None
        said = json.dumps(entry.problem.to_json())
        said.encode("utf-8")
        assert "caf" in entry.problem.happened and entry.problem.happened.isprintable()
        assert drop.remove(entry)
        assert drop.scan() == []

    def test_an_entry_does_not_show_its_contents(self, drop: Drop, place: Path) -> None:
        (place / "a").write_bytes(SECRET)
        assert SECRET.decode() not in repr(drop.scan())

    def test_dot_names_are_read_and_our_own_are_not(self, drop: Drop, place: Path) -> None:
        (place / ".claim.json.Xy12Zz").write_bytes(SECRET)
        (place / f"{sweep.PREFIX}0").mkdir()
        (place / f"{ASIDE_PREFIX}0-x").write_bytes(SECRET)
        assert [entry.name for entry in drop.scan()] == [".claim.json.Xy12Zz"]


def of_another(path: Path, mode: int = 0o644) -> Path:
    """As root only."""
    path.write_bytes(SECRET)
    os.chown(path, 12345, 12345)
    path.chmod(mode)
    return path


class TestWhatIsRefused:
    def test_a_symbolic_link(self, drop: Drop, place: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(SECRET)
        (place / "link").symlink_to(tmp_path / "secret")
        entry = only(drop.scan())
        assert code(entry) is Code.DROP_ENTRY_REFUSED and entry.data == b""
        assert "a symbolic link" in str(entry.problem and entry.problem.happened)
        assert drop.remove(entry) and (tmp_path / "secret").read_bytes() == SECRET

    def test_a_link_to_a_folder(self, drop: Drop, place: Path, tmp_path: Path) -> None:
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets" / "key").write_bytes(SECRET)
        (place / "link").symlink_to(tmp_path / "secrets")
        assert code(only(drop.scan())) is Code.DROP_ENTRY_REFUSED

    def test_a_hard_link(self, drop: Drop, place: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(SECRET)
        (place / "link").hardlink_to(tmp_path / "secret")
        entry = only(drop.scan())
        assert code(entry) is Code.DROP_ENTRY_REFUSED and entry.data == b""

    def test_a_fifo_a_socket_and_a_device_do_not_block(self, drop: Drop, place: Path) -> None:
        os.mkfifo(place / "fifo")
        with socket.socket(socket.AF_UNIX) as listening:
            here = os.getcwd()
            os.chdir(place)  # the path of a socket is short
            try:
                listening.bind("socket")
            finally:
                os.chdir(here)
            if os.geteuid() == 0:
                os.mknod(place / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
            entries = drop.scan()
        assert {code(entry) for entry in entries} == {Code.DROP_ENTRY_REFUSED}
        assert all(entry.data == b"" for entry in entries)
        assert all(drop.remove(entry) for entry in entries) and not list(place.iterdir())

    def test_a_huge_file_and_a_sparse_one(self, drop: Drop, place: Path) -> None:
        with (place / "sparse").open("wb") as file:
            file.truncate(1 << 40)
        entry = only(drop.scan())
        assert code(entry) is Code.CLAIM_FILE_TOO_LARGE and entry.data == b""

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_files_of_the_daemon_itself(self, place: Path) -> None:
        (place / "own").write_bytes(SECRET)
        drop = Drop(str(place), Disk(), own_files=False, ctime_clock=lambda: 0)
        assert code(only(drop.scan())) is Code.DROP_ENTRY_REFUSED
        os.chown(place / "own", 12345, 12345)
        assert only(drop.scan()).data == SECRET

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_a_file_is_read_once_every_change_shows_in_its_ctime(self, place: Path) -> None:
        """Within a tick somebody could make a second name of another's secret and take it away unseen."""
        changed = of_another(place / "theirs").stat().st_ctime_ns
        for clock, is_read in (
            (changed, False),
            (changed + LONGEST_TICK_NS - 1, False),
            (changed - LONGEST_TICK_NS + 1, False),
            (changed + LONGEST_TICK_NS, True),
            (changed - 3600 * 10**9, True),  # the clock was set back meanwhile
        ):
            drop = Drop(str(place), Disk(), own_files=False, ctime_clock=partial(int, clock))
            entry = only(drop.scan())
            assert (entry.data, code(entry)) == (
                (SECRET, None) if is_read else (b"", Code.CLAIM_STILL_ARRIVING)
            )

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_what_will_be_destroyed_is_read_a_moment_later(self, place: Path) -> None:
        """Others may write to it, so no look leaves it there: whoever copied it has not lost his claim."""
        theirs = of_another(place / "theirs", 0o666)
        changed = theirs.stat().st_ctime_ns
        clock = iter((changed, changed + LONGEST_TICK_NS))
        entry = only(Drop(str(place), Disk(), own_files=False, ctime_clock=lambda: next(clock)).scan())
        assert (entry.data, entry.exposed) == (SECRET, True)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_who_touches_his_files_all_the_time_can_t_make_a_look_last(self, place: Path) -> None:
        asked = []
        for number in range(MAX_WAITS_A_SCAN + 2):
            path = of_another(place / f"trap-{number}", 0o666)

        def clock() -> int:
            asked.append(0)
            return max(path.stat().st_ctime_ns for path in place.iterdir())

        for path in place.iterdir():
            os.utime(path)
        drop = Drop(str(place), Disk(), own_files=False, ctime_clock=clock)
        for _ in range(2):
            asked.clear()
            for path in place.iterdir():
                path.chmod(0o666)
            entries = drop.scan()
            # They are read all the same: a claim in such a file is not lost.
            assert {(code(entry), entry.data, entry.exposed) for entry in entries} == {(None, SECRET, True)}
            assert len(asked) == len(entries) + MAX_WAITS_A_SCAN

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_what_was_read_goes_also_within_a_tick_of_its_last_touch(self, place: Path) -> None:
        """`scp -p` sets the times after the last byte."""
        theirs = of_another(place / "theirs")
        changed = [theirs.stat().st_ctime_ns + LONGEST_TICK_NS]
        drop = Drop(str(place), Disk(), own_files=False, ctime_clock=lambda: changed[0])
        entry = only(drop.scan())
        os.utime(theirs, (1, 1))
        changed[0] = theirs.stat().st_ctime_ns
        assert drop.remove(entry)
        assert not theirs.exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_who_writes_to_his_trap_all_the_time_does_not_keep_it(self, place: Path) -> None:
        trap = of_another(place / "claim.json", 0o666)
        drop = Drop(str(place), Disk(), own_files=False)
        entry = only(drop.scan())
        trap.write_bytes(SECRET[::-1])
        assert drop.remove(entry)
        # Nor is what an honest copy has become in its place taken for it.
        trap.write_bytes(SECRET + b"\n")
        os.chown(trap, 12345, 12345)
        assert not drop.remove(entry)

    def test_the_clock_is_the_one_that_stamps_files(self, drop: Drop, place: Path) -> None:
        before = _ctime_clock()
        (place / "file").write_bytes(b"")
        assert before <= (place / "file").stat().st_ctime_ns <= _ctime_clock() + LONGEST_TICK_NS

    @pytest.mark.parametrize(("switch", "open_to_all"), [("0\n", True), ("1\n", False), (None, False)])
    def test_root_s_files_need_protected_links(
        self, tmp_path: Path, switch: str | None, open_to_all: bool
    ) -> None:
        """None: the unit hides /proc/sys, and `sudo cp` works all the same."""
        path = tmp_path / "protected_hardlinks"
        if switch is not None:
            path.write_text(switch)
        assert anybody_may_link(str(path)) is open_to_all

    def test_a_file_that_grows_while_it_is_read_is_still_arriving(self, drop: Drop, place: Path) -> None:
        """Whatever the racer does, what is read is one state of the file or a refusal."""
        path = place / "growing"
        path.write_bytes(b"a" * 100)
        stop = threading.Event()

        def grow() -> None:
            while not stop.is_set():
                path.write_bytes(b"b" * 200)
                path.write_bytes(b"a" * 100)

        racer = threading.Thread(target=grow)
        racer.start()
        try:
            seen = [only(drop.scan()) for _ in range(300)]
        finally:
            stop.set()
            racer.join()
        assert {entry.data for entry in seen} <= {b"", b"a" * 100, b"b" * 200}
        assert {code(entry) for entry in seen} <= {None, Code.CLAIM_STILL_ARRIVING}

    def test_a_link_that_is_taken_away_at_the_right_moment(
        self, drop: Drop, place: Path, tmp_path: Path
    ) -> None:
        """st_nlink of the open file alone is 1 then; the name tells."""
        secret = tmp_path / "secret"
        secret.write_bytes(SECRET)
        name = place / "x"
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                name.hardlink_to(secret)
                name.unlink()

        racer = threading.Thread(target=swap)
        racer.start()
        looks = 0
        try:
            # Looks enough to be sure, and at least one that met the link, on however busy a machine.
            end = time.monotonic() + 60
            turns = 0
            while turns < 3000 or (looks == 0 and time.monotonic() < end):
                turns += 1
                for entry in drop.scan():
                    looks += 1
                    assert entry.data == b"", "a secret was read"
        finally:
            stop.set()
            racer.join()
        assert looks > 0, "the attack never met a look"


class TestFolders:
    def test_its_files_are_read(self, drop: Drop, place: Path) -> None:
        (place / "claims").mkdir()
        (place / "claims" / "key.pem").write_bytes(SECRET)
        folder, file = sorted(drop.scan(), key=lambda entry: entry.name)
        assert folder.is_folder and folder.problem is None
        assert (file.name, file.folder, file.data) == ("claims/key.pem", "claims", SECRET)

    def test_what_is_in_it_is_checked_alike(self, drop: Drop, place: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(SECRET)
        (place / "f" / "deeper").mkdir(parents=True)
        (place / "f" / "link").symlink_to(tmp_path / "secret")
        (place / "f" / "hard").hardlink_to(tmp_path / "secret")
        os.mkfifo(place / "f" / "fifo")
        inside = [entry for entry in drop.scan() if entry.folder == "f"]
        assert [code(entry) for entry in inside] == [Code.DROP_ENTRY_REFUSED] * 4
        assert all(str(entry.problem and entry.problem.happened).startswith("f/") for entry in inside)

    @pytest.mark.skipif(
        os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="only root mounts a FUSE file system"
    )
    def test_what_tells_nothing_of_itself_hides_no_claim(self, place: Path) -> None:
        """A technician may mount FUSE on a file of his; without allow_other it answers nobody else."""
        (place / "f").mkdir()
        (place / "f" / "mute").touch()
        (place / "honest").write_bytes(SECRET)
        looked = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", MUTE, str(place)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert looked.returncode == 0, looked.stderr
        assert json.loads(looked.stdout) == {
            "f": None,
            "f/mute": "f/mute can't be read: Permission denied",
            "honest": None,
        }

    def test_a_folder_with_too_many_files_is_not_read(self, drop: Drop, place: Path) -> None:
        (place / "f").mkdir()
        for number in range(MAX_FILES_A_FOLDER + 1):
            (place / "f" / str(number)).touch()
        entry = only(drop.scan())
        assert entry.is_folder and code(entry) is Code.DROP_ENTRY_REFUSED

    def test_it_goes_with_all_that_is_in_it(self, drop: Drop, place: Path) -> None:
        (place / "f" / "deeper").mkdir(parents=True)
        (place / "f" / "key").write_bytes(SECRET)
        folder = next(entry for entry in drop.scan() if entry.is_folder)
        assert drop.remove(folder)
        assert not list(place.iterdir())


class Unwilling(Disk):
    """Every name fails as if its owner had renamed it after the last look at it."""

    def __init__(self, error: type[OSError]) -> None:
        super().__init__()
        self._error = error

    def remove_from(self, directory_fd: int, name: str) -> None:
        raise self._error(name)

    def unlink_in(self, directory_fd: int, name: str) -> None:
        raise self._error(name)

    def rename_in(self, directory_fd: int, name: str, new: str, new_directory_fd: int | None = None) -> None:
        raise self._error(name)


class TestRemoving:
    def test_a_newer_file_of_the_same_name_stays(self, drop: Drop, place: Path) -> None:
        (place / "a").write_bytes(b"old")
        entry = only(drop.scan())
        (place / "new").write_bytes(b"new")
        (place / "new").replace(place / "a")
        assert not drop.remove(entry)
        assert (place / "a").read_bytes() == b"new"

    def test_new_contents_of_the_same_file_stay(self, drop: Drop, place: Path) -> None:
        (place / "a").write_bytes(b"old")
        entry = only(drop.scan())
        (place / "a").write_bytes(b"new")
        assert not drop.remove(entry)

    def test_new_times_and_modes_change_nothing(self, drop: Drop, place: Path) -> None:
        """`scp -p` sets them after the last byte, and the workshop says chmod."""
        (place / "a").write_bytes(b"old")
        entry = only(drop.scan())
        os.utime(place / "a", (1, 1))
        (place / "a").chmod(0o644)
        assert drop.remove(entry)

    @pytest.mark.parametrize("mode", [0o600, 0o666])
    @pytest.mark.parametrize("kind", ["pipe", "second name"])
    def test_what_is_refused_goes_though_it_is_touched_where_others_may_write_to_it(
        self, drop: Drop, place: Path, kind: str, mode: int
    ) -> None:
        place.parent.chmod(0o755)
        path = place / "a"
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.touch()
            (place.parent / "second").hardlink_to(path)
        path.chmod(mode)
        entry = only(drop.scan())
        os.utime(path, (1, 1))
        assert drop.remove(entry) == (mode == 0o666)
        assert path.exists() == (mode == 0o600)

    def test_a_copy_that_was_arriving_and_is_there_now_stays(self, drop: Drop, place: Path) -> None:
        """Though others may write to it: it may have become a claim."""
        place.parent.chmod(0o755)
        (place / "a").touch()
        (place.parent / "second").hardlink_to(place / "a")
        (place / "a").chmod(0o666)
        entry = only(drop.scan())
        assert entry.exposed and entry.problem is not None
        (place.parent / "second").unlink()
        (place / "a").write_bytes(SECRET)
        assert not drop.remove(entry)

    def test_what_is_kept_aside_is_looked_at_no_more(self, drop: Drop, place: Path) -> None:
        (place / ("n" * 255)).write_bytes(b"a photo")
        assert drop.keep_aside(only(drop.scan()))
        assert drop.scan() == []
        kept = only_name(place)
        assert kept.startswith(ASIDE_PREFIX) and len(os.fsencode(kept)) <= 255

    def test_the_oldest_that_were_kept_aside_make_room(self, drop: Drop, place: Path) -> None:
        self.keep(drop, place, "old", 20)
        last = max(each.stat().st_ctime_ns for each in place.iterdir())
        tick = place.parent / "tick"
        while not tick.exists() or tick.stat().st_ctime_ns <= last:
            tick.write_bytes(b"the file system's clock has moved on")
        self.keep(drop, place, "new", MAX_KEPT_ASIDE)
        assert len(os.listdir(place)) == MAX_KEPT_ASIDE + 20
        drop.thin_out_kept_aside()
        assert [name.endswith("-new") for name in os.listdir(place)] == [True] * MAX_KEPT_ASIDE

    def test_of_a_flood_of_such_names_so_many_go_at_once(self, place: Path) -> None:
        """Anybody can make them; one sync is enough for all."""
        for number in range(MAX_KEPT_ASIDE + MAX_THINNED_OUT + 10):
            (place / f"{ASIDE_PREFIX}{number}").touch()
        counting = Counting()
        Drop(str(place), Disk(counting), own_files=True).thin_out_kept_aside()
        assert len(os.listdir(place)) == MAX_KEPT_ASIDE + 10
        assert counting.names.count("fsync") == 1

    @pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
    def test_one_that_can_t_go_stops_nothing(self, drop: Drop, place: Path, error: type[OSError]) -> None:
        self.keep(drop, place, "old", MAX_KEPT_ASIDE + 1)
        Drop(str(place), Unwilling(error), own_files=True).thin_out_kept_aside()
        assert len(os.listdir(place)) == MAX_KEPT_ASIDE + 1

    def test_what_its_owner_renames_meanwhile_is_left(self, drop: Drop, place: Path) -> None:
        (place / "a").write_bytes(b"a photo")
        entry = only(drop.scan())
        assert not Drop(str(place), Unwilling(FileNotFoundError), own_files=True).keep_aside(entry)

    def keep(self, drop: Drop, place: Path, name: str, count: int) -> None:
        for _ in range(count):
            (place / name).write_bytes(b"a photo")
            assert drop.keep_aside(only(drop.scan()))


def only_name(place: Path) -> str:
    names = [each.name for each in place.iterdir()]
    assert len(names) == 1, names
    return names[0]


class TestPut:
    def test_it_writes_onto_nothing_that_somebody_has_made(self, place: Path) -> None:
        """Not even were its temporary name known."""
        trap = place / f"{TEMPORARY_PREFIX}known"
        trap.touch(0o666)
        with pytest.raises(FileExistsError):
            put(str(place), Disk(token=lambda: "known"), material.claim())
        assert trap.read_bytes() == b"" and os.listdir(place) == [trap.name]
        name = put(str(place), Disk(), material.claim())
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600
        assert put(str(place), Disk(), material.claim()) != name


def _seen_by_another(above: str, what: Callable[[Entry], object]) -> dict[str, Any]:
    """Of each entry in `above`/drop, as an account sees it that may not look into everything."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            entries = Drop(f"{above}/drop", Disk(), own_files=True).scan()
            os.write(writer, json.dumps({entry.name: what(entry) for entry in entries}).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        found = told.read()
    os.waitpid(child, 0)
    seen: dict[str, Any] = json.loads(found)
    return seen


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("name", ["claim", "claim.json"])
def test_the_remedy_lets_claimd_read_what_shut_it_out(name: str) -> None:
    """A folder or a file of a technician's, where claimd has no capability."""

    def said(entry: Entry) -> object:
        return entry.problem.commands[0] if entry.problem else entry.data.decode() or None

    with tempfile.TemporaryDirectory() as above:
        os.chmod(above, 0o755)
        place = Path(above) / "drop"
        place.mkdir()
        file = place / "claim" / "key.pem" if name == "claim" else place / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("text")
        for each in (file, place / name):
            each.chmod(0o700 if each.is_dir() else 0o600)
        told = _seen_by_another(above, said)
        assert told == {name: f"chmod -R u=rwX,go=rX {name}"}
        subprocess.run(["/bin/sh", "-c", told[name]], cwd=place, check=True)
        assert _seen_by_another(above, said) == {name: None} | {str(file.relative_to(place)): "text"}
        assert not any(_seen_by_another(above, lambda entry: entry.exposed).values())


class TestExposed:
    """The rules are in test_access.py: here, what is asked of the system."""

    def exposed(self, drop: Drop) -> dict[str, bool]:
        return {entry.name: entry.exposed for entry in drop.scan()}

    @pytest.fixture(autouse=True)
    def open_door(self, place: Path) -> None:
        place.parent.chmod(0o755)

    def test_by_mode_of_files_folders_and_what_is_neither(self, drop: Drop, place: Path) -> None:
        for name in ("closed", "open"):
            (place / name).mkdir()
            (place / name / "file").touch()
            os.mkfifo(place / f"{name} pipe")
        for path in (place / "open", place / "open" / "file", place / "open pipe"):
            path.chmod(0o777)
        (place / "link").symlink_to("/dev/null")
        assert self.exposed(drop) == {
            "closed": False,
            "closed/file": False,
            "closed pipe": False,
            "open": True,
            "open/file": True,
            "open pipe": True,
            "link": False,
        }

    def folder(self, path: Path, files: int) -> Path:
        path.mkdir()
        for number in range(files):
            (path / str(number)).touch(0o644)
        return path

    def test_what_is_not_read_is_looked_at_for_its_modes(self, drop: Drop, place: Path) -> None:
        """One of too many files, and a folder in a folder, as deep as that is."""
        for name, mode in (("closed", 0o644), ("open", 0o666)):
            (self.folder(place / f"many {name}", MAX_FILES_A_FOLDER) / "claim").touch()
            (place / f"many {name}" / "claim").chmod(mode)
            (place / name / "deep" / "deeper").mkdir(parents=True)
            (place / name / "deep" / "deeper" / "claim").touch()
            (place / name / "deep" / "link").symlink_to("/dev/null")
            (place / name / "deep" / "deeper" / "claim").chmod(mode)
        assert self.exposed(drop) == {
            "many closed": False,
            "many open": True,
            "closed": False,
            "closed/deep": False,
            "open": False,
            "open/deep": True,
        }

    def test_so_are_folders_for_which_there_is_no_room(self, drop: Drop, place: Path) -> None:
        """Nobody hides one behind others that are always newer."""
        for number in range(MAX_FOLDERS_A_SCAN + 2):
            (self.folder(place / str(number), 1) / "0").chmod(0o666 if number == 1 else 0o644)
        seen = {(each.name, each.stat().st_ctime_ns) for each in place.iterdir() if each.name in ("0", "1")}
        looked = {entry.name: entry for entry in drop.look(seen).entries}
        assert not looked["0"].is_folder and not looked["0"].exposed
        trap = looked["1"]
        assert not trap.is_folder and trap.exposed
        os.utime(place / "1")
        assert drop.remove(trap) and not (place / "1").exists()
        with pytest.raises(IsADirectoryError):
            drop.remove(looked["0"])

    def test_what_has_too_much_in_it_is_taken_for_a_trap(self, drop: Drop, place: Path) -> None:
        self.folder(place / "many", MAX_MODES_A_FOLDER + 1)
        (place / "deep" / "/".join("d" * MAX_DEPTH)).mkdir(parents=True)
        (place / "deepest" / "/".join("d" * (MAX_DEPTH + 1))).mkdir(parents=True)
        found = self.exposed(drop)
        assert found["many"] and found["deepest/d"] and not found["deep/d"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    @pytest.mark.parametrize(("mode", "exposed"), [(0o700, False), (0o711, True), (0o710, True)])
    def test_one_that_can_t_be_listed_is_a_trap_where_others_get_in(self, mode: int, exposed: bool) -> None:
        """They write to the names that they know."""
        with tempfile.TemporaryDirectory() as above:
            os.chmod(above, 0o755)
            folder = self.folder(Path(above) / "drop", 0) / "claim"
            folder.mkdir()
            folder.chmod(mode)
            assert _seen_by_another(above, lambda entry: entry.exposed) == {"claim": exposed}

    def test_by_acl(self, drop: Drop, place: Path) -> None:
        path = place / "claim"
        path.touch(0o600)
        assert self.exposed(drop) == {"claim": False}
        # user::rw-, user:12345:rw-, group::---, mask::rw-, other::---
        nobody = 0xFFFFFFFF
        entries = [(1, 6, nobody), (2, 6, 12345), (4, 0, nobody), (16, 6, nobody), (32, 0, nobody)]
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        try:
            os.setxattr(path, "system.posix_acl_access", acl)
        except OSError as error:
            pytest.skip(f"this file system has no ACLs: {error.strerror}")
        assert self.exposed(drop) == {"claim": True}

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_behind_a_closed_door_only_its_group_counts(self, drop: Drop, place: Path) -> None:
        place.parent.chmod(0o750)
        os.chown(place.parent, 0, 54321)
        for name, group in (("theirs", 54321), ("others", 54322)):
            (place / name).touch()
            (place / name).chmod(0o602)
            os.chown(place / name, 12345, group)
        assert self.exposed(drop) == {"theirs": False, "others": True}


class TestFloods:
    @pytest.fixture
    def flood(self, place: Path) -> Iterator[int]:
        many = 2 * MAX_ENTRIES_A_SCAN
        directory = os.open(place, os.O_RDONLY)
        try:
            for number in range(many):
                os.close(os.open(f"junk-{number}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=directory))
        finally:
            os.close(directory)
        yield many

    def test_a_look_reads_so_many_and_the_next_one_reads_others(
        self, drop: Drop, place: Path, flood: int
    ) -> None:
        look = drop.look(())
        assert look.more and 0 < len(look.entries) <= MAX_ENTRIES_A_SCAN
        seen = {(entry.name, entry.stamp.ctime_ns) for entry in look.entries}
        again = drop.look(seen)
        assert not seen & {(entry.name, entry.stamp.ctime_ns) for entry in again.entries}

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_the_claim_of_another_account_lies_among_them(self, drop: Drop, place: Path, flood: int) -> None:
        (place / "claim").write_bytes(SECRET)
        os.chown(place / "claim", 12345, 12345)
        os.utime(place / "claim", (1, 1))
        (place / "newer").touch()
        assert [entry.data for entry in drop.look(()).entries if entry.name == "claim"] == [SECRET]

    def test_the_newest_comes_first(self, drop: Drop, place: Path, flood: int) -> None:
        (place / "claim").write_bytes(SECRET)
        os.utime(place / "claim", (1, 1))  # as `scp -p` of an old file does
        assert drop.look(()).entries[0].name == "claim"

    @pytest.mark.parametrize("mode", [0o666, 0o660, 0o606])
    def test_a_flood_that_is_always_newer_hides_no_trap(
        self, drop: Drop, place: Path, flood: int, mode: int
    ) -> None:
        """Of its own owner's; whoever touches a file makes it new."""
        trap = place / "claim"
        trap.touch()
        trap.chmod(mode)
        for path in place.glob("junk-*"):
            os.utime(path)
        assert "claim" in [entry.name for entry in drop.look(()).entries[:2]]

    def test_nor_one_in_a_folder_that_was_looked_into(self, drop: Drop, place: Path, flood: int) -> None:
        """A change in a folder makes its name no newer."""
        folder = place / "claim"
        folder.mkdir()
        (folder / "private.key").touch(0o600)
        seen = {("claim", folder.stat().st_ctime_ns)}
        (folder / "private.key").chmod(0o666)
        assert "claim" in [entry.name for entry in drop.look(seen).entries[:2]]

    def test_nor_does_one_of_links(self, drop: Drop, place: Path) -> None:
        (place / "claim").touch()
        (place / "claim").chmod(0o666)
        for number in range(MAX_ENTRIES_A_SCAN + 1):
            (place / f"link-{number}").symlink_to("/dev/null")
        assert "claim" in [entry.name for entry in drop.look(()).entries[:2]]

    def test_a_flood_of_what_others_may_write_to_hides_no_claim(self, drop: Drop, place: Path) -> None:
        """Of its own owner's."""
        (place / "claim").touch(0o600)
        for number in range(MAX_ENTRIES_A_SCAN + 1):
            (place / f"junk-{number}").touch()
            (place / f"junk-{number}").chmod(0o664)
        assert "claim" in [entry.name for entry in drop.look(()).entries[:2]]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_files_of_more_accounts_than_there_are_queues_are_read(self, drop: Drop, place: Path) -> None:
        for number in range(2 * MAX_QUEUES):
            (place / f"junk-{number}").touch()
            os.chown(place / f"junk-{number}", 50_000 + number, 50_000)
        names = {entry.name for entry in drop.look(()).entries}
        assert len(names) == 2 * MAX_QUEUES

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_a_flood_under_an_account_s_subordinate_ids_hides_no_claim(self, place: Path) -> None:
        subuid = place.parent / "subuid"
        subuid.write_text("mallory:100000:65536\n")
        (place / "claim").touch()
        for number in range(MAX_ENTRIES_A_SCAN + 1):
            (place / f"junk-{number}").touch()
            os.chown(place / f"junk-{number}", 100_000 + number, 100_000)
        drop = Drop(str(place), Disk(), own_files=True, subuid=str(subuid))
        assert "claim" in [entry.name for entry in drop.look(()).entries[:2]]

    def test_large_files_are_not_all_held_in_memory(self, drop: Drop, place: Path) -> None:
        for number in range(100):
            (place / str(number)).write_bytes(b"x" * MAX_FILE_BYTES)
        look = drop.look(())
        assert look.more
        assert sum(len(e.data) for e in look.entries) <= drop_module.MAX_BYTES_A_SCAN + MAX_FILE_BYTES * 2


class TestTheDirectoryItself:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ClaimdError) as caught:
            Drop(str(tmp_path / "none"), Disk(), own_files=True).scan()
        assert caught.value.problem.code is Code.DROP_DIRECTORY_MISSING

    def test_replaced_by_a_link(self, drop: Drop, place: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "secret").write_bytes(SECRET)
        place.rmdir()
        place.symlink_to(elsewhere)
        with pytest.raises(ClaimdError) as caught:
            drop.scan()
        assert caught.value.problem.code is Code.DROP_DIRECTORY_MISSING

    def test_renamed_and_made_anew(self, drop: Drop, place: Path) -> None:
        place.rename(place.with_name("old"))
        place.mkdir()
        (place / "claim").write_bytes(SECRET)
        assert only(drop.scan()).data == SECRET
