"""What this device knows about itself: the values behind `{serial}`, `{mac:eth0}`, `{file:/path}`.

Invariant: a value that two devices could share by default (a maker's filler, a null address, an
identifier not made yet) is refused by name; it would give two devices one identity. The text of a
file is never quoted in an error.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from . import smallfile
from .errors import ClaimdError, Code, fail
from .placeholder import Placeholder, PlaceholderError, escape, names_for, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .config import Config
    from .model import Layout

# RegisterThing in the AWS IoT API reference: parameters, value length.
MAX_PARAMETER_CHARACTERS = 4096

# Identical for `{file:}` and the kernel's files: longer than any value AWS takes.
MAX_FILE_BYTES = 4096

# "Client ID": AWS IoT Core message broker limits; and it must not begin with $.
MAX_CLIENT_ID_BYTES = 128

# What makers leave in the serial number's place; compared without case and outer blanks.
_FILLER_SERIALS = frozenset(
    (
        "none",
        "to be filled by o.e.m.",
        "to be filled by oem",
        "default string",
        "system serial number",
        "chassis serial number",
        "base board serial number",
        "serial number",
        "not specified",
        "not applicable",
        "not available",
        "n/a",
        "oem",
        "o.e.m.",
        "unknown",
        "invalid",
        "empty",
        "null",
        "123456789",
        "1234567890",
        "0123456789",
    )
)
_ONE_CHARACTER_REPEATED = re.compile(r"([0fx?.*\- ])\1*", re.IGNORECASE)

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_DEFAULT_HOSTNAMES = frozenset(("", "(none)", "localhost", "localhost.localdomain"))

# Documentation/ABI/testing/sysfs-class-net of the kernel, addr_assign_type: 1 = randomly generated.
_RANDOM_ADDRESS = "1"


def _kernel_hostname() -> str:
    # The system call, not /proc/sys/kernel/hostname: a unit with ProcSubset=pid doesn't see that file.
    return os.uname().nodename


@dataclass(frozen=True)
class Places:
    """Where the kernel shows the machine. `Layout.root` doesn't rebase these; tests put their own."""

    sys: str = "/sys"
    proc: str = "/proc"
    hostname: Callable[[], str] = _kernel_hostname


_MACHINE = Places()

# Why a placeholder that gets its value in the course of an attempt can be without one.
_NO_VALUE = {
    "fingerprint": "{fingerprint} is known only once there is a claim",
    "thing_name": "AWS returned no thing name for {thing_name}",
}
_NOTHING: Mapping[str, str] = MappingProxyType({})


class UnknownFactError(Exception):
    """This device can't say it; the `str` says why."""


def resolve(
    text: str,
    key: str,
    layout: Layout,
    extra: Mapping[str, str] = _NOTHING,
    places: Places = _MACHINE,
) -> str:
    """`text` with its placeholders filled in: from `extra` by name, else from this device.

    Raises PARAMETER_UNRESOLVED naming `key`, a parameter's name or a dotted configuration key.
    """
    parts = _filled_in(text, key, layout, extra, places)
    for part in parts:
        if isinstance(part, Placeholder):
            raise _unresolved(key, _NO_VALUE[part.name])
    resolved = "".join(str(part) for part in parts)
    if not resolved:
        raise _unresolved(key, "its value is empty")
    if len(resolved) > MAX_PARAMETER_CHARACTERS:
        raise _unresolved(
            key, f"its value has {len(resolved)} characters; AWS takes {MAX_PARAMETER_CHARACTERS}"
        )
    return resolved


def resolve_parameters(
    config: Config, layout: Layout, places: Places = _MACHINE
) -> tuple[tuple[str, str], ...]:
    """The template's parameters for this device, by name in order."""
    return tuple(
        (name, resolve(text, name, layout, places=places))
        for name, text in sorted(config.template.parameters.items())
    )


def resolve_client_id(
    text: str,
    key: str,
    layout: Layout,
    extra: Mapping[str, str] = _NOTHING,
    places: Places = _MACHINE,
) -> str:
    """As `resolve`, and the answer is a client id that AWS IoT takes."""
    client_id = resolve(text, key, layout, extra, places)
    size = len(client_id.encode())
    if size > MAX_CLIENT_ID_BYTES:
        raise _unresolved(key, f"the client id has {size} bytes; AWS takes {MAX_CLIENT_ID_BYTES}")
    if client_id.startswith("$"):
        raise _unresolved(key, "the client id begins with $; AWS keeps those for itself")
    return client_id


