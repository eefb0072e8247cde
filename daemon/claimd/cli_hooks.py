"""The command about hooks: what claimd-hooks.service runs."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from .errors import Code, Exit, fail

if TYPE_CHECKING:
    from .hooks import Hooks
    from .model import Layout
    from .terminal import Commands


def add_to(commands: Commands) -> None:
    hooks = commands.add_parser("hooks", help="run the hooks that have not seen the identity yet (as root)")
    hooks.add_argument("--list", action="store_true", help="only show them, and what each has seen")
    hooks.add_argument("--again", action="store_true", help="run also those that have seen it")
    hooks.add_argument(
        "--seconds", type=_limit, default=None, metavar="N", help="time limit for each (default 300)"
    )
    hooks.set_defaults(command=_hooks)


def _limit(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError("takes 1 to 86400 seconds")
    return seconds


def _hooks(options: argparse.Namespace, layout: Layout) -> int:
    from . import logs, origin, program
    from .durable import Disk, disk_problem
    from .errors import ClaimdError
    from .hooks import DEFAULT_SECONDS, Hooks
    from .store import Store

    if os.geteuid() != 0 and not layout.root:
        raise fail(Code.PERMISSION_DENIED, path=layout.hooks_state_directory, detail="hooks are run by root")
    os.umask(0o077)
    logs.to_stderr()
    store = Store(layout, Disk())
    hooks = Hooks(layout, store, Disk())
    try:
        if options.list:
            return _list(hooks)
        with hooks.locked():
            found = origin.foreign(store, layout)
            if found is not None:
                # A hook would hand another device's identity on, to a service that throws that one off.
                raise ClaimdError(found)
            return hooks.run(program.run, options.seconds or DEFAULT_SECONDS, os.environ, again=options.again)
    except OSError as error:
        raise ClaimdError(disk_problem(error, layout.hooks_state_directory)) from error


def _list(hooks: Hooks) -> int:
    seen = hooks.seen()
    for hook in hooks.found():
        print(f"{hook.name}: {hook.objection or 'has seen ' + seen.get(hook.name, 'no identity yet')}")
    return Exit.OK
