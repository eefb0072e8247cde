"""The result directory, which technicians read: one short text a drop, and latest.txt.

    result/<name of the dropped file>.txt      0640, the directory's group: claimd-drop
    result/latest.txt                          the same text for what happened last; READY or NOT READY before

Invariant: an answer is replaced whole, and only when it says something new; the directory holds a bounded
number of bounded texts. Whoever writes answers goes on when they can't be written.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from . import answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .durable import Disk

MODE = 0o640
KEPT = timedelta(days=7)
MAX_ANSWERS = 200
MAX_UNREAD_ANSWERS = 5000
# A pass that meets a flood answers to so many files.
MAX_ANSWERS_A_PASS = 32
_MAX_ANSWER_BYTES = 16 * 1024
_OF_THE_DEVICE = ("READY", "NOT READY")


class ResultDirectory:
    def __init__(self, path: str, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._prepared = False

    def write(self, answers: Mapping[str, list[str]], latest: list[str] | None, now: datetime) -> None:
        """`answers`: by the name of the dropped file, a bounded number. Raises OSError."""
        self._prepare()
        # latest.txt first: until an answer is replaced it can be seen that latest.txt told of the same.
        texts = {} if latest is None else {answer.LATEST: latest}
        for name, lines in answers.items():
            texts[answer.file_name(name)] = lines
        for name, lines in texts.items():
            self._write(name, answer.text(lines, now))

    def age_out(self, now: datetime) -> None:
        """Old answers go, and the oldest of too many. Raises OSError."""
        self._prepare()
        with os.scandir(self._path) as entries:
            found = sorted(
                (entry.stat(follow_symlinks=False).st_mtime, entry.name)
                for entry in entries
                if entry.name != answer.LATEST
            )
        oldest, unread = (now - KEPT).timestamp(), (now - answer.REMEMBERED).timestamp()
        for number, (changed, name) in enumerate(found):
            # Of many in a few minutes none goes before it could be read: it may be another's than the flood.
            most = MAX_ANSWERS if changed < unread else MAX_UNREAD_ANSWERS
            if changed < oldest or len(found) - number > most:
                self._disk.remove_file(os.path.join(self._path, name))

    def tells_of_a_drop(self, now: datetime) -> bool:
        """Whether latest.txt answers a drop of the last minutes: somebody still has to read it."""
        word, changed = self._latest()
        return word not in ("", *_OF_THE_DEVICE, "DONE") and abs(now - changed) < answer.REMEMBERED

    def refuses(self, now: datetime) -> bool:
        """Whether latest.txt has refused a drop of the last minutes."""
        word, changed = self._latest()
        return word == "REFUSED" and abs(now - changed) < answer.REMEMBERED

    def is_news(self, name: str, seconds_ago: float, now: datetime) -> bool:
        """Whether the file that came so long ago is what latest.txt has to tell of: unless something that
        came later is told there."""
        word, changed = self._latest()
        if word in ("", *_OF_THE_DEVICE) or seconds_ago < (now - changed).total_seconds():
            return True
        return self.is_latest(name)

    def is_latest(self, name: str) -> bool:
        """Whether latest.txt says what the answer to this file says."""
        before = _without_time(self._read(answer.LATEST))
        return bool(before) and before == _without_time(self._read(answer.file_name(name)))

    def _latest(self) -> tuple[str, datetime]:
        """Its first line, empty when there is none, and when it was written."""
        try:
            with open(os.path.join(self._path, answer.LATEST), "rb") as file:
                word = file.readline(64).strip().decode("ascii", "replace")
                return word, datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, timezone.utc)
        except OSError:
            return "", datetime.min.replace(tzinfo=timezone.utc)

    def _read(self, name: str) -> bytes:
        try:
            with open(os.path.join(self._path, name), "rb") as file:
                return file.read(_MAX_ANSWER_BYTES)
        except OSError:
            return b""

    def _prepare(self) -> None:
        if self._prepared:
            return
        # Made by tmpfiles on a device, with its own group; this is for --root and a lost directory.
        # Without set-id bits: mkdir(2) takes none, and the unit's RestrictSUIDSGID= refuses to be asked.
        self._disk.make_directory(self._path, 0o750)
        self._disk.sweep(self._path)
        self._prepared = True

    def _write(self, name: str, text: bytes) -> None:
        # The last line is the time: an answer that says the same keeps the one it had.
        if _without_time(self._read(name)) != _without_time(text):
            self._disk.write_volatile(os.path.join(self._path, name), text, MODE)


def _without_time(text: bytes) -> bytes:
    return text.rstrip(b"\n").rpartition(b"\n")[0]