def freeze_client_id(
    text: str,
    key: str,
    layout: Layout,
    extra: Mapping[str, str] = _NOTHING,
    places: Places = _MACHINE,
) -> str:
    """`text` with all filled in that is known now, as a pattern for `resolve_client_id` later.

    What a fact holds stands for itself in the pattern, braces too: it can't name a placeholder.
    """
    parts = _filled_in(text, key, layout, extra, places)
    return "".join(escape(part) if isinstance(part, str) else str(part) for part in parts)


def _filled_in(
    text: str, key: str, layout: Layout, extra: Mapping[str, str], places: Places
) -> list[str | Placeholder]:
    """The parts of `text`; only placeholders that get their value later are still placeholders."""
    try:
        return [
            part if isinstance(part, str) else _value(part, layout, extra, places)
            for part in parse(text, (*extra, *names_for(key)))
        ]
    except (PlaceholderError, UnknownFactError) as error:
        raise _unresolved(key, str(error)) from error


def _unresolved(key: str, detail: str) -> ClaimdError:
    return fail(Code.PARAMETER_UNRESOLVED, parameter=key, detail=detail)


def _value(
    wanted: Placeholder, layout: Layout, extra: Mapping[str, str], places: Places
) -> str | Placeholder:
    if wanted.name in extra:
        return extra[wanted.name]
    if wanted.name == "serial":
        return _serial(layout, places)
    if wanted.name == "mac":
        return _mac(wanted.argument or "", places)
    if wanted.name == "machine-id":
        return machine_id(layout)
    if wanted.name == "hostname":
        return _hostname(places)
    if wanted.name == "file":
        return _file(wanted, layout.under(wanted.argument or ""))
    return wanted


def _serial(layout: Layout, places: Places) -> str:
    """The board's serial number: the device tree's, else DMI's.

    DMI's is readable for root alone, so the unit copies it to /run/claimd/dmi-serial before the start.
    """
    refused = ""
    for path in (
        f"{places.proc}/device-tree/serial-number",
        f"{places.sys}/firmware/devicetree/base/serial-number",
        f"{layout.run_directory}/dmi-serial",
    ):
        try:
            serial = _text(path).rstrip("\0").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            refused = f"{path}: {_reason(error)}"
            continue
        if not serial:
            refused = f"{path} is empty"
        elif serial.lower() in _FILLER_SERIALS or _ONE_CHARACTER_REPEATED.fullmatch(serial):
            refused = f"{path} says {serial!r}, which is no serial number"
        elif not serial.isprintable():
            refused = f"{path} holds control characters"
        else:
            return serial
    raise UnknownFactError(
        "this device has no serial number for {serial}: " + (refused or "no device tree, no DMI")
    )


def _mac(interface: str, places: Places) -> str:
    folder = f"{places.sys}/class/net"
    try:
        address = _text(f"{folder}/{interface}/address").strip().lower()
    except (OSError, UnicodeDecodeError) as error:
        there = ", ".join(sorted(set(_names_in(folder)) - {"lo"})) or "none"
        raise UnknownFactError(f"no network interface {interface!r}; there are: {there}") from error
    if not _MAC.fullmatch(address) or address in ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"):
        raise UnknownFactError(f"the network interface {interface!r} has no hardware address")
    try:
        assigned = _text(f"{folder}/{interface}/addr_assign_type").strip()
    except (OSError, UnicodeDecodeError):
        return address
    if assigned == _RANDOM_ADDRESS:
        raise UnknownFactError(
            f"the address of {interface!r} is random: the kernel makes another one at every start"
        )
    return address


def machine_id(layout: Layout) -> str:
    """The 32 hexadecimal digits. Raises UnknownFactError."""
    path = layout.under("/etc/machine-id")
    try:
        found = _text(path).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnknownFactError(f"{path}: {_reason(error)}") from error
    if found in ("", "uninitialized"):
        raise UnknownFactError(f"{path} is not initialised; run: systemd-machine-id-setup")
    if not _MACHINE_ID.fullmatch(found) or not found.strip("0"):
        raise UnknownFactError(f"{path} does not hold 32 hexadecimal digits")
    return found


def _hostname(places: Places) -> str:
    name = places.hostname()
    if name.lower() in _DEFAULT_HOSTNAMES:
        raise UnknownFactError(f"this device has no name of its own: its host name is {name!r}")
    return name


def _file(wanted: Placeholder, path: str) -> str:
    try:
        text = _text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UnknownFactError(f"{path}: {_reason(error)}") from error
    line = text.removesuffix("\n").removesuffix("\r")
    if not line:
        raise UnknownFactError(f"{path} is empty")
    if not line.isprintable():
        raise UnknownFactError(f"{path} holds more than one line, or control characters")
    return line


def _text(path: str) -> str:
    return smallfile.read(path, MAX_FILE_BYTES).decode()


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else (error.strerror or str(error))
