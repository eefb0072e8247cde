"""A person at a terminal: a program below a real pseudo-terminal, what it shows, and keys to press."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Sequence

DEADLINE_SECONDS = 60.0


class TerminalUser:
    def __init__(self, command: Sequence[str]) -> None:
        """The program has the terminal as its controlling one, so that Ctrl-C reaches it."""
        self._master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.shown = b""
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            close_fds=True,
        )

    def wait_for(self, words: str) -> None:
        end = time.monotonic() + DEADLINE_SECONDS
        while words.encode() not in self.shown:
            assert time.monotonic() < end, (words, self.shown)
            self._look(0.1)

    def type(self, text: str | bytes) -> None:
        """In pieces, as a terminal takes them, with an eye on the screen."""
        left = text if isinstance(text, bytes) else text.encode()
        while left:
            self._look(0)
            left = left[os.write(self._master, left[:1000]) :]

    def ended(self) -> int:
        end = time.monotonic() + DEADLINE_SECONDS
        while self._process.poll() is None:
            assert time.monotonic() < end, self.shown
            self._look(0.05)
        self._look(0)
        return self._process.returncode

    def settings(self) -> list[object]:
        return termios.tcgetattr(self._slave)

    def left_for_the_shell(self) -> bytes:
        """What a shell would read next."""
        os.set_blocking(self._slave, False)
        try:
            return os.read(self._slave, 65536)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _look(self, seconds: float) -> None:
        while select.select([self._master], [], [], seconds)[0]:
            self.shown += os.read(self._master, 65536)
            seconds = 0
