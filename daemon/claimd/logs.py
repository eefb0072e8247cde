"""Where log lines go: standard error, which is the journal when the service manager started us.

Invariant: cheap enough for the watcher; a line is one line, whatever is in it.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# sd-daemon(3): the service manager reads a priority from "<N>" at the beginning of a line.
# 25: a notice (news.py), between INFO and WARNING.
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (25, 5), (logging.INFO, 6), (logging.DEBUG, 7))


class _Formatter(logging.Formatter):
    def __init__(self, *, prefix: bool) -> None:
        super().__init__("%(message)s")
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        text = " | ".join(super().format(record).splitlines())
        if not self._prefix:
            return text
        return f"<{_priority(record.levelno)}>{text}"


def _priority(level: int) -> int:
    return next((p for floor, p in _PRIORITIES if level >= floor), 7)


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


def to_journal() -> None:
    """For the worker: entries with fields where the journal listens and python3-systemd is installed (the
    package depends on it), else lines on standard error. The watcher does without: it is a library of
    hundreds of kilobytes for a few lines a year."""
    to_stderr()
    if not is_journal(os.environ, sys.stderr.fileno()):
        return
    try:
        from systemd.journal import send
    except ImportError:
        return
    logging.getLogger().handlers[:] = [JournalHandler(send, logging.getLogger().handlers[0])]


class JournalHandler(logging.Handler):
    """`send`: systemd.journal's. What it can't take goes to `otherwise`."""

    def __init__(self, send: Callable[..., None], otherwise: logging.Handler) -> None:
        super().__init__()
        self._send = send
        self._otherwise = otherwise
        self.setFormatter(_Formatter(prefix=False))

    def emit(self, record: logging.LogRecord) -> None:
        fields = {
            **getattr(record, "journal", {}),
            "PRIORITY": str(_priority(record.levelno)),
            "SYSLOG_IDENTIFIER": "claimd",
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            "CODE_FUNC": record.funcName,
        }
        try:
            self._send(self.format(record), **fields)
        except Exception:
            self._otherwise.handle(record)
