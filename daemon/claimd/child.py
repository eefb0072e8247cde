"""Starts and ends the processes that do the work for the watcher.

Invariant: always a new program (posix_spawn), never a fork: this process has threads. A child gets no
descriptor but the standard three, an environment from the allow-list, and a process group of its own, so
that a Ctrl-C on the terminal is the watcher's to pass on. subprocess is not used: it is more than
2 MB of a service that lives for years.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Of a child's output the end is kept; `config show` prints the most, some kilobytes.
MAX_OUTPUT_BYTES = 256 * 1024

# Nothing that steers the service manager's protocol, and nothing that only the caller's session needs.
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "PYTHONPATH",
    "PYTHONPYCACHEPREFIX",
    "PYTHONDONTWRITEBYTECODE",
)


def environment(own: Mapping[str, str]) -> dict[str, str]:
    return {name: own[name] for name in _PASSED_ON if name in own}


def same_program() -> tuple[str, ...]:
    """How this process was started, without its arguments: interpreter, its options, script or module.

    So a child finds the same package by the same path, whether that is a launcher with `-I`, a virtual
    environment or `python -m claimd`.
    """
    ours = len(sys.argv) - 1
    return (sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - ours])


class Child:
    """One process, its standard output collected; standard error is ours."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Raises OSError when it can't be started."""
        read_end, write_end = os.pipe()
        try:
            self.pid = os.posix_spawn(
                command[0],
                list(command),
                dict(env),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write_end, 1),
                ],
                setpgroup=0,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM],
            )
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        os.set_blocking(read_end, False)
        self._fd = read_end
        self._open = True
        self._output = b""
        self.status: int | None = None

    @property
    def descriptor(self) -> int | None:
        """To wait on for output; None once the other end is closed."""
        return self._fd if self._open else None

    def read(self) -> None:
        while self._open:
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return
            if not data:
                self._close()
            self._output = (self._output + data)[-MAX_OUTPUT_BYTES:]

    def ended(self) -> bool:
        """Whether it has ended; then all its output was read, and `status` is set as waitpid tells it."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == 0:
                return False
            self.status = status
            # What it wrote before it ended is in the pipe by now; a process left behind may hold it open.
            self.read()
            self._close()
        return True

    def output(self) -> str:
        return self._output.decode("utf-8", "replace")

    def send(self, number: signal.Signals) -> None:
        """To the whole group, so that nothing the child started stays behind."""
        if self.status is None:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass  # it ended a moment ago and will be seen

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._fd)


def ending(status: int) -> str:
    """How a process ended, in words, from its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"exit code {os.WEXITSTATUS(status)}"
