"""Talks to the service manager: one datagram a message, as sd_notify(3) describes.

Invariant: nothing here can fail the service. A manager that does not listen is no reason to stop.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """Without an address (started by hand) it says nothing."""

    def __init__(self, address: str | None) -> None:
        # '@' stands for the NUL that an abstract address begins with (sd_notify(3), unix(7)).
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._status: str | None = None

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        """The time tells the manager which READY=1 belongs to this reload (sd_notify(3), 253 and later)."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, words: str) -> None:
        """Plain words for `systemctl status`; sent when they change."""
        if words != self._status:
            self._status = words
            self._send("STATUS=" + " ".join(words.split()))

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                # A manager that reads slowly must not hold up the service.
                out.setblocking(False)
                out.sendto(message.encode("utf-8", "backslashreplace"), self._address)
        except OSError:
            pass  # the next message says it again


def watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """How often the manager wants to hear of this process, or None (sd_watchdog_enabled(3))."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environment.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / 1_000_000
