"""Runs one program of somebody else's to its end or its time limit, and hands on what it says.

Invariant: when this returns, the program and what it left in its process group have ended; a process that
left the group on purpose goes on, and can't hold us up by keeping the output open.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Between two looks whether it has ended: an end is no event of the pipe when a grandchild holds it open.
LOOK_SECONDS = 0.1
# From SIGTERM to SIGKILL.
GRACE_SECONDS = 5.0
# A longer line is cut into pieces of this.
MAX_LINE_BYTES = 2000


def run(path: str, environment: Mapping[str, str], seconds: float, say: Callable[[str], None]) -> str | None:
    """Why it did not succeed, or None. `say` gets its output line by line, printable."""
    try:
        process = subprocess.Popen(
            [path],
            env=dict(environment),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return f"it can't be started: {error.strerror}"
    assert process.stdout is not None
    lines = _Lines(say)
    limit = time.monotonic() + seconds
    timed_out = False
    with process.stdout as pipe, selectors.DefaultSelector() as selector:
        os.set_blocking(pipe.fileno(), False)
        selector.register(pipe, selectors.EVENT_READ)
        while not _has_ended(process.pid):
            if time.monotonic() >= limit:
                _send(process.pid, signal.SIGKILL if timed_out else signal.SIGTERM)
                timed_out = True
                limit = time.monotonic() + GRACE_SECONDS
            if selector.get_map():
                selector.select(LOOK_SECONDS)
                if not _drain(pipe.fileno(), lines):
                    selector.unregister(pipe)
            else:
                time.sleep(LOOK_SECONDS)
        # Before it is waited for: until then its id, which is the group's, can't be another's.
        _send(process.pid, signal.SIGKILL)
        process.wait()
        _drain(pipe.fileno(), lines)
    lines.end()
    if timed_out:
        return f"it took longer than {seconds:g} s and was ended"
    return _ending(process.returncode)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _ending(code: int) -> str | None:
    if code < 0:
        return f"it was killed by {signal.Signals(-code).name}"
    return f"exit code {code}" if code else None


def _send(group: int, number: signal.Signals) -> None:
    """To the whole group, also after its leader has ended."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


def _drain(descriptor: int, lines: _Lines) -> bool:
    """What is there now. False at the end."""
    while True:
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return True
        if not data:
            return False
        lines.add(data)


class _Lines:
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._rest = b""

    def add(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._pass_on(line)
        while len(self._rest) > MAX_LINE_BYTES:
            self._pass_on(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]

    def end(self) -> None:
        if self._rest:
            self._pass_on(self._rest)

    def _pass_on(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text.rstrip())
        self._say(shown)
