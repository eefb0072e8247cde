"""`make attack`: what an account in the technicians' group can do to the drop directory, tried.

Every part prints its table and tells what went wrong; any of it makes the whole fail.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import premises
from attack import canary, permissions, races, siege
from attack.attacker import ATTACKS
from premises import Premises


@dataclass(frozen=True)
class Size:
    """How much of each."""

    reads: int
    files: int
    plants: tuple[str, ...]
    attacks: tuple[str, ...]


def _permissions(machine: Premises, size: Size) -> list[str]:
    found = permissions.table()
    print(found)
    changes = difflib.ndiff(permissions.EXPECTED.splitlines(), found.splitlines())
    wrong = [line for line in changes if line[0] in "-+"]
    wrong += [f"others can read: {way}" for way in permissions.opened_uploads(permissions.CLOSED)]
    opened = permissions.opened_uploads(permissions.OPENED)
    wrong += [f"closed, other than documented: {way}" for way in permissions.OPENED if way not in opened]
    print(
        f"{len(permissions.CLOSED)} ways of putting a file: nobody else can read it, whatever its mode says"
    )
    return wrong


def _races(machine: Premises, size: Size) -> list[str]:
    return races.races(size.reads, size.attacks)


def _siege(machine: Premises, size: Size) -> list[str]:
    return siege.siege(machine, size.plants)


def _flood(machine: Premises, size: Size) -> list[str]:
    return siege.flood(machine, size.files)


def _canary(machine: Premises, size: Size) -> list[str]:
    return canary.canary(machine)


PARTS: Mapping[str, Callable[[Premises, Size], list[str]]] = {
    "permissions": _permissions,
    "races": _races,
    "siege": _siege,
    "flood": _flood,
    "canary": _canary,
}
NEEDED_TOOLS = ("getfacl", "find")


def _inside(parts: list[str], size: Size) -> int:
    machine = Premises.open()
    wrong = []
    for part in parts:
        print(f"--- {part}", flush=True)
        wrong += [f"{part}: {each}" for each in PARTS[part](machine, size)]
    machine.close()
    for each in wrong:
        print(f"FAILED {each}", file=sys.stderr)
    print("all as expected" if not wrong else f"{len(wrong)} failed")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this (repeatable)")
    parser.add_argument("--reads", type=int, default=1_000_000, help="how many under attack (default 10^6)")
    parser.add_argument("--files", type=int, default=100_000, help="of the flood (default 10^5)")
    parser.add_argument("--plant", action="append", choices=list(siege.PLANTS), help="only this (repeatable)")
    parser.add_argument("--attack", action="append", choices=list(ATTACKS), help="only this (repeatable)")
    options = parser.parse_args()
    if premises.is_inside():
        plants = tuple(options.plant or siege.PLANTS)
        size = Size(options.reads, options.files, plants, tuple(options.attack or ATTACKS))
        return _inside(options.part or list(PARTS), size)
    why = premises.missing(*NEEDED_TOOLS)
    if why is not None:
        print(f"cannot run: {why}", file=sys.stderr)
        return 1
    return premises.enter("attack.table", sys.argv[1:]).returncode


if __name__ == "__main__":
    sys.exit(main())
