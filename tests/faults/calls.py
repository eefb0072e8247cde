"""Disk calls that die, fail or are counted: what stands in for `durable.Calls`.

Every call and every boundary of the network has a number, in the order of the pass, from 1.
Invariant: `fsync` of the plain ones does nothing: a process that is killed loses nothing that it wrote,
so the sweep does not wait for a disk. What a missing fsync costs is for the replay of power cuts.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from enum import Enum

from claimd.durable import Calls, SystemCalls


class PlainCalls(SystemCalls):
    """The machine's own calls, without waiting for the disk."""

    def fsync(self, fd: int) -> None:
        os.fstat(fd)


class When(str, Enum):
    BEFORE = "before"
    AFTER = "after"
    HALF = "half"  # of the bytes of a write


class Wrapped:
    """Every call goes through `around(name, do, half)`. `half`: the first half of a write, else None."""

    def __init__(self, calls: Calls | None = None) -> None:
        self._calls: Calls = calls if calls is not None else PlainCalls()

    def around(self, name: str, do: Callable[[], int | None], half: Callable[[], int] | None) -> int | None:
        raise NotImplementedError

    def _number(self, name: str, do: Callable[[], int]) -> int:
        result = self.around(name, do, None)
        assert result is not None
        return result

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        return self._number("open", lambda: self._calls.open(path, flags, mode, dir_fd=dir_fd))

    def write(self, fd: int, data: bytes | memoryview, /) -> int:
        def half() -> int:
            return self._calls.write(fd, memoryview(data)[: len(data) // 2])

        written = self.around("write", lambda: self._calls.write(fd, data), half)
        assert written is not None
        return written

    def fsync(self, fd: int) -> None:
        self.around("fsync", lambda: self._calls.fsync(fd), None)

    def fchmod(self, fd: int, mode: int) -> None:
        self.around("fchmod", lambda: self._calls.fchmod(fd, mode), None)

    def close(self, fd: int) -> None:
        self.around("close", lambda: self._calls.close(fd), None)

    def rename(self, src: str, dst: str) -> None:
        self.around("rename", lambda: self._calls.rename(src, dst), None)

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        self.around("unlink", lambda: self._calls.unlink(path, dir_fd=dir_fd), None)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self.around("mkdir", lambda: self._calls.mkdir(path, mode), None)

    def rmdir(self, path: str) -> None:
        self.around("rmdir", lambda: self._calls.rmdir(path), None)

    def symlink(self, src: str, dst: str) -> None:
        self.around("symlink", lambda: self._calls.symlink(src, dst), None)


class Counting(Wrapped):
    """Lists the calls and boundaries of a pass by name: the map of where to strike."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def around(self, name: str, do: Callable[[], int | None], half: Callable[[], int] | None) -> int | None:
        self.names.append(name)
        return do()

    def boundary(self, name: str) -> None:
        self.names.append(name)


class Killing(Wrapped):
    """SIGKILL to this process at the call or boundary with a number."""

    def __init__(self, number: int, when: When) -> None:
        super().__init__()
        self._number_wanted = number
        self._when = when
        self._at = 0

    def around(self, name: str, do: Callable[[], int | None], half: Callable[[], int] | None) -> int | None:
        self._at += 1
        if self._at != self._number_wanted:
            return do()
        try:
            if self._when is When.HALF and half is not None:
                half()
            elif self._when is When.AFTER:
                do()
        finally:  # a call that failed (mkdir of what is there) is over too
            os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("SIGKILL does not return")

    def boundary(self, name: str) -> None:
        self.around(name, lambda: None, None)


class Failing(Wrapped):
    """OSError at the call with a number, and with `persistent` at every call of its name from there on."""

    def __init__(self, number: int, error: int, *, persistent: bool) -> None:
        super().__init__()
        self._wanted, self._error, self._persistent = number, error, persistent
        self._at = 0
        self._name: str | None = None
        self.struck = 0

    def around(self, name: str, do: Callable[[], int | None], half: Callable[[], int] | None) -> int | None:
        self._at += 1
        if self._at == self._wanted:
            self._name = name
        is_hit = self._at == self._wanted or (self._persistent and name == self._name)
        if not is_hit:
            return do()
        self.struck += 1
        if name == "close":
            do()  # Linux lets go of the descriptor, whatever close(2) says
        raise OSError(self._error, os.strerror(self._error))

    def boundary(self, name: str) -> None:
        """The network does not fail here; it takes a number all the same, as in the other sweeps."""
        self._at += 1
