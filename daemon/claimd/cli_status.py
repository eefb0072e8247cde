"""The commands that tell: status, wait, explain."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from .errors import ClaimdError, Code, Exit, printable
from .terminal import (
    Live,
    columns,
    now,
    say,
    service,
    start_command,
    status,
    stopped,
    unseen,
    warn_if_stopped,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from .model import Layout
    from .terminal import Commands
    from .waiting import Ending

# Between two looks at the files that the service writes: a stat and a read each.
LOOK_SECONDS = 0.2
DEFAULT_WAIT = "5m"  # as long as a claim lives


def add_to(commands: Commands) -> None:
    shown = commands.add_parser("status", help="what this device has, does and needs")
    how = shown.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help='print the document ("schema": 1) instead of text')
    how.add_argument("--follow", action="store_true", help="stay and show every change, until Ctrl-C")
    shown.set_defaults(command=_status)

    wait = commands.add_parser(
        "wait",
        help="wait until a claim has become the identity, or can't",
        description="Wait for a claim, by default for the newest drop. Ends 0: it became the identity; 3: it"
        " did not, the old identity serves; 65: it can't be used; 69: AWS refused it, or somebody has to act;"
        " 124: time is up.",
    )
    wait.add_argument("fingerprint", nargs="?", metavar="FINGERPRINT", help="the claim, as status names it")
    wait.add_argument("--timeout", default=DEFAULT_WAIT, metavar="TIME", help="90s, 5m, 1h (default 5m)")
    wait.set_defaults(command=_wait)

    explain = commands.add_parser("explain", help="what a failure's code means and what to do")
    explain.add_argument("code", nargs="?", help="a code as status prints it; default: this device's problem")
    explain.add_argument("--list", action="store_true", help="all codes, a line each")
    explain.set_defaults(command=_explain)


def _status(options: argparse.Namespace, layout: Layout) -> int:
    if options.follow:
        _Progress(layout).follow(lambda document: None)
        return Exit.OK
    document = status(layout)
    if options.json:
        print(json.dumps(document, indent=2))
        return Exit.OK
    from .screen import status_lines

    say(status_lines(document, now(), columns(sys.stdout), start=start_command(layout)))
    return Exit.OK


class _Progress:
    """The status as it changes: drawn over itself on a terminal, else a line a change."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._live = Live() if Live.possible() else None
        self._before: dict[str, Any] | None = None

    def follow(
        self, over: Callable[[dict[str, Any]], Ending | None], seconds: float | None = None
    ) -> Ending | None:
        """Until `over` says so, `seconds` are over (None), or Ctrl-C (None)."""
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while True:
                document = status(self._layout)
                self._show(document)
                ending = over(document)
                if ending is not None:
                    return ending
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            return None

    def _show(self, document: dict[str, Any]) -> None:
        from .screen import changes, status_lines

        if self._live is not None:
            start = start_command(self._layout)
            self._live.draw(status_lines(document, now(), columns(sys.stdout), start=start))
        elif document != self._before:
            lines = changes(self._before, document, now())
            if lines:
                say(lines)
        self._before = document


def _wait(options: argparse.Namespace, layout: Layout) -> int:
    from . import waiting

    try:
        seconds = waiting.seconds(options.timeout)
        wanted = None if options.fingerprint is None else waiting.fingerprint(options.fingerprint)
    except ValueError as error:
        print(f"claimd wait: {error}", file=sys.stderr)
        return Exit.USAGE
    return wait_for(layout, wanted, seconds)


def wait_for(layout: Layout, fingerprint: str | None, seconds: float) -> int:
    """Wait for a claim with progress on standard output; for `wait` and `put --wait`."""
    from . import waiting

    first = status(layout)
    goal = waiting.goal(first, unseen(layout, first), fingerprint)
    warn_if_stopped(layout)

    def over(document: dict[str, Any]) -> Ending | None:
        return waiting.ending(document, unseen(layout, document), goal)

    ending = _Progress(layout).follow(over, seconds)
    if ending is None:
        print(f"claimd: time is up after {seconds:g} s; see: claimd status", file=sys.stderr)
        return Exit.TIMEOUT
    if ending.exit is Exit.OK:
        _say_sentence(ending.sentence, sys.stdout)
        return ending.exit
    _say_sentence(f"claimd: {ending.sentence}", sys.stderr)
    if ending.problem is not None:
        from .screen import told

        say(told(ending.problem), sys.stderr)
    return ending.exit


def _say_sentence(sentence: str, file: TextIO) -> None:
    """One line for a script; for a person as wide as the terminal."""
    from .words import wrapped

    say(wrapped(sentence, columns=columns(file)) if file.isatty() else [sentence], file)


def _present(layout: Layout) -> dict[str, Any] | None:
    """What is wrong now. Whoever asks what a code means is told, whatever the status is."""
    try:
        found: dict[str, Any] | None = status(layout)["problem"]
    except ClaimdError as error:
        return error.problem.to_json()
    return stopped(layout) if found is None and service(layout) is None else found


def _explain(options: argparse.Namespace, layout: Layout) -> int:
    from .screen import explained, explained_list

    if options.list:
        say(explained_list())
        return Exit.OK
    found = _present(layout)
    name: str | None = options.code or (str(found["code"]) if found else None)
    if name is None:
        print("nothing is wrong now; all failures: claimd explain --list")
        return Exit.OK
    try:
        code = Code(name)
    except ValueError:
        print(f"claimd: there is no failure {printable(name)!r}; see: claimd explain --list", file=sys.stderr)
        return Exit.USAGE
    say(explained(code, found if found is not None and found["code"] == name else None))
    return Exit.OK
