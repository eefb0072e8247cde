"""Lets one loop sleep until a signal, another thread or a child's output wants it.

Invariant: no signal is lost and none is acted on in a handler: a handler notes its number, and the loop
asks for what was noted after every sleep.
"""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType


class Wakeup:
    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        self._noted: set[int] = set()

    def listen(self, numbers: Iterable[signal.Signals]) -> None:
        """From now on these signals are noted. The main thread's to call."""
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, self._on_signal)
        # Whoever started this process may have blocked them.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def ring(self) -> None:
        """End the sleep. From any thread."""
        try:
            os.write(self._write_end, b"!")
        except BlockingIOError:
            pass  # it is full, so the sleep ends anyway

    def sleep(self, seconds: float, descriptors: Iterable[int]) -> None:
        """Until something happens or the time is up."""
        poller = select.poll()
        poller.register(self._read_end, select.POLLIN)
        for descriptor in descriptors:
            poller.register(descriptor, select.POLLIN)
        # Rounded up: waking a millisecond early would be a second waking for the same reason.
        poller.poll(int(max(0.0, seconds) * 1000) + 1)
        try:
            os.read(self._read_end, 4096)
        except BlockingIOError:
            pass

    def take_signals(self) -> set[int]:
        """What was noted since the last call."""
        noted, self._noted = self._noted, set()
        return noted

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._noted.add(number)
