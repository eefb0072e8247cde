"""The command line: a command parses, calls one flow, renders.

Each group of commands stands in a module of its own, `cli_*`, with its options and its rendering.
Invariant: a command imports what it needs when it runs; only this module and the entry point exit.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from . import (
    __version__,
    cli_config,
    cli_doctor,
    cli_drop,
    cli_forget,
    cli_hooks,
    cli_provision,
    cli_setup,
    cli_status,
    cli_version,
)
from .errors import ClaimdError, Exit
from .model import Layout, rebased
from .terminal import complain, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GROUPS = (
    cli_setup,
    cli_provision,
    cli_drop,
    cli_status,
    cli_config,
    cli_doctor,
    cli_hooks,
    cli_forget,
    cli_version,
)


def main(arguments: Sequence[str]) -> int:
    prepare()
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return Exit.USAGE
    try:
        layout = Layout(rebased(options.root if not options.root else os.path.abspath(options.root)))
        command: Callable[[argparse.Namespace, Layout], int] = options.command
        return command(options, layout)
    except ClaimdError as error:
        complain(error.problem)
        return error.problem.exit
    except BrokenPipeError:
        # The reader has seen enough (`claimd status | head`); nothing is left to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="claimd",
        description="AWS IoT fleet provisioning by trusted user: drop a claim, get a permanent identity.",
    )
    parser.add_argument("--root", default="", metavar="DIR", help="act on the system below DIR instead of /")
    parser.add_argument("--config", metavar="FILE", help="read this configuration instead of /etc/claimd")
    parser.add_argument("--version", action="version", version=f"claimd {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for group in GROUPS:
        group.add_to(commands)
    return parser
