"""Where log lines go: standard error, which is the journal when the service manager started us.

Invariant: cheap enough for the watcher; a line is one line, whatever is in it.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# sd-daemon(3): the service manager reads a priority from "<N>" at the beginning of a line.
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))


class _Formatter(logging.Formatter):
    def __init__(self, *, prefix: bool) -> None:
        super().__init__("%(message)s")
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        text = " | ".join(super().format(record).splitlines())
        if not self._prefix:
            return text
        priority = next((p for level, p in _PRIORITIES if record.levelno >= level), 7)
        return f"<{priority}>{text}"


def is_journal(environment: Mapping[str, str], descriptor: int) -> bool:
    """Whether this descriptor is the journal's stream (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(prefix=is_journal(os.environ, sys.stderr.fileno())))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
