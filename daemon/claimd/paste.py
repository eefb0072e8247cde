"""Reads a claim that is pasted into a terminal, without showing it and without the terminal's own limits.

The kernel's line discipline echoes, and cuts a line at 4,095 characters (n_tty.c, N_TTY_BUF_SIZE): pasted
into `cat >`, a claim on one line loses its end. Here it is switched off while reading. Invariant: the
terminal is as it was before, however this ends, and nothing of what was pasted reaches the shell behind it.
"""

from __future__ import annotations

import os
import re
import select
import signal
import termios
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .pem import MAX_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A paste comes in pieces as the network brings them; after so long without one it is looked at.
QUIET_SECONDS = 0.25
# What follows a whole claim in the same paste (the public key, closing brackets) is swallowed, so long at
# most.
SWALLOW_SECONDS = 3.0
# Two pastes and what stands around them.
MAX_PASTE_BYTES = 4 * MAX_FILE_BYTES

_END_OF_TEXT = b"\x04"  # Ctrl-D; without the line discipline it arrives as it is
# What a terminal puts around a paste when a program has asked for it (xterm's control sequences, mode 2004).
_BRACKETS = re.compile(rb"\x1b\[20[01]~")


def read_paste(fd: int, invite: Callable[[], None], tell: Callable[[bytes], bool]) -> bytes:
    """What is pasted into the terminal `fd`, until `tell` finds it whole, Ctrl-D, or nothing more can come.

    `invite` asks for it once nothing is shown any more. `tell` sees all that came so far whenever the pasting
    pauses. Raises KeyboardInterrupt on Ctrl-C.
    """
    with _silent(fd):
        invite()
        text = b""
        while len(text) <= MAX_PASTE_BYTES:
            piece = _piece(fd)
            end = piece is None or _END_OF_TEXT in piece
            text += (piece or b"").split(_END_OF_TEXT)[0]
            if tell(without_brackets(text)) or end:
                break
        _swallow(fd)
        return without_brackets(text)


def without_brackets(text: bytes) -> bytes:
    return _BRACKETS.sub(b"", text)


def _piece(fd: int) -> bytes | None:
    """What comes until it pauses; None when the terminal is gone."""
    text = b""
    timeout = None
    while len(text) <= MAX_PASTE_BYTES and select.select([fd], [], [], timeout)[0]:
        try:
            read = os.read(fd, 65536)
        except OSError:  # EIO: hung up
            read = b""
        if not read:
            return text or None
        text += read
        if _END_OF_TEXT in text:
            break
        timeout = QUIET_SECONDS
    return text


def _swallow(fd: int) -> None:
    end = time.monotonic() + SWALLOW_SECONDS
    while time.monotonic() < end and select.select([fd], [], [], QUIET_SECONDS)[0]:
        try:
            if not os.read(fd, 65536):
                return
        except OSError:
            return


@contextmanager
def _silent(fd: int) -> Iterator[None]:
    """No echo, no lines, no Ctrl-Z; Ctrl-C and being told to end still work, and put it all back."""
    before = termios.tcgetattr(fd)
    wanted = termios.tcgetattr(fd)
    # A CR stays one or becomes a newline as before: both end a line of PEM. Ctrl-S must not stop the paste.
    wanted[0] &= ~(termios.IXON | termios.IXOFF)
    wanted[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
    wanted[6][termios.VMIN], wanted[6][termios.VTIME] = 1, 0
    wanted[6][termios.VSUSP] = os.fpathconf(fd, "PC_VDISABLE").to_bytes(1, "little")
    handlers = {number: signal.signal(number, _give_up) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, wanted)
        yield
    finally:
        # What came meanwhile is thrown away: it may be the rest of a key.
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _give_up(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
