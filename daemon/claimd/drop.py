"""The drop directory: what lies there is read without trusting any of it, and removed by name.

Invariant: only regular files of one name on the directory's own file system are read, through a descriptor
that was checked before it was opened for reading, and never more than a claim's size. Nothing here
follows a link, blocks on a FIFO, or raises for what somebody put there; one look costs a bounded time and a
bounded memory, however many files lie there.

A folder (`scp -r`) is read one level deep. The daemon may rename a technician's folder, because it owns the
directory around it, but not empty it: the folder is set aside under a name that `sweep` removes as root.
"""

from __future__ import annotations

import grp
import os
import pwd
import secrets
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from . import access, sweep
from .errors import Code, Problem, fail, problem
from .listing import ASIDE_PREFIX, MAX_ENTRIES_A_SCAN, Listing
from .pem import MAX_FILE_BYTES
from .subordinate import SUBUID, Lent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from .durable import Disk
    from .model import Claim

# What one look reads at most, and into memory.
MAX_BYTES_A_SCAN = 4 * 1024 * 1024
# A claim is one or two files; `scp -r` of a whole home directory is a mistake.
MAX_FOLDERS_A_SCAN = 16
MAX_FILES_A_FOLDER = 32
# Of a folder that is not read so many modes are looked at, so deep; what has more counts as a trap.
MAX_MODES_A_FOLDER = 512
MAX_DEPTH = 8
# Of a flood of hostile files a look reads for so long; the next look goes on with the others.
READING_SECONDS = 0.3

# Of `unrecognised = "keep-aside"`.
MAX_KEPT_ASIDE = 100
# More than a look can keep aside; anybody can make such names by himself, and no pass stays with them.
MAX_THINNED_OUT = 2 * MAX_ENTRIES_A_SCAN

PROTECTED_HARDLINKS = "/proc/sys/fs/protected_hardlinks"

# For a tick to be over, of 20 ms: who touches his files all the time can't make a look last.
MAX_WAITS_A_SCAN = 3
# Of the kernel's clock: at CONFIG_HZ=100, the lowest in use.
LONGEST_TICK_NS = 10_000_000
_CLOCK_REALTIME_COARSE = 5  # linux/time.h; the time module has no name for it


def _ctime_clock() -> int:
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


