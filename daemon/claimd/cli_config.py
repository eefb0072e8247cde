"""The commands about the configuration: config check, config show."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from .errors import ClaimdError, Exit

if TYPE_CHECKING:
    from .model import Layout
    from .terminal import Commands


def add_to(commands: Commands) -> None:
    config = commands.add_parser("config", help="check or show the configuration")
    actions = config.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="say whether it is right, and what to correct")
    check.set_defaults(command=_config_check)
    show = actions.add_parser("show", help="the values in force and the file that each comes from")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(command=_config_show)


def _config_check(options: argparse.Namespace, layout: Layout) -> int:
    from . import config, facts, settings

    loaded = config.load(layout, options.config)
    for name, value in facts.resolve_parameters(loaded.config, layout):
        print(f"template parameter {name} = {value!r} on this device")
    config.root_certificates(loaded.config, layout)
    for warning in settings.warnings(loaded.config):
        print(f"warning: {warning}")
    print("the configuration is right")
    return Exit.OK


def _config_show(options: argparse.Namespace, layout: Layout) -> int:
    from . import config

    try:
        loaded = config.load(layout, options.config)
    except ClaimdError as error:
        if not options.json:
            raise
        print(json.dumps({"schema": 1, "problem": error.problem.to_json()}))
        return error.problem.exit
    if options.json:
        print(json.dumps(config.describe(loaded), indent=2))
        return Exit.OK
    for key, value in _flat(loaded.config.model_dump(mode="json")):
        print(f"{key} = {json.dumps(value)}    # {loaded.sources.get(key, 'default')}")
    return Exit.OK


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found
