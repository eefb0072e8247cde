"""The drop directory: what lies there is read without trusting any of it, and removed by name.

Invariant: only regular files of one link on the directory's own file system are read, through
a descriptor that was checked before it was opened for reading, and never more than a claim's
size. Nothing here follows a link, blocks on a FIFO, or raises for what somebody put there.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from .errors import Code, Problem, fail, problem
from .pem import MAX_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .durable import Disk

# What one scan reads at most. Files are taken newest first and in turn from each owner, so that a
# flood by one account can't hide another's claim.
MAX_ENTRIES_A_SCAN = 256


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


@dataclass(frozen=True)
class Entry:
    """One name in the drop directory: its contents, or why it was not read."""

    name: str
    stamp: Stamp
    data: bytes
    problem: Problem | None

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, <{len(self.data)} bytes>)"


class Drop:
    def __init__(self, path: str, disk: Disk, *, own_files: bool) -> None:
        """`own_files`: files of the daemon's own user are read (under --root the user drops himself)."""
        self.path = path
        self._disk = disk
        self._own_files = own_files

    def scan(self) -> list[Entry]:
        """What lies there now. Raises ClaimdError(DROP_DIRECTORY_MISSING)."""
        with self._opened() as directory:
            device = os.fstat(directory).st_dev
            return [self._examine(directory, device, name) for name in self._names(directory)]

    def remove(self, entry: Entry) -> None:
        """Remove a name, if it still is the file that was read; a newer one is left for the next scan."""
        with self._opened() as directory:
            try:
                now = os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                return
            if (now.st_dev, now.st_ino) == (entry.stamp.device, entry.stamp.inode):
                self._disk.remove_from(directory, entry.name)

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

    def _names(self, directory: int) -> list[str]:
        """Newest first, in turn from each owner. Names beginning with a dot are copies in progress."""
        by_owner: dict[int, list[tuple[int, str]]] = {}
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                by_owner.setdefault(found.st_uid, []).append((found.st_mtime_ns, entry.name))
        queues = [[name for _, name in sorted(files, reverse=True)] for files in by_owner.values()]
        in_turn = [name for row in zip_longest(*queues) for name in row if name is not None]
        return in_turn[:MAX_ENTRIES_A_SCAN]

    def _examine(self, directory: int, device: int, name: str) -> Entry:
        nothing = Stamp(0, 0, 0, 0, 0)
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except OSError as error:
            return _refused(name, nothing, Code.DROP_ENTRY_UNREADABLE, error.strerror or "it can't be opened")
        try:
            before = os.fstat(fd)
            stamp = Stamp.of(before)
            objection = self._objection(before, device)
            if objection is not None:
                return _refused(name, stamp, Code.DROP_ENTRY_REFUSED, objection)
            if before.st_size > MAX_FILE_BYTES:
                return _refused(name, stamp, Code.CLAIM_FILE_TOO_LARGE, f"{before.st_size} bytes")
            try:
                data = _read(fd)
            except OSError as error:
                detail = error.strerror or "it can't be read"
                return _refused(name, stamp, Code.DROP_ENTRY_UNREADABLE, detail)
            if Stamp.of(os.fstat(fd)) != stamp or len(data) != before.st_size:
                return _refused(name, stamp, Code.CLAIM_STILL_ARRIVING, "it changed while it was read")
            return Entry(name, stamp, data, None)
        finally:
            os.close(fd)

    def _objection(self, found: os.stat_result, device: int) -> str | None:
        if not stat.S_ISREG(found.st_mode):
            return f"it is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no ordinary file')}"
        if found.st_dev != device:
            return "it lies on another file system"
        if found.st_nlink != 1:
            return "it has more than one name (a hard link)"
        if found.st_uid == os.geteuid() and not self._own_files:
            return "it belongs to claimd itself"
        return None


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
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
