"""The command of day one: setup.

Invariant: what is written was valid as a whole before the first byte was; with a mistake in the command
line nothing has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from .errors import ClaimdError, Exit
from .terminal import complain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model import Layout
    from .terminal import Commands

# Read after claimd.toml and 10-site.toml, before 90-device.toml.
DROP_IN = "50-setup.toml"
_HEADER = """\
# Written by `claimd setup`, which replaces this file when it is run again. Put other settings into another
# file here, such as 60-site.toml; /etc/claimd/claimd.toml explains all of them.
"""
# For everybody: `claimd config show` is no secret, and the daemon is not root.
_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755


def add_to(commands: Commands) -> None:
    setup = commands.add_parser(
        "setup",
        help="write the configuration, and let a technician drop claims",
        description="Write endpoint and template into the configuration, and let a user drop claims."
        " The service picks it up by itself.",
    )
    setup.add_argument(
        "--endpoint", required=True, help="from: aws iot describe-endpoint --endpoint-type iot:Data-ATS"
    )
    setup.add_argument("--template", required=True, help="the provisioning template's name")
    setup.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what the template asks for, such as ThingName=gateway-{serial}; may be given again",
    )
    setup.add_argument("--technician", metavar="USER", help="add this user to group claimd-drop")
    setup.set_defaults(command=_setup)


def _setup(options: argparse.Namespace, layout: Layout) -> int:
    if not layout.root and os.geteuid() != 0:
        again = shlex.join(["sudo", "claimd", *sys.argv[1:]])
        print(f"claimd: setup needs root to write {layout.config_directory}: {again}", file=sys.stderr)
        return Exit.PERMISSION
    wrong, values = _values(options)
    technician = None if layout.root else options.technician
    if technician is not None and not wrong:
        wrong = _objection(technician)
    if wrong:
        print(f"claimd: nothing was changed: {wrong}", file=sys.stderr)
        return Exit.USAGE
    path = f"{layout.config_directory}/conf.d/{DROP_IN}"
    _write(path, _text(values))
    print(f"wrote {path}")
    if options.technician is not None:
        _admit(options.technician, layout)
    return _say_what_is_next(options, layout, values)


def _values(options: argparse.Namespace) -> tuple[str, Mapping[str, Any]]:
    """What is wrong with the command line, or else the values to be written."""
    parameters = {}
    for text in options.parameter:
        name, equals, value = text.partition("=")
        if not equals:
            return f"--parameter {text!r} has no =; write NAME=VALUE", {}
        parameters[name] = value
    values = {
        "endpoint": options.endpoint,
        "template": {"name": options.template, "parameters": parameters},
    }
    return _complaint(values), values


def _complaint(values: Mapping[str, Any]) -> str:
    from pydantic import ValidationError

    from .settings import Config

    if not values["endpoint"] or not values["template"]["name"]:
        return "--endpoint and --template take a text that is not empty"
    try:
        Config.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = first["loc"]
        option = {"endpoint": "--endpoint", "template": "--template"}[str(place[0])]
        if len(place) > 2:
            option = f"--parameter {place[2]}"
        # Pydantic puts its own words before those of our validators.
        return f"{option}: {first['msg'].removeprefix('Value error, ')}"
    return ""


def _objection(user: str) -> str:
    from . import accounts

    try:
        accounts.check(user, accounts.DROP_GROUP)
    except accounts.AccountError as error:
        return str(error)
    return ""


def _text(values: Mapping[str, Any]) -> str:
    lines = [_HEADER, f"endpoint = {_quoted(values['endpoint'])}", "", "[template]"]
    lines.append(f"name = {_quoted(values['template']['name'])}")
    parameters = values["template"]["parameters"]
    if parameters:
        lines += ["", "[template.parameters]"]
        lines += [f"{_quoted(name)} = {_quoted(value)}" for name, value in parameters.items()]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    # JSON's strings are TOML's basic strings, but for DEL, which TOML wants escaped as well.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: str, text: str) -> None:
    """Raises ClaimdError when the disk doesn't take it."""
    from .durable import Disk, disk_problem

    disk, directory = Disk(), os.path.dirname(path)
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    umask = os.umask(0o022)
    try:
        for each in reversed(missing):
            disk.make_directory(each, _DIRECTORY_MODE)
        disk.write_file(path, text.encode(), _FILE_MODE)
    except OSError as error:
        raise ClaimdError(disk_problem(error, path)) from error
    finally:
        os.umask(umask)


def _admit(user: str, layout: Layout) -> None:
    from . import accounts

    group = accounts.DROP_GROUP
    if layout.root:
        print(f"{user} was not added to {group}: with --root only the configuration is written")
    elif accounts.is_member(user, group):
        print(f"{user} is in group {group} already")
    else:
        try:
            accounts.join(user, group)
        except accounts.AccountError as error:
            print(f"claimd: {error}; try: sudo usermod --append --groups {group} {user}", file=sys.stderr)
            return
        print(f"added {user} to group {group}; it counts from the next login on")


def _say_what_is_next(options: argparse.Namespace, layout: Layout, values: Mapping[str, Any]) -> int:
    """The rest of the configuration may hold the new values back; then that is the next thing to do."""
    from . import config

    try:
        loaded = config.load(layout)
    except ClaimdError as error:
        complain(error.problem)
        return error.problem.exit
    found = {"endpoint": loaded.config.endpoint, "template.name": loaded.config.template.name}
    for key, wanted in (("endpoint", values["endpoint"]), ("template.name", values["template"]["name"])):
        if found[key] != wanted:
            print(f"warning: {loaded.sources[key]} is read later and sets {key} = {found[key]!r}")
    for warning in config.warnings(loaded.config):
        print(f"warning: {warning}")
    if not loaded.config.template.parameters:
        print('if the template has parameters, give them too: --parameter "ThingName=gateway-{serial}"')
    print("next: make a claim and copy it to this device within five minutes:")
    print(f"  aws iot create-provisioning-claim --template-name {options.template} > claim.json")
    if layout.root:  # nobody logs in there, and no other machine has this path
        print("  " + shlex.join(["cp", "claim.json", f"{layout.drop_directory}/"]))
        print("then look here: " + shlex.join(["claimd", "--root", layout.root, "status"]))
    else:
        print(f"  scp claim.json {options.technician or 'USER'}@DEVICE:{layout.drop_directory}/")
        print("then look here: claimd status")
    return Exit.OK
