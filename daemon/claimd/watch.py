"""Watches directories for the watcher: inotify through watchdog where there is any, else the caller looks
by itself.

Invariant: an event is only a hint that it is time to look. What is there is told by `entries`, so that
a lost, doubled or late event changes nothing.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .spare import spare

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers.api import BaseObserver

# A claim is two files. Of more than these the directory's own times tell that something changed.
MAX_ENTRIES = 1000

Entries = frozenset[tuple[str, int, int, int]]


def entries(directory: str, *, follow: bool = False) -> Entries:
    """What lies in `directory`, and which directory it is: name, inode, size, time of the last change.

    Two of these are compared to see what came or changed in between. No file is opened, and links are
    followed only where their owner is trusted.
    """
    try:
        own = os.stat(directory)
        found = [(".", own.st_ino, own.st_dev, 0)]
        with os.scandir(directory) as scan:
            for entry in scan:
                if len(found) > MAX_ENTRIES:
                    found.append(("..", own.st_ino, own.st_nlink, own.st_ctime_ns))
                    break
                found.append(_described(entry.name, entry.path, follow=follow))
    except OSError as error:
        found = [("", error.errno or 0, 0, 0)]
    return frozenset(found)


def files(*paths: str) -> Entries:
    """The same for single files, which may be missing."""
    return frozenset(_described(path, path, follow=True) for path in paths)


def _described(name: str, path: str, *, follow: bool) -> tuple[str, int, int, int]:
    try:
        status = os.stat(path, follow_symlinks=follow)
    except OSError as error:
        return name, 0, 0, error.errno or 0
    return name, status.st_ino, status.st_size, status.st_ctime_ns


@dataclass(frozen=True)
class Place:
    """A directory to be watched. `contents`: what is in it counts, else only its subdirectories' names."""

    path: str
    contents: bool = True
    recursive: bool = False


class Watch:
    """Calls `wake` from another thread when it may be time to look; `take_hint` then says so once."""

    def __init__(self, places: tuple[Place, ...], wake: Callable[[], None]) -> None:
        self._places = places
        self._paths = {place.path for place in places}
        self._wake = wake
        self._hinted = False
        self._stale = True
        self._death: str | None = None
        self._observer: BaseObserver | None = None
        self._identities: tuple[tuple[int, int] | None, ...] = ()
        self.problem: str | None = None

    def take_hint(self) -> bool:
        # Cleared before the caller looks: what comes while it looks is a hint of its own.
        hinted, self._hinted = self._hinted, False
        return hinted

    def renew(self, *, thorough: bool) -> None:
        """Make the watch whole again if a directory was replaced, came or went.

        `thorough`: also try again what failed, such as a watch beyond the kernel's limit.
        """
        stale, self._stale = self._stale, False
        death, self._death = self._death, None
        identities = self._identify()
        changed = stale or identities != self._identities
        if death is not None and not thorough:
            self.close()
            self.problem = death
        elif changed or (thorough and not self._is_alive()) or death is not None:
            self._identities = identities
            self._begin()

    def close(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()

    def _begin(self) -> None:
        self.close()
        self.problem = self._missing() or self._start()
        if self._identify() != self._identities:
            self._stale = True  # replaced while the watches were made
            self._hint()

    def _missing(self) -> str | None:
        for place, identity in zip(self._places, self._identities, strict=True):
            if identity is None:
                return f"{place.path} is no directory that can be read"
        return None

    def _start(self) -> str | None:
        """Start an observer. Returns why there is none."""
        observer: BaseObserver | None = None
        try:
            observer = _new_observer()
            for place in self._places:
                handler, filter_ = _handler(self._on_event), _event_filter(contents=place.contents)
                observer.schedule(handler, place.path, recursive=place.recursive, event_filter=filter_)
            observer.start()
        except (OSError, RuntimeError, ImportError) as error:
            # OSError: no watches or instances left; RuntimeError: no thread; ImportError: no inotify in libc.
            if observer is not None:
                observer.stop()
            return f"inotify can't be used: {error}"
        self._observer = observer
        _close_on_exec()
        return None

    def _identify(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_identity(place.path) for place in self._places)

    def _is_alive(self) -> bool:
        observer = self._observer
        if observer is None or not observer.is_alive():
            return False
        return all(emitter.is_alive() for emitter in observer.emitters)

    def _on_event(self, event: FileSystemEvent) -> None:
        """In watchdog's thread."""
        if event.event_type in ("created", "deleted", "moved") and (
            os.fsdecode(event.src_path) in self._paths
            or os.fsdecode(getattr(event, "dest_path", "")) in self._paths
        ):
            self._stale = True  # a watched directory itself; its inode's number may be the same
        self._hint()

    def _hint(self) -> None:
        if not self._hinted:
            self._hinted = True
            self._wake()

    def listen_to_failures(self) -> None:
        """What watchdog complains of (an overflow of the kernel's queue) is a reason to look; when one of
        its threads dies the caller looks by itself until the next thorough renewal."""
        logging.getLogger("watchdog").addHandler(_Complaints(self._hint))
        threading.excepthook = self._on_thread_death

    def _on_thread_death(self, args: threading.ExceptHookArgs) -> None:
        self._death = f"a thread of the watch died: {args.exc_value!r}"
        self._hint()


class _Complaints(logging.Handler):
    def __init__(self, hint: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_complaint = hint

    def emit(self, record: logging.LogRecord) -> None:
        self._on_complaint()


def _identity(path: str) -> tuple[int, int] | None:
    """None also for what inotify would watch in vain: a link, or a directory without the right to read it."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISDIR(status.st_mode) or not os.access(path, os.R_OK | os.X_OK):
        return None
    return status.st_dev, status.st_ino


def _new_observer() -> BaseObserver:
    spare("ctypes.util")
    from watchdog.observers.inotify import InotifyObserver

    return InotifyObserver()


def _handler(on_event: Callable[[FileSystemEvent], None]) -> FileSystemEventHandler:
    from watchdog.events import FileSystemEventHandler

    class Handler(FileSystemEventHandler):
        def dispatch(self, event: FileSystemEvent) -> None:
            on_event(event)

    return Handler()


def _event_filter(*, contents: bool) -> list[type[FileSystemEvent]]:
    """No FileModifiedEvent in it: a long upload would wake the service at every write."""
    from watchdog import events

    own: list[type[FileSystemEvent]] = [
        events.DirCreatedEvent,
        events.DirMovedEvent,
        events.DirDeletedEvent,
    ]
    if not contents:
        return own
    return [
        *own,
        events.FileCreatedEvent,
        events.FileMovedEvent,
        events.FileDeletedEvent,
        events.FileClosedEvent,
    ]


def _close_on_exec() -> None:
    """watchdog's inotify descriptor would else be inherited by every process started from here."""
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return
    for number in map(int, numbers):
        try:
            if number > sys.stderr.fileno():
                os.set_inheritable(number, False)
        except OSError:
            pass  # the listing's own descriptor is closed by now
