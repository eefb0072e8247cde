"""One pass at a time: an flock(2) on the state directory, which ends with its holder, however that ends."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# For a person's command. A pass that looks at a copy in progress takes 3 s for the grace alone, unless
# configured.
PATIENCE_SECONDS = 10.0
POLL_SECONDS = 0.05


def for_a_moment(
    elapsed: Callable[[], float],
    sleep: Callable[[float], None],
    stopping: Callable[[], bool],
    say: Callable[[str], None],
) -> Callable[[], bool]:
    """How a person's command waits for the pass at work, which mostly ends while one would type it again."""
    began = elapsed()
    said = False

    def wait() -> bool:
        nonlocal said
        if not said:
            say("another pass is at work: this waits for its end")
            said = True
        sleep(POLL_SECONDS)
        return elapsed() - began < PATIENCE_SECONDS and not stopping()

    return wait


class LockedError(Exception):
    """Another process holds the state directory."""

    def __init__(self, pid: str) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid


def take(fd: int, wait: Callable[[], bool] | None = None) -> bool:
    """Lock the open directory until it is closed; whether it was waited for. Raises LockedError.

    `wait`: called again and again while another process holds it; false when that has lasted too long.
    """
    waited = False
    while not _is_taken(fd):
        if wait is None or not wait():
            raise LockedError(_holder(fd))
        waited = True
    return waited


def is_held(directory: str) -> bool:
    """Whether somebody is at work now. What can't be told counts as no: a pass says why."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _is_taken(fd)
    finally:
        os.close(fd)


def _is_taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> str:
    """The pid that holds the flock, as /proc/locks tells it; "?" where it does not."""
    inode = os.fstat(fd).st_ino
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            for line in locks:
                parts = line.split()
                if len(parts) > 5 and parts[1] == "FLOCK" and parts[5].endswith(f":{inode}"):
                    return parts[4]
    except OSError:
        pass
    return "?"
