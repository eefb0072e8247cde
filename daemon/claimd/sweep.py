"""Removes the folders that the daemon set aside in the drop directory: the one thing that needs root.

    drop/.claimd-sweep-<random>/     renamed there by the daemon, still owned by the technician

The daemon may rename a technician's folder but not empty it, and keys lie in it. `claimd sweep` runs as
root for as long as that takes, started by a path unit on these names. Invariant: nothing is removed but
names with PREFIX in the drop directory and what lies below them on the same file system; no link is followed,
and every step goes through the descriptor of the directory it is taken in. Each directory becomes root's own
before it is emptied, so that nobody puts things back into it meanwhile.

Root could remove what the folder's owner could not: somebody else's directory that lies in it. So only
directories of that owner are entered. Who he was is told by the name once the folder is root's own:

    drop/.claimd-sweep-of-1000-<random>/     root's, with the drop directory's group: nobody else makes one
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .durable import Disk

PREFIX = ".claimd-sweep-"

# A descriptor a level. What lies deeper is first moved up to the drop directory, under a name of its own.
MAX_DEPTH = 32
# One run ends, however much somebody piles up; the path unit starts the next.
MAX_REMOVALS = 1_000_000
# The daemon itself must not be kept busy.
MAX_REMOVALS_OF_A_USER = 1000
# Read from a directory at a time, so that memory has a bound.
NAMES_AT_ONCE = 1000

_OWNER = re.compile(re.escape(PREFIX) + r"of-(\d{1,10})-[0-9a-f]{16}\Z")
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Swept:
    """How many names are gone, and how many of those set aside are left."""

    removed: int
    left: int


def sweep(disk: Disk, path: str) -> Swept:
    """Remove every name that was set aside. Raises OSError when the directory itself can't be opened."""
    directory = os.open(path, _FLAGS)
    try:
        return _Sweep(disk, directory, as_root=os.geteuid() == 0).run()
    finally:
        os.close(directory)


def remove_as_far_as_possible(disk: Disk, directory: int, name: str) -> bool:
    """Remove one name that was set aside, as the user who asks; what is left waits for the sweep."""
    return _Sweep(disk, directory, as_root=False).remove(name)


class _Sweep:
    """As root everything is tried; as anybody else the first refusal ends it."""

    def __init__(self, disk: Disk, directory: int, *, as_root: bool) -> None:
        self._disk = disk
        self._directory = directory
        own = os.fstat(directory)
        self._device = own.st_dev
        self._group = own.st_gid
        self._as_root = as_root
        self._left = MAX_REMOVALS if as_root else MAX_REMOVALS_OF_A_USER
        self._removed = 0
        self._tried: set[str] = set()

    def run(self) -> Swept:
        # Again and again: what lay too deep has become a name here.
        while self._left > 0 and (names := list(islice(self._untried(), NAMES_AT_ONCE))):
            self._tried.update(names)
            for name in names:
                self.remove(name)
        return Swept(self._removed, sum(1 for _ in self._set_aside()))

    def remove(self, name: str) -> bool:
        try:
            found = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            owner = found.st_uid
            if self._as_root and stat.S_ISDIR(found.st_mode):
                if self._is_taken_over(found):
                    owner = _owner_in(name)
                else:
                    new = _name_of(owner)
                    self._disk.rename_in(self._directory, name, new)
                    self._tried.add(new)
                    name = new
            self._remove(self._directory, name, 0, owner)
            self._disk.sync_descriptor(self._directory)
        except OSError:
            return False
        return True

    def _untried(self) -> Iterator[str]:
        """However many names lie there that can't be removed, the rest have their turn."""
        return (name for name in self._set_aside() if name not in self._tried)

    def _set_aside(self) -> Iterator[str]:
        with os.scandir(self._directory) as entries:
            yield from (entry.name for entry in entries if entry.name.startswith(PREFIX))

    def _is_taken_over(self, found: os.stat_result) -> bool:
        """By an earlier run that did not come to its end."""
        return found.st_uid == 0 and found.st_gid == self._group != 0

    def _remove(self, parent: int, name: str, depth: int, owner: int) -> None:
        """One name and what is below it. Raises OSError when something of it is left."""
        if self._left <= 0:
            raise OSError("there is too much to remove at once")
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            self._disk.unlink_in(parent, name)
            self._count()
            return
        inside = os.open(name, _FLAGS, dir_fd=parent)
        try:
            found = os.fstat(inside)
            if found.st_dev != self._device:
                raise OSError("something is mounted on it")
            if self._as_root:
                if found.st_uid != owner and not self._is_taken_over(found):
                    raise OSError("it belongs to somebody else")
                self._disk.take_over(inside, self._group)
            if depth == MAX_DEPTH:
                self._disk.rename_in(parent, name, _name_of(owner), self._directory)
                return
            self._empty(inside, depth, owner)
        finally:
            os.close(inside)
        self._disk.rmdir_in(parent, name)
        self._count()

    def _empty(self, directory: int, depth: int, owner: int) -> None:
        """All that can be removed. Raises OSError when something is left, after the rest is gone."""
        stuck: set[str] = set()
        while True:
            with os.scandir(directory) as entries:
                names = list(islice((e.name for e in entries if e.name not in stuck), NAMES_AT_ONCE))
            if not names:
                break
            for name in names:
                try:
                    self._remove(directory, name, depth + 1, owner)
                except OSError:
                    stuck.add(name)
                    if not self._as_root or self._left <= 0 or len(stuck) >= NAMES_AT_ONCE:
                        raise
        if stuck:
            raise OSError(f"{len(stuck)} names can't be removed")

    def _count(self) -> None:
        self._removed += 1
        self._left -= 1


def _name_of(owner: int) -> str:
    return f"{PREFIX}of-{owner}-{secrets.token_hex(8)}"


def _owner_in(name: str) -> int:
    """Of a folder that is taken over. Nobody else can have given it this name."""
    found = _OWNER.match(name)
    if found is None:
        raise OSError("whose it was is not known")
    return int(found[1])