@dataclass(frozen=True)
class Stamp:
    """What tells one state of a file from another."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


NOTHING = Stamp(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Entry:
    """One name in the drop directory: its contents, or why it was not read.

    `folder`: for a file in a folder that folder's name, which then also begins its own name.
    `is_folder`: the folder itself, its files being entries of their own. `exposed`: accounts other than its
    owner may write to it, so that its owner may read what they copy onto it.
    """

    name: str
    stamp: Stamp
    data: bytes = field(repr=False)
    problem: Problem | None
    folder: str | None = None
    is_folder: bool = False
    owner: int | None = None
    exposed: bool = False


@dataclass(frozen=True)
class Look:
    """`more`: some names were not read this time. `unswept`: when the oldest folder that waits for the
    sweep was set aside, in nanoseconds since the epoch, or None."""

    entries: tuple[Entry, ...]
    more: bool
    unswept: int | None


class Drop:
    def __init__(
        self,
        path: str,
        disk: Disk,
        *,
        own_files: bool,
        ctime_clock: Callable[[], int] = _ctime_clock,
        subuid: str = SUBUID,
    ) -> None:
        """`own_files`: files of the daemon's own user are read (under --root the user drops himself).
        `ctime_clock`: nanoseconds since the epoch, in the steps in which the kernel stamps files."""
        self.path = path
        self._disk = disk
        self._own_files = own_files
        self._ctime_clock = ctime_clock
        self._lent = Lent(subuid)
        self._waits_left = MAX_WAITS_A_SCAN

    def scan(self) -> list[Entry]:
        """What lies there now. Raises ClaimdError(DROP_DIRECTORY_MISSING)."""
        return list(self.look(()).entries)

    def look(self, seen: Collection[tuple[str, int]]) -> Look:
        """What lies there now. `seen` (name, ctime): where there is too much, these are read last.

        Raises ClaimdError(DROP_DIRECTORY_MISSING).
        """
        self._waits_left = MAX_WAITS_A_SCAN
        with self._opened() as directory:
            device = os.fstat(directory).st_dev
            listing = Listing.of(directory, seen, self._lent.account_of)
            entries: list[Entry] = []
            names = listing.names()
            end = time.monotonic() + READING_SECONDS
            read = folders = count = 0
            for name in names[:MAX_ENTRIES_A_SCAN]:
                if read > MAX_BYTES_A_SCAN or len(entries) > MAX_ENTRIES_A_SCAN or time.monotonic() > end:
                    break
                found = self._examine(directory, device, name, may_be_folder=folders < MAX_FOLDERS_A_SCAN)
                folders += found[0].is_folder
                read += sum(len(entry.data) for entry in found)
                entries += found
                count += 1
            more = listing.passed_over > 0 or count < len(names)
            return Look(tuple(entries), more, listing.unswept)

    def remove(self, entry: Entry) -> bool:
        """Remove a name, if it still is what was read; a newer one is left for the next look.

        Returns whether it is gone from where it lay. A folder that can't be emptied is set aside.
        """
        with self._opened() as directory:
            if not self._is_unchanged(directory, entry):
                return False
            if not entry.is_folder:
                try:
                    self._disk.remove_from(directory, entry.name)
                    return True
                except IsADirectoryError:
                    # One of more folders than a look reads. A trap does not wait until there is room for it.
                    if not entry.exposed:
                        raise
            aside = sweep.PREFIX + secrets.token_hex(8)
            try:
                self._disk.rename_in(directory, entry.name, aside)
            except OSError:
                return False  # something is mounted on it
            sweep.remove_as_far_as_possible(self._disk, directory, aside)
            return True

    def keep_aside(self, entry: Entry) -> bool:
        """Out of the way, under a name that is not looked at again. Afterwards: `thin_out_kept_aside`."""
        with self._opened() as directory:
            if not self._is_unchanged(directory, entry):
                return False
            try:
                self._disk.rename_in(directory, entry.name, _aside_name(entry.name))
            except FileNotFoundError:
                return False  # its owner has renamed it meanwhile
            return True

    def thin_out_kept_aside(self) -> None:
        """The oldest names make room: once for many that were kept, for it lists the whole directory."""
        with self._opened() as directory:
            kept = [each for each in _list_names(directory) if each.startswith(ASIDE_PREFIX)]
            kept.sort(key=lambda name: _changed_at(directory, name))
            for name in kept[:-MAX_KEPT_ASIDE][:MAX_THINNED_OUT]:
                with suppress(OSError):  # an owner may rename what is his; the next time there is another
                    self._remove_any(directory, name)
            with suppress(OSError):  # one that comes back is removed again
                self._disk.sync_descriptor(directory)

    def _remove_any(self, directory: int, name: str) -> None:
        try:
            self._disk.unlink_in(directory, name)
        except OSError:  # a folder
            aside = sweep.PREFIX + secrets.token_hex(8)
            self._disk.rename_in(directory, name, aside)
            sweep.remove_as_far_as_possible(self._disk, directory, aside)

    def _is_unchanged(self, directory: int, entry: Entry) -> bool:
        try:
            now = os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return False
        if (now.st_dev, now.st_ino) != (entry.stamp.device, entry.stamp.inode):
            return False
        if Stamp.of(now) == entry.stamp or entry.is_folder:
            return True
        # `scp -p` and chmod change the times alone.
        again = self._examine(directory, now.st_dev, entry.name, may_be_folder=False, may_change=True)[0]
        if entry.problem is not None:
            # A trap that is no file, or that has two names, goes however often its owner touches it. What has
            # become a file meanwhile, as a copy that came in, is for the next look.
            return entry.exposed and again.problem is not None
        if entry.exposed and again.exposed:
            return True  # whatever is in it by now: writing to it, its owner could keep the trap for ever
        return again.problem is None and again.data == entry.data

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            detail = error.strerror or "it can't be opened"
            raise fail(Code.DROP_DIRECTORY_MISSING, path=self.path, detail=detail) from error
        try:
            yield fd
        finally:
            os.close(fd)

    def _examine(
        self, directory: int, device: int, name: str, *, may_be_folder: bool, may_change: bool = False
    ) -> list[Entry]:
        """The entry, and for a folder those of its files. `may_change`: also what may change unseen."""
        try:
            return self._examine_opened(directory, device, name, may_be_folder, may_change)
        except OSError as error:
            # Also of what is open: a technician's own FUSE mount tells nobody else anything.
            detail = error.strerror or "it can't be opened"
            return [_refused(name, NOTHING, Code.DROP_ENTRY_UNREADABLE, detail)]

    def _examine_opened(
        self, directory: int, device: int, name: str, may_be_folder: bool, may_change: bool
    ) -> list[Entry]:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            found, is_settled = (os.fstat(fd), True) if may_change else self._settled(fd)
            if stat.S_ISDIR(found.st_mode) and may_be_folder and found.st_dev == device:
                entry, *inside = self._examine_folder(fd, found, name)
            elif not is_settled:
                why = "it changed this moment"
                entry, inside = _refused(name, Stamp.of(found), Code.CLAIM_STILL_ARRIVING, why), []
            else:
                entry, inside = self._read_entry(directory, fd, found, device, name), []
            exposed = self._is_exposed(fd, found)
            if entry.problem is not None and not exposed and stat.S_ISDIR(found.st_mode):
                exposed = self._holds_exposed(fd, found, device, iter(range(MAX_MODES_A_FOLDER)), MAX_DEPTH)
            return [replace(entry, owner=self._lent.account_of(found.st_uid), exposed=exposed), *inside]
        finally:
            os.close(fd)

    def _examine_folder(self, path_fd: int, found: os.stat_result, name: str) -> list[Entry]:
        folder = Entry(name, Stamp.of(found), b"", None, is_folder=True)
        try:
            inside = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=path_fd)
        except OSError as error:
            detail = error.strerror or "it can't be opened"
            why = problem(Code.DROP_ENTRY_UNREADABLE, file=name, detail=detail)
            return [Entry(name, folder.stamp, b"", why, is_folder=True)]
        try:
            names = _list_names(inside, MAX_FILES_A_FOLDER + 1)
            if len(names) > MAX_FILES_A_FOLDER:
                detail = f"a folder with more than {MAX_FILES_A_FOLDER} files"
                why = problem(Code.DROP_ENTRY_REFUSED, file=name, detail=detail)
                return [Entry(name, folder.stamp, b"", why, is_folder=True)]
            return [folder, *(self._examine_inside(inside, found.st_dev, name, each) for each in names)]
        finally:
            os.close(inside)

    def _examine_inside(self, folder_fd: int, device: int, folder: str, name: str) -> Entry:
        entry = self._examine(folder_fd, device, name, may_be_folder=False)[0]
        full = f"{folder}/{name}"
        why = entry.problem
        if why is not None:
            why = problem(why.code, **{**why.fields, "file": full})
        return replace(entry, name=full, problem=why, folder=folder)

    def _is_exposed(self, fd: int, found: os.stat_result) -> bool:
        if stat.S_ISLNK(found.st_mode):
            return False  # its mode means nothing, and the kernel follows it for its owner alone
        try:
            acl = os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access")
        except OSError:
            acl = None  # it has none, or the file system knows none
        owner = found.st_uid
        return access.others_may_write(
            stat.S_IMODE(found.st_mode),
            acl,
            owner=owner,
            group=found.st_gid,
            door=_door(self.path),
            is_private=lambda group: _is_private(group, owner),
        )

    def _holds_exposed(
        self, path_fd: int, found: os.stat_result, device: int, names_left: Iterator[int], depth: int
    ) -> bool:
        """Whether there may be a trap in a folder that is not read. In doubt there is one."""
        if found.st_dev != device or depth == 0:
            return True  # a file system that somebody mounted there may never answer
        try:
            inside = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=path_fd)
        except OSError:
            return bool(found.st_mode & (stat.S_IXGRP | stat.S_IXOTH))  # who knows the names gets at them
        try:
            for name in _list_names(inside, MAX_MODES_A_FOLDER + 1):
                if next(names_left, None) is None:
                    return True
                with suppress(OSError):  # it is gone meanwhile, or tells its owner alone of itself
                    if self._is_or_holds_exposed(inside, name, device, names_left, depth - 1):
                        return True
            return False
        finally:
            os.close(inside)

    def _is_or_holds_exposed(
        self, directory: int, name: str, device: int, names_left: Iterator[int], depth: int
    ) -> bool:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            found = os.fstat(fd)
            if self._is_exposed(fd, found):
                return True
            is_folder = stat.S_ISDIR(found.st_mode)
            return is_folder and self._holds_exposed(fd, found, device, names_left, depth)
        finally:
            os.close(fd)

    def _read_entry(self, directory: int, fd: int, found: os.stat_result, device: int, name: str) -> Entry:
        stamp = Stamp.of(found)
        objection = self._objection(found, device)
        if objection is not None:
            return _refused(name, stamp, Code.DROP_ENTRY_REFUSED, objection)
        if found.st_size > MAX_FILE_BYTES:
            return _refused(name, stamp, Code.CLAIM_FILE_TOO_LARGE, f"{found.st_size} bytes")
        try:
            data = _read(fd)
            named = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            detail = error.strerror or "it can't be read"
            return _refused(name, stamp, Code.DROP_ENTRY_UNREADABLE, detail)
        if Stamp.of(named) != stamp or len(data) != found.st_size:
            return _refused(name, stamp, Code.CLAIM_STILL_ARRIVING, "it changed while it was read")
        # The file had one name, and nothing that would show in its ctime has happened since: no second name
        # was made or taken away. Looked at by its name, it is still the one that was opened.
        if named.st_nlink != 1:
            return _refused(name, stamp, Code.DROP_ENTRY_REFUSED, "it has more than one name (a hard link)")
        return Entry(name, stamp, data, None)

    def _settled(self, fd: int) -> tuple[os.stat_result, bool]:
        """fstat(2), and whether every change to the file after it would show in its ctime.

        Where fs.protected_hardlinks is off somebody may link another's secret and take the link away, all
        within a tick of the kernel's clock (measured: once in 142,858 reads of a name that two processes
        link and unlink all the time, though its links were counted before and after).
        """
        before = self._ctime_clock()
        found = os.fstat(fd)
        may_change = self._is_in_its_tick(found, before)
        # What others may write to goes in this look, and the claim in it is kept if it can be read.
        if may_change and self._waits_left > 0 and self._is_exposed(fd, found):
            self._waits_left -= 1
            time.sleep(2 * LONGEST_TICK_NS / 1e9)
            before = self._ctime_clock()
            found = os.fstat(fd)
            may_change = self._is_in_its_tick(found, before)
        # However often its owner touches it: nobody's secret is as open as that.
        return found, not may_change or self._is_exposed(fd, found)

    def _is_in_its_tick(self, found: os.stat_result, before: int) -> bool:
        """`before`: the clock that stamps files, read before fstat(2)."""
        if self._own_files or not stat.S_ISREG(found.st_mode):
            return False
        return abs(before - found.st_ctime_ns) < LONGEST_TICK_NS

    def _objection(self, found: os.stat_result, device: int) -> str | None:
        if not stat.S_ISREG(found.st_mode):
            return f"it is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no ordinary file')}"
        if found.st_dev != device:
            return "it lies on another file system"
        if found.st_nlink != 1:
            return "it has more than one name (a hard link)"
        if found.st_uid == os.geteuid() and not self._own_files:
            return "it belongs to claimd itself"
        if found.st_uid == 0 and not self._own_files and anybody_may_link():
            return "it belongs to root, and fs.protected_hardlinks is off on this system"
        return None


def _door(path: str) -> int | None:
    """The group whose members alone get into the directory; None: everybody does."""
    above = os.stat(os.path.dirname(path))
    return None if above.st_mode & stat.S_IXOTH else above.st_gid


def _is_private(group: int, owner: int) -> bool:
    """A user's group of his own, as Debian and Ubuntu make it: with it 0664 lets nobody else write."""
    try:
        found, name = grp.getgrgid(group), pwd.getpwuid(owner).pw_name
    except KeyError:
        return group == owner
    return found.gr_name == name and set(found.gr_mem) <= {name}


