"""Log lines: plain, with a priority in front for the journal's stream, and as entries with fields."""

from __future__ import annotations

import logging
import os
from typing import Any

from claimd import logs


def record(level: int, text: str, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("claimd.test", level, "/x/test.py", 7, text, (), None, "function")
    made.__dict__.update(more)
    return made


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Sent:
    """Stands for systemd.journal.send."""

    def __init__(self, error: Exception | None = None) -> None:
        self.entries: list[dict[str, str | int]] = []
        self.error = error

    def __call__(self, message: str, **fields: str | int) -> None:
        if self.error is not None:
            raise self.error
        self.entries.append({"MESSAGE": message, **fields})


def test_an_entry_has_its_fields_and_its_priority() -> None:
    sent = Sent()
    handler = logs.JournalHandler(sent, Kept())
    handler.handle(record(25, "it is\nthere", journal={"CLAIMD_STAGE": "active", "MESSAGE_ID": "ab"}))
    handler.handle(record(logging.WARNING, "plain"))
    assert sent.entries[0] == {
        "MESSAGE": "it is | there",
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "claimd",
        "CLAIMD_STAGE": "active",
        "MESSAGE_ID": "ab",
        "CODE_FILE": "/x/test.py",
        "CODE_LINE": 7,
        "CODE_FUNC": "function",
    }
    assert (sent.entries[1]["PRIORITY"], "MESSAGE_ID" in sent.entries[1]) == ("4", False)


def test_what_the_journal_does_not_take_goes_to_standard_error() -> None:
    kept = Kept()
    logs.JournalHandler(Sent(OSError("gone")), kept).handle(record(logging.ERROR, "a line"))
    assert kept.lines == ["a line"]


def test_the_journal_s_stream_is_known_by_its_inode() -> None:
    read_end, write_end = os.pipe()
    try:
        status = os.fstat(write_end)
        assert logs.is_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, write_end)
        assert not logs.is_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}1"}, write_end)
        assert not logs.is_journal({}, write_end)
    finally:
        os.close(read_end)
        os.close(write_end)
    assert not logs.is_journal({"JOURNAL_STREAM": "1:1"}, write_end)
