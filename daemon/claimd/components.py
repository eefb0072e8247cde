"""Which software works here: claimd's own dependencies with their versions.

Invariant: what is named is what would be imported: the bill of materials of the package that this file came
with, else what is installed beside it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from importlib import import_module, metadata

from . import smallfile

# /usr/lib/claimd/claimd/components.py belongs to /usr/share/claimd/sbom.cdx.json.
_BILL = "share/claimd/sbom.cdx.json"
MAX_BILL_BYTES = 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def installed(own_file: str = __file__) -> dict[str, str]:
    """Name -> version, by name; Python itself and the distribution's systemd module among them."""
    found = _from_bill(own_file)
    if found is None:
        found = {}
        _add_requirements("claimd", found)
    found["python"] = platform.python_version()
    systemd = _systemd()
    if systemd is not None:
        found["systemd-python"] = systemd
    return dict(sorted(found.items()))


def _from_bill(own_file: str) -> dict[str, str] | None:
    prefix = os.path.abspath(own_file)
    for _ in range(4):
        prefix = os.path.dirname(prefix)
    try:
        document = json.loads(smallfile.read(os.path.join(prefix, _BILL), MAX_BILL_BYTES))
        return {str(each["name"]): str(each["version"]) for each in document["components"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _add_requirements(name: str, found: dict[str, str]) -> None:
    """What a distribution asks for, and what that asks for; extras and other platforms' are not installed."""
    try:
        wanted = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for requirement in wanted:
        asked, _, condition = requirement.partition(";")
        match = _NAME.match(asked.strip())
        if match is None or "extra ==" in condition or _is_for_older(condition):
            continue
        other = match.group().lower().replace("_", "-")
        if other in found:
            continue
        try:
            found[other] = metadata.version(other)
        except metadata.PackageNotFoundError:
            continue
        _add_requirements(other, found)


def _is_for_older(condition: str) -> bool:
    """Whether it is wanted by Pythons before this one, as tomli is. The rest shows by what is there."""
    found = re.search(r"python(?:_full)?_version *< *[\"'](\d+)\.(\d+)", condition)
    return found is not None and sys.version_info[:2] >= (int(found.group(1)), int(found.group(2)))


def _systemd() -> str | None:
    try:
        return str(import_module("systemd.journal").__version__)
    except (ImportError, AttributeError):
        return None
