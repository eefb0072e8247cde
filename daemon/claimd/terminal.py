"""What the commands share: reading what the service wrote, and speaking to a person.

Invariant: colour and cursor movements only on a terminal that has them; in the C locale plain ASCII.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from .errors import Code, fail, printable, problem
from .report import MAX_STATUS_BYTES, decoded, merged, problem_lines
from .screen import START, painted
from .words import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from .errors import Problem
    from .model import Layout
    from .report import Advice

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

INTERRUPTED = 130  # as a shell says it of Ctrl-C

_NARROWEST = 40


def prepare() -> None:
    """Where the locale is C, what is not ASCII becomes an escape: no exception, no broken screen.

    Python itself would take the C locale for UTF-8 (PEP 540).
    """
    locale = next((v for n in ("LC_ALL", "LC_CTYPE", "LANG") if (v := os.environ.get(n))), "C")
    encoding = "ascii" if locale in ("C", "POSIX") else None
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=encoding or stream.encoding, errors="backslashreplace")


def columns(stream: TextIO) -> int:
    """80, or what a narrower terminal has."""
    if not stream.isatty():
        return COLUMNS
    return max(_NARROWEST, min(COLUMNS, shutil.get_terminal_size().columns))


def coloured(stream: TextIO) -> bool:
    """https://no-color.org: set and not empty means none."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(lines: Sequence[str], stream: TextIO | None = None) -> None:
    stream = stream or sys.stdout
    shown = [painted(line) for line in lines] if coloured(stream) else lines
    print("\n".join(shown), file=stream, flush=True)


class Live:
    """A screenful that is drawn over itself."""

    def __init__(self) -> None:
        self._drawn: list[str] = []

    def draw(self, lines: Sequence[str]) -> None:
        """Nothing when nothing changed. Cut to the window's height: what scrolled away can't be drawn over.

        A line that is too long is folded here, so that the rows are known: a command keeps its end.
        """
        size = shutil.get_terminal_size()
        rows = [
            line[at : at + size.columns] for line in lines for at in range(0, max(len(line), 1), size.columns)
        ]
        shown = rows[: size.lines - 1]
        if shown == self._drawn:
            return
        up = f"\x1b[{len(self._drawn)}A" if self._drawn else ""
        body = [painted(line) for line in shown] if coloured(sys.stdout) else shown
        sys.stdout.write(up + "\r\x1b[J" + "".join(f"{line}\n" for line in body))
        sys.stdout.flush()
        self._drawn = shown

    @staticmethod
    def possible() -> bool:
        return sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


def tell(lines: Sequence[str], stream: TextIO) -> None:
    """What is said while something is done, or about what has been done: that nobody listens any more is
    no failure of it. A terminal that hung up fails with EIO, a pipe without a reader with EPIPE."""
    try:
        say(lines, stream)
    except OSError:
        # What is still in the buffer goes there too: at its end Python would fail with it, and exit with 120.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def complain(found: Problem, advice: Advice | None = None) -> None:
    tell(problem_lines(found, advice), sys.stderr)


def read_document(path: str) -> dict[str, Any] | None:
    """A status file, or None when it is not there or not whole (it may be another user's, or older)."""
    try:
        return _document(path)
    except (OSError, ValueError):
        return None


def _document(path: str) -> dict[str, Any]:
    """Raises OSError and ValueError."""
    with open(path, "rb") as file:
        return decoded(file.read(MAX_STATUS_BYTES + 1))


def _worker(layout: Layout) -> dict[str, Any] | None:
    """None before the first pass. What is there and can't be read says nothing, least of all that there is
    no identity."""
    try:
        return _document(layout.status_file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise fail(Code.STATUS_UNREADABLE, path=layout.status_file, detail=why) from error


def now() -> datetime:
    return datetime.now(timezone.utc)


def status(layout: Layout) -> dict[str, Any]:
    """What `claimd status --json` prints.

    Looked at in the order in which things happen, drop directory, watcher, worker: what moves on
    meanwhile is then seen twice, never missed. Raises ClaimdError(STATUS_UNREADABLE).
    """
    names = dropped(layout)
    watcher = service(layout)
    worker = _worker(layout)
    return merged(worker, watcher, drop_directory=layout.drop_directory, dropped=names)


def service(layout: Layout) -> dict[str, Any] | None:
    """What the watcher says of itself; None when it is not running."""
    watcher = read_document(layout.supervisor_file)
    return watcher if _alive(watcher) else None


def start_command(layout: Layout) -> str:
    """What starts this device's service. Below --root there is no service manager."""
    return shlex.join(["claimd", "--root", layout.root, "run"]) if layout.root else START


def stopped(layout: Layout) -> dict[str, Any]:
    """That the service is not running, as a status shows a problem, with the command for this device."""
    command = start_command(layout)
    said = problem(Code.SERVICE_STOPPED).to_json()
    return {**said, "remedy": f"start it: {command}", "commands": [command]}


def warn_if_stopped(layout: Layout) -> None:
    """For who has dropped a claim, or waits for one: nothing comes of it without the service."""
    if service(layout) is None:
        said = f"claimd: the service is not running; start it: {start_command(layout)}"
        tell([said], sys.stderr)


def dropped(layout: Layout) -> list[str] | None:
    """Names in the drop directory, without what claimd set aside; None for those who may not list it."""
    try:
        return [name for name in os.listdir(layout.drop_directory) if not name.startswith(".claimd-")]
    except OSError:
        return None


def unseen(layout: Layout, document: dict[str, Any]) -> bool:
    """Something lies in the drop directory that the last pass has not looked at."""
    updated = document["updated_at"]
    looked = datetime.fromisoformat(updated).timestamp() if updated else 0.0
    named = {one["file"].partition("/")[0] for one in document["drop"]}
    for name in dropped(layout) or ():
        try:
            changed = os.stat(os.path.join(layout.drop_directory, name), follow_symlinks=False).st_ctime
        except OSError:
            return True  # just taken in
        # Of a flood the last pass has named only some.
        if changed > looked or not (printable(name) in named or document["drop_more"]):
            return True
    return False


def _alive(watcher: dict[str, Any] | None) -> bool:
    """A watcher that was killed left its file behind."""
    pid = watcher.get("pid") if watcher else None
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is there and belongs to somebody else
    return True
