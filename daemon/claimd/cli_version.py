"""The command that says what is installed: version."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from . import __version__
from .errors import Exit

if TYPE_CHECKING:
    from .model import Layout
    from .terminal import Commands


def add_to(commands: Commands) -> None:
    version = commands.add_parser("version", help="claimd's version, and that of every library it uses")
    version.add_argument("--components", action="store_true", help="the libraries too, a line each")
    version.add_argument("--json", action="store_true", help="print JSON")
    version.set_defaults(command=_version)


def _version(options: argparse.Namespace, layout: Layout) -> int:
    from . import components

    found = components.installed() if options.components or options.json else {}
    if options.json:
        listed = [{"name": name, "version": version} for name, version in found.items()]
        print(json.dumps({"schema": 1, "version": __version__, "components": listed}, indent=2))
        return Exit.OK
    print(f"claimd {__version__}")
    for name, version in found.items():
        print(f"  {name} {version}")
    return Exit.OK
