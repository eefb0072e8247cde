"""Which names of the drop directory a look reads, chosen while it is walked once.

Invariant: one walk, one lstat a name, and memory for the chosen names alone: 100,000 files cost some tenths
of a second. Files are taken newest first and in turn from each owner, so that a flood by one account can't
hide another's claim; and of one owner in turn from those of each kind, so that no flood hides a trap.
"""

from __future__ import annotations

import heapq
import os
import stat
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

from . import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

# What one look reads at most: so that a pass, which looks again and again, is through with 100,000.
MAX_ENTRIES_A_SCAN = 2048
# Every account has queues of its own, up to so many of all.
MAX_QUEUES = 64
_NOBODY = -1
# Whom besides the owner the mode lets write. Of a file with an ACL the group's bit is the mask's, see access.
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# What was set aside because of `unrecognised = "keep-aside"`; not looked at again.
ASIDE_PREFIX = ".claimd-aside-"
# What the daemon has put there itself.
OURS = (sweep.PREFIX, ASIDE_PREFIX)


@dataclass
class Listing:
    """`passed_over`: how many new names there are beyond those that were chosen. `unswept`: see drop.Look.
    `queues`: by owner, and by `_kind`."""

    account_of: Callable[[int], int]
    queues: dict[tuple[int, int], list[tuple[bool, int, str]]] = field(default_factory=dict)
    passed_over: int = 0
    unswept: int | None = None

    @classmethod
    def of(
        cls, directory: int, seen: Collection[tuple[str, int]], account_of: Callable[[int], int]
    ) -> Listing:
        """`seen` (name, ctime): where there is too much, these come last. `account_of` an owner's id."""
        listing = cls(account_of)
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if entry.name.startswith(sweep.PREFIX):
                    listing.unswept = min(listing.unswept or found.st_ctime_ns, found.st_ctime_ns)
                elif not entry.name.startswith(ASIDE_PREFIX):
                    unseen = (entry.name, found.st_ctime_ns) not in seen
                    listing._add(entry.name, found, unseen=unseen)
        return listing

    def _add(self, name: str, found: os.stat_result, *, unseen: bool) -> None:
        kind = _kind(found.st_mode)
        key = (self.account_of(found.st_uid), kind)
        if key not in self.queues and len(self.queues) >= MAX_QUEUES:
            key = (_NOBODY, kind)
        queue = self.queues.setdefault(key, [])
        # By the time of the last change: its owner can't set it, and `scp -p` keeps the others.
        item = (unseen, found.st_ctime_ns, name)
        if len(queue) < MAX_ENTRIES_A_SCAN:
            heapq.heappush(queue, item)
            return
        dropped = heapq.heappushpop(queue, item)
        self.passed_over += dropped[0]

    def names(self) -> list[str]:
        of_owners: dict[int, list[list[str]]] = {}
        for (owner, _), queue in sorted(self.queues.items(), reverse=True, key=lambda item: item[0][1]):
            newest_first = [name for _, _, name in sorted(queue, reverse=True)]
            of_owners.setdefault(owner, []).append(newest_first)
        return _in_turn([_in_turn(kinds) for kinds in of_owners.values()])


def _kind(mode: int) -> int:
    """Folders are a kind by themselves: what is changed in one makes its name no newer."""
    if stat.S_ISDIR(mode):
        return stat.S_IFDIR
    return 0 if stat.S_ISLNK(mode) else mode & _OTHERS_WRITE  # a link's mode means nothing


def _in_turn(queues: list[list[str]]) -> list[str]:
    return [name for row in zip_longest(*queues) for name in row if name is not None]
