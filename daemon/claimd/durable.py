"""The only module that writes to disk.

Invariant: a name under the state directory shows either its old contents or its new ones,
whole and synced, at its final mode, whatever dies in between. What a crash can leave behind
is a name beginning with `.tmp-`, which `sweep` removes at the next start.

After an error of fsync the file is thrown away, never synced again: Linux marks the failed
pages clean, so a second fsync would succeed without having written them (fsync(2), and
"Can Applications Recover from fsync Failures?", USENIX ATC 2020).
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .errors import Code, Problem, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TEMPORARY_PREFIX = ".tmp-"


class Calls(Protocol):
    """The system calls this module makes. `os` is one; a test's fault injector is another."""

    def open(self, path: str, flags: int, mode: int = ..., *, dir_fd: int | None = ...) -> int: ...
    def write(self, fd: int, data: bytes | memoryview, /) -> int: ...
    def fsync(self, fd: int) -> None: ...
    def fchmod(self, fd: int, mode: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def rename(self, src: str, dst: str) -> None: ...
    def unlink(self, path: str, *, dir_fd: int | None = ...) -> None: ...
    def mkdir(self, path: str, mode: int = ...) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def symlink(self, src: str, dst: str) -> None: ...


class SystemCalls:
    """The real ones. Methods, not the `os` module, so that a test double has a type to match."""

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        return os.open(path, flags, mode, dir_fd=dir_fd)

    def write(self, fd: int, data: bytes | memoryview, /) -> int:
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fchmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def rename(self, src: str, dst: str) -> None:
        os.rename(src, dst)

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        os.unlink(path, dir_fd=dir_fd)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        os.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def symlink(self, src: str, dst: str) -> None:
        os.symlink(src, dst)


@dataclass(frozen=True)
class File:
    """Contents and final mode of a file to be written."""

    data: bytes
    mode: int
    synced: bool = True  # False: its contents may be lost in a power cut, its name may not

    def __repr__(self) -> str:
        return f"File(<{len(self.data)} bytes>, mode={self.mode:04o})"


def _random_token() -> str:
    return os.urandom(8).hex()


class Disk:
    """Durable writes. Every method raises OSError and then has changed nothing that `sweep` can't mend."""

    def __init__(self, calls: Calls | None = None, token: Callable[[], str] = _random_token) -> None:
        self._calls: Calls = calls if calls is not None else SystemCalls()
        self._token = token

    def write_file(self, path: str, data: bytes, mode: int) -> None:
        """Create or replace `path`. If it dies half-way: the old file, whole."""
        temporary = self._temporary_beside(path)
        self._create(temporary, data, mode, sync=True)
        self._move(temporary, path)
        self.sync_directory(os.path.dirname(path))

    def write_volatile(self, path: str, data: bytes, mode: int) -> None:
        """Replace `path` atomically without syncing: for /run, which does not outlive a power cut."""
        temporary = self._temporary_beside(path)
        self._create(temporary, data, mode, sync=False)
        self._move(temporary, path)

    def make_tree(self, path: str, files: Mapping[str, File], mode: int) -> None:
        """Create the directory `path` with all its files at once. If it dies half-way: no `path`.

        No chmod of the directory: it inherits setgid from its parent, and a chmod by somebody
        outside the group would drop that bit (inode_change_ok in the kernel's fs/attr.c).
        """
        temporary = self._temporary_beside(path)
        self._calls.mkdir(temporary, mode)
        try:
            for name, file in files.items():
                self._create(os.path.join(temporary, name), file.data, file.mode, sync=file.synced)
            self.sync_directory(temporary)
            self._calls.rename(temporary, path)
        except OSError:
            self._discard_tree(temporary)
            raise
        self.sync_directory(os.path.dirname(path))

    def make_directory(self, path: str, mode: int) -> None:
        """Create `path` unless it is there, durably."""
        try:
            self._calls.mkdir(path, mode)
        except FileExistsError:
            return
        self.sync_directory(os.path.dirname(path))

    def replace_symlink(self, path: str, target: str) -> None:
        """Point `path` at `target` (relative to it). If it dies half-way: the old target."""
        temporary = self._temporary_beside(path)
        try:
            self._calls.symlink(target, temporary)
        except OSError as error:
            error.filename, error.filename2 = path, None
            raise
        self._move(temporary, path)
        self.sync_directory(os.path.dirname(path))

    def remove_file(self, path: str) -> None:
        """Remove `path` for good; it may be gone already."""
        try:
            self._calls.unlink(path)
        except FileNotFoundError:
            return
        self.sync_directory(os.path.dirname(path))

    def narrow(self, path: str, widest: int) -> None:
        """Take from a file all permissions beyond `widest`, durably; a link is not followed."""
        fd = self._calls.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._calls.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & widest)
            self._calls.fsync(fd)
        finally:
            self._calls.close(fd)

    def give_up_room(self, path: str) -> None:
        """Remove `path` without making that durable; it may be gone already, or come back."""
        try:
            self._calls.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return

    def remove_tree(self, path: str) -> None:
        """Remove a directory of files for good. If it dies half-way: all of it, or a `.tmp-` remainder."""
        temporary = self._temporary_beside(path)
        try:
            self._calls.rename(path, temporary)
        except FileNotFoundError:
            return
        self.sync_directory(os.path.dirname(path))
        self._remove_tree(temporary)
        self.sync_directory(os.path.dirname(path))

    def remove_from(self, directory_fd: int, name: str) -> None:
        """Unlink one name of an open directory and make that durable; it may be gone already."""
        try:
            self._calls.unlink(name, dir_fd=directory_fd)
        except FileNotFoundError:
            return
        self._calls.fsync(directory_fd)

    # -- the drop directory, by its descriptor: other people's names, so nothing of it is looked up by path

    def rename_in(self, directory_fd: int, name: str, new: str, new_directory_fd: int | None = None) -> None:
        """Rename within an open directory, or to another on the same file system, and make that durable."""
        target_fd = directory_fd if new_directory_fd is None else new_directory_fd
        # The last part of a path is not followed by rename(2), and the descriptor's link is the directory.
        self._calls.rename(f"/proc/self/fd/{directory_fd}/{name}", f"/proc/self/fd/{target_fd}/{new}")
        self._calls.fsync(target_fd)

    def unlink_in(self, directory_fd: int, name: str) -> None:
        """One of many removals: the caller syncs the directory after the last one."""
        self._calls.unlink(name, dir_fd=directory_fd)

    def rmdir_in(self, directory_fd: int, name: str) -> None:
        self._calls.rmdir(f"/proc/self/fd/{directory_fd}/{name}")

    def sync_descriptor(self, directory_fd: int) -> None:
        self._calls.fsync(directory_fd)

    def take_over(self, directory_fd: int, group: int) -> None:
        """As root: make an open directory root's own, of this group, and closed to everybody else."""
        os.fchown(directory_fd, 0, group)
        self._calls.fchmod(directory_fd, 0o700)

    def sweep(self, directory: str) -> int:
        """Remove what a crash left behind in `directory`: every `.tmp-` name. Returns how many."""
        try:
            leftovers = [e for e in os.listdir(directory) if e.startswith(TEMPORARY_PREFIX)]
        except FileNotFoundError:
            return 0
        for name in leftovers:
            path = os.path.join(directory, name)
            if stat.S_ISDIR(os.lstat(path).st_mode):
                self._remove_tree(path)
            else:
                self._calls.unlink(path)
        if leftovers:
            self.sync_directory(directory)
        return len(leftovers)

    def probe(self, directory: str, files: int = 1) -> None:
        """Write, sync and remove small files: raises now what a real write would raise later."""
        path = self._temporary_beside(os.path.join(directory, "probe"))
        # Larger than a record or a certificate, so that the last free block is not mistaken for room;
        # as many as will be needed, for a file system can run out of inodes as well. Not zeros: a file
        # system that compresses would need no room for them.
        data = os.urandom(32768)
        self._calls.mkdir(path, 0o700)
        try:
            for number in range(files):
                # One sync tells whether the device takes writes; room is taken by write(2) already.
                self._create(os.path.join(path, str(number)), data, 0o600, sync=number == 0)
            self.sync_directory(path)
        finally:
            self._discard_tree(path)

    def sync_directory(self, path: str) -> None:
        fd = self._calls.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._calls.fsync(fd)
        finally:
            self._calls.close(fd)

    def _temporary_beside(self, path: str) -> str:
        return os.path.join(os.path.dirname(path), TEMPORARY_PREFIX + self._token())

    def _create(self, path: str, data: bytes, mode: int, *, sync: bool) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = self._calls.open(path, flags, mode & 0o600)
        try:
            try:
                # Before the first byte, and in spite of the umask; only ever widens 0600.
                self._calls.fchmod(fd, mode)
                view = memoryview(data)
                while view:
                    view = view[self._calls.write(fd, view) :]
                if sync:
                    self._calls.fsync(fd)
            finally:
                self._calls.close(fd)
        except OSError:
            self._discard(path)
            raise

    def _move(self, temporary: str, path: str) -> None:
        try:
            self._calls.rename(temporary, path)
        except OSError:
            self._discard(temporary)
            raise

    def _discard(self, path: str) -> None:
        try:
            self._calls.unlink(path)
        except OSError:
            pass  # sweep removes it at the next start; the first error is the one to report

    def _discard_tree(self, path: str) -> None:
        try:
            self._remove_tree(path)
        except OSError:
            pass  # as above

    def _remove_tree(self, path: str) -> None:
        for name in os.listdir(path):
            inside = os.path.join(path, name)
            # claimd makes none in there; somebody's `mkdir backup` must not be the end of all passes.
            if stat.S_ISDIR(os.lstat(inside).st_mode):
                self._remove_tree(inside)
            else:
                self._calls.unlink(inside)
        self._calls.rmdir(path)


_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM}


def _named(error: OSError) -> str | None:
    """The path of the two of a rename that a person knows: a temporary name is another one in every pass."""
    for each in (error.filename2, error.filename):
        path = str(each or "")
        is_ours = os.path.basename(path).startswith((TEMPORARY_PREFIX, ".claimd-"))
        if path and not is_ours and not path.startswith("/proc/self/fd/"):
            return path
    return None


def disk_problem(error: OSError, path: str) -> Problem:
    """Name an OSError of this module for a person."""
    where = _named(error) or path
    if error.errno in _FULL:
        return problem(Code.DISK_FULL, path=where, directory=os.path.dirname(where))
    if error.errno == errno.EROFS:
        return problem(Code.DISK_READ_ONLY, path=where)
    if error.errno in _DENIED:
        return problem(Code.PERMISSION_DENIED, path=where, detail=error.strerror or "denied")
    return problem(Code.DISK_FAILED, path=where, detail=error.strerror or str(error.errno))
