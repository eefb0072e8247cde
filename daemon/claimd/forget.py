"""The way out: destroys identity, attempt and claims of this device.

    the intent recorded -> current gone -> activated, record -> claims -> keys -> the intent taken back

Invariant: once the intent is recorded there is no way back and no half way: whoever comes next under the
lock, `claimd forget` again or a pass of the service, finishes it before anything else. An identity is never
served by halves, because `current` goes first, and nothing is read as a device that was provisioned.
AWS is not told: the certificate stays active there until somebody with the rights ends it.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import origin
from .drop import Drop
from .errors import ClaimdError, Code, fail, printable
from .lock import LockedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .model import Layout
    from .store import Store

log = logging.getLogger(__name__)

# A file is searched for a key so far; claimd writes none that is larger.
MAX_SEARCHED_BYTES = 1024 * 1024
_SECRET = b"PRIVATE KEY"


@dataclass(frozen=True)
class Remembered:
    """An identity that lies here: what AWS may have active. `thing_name`: None when it is not known."""

    certificate_id: str
    thing_name: str | None
    serves: bool


@dataclass(frozen=True)
class Memory:
    """What there is to forget. `is_foreign`: it is another device's, see origin.py."""

    identities: tuple[Remembered, ...]
    claims: tuple[str, ...]
    has_record: bool
    is_foreign: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.identities or self.claims or self.has_record)


def memory(store: Store) -> Memory:
    """Raises ClaimdError and OSError. Reads only."""
    current = store.current_link()
    found = []
    for name in store.staged():
        try:
            document = store.document(name)
        except (ClaimdError, OSError, ValueError):
            document = None  # a key without readable documents may be active all the same
        thing = None if document is None else document.get("thing_name")
        found.append(Remembered(name, thing if isinstance(thing, str) else None, name == current))
    is_foreign = origin.foreign(store, store.layout) is not None
    return Memory(tuple(found), tuple(store.claim_names()), store.has_record, is_foreign)


class NotAgreedError(Exception):
    """There is an identity that nobody was asked about."""


@contextmanager
def forgotten(
    store: Store,
    wait: Callable[[], bool] | None = None,
    *,
    agreed: Memory | None = None,
    found: Callable[[Memory], object] = lambda there: None,
) -> Iterator[Memory]:
    """Destroy it all; what there was. `wait`: see Store.locked. `agreed`: what a person said yes to. `found`
    is told what there is before any of it is destroyed.

    The lock is held to the end of the block: a pass of the service would begin a new memory at once.
    Raises NotAgreedError, and ClaimdError when another pass is at work: nothing is destroyed then. Raises
    OSError, also when it is begun.
    """
    try:
        with store.locked(wait):
            there = memory(store)
            if agreed is not None and {*there.identities} - {*agreed.identities}:
                raise NotAgreedError
            found(there)
            store.begin_forgetting()
            store.forget()
            yield there
    except LockedError as error:
        raise fail(Code.PASS_RUNNING, pid=error.pid) from None


def finish(store: Store) -> None:
    """Under the lock: end what an interruption broke off."""
    if store.is_forgetting():
        log.warning("a `claimd forget` was interrupted: it is finished")
        store.forget()


def take_back_words(layout: Layout, store: Store) -> None:
    """What status and answers say of an identity that is no more. Raises OSError."""
    for path in (layout.status_file, layout.ledger_file, *_files(layout.result_directory)):
        store.disk.remove_file(path)


def clear_the_drop(layout: Layout, store: Store) -> None:
    """For an image: also what was dropped, however much; what can't be removed, `left_behind` names."""
    drop = Drop(layout.drop_directory, store.disk, own_files=True)
    while _clear_once(drop):
        pass


def _clear_once(drop: Drop) -> bool:
    """Whether anything is gone: one scan reads so many names and folders, and no more."""
    try:
        entries = [entry for entry in drop.scan() if entry.folder is None]
    except ClaimdError:
        return False
    gone = False
    for entry in entries:
        with suppress(OSError):
            gone |= drop.remove(entry)
    return gone


def clear_what_hooks_have_seen(layout: Layout, store: Store) -> None:
    """For an image: a clone's first hook must not hear of its certificate. It is root's. Raises OSError."""
    for path in _files(layout.hooks_state_directory):
        store.disk.remove_file(path)


def left_behind(layout: Layout) -> list[str]:
    """What must not be in an image and is still there: paths below state, spool and run directories that
    hold something, what hooks have seen, and configuration files with a private key in them."""
    found = list(_files(layout.state_directory))
    found += list(_files(layout.hooks_state_directory))
    found += list(_files(layout.drop_directory))
    for directory in (layout.result_directory, layout.run_directory, layout.config_directory):
        found += [path for path in _files(directory) if _may_hold_a_key(path)]
    return [printable(path) for path in found]


def _files(directory: str) -> Iterator[str]:
    """Every name below that is no directory."""
    for parent, _, names in os.walk(directory):
        for name in sorted(names):
            yield os.path.join(parent, name)


def _may_hold_a_key(path: str) -> bool:
    """What can't be read may hold anything."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # the watcher replaces its file at any time
    except OSError:
        return not stat.S_ISSOCK(os.lstat(path).st_mode)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        return _SECRET in file.read(MAX_SEARCHED_BYTES)