def put(path: str, disk: Disk, claim: Claim) -> str:
    """Drop a claim, as anybody who may: a name that nobody can guess appears with the whole file, closed.

    Raises OSError.
    """
    name = f"put-{secrets.token_hex(8)}.pem"
    text = claim.certificate.pem.encode("ascii") + claim.key.pem.reveal()
    disk.write_file(os.path.join(path, name), text, 0o600)
    return name


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder within a folder, or one of too many folders",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _refused(name: str, stamp: Stamp, code: Code, detail: str) -> Entry:
    return Entry(name, stamp, b"", problem(code, file=name, detail=detail))


def _read(path_fd: int) -> bytes:
    """The contents behind an O_PATH descriptor: opened anew by its number, so that no name is followed."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(f"/proc/self/fd/{path_fd}", flags)
    with os.fdopen(fd, "rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _list_names(directory: int, at_most: int | None = None) -> list[str]:
    names = []
    with os.scandir(directory) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) == at_most:
                break
    return names


def _changed_at(directory: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_ctime_ns
    except OSError:
        return 0


def _aside_name(name: str) -> str:
    """With a number of its own, within the 255 bytes of a file name; the end of a long name goes."""
    prefix = f"{ASIDE_PREFIX}{secrets.token_hex(4)}-"
    return prefix + os.fsdecode(os.fsencode(name)[: 255 - len(prefix)])


def anybody_may_link(switch: str = PROTECTED_HARDLINKS) -> bool:
    """Whether anybody can give a name in the drop directory to a file of root's (proc(5)).

    claimd.service hides /proc/sys (ProcSubset=pid). What can't be read is taken for the default of every
    supported system, which is on: a second name is refused in any case, see `_read_entry`.
    """
    try:
        with open(switch, "rb") as file:
            return file.read(2).strip() == b"0"
    except OSError:
        return False
