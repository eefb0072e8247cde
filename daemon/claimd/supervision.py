"""supervisor.json: what the watcher is doing, for `claimd status` and for the service manager.

Invariant: written only when something changed, replaced atomically, by the one process that holds the
lock on the run directory; the kernel gives that lock back however the process ends.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from .durable import Disk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model import Layout
    from .verdict import Configuration, Verdict

log = logging.getLogger(__name__)

_SCHEMA = 1
_MODE = 0o644  # no secrets in it: `claimd status` is for everybody


def utc(seconds: float) -> str:
    """datetime would be half a megabyte of the watcher."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))


def take_lock(layout: Layout) -> int | None:
    """A descriptor that holds the watcher's lock as long as it is open, or None: another one holds it.

    The lock is on the run directory itself, which is made when it is missing. Raises OSError.
    """
    os.makedirs(layout.run_directory, mode=0o755, exist_ok=True)
    descriptor = os.open(layout.run_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def holder(layout: Layout) -> str:
    """Who holds the lock, as far as its own file says."""
    try:
        with open(layout.supervisor_file, encoding="utf-8") as file:
            return str(int(json.load(file)["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


class Supervision:
    """The facts, and the file that shows them."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.supervisor_file
        self._drop_directory = layout.drop_directory
        self._disk = Disk()
        self._published = ""
        self._failed = False
        self._facts: dict[str, Any] = {
            "schema": _SCHEMA,
            "pid": os.getpid(),
            "started_at": utc(time.time()),
            "state": "watching",
            "watch": "inotify",
            "watch_problem": None,
            "configuration": {"ok": False, "problem": None, "sha256": None},
            "worker": None,
            "last_pass": None,
            "next_pass_at": None,
            "passes": 0,
            "crashes_in_row": 0,
        }

    def watching(self, problem: str | None) -> None:
        self._facts["watch"] = "inotify" if problem is None else "polling"
        self._facts["watch_problem"] = problem

    def configured(self, found: Configuration) -> None:
        self._facts["configuration"] = {"ok": found.ok, "problem": found.problem, "sha256": found.sha256}

    def pass_began(self, pid: int) -> None:
        self._facts["state"] = "running"
        now = time.time()
        # What came before it and what came after it may lie in the same second.
        exact = f".{int(now % 1 * 1e6):06d}+".join(utc(now).split("+"))
        self._facts["worker"] = {"pid": pid, "started_at": exact}

    def pass_ended(self, found: Verdict, exit_code: int, crashes_in_row: int) -> None:
        self._facts["state"] = "watching"
        self._facts["worker"] = None
        self._facts["last_pass"] = {
            "ended_at": utc(time.time()),
            "exit": exit_code,
            "outcome": found.outcome,
            "problem": found.problem,
        }
        self._facts["passes"] += 1
        self._facts["crashes_in_row"] = crashes_in_row

    def next_pass(self, after_seconds: float | None) -> None:
        self._facts["next_pass_at"] = None if after_seconds is None else utc(time.time() + after_seconds)

    def stopping(self) -> None:
        self._facts["state"] = "stopping"
        self._facts["next_pass_at"] = None

    def publish(self) -> None:
        """Write the file if it would say something new. /run may be full: then the service goes on."""
        text = json.dumps(self._facts)
        if text == self._published:
            return
        try:
            self._disk.write_volatile(self._path, text.encode() + b"\n", _MODE)
        except OSError as error:
            if not self._failed:
                log.warning("cannot write %s: %s; claimd status will not show the service", self._path, error)
            self._failed = True
            return
        self._published, self._failed = text, False

    def words(self) -> str:
        """The same in a line, for `systemctl status`."""
        facts = self._facts
        if facts["state"] == "stopping":
            return "stopping"
        if facts["worker"] is not None:
            return "a pass is running; details: claimd status"
        said = [_sentence(facts["configuration"]), _sentence(facts["last_pass"])]
        if facts["next_pass_at"] is not None:
            said.append(f"next pass at {facts['next_pass_at']}")
        if facts["watch_problem"] is not None:
            said.append(f"{facts['watch_problem']}; looking every few seconds instead")
        return "; ".join([f"watching {self._drop_directory}", *filter(None, said)])


def _sentence(part: Mapping[str, Any] | None) -> str | None:
    found = None if part is None else part["problem"]
    return None if found is None else str(found["message"])
