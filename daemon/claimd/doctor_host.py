"""Checks of the machine around claimd: its unit, its processes, what could keep a key on a disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import facts, origin
from .durable import Disk
from .inquiry import Check, Found, failed, of_problem, ok, skipped, warning
from .patient import text_of
from .store import Store
from .system import USER

if TYPE_CHECKING:
    from .patient import Patient

_UNIT = "claimd.service"
_PROPERTIES = "ActiveState,SubState,MainPID,NRestarts,User,WatchdogUSec"


def _unit(patient: Patient) -> dict[str, str] | None:
    """What the service manager says, or None where it is not systemd or not the machine itself."""
    if not patient.is_machine:
        return None
    said = patient.ask("systemctl", "show", f"--property={_PROPERTIES}", _UNIT)
    if said is None:
        return None
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def _active(patient: Patient) -> Found:
    unit = _unit(patient)
    if unit is None:
        return skipped("no systemd to ask, or --root")
    text = f"{unit.get('ActiveState')} ({unit.get('SubState')}), process {unit.get('MainPID')}"
    if unit.get("ActiveState") == "active":
        return ok(text)
    command = "sudo systemctl enable --now claimd"
    return failed(text, f"start it: {command}", command)


def _user(patient: Patient) -> Found:
    user = (_unit(patient) or {}).get("User", "")
    if user == USER:
        return ok(user)
    return failed(
        f"it runs as {user or 'root'}",
        f"remove the override: systemctl revert {_UNIT}",
        f"systemctl revert {_UNIT}",
    )


def _restarts(patient: Patient) -> Found:
    count = (_unit(patient) or {}).get("NRestarts", "0")
    if count in ("", "0"):
        return ok("none since it was started")
    command = f"journalctl -u {_UNIT}"
    return warning(f"{count} since it was started", f"look at {command}", command)


def _watchdog(patient: Patient) -> Found:
    limit = (_unit(patient) or {}).get("WatchdogUSec", "0")
    if limit in ("", "0", "infinity"):
        return warning(
            "off: a service that hangs is not restarted", f"remove the override: systemctl revert {_UNIT}"
        )
    return ok(limit)


def _cores(patient: Patient) -> Found:
    pid = (_unit(patient) or {}).get("MainPID", "0")
    limits = text_of(f"/proc/{pid}/limits") if pid not in ("", "0") else None
    if limits is None:
        return skipped("the service is not running, or its limits can't be read")
    line = next((x for x in limits.splitlines() if x.startswith("Max core file size")), "")
    if line.split()[4:5] == ["0"]:
        return ok("the service dumps no core")
    return failed(
        "the service may dump a core with a key in it", f"remove the override: systemctl revert {_UNIT}"
    )


def _swap(patient: Patient) -> Found:
    """Swapped pages outlive a key. The unit forbids swap for claimd; this is about consumers too."""
    areas = [line.split()[0] for line in (text_of("/proc/swaps") or "").splitlines()[1:] if line.strip()]
    plain = [area for area in areas if not _is_safe_swap(area)]
    if plain:
        return warning(
            f"unencrypted: {', '.join(plain)}", "encrypt it (crypttab with /dev/urandom), or use zram"
        )
    return ok(f"only {', '.join(areas)}" if areas else "none")


def _is_safe_swap(area: str) -> bool:
    name = os.path.basename(os.path.realpath(area))
    if name.startswith("zram"):
        return True
    return (text_of(f"/sys/block/{name}/dm/uuid") or "").startswith("CRYPT-")


def _others(patient: Patient) -> Found:
    """Processes that are `claimd run`, by their command line."""
    mine = patient.layout.root
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        words = (text_of(f"/proc/{pid}/cmdline") or "").rstrip("\0").split("\0")
        if words[-1:] == ["run"] and any(os.path.basename(word) == "claimd" for word in words[:3]):
            root = words[words.index("--root") + 1] if "--root" in words[:-1] else ""
            found += [pid] if root == mine else []
    if len(found) > 1:
        return failed(f"processes {', '.join(found)}", "stop those that the service manager did not start")
    return ok(f"process {found[0]} alone" if found else "none is running")


def _machine_id(patient: Patient) -> Found:
    try:
        facts.machine_id(patient.layout)
    except facts.UnknownFactError as error:
        command = "sudo systemd-machine-id-setup"
        return warning(f"no machine-id: {error}", f"run {command}", command)
    return ok("initialised")


def _origin(patient: Patient) -> Found:
    if origin.machine(patient.layout) is None:
        return skipped("this machine has no id to compare")
    try:
        found = origin.foreign(Store(patient.layout, Disk()), patient.layout)
    except PermissionError:
        return skipped("only root can look into the state directory")
    return ok("it is this machine's") if found is None else of_problem(found)


CHECKS: tuple[Check[Patient], ...] = (
    Check("unit-active", "the service is running", _active),
    Check("unit-user", "it runs as its own user", _user, ("unit-active",)),
    Check("unit-restarts", "it was not restarted after a failure", _restarts, ("unit-active",)),
    Check("unit-watchdog", "it is restarted when it hangs", _watchdog, ("unit-active",)),
    Check("unit-cores", "it dumps no core", _cores, ("unit-active",)),
    Check("host-instances", "no other claimd run is at work here", _others),
    Check("host-swap", "nothing is swapped to a disk in the clear", _swap),
    Check("host-machine-id", "the machine has an id of its own", _machine_id),
    Check("host-state", "the state directory was made on this machine", _origin, ("state-directory",)),
)
