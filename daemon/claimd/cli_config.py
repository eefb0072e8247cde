"""The commands about the configuration: config check, config show."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from .errors import ClaimdError, Exit
from .terminal import say

if TYPE_CHECKING:
    from .config import Loaded
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
    from . import config, facts, redaction, settings

    loaded = config.load(layout, options.config)
    resolved = dict(facts.resolve_parameters(loaded.config, layout))
    for name, value in redaction.parameters(resolved).items():
        print(f"template parameter {name} = {value!r} on this device")
    config.root_certificates(loaded.config, layout)
    for sentence in loaded.overridden:
        print(f"note: {sentence}")
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
    say(config_lines(loaded, layout))
    return Exit.OK


def config_lines(loaded: Loaded, layout: Layout) -> list[str]:
    """Every key with its value on this device and the file that sets it; nothing secret."""
    from . import facts, redaction

    found = []
    for key, value in _flat(loaded.config.model_dump(mode="json")):
        source = loaded.sources.get(key, "default")
        if not key.startswith("template.parameters."):
            found.append(f"{key} = {json.dumps(value)}    # {source}")
            continue
        name = key.removeprefix("template.parameters.")
        shown = redaction.parameters({name: value})[name]
        note = source
        if "{" in value and not redaction.is_secret(name):
            try:
                here = facts.resolve(value, name, layout)
                note = f"{source}; here {json.dumps(redaction.parameters({name: here})[name])}"
            except ClaimdError as error:
                note = f"{source}; {error.problem.happened}"
        found.append(f"{key} = {json.dumps(shown)}    # {note}")
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found
