"""Runs the administrator's hooks, as root and outside the sandbox, once an identity serves.

    /etc/claimd/hooks.d/*           executables of root's, in the order of their names
    /var/lib/claimd-hooks/seen.json which identity each hook has seen; root's alone

Invariant: each hook sees each identity at least once and, where it ends with 0, not again: what decides is
what it has seen, never the event. It is recorded after the hook ended, so a power cut runs it once more
and never leaves it out. Nothing is executed that anybody but root could have changed.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from . import smallfile
from .errors import Code, Exit, fail, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .durable import Disk
    from .model import Layout
    from .store import Identity

log = logging.getLogger(__name__)

DEFAULT_SECONDS = 300.0

_SCHEMA = 1
_MAX_STATE_BYTES = 1024 * 1024

# A plain name. What editors and dpkg leave beside a file is none: a "~", "#" or a blank is not in the class,
# and these endings are theirs.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\Z")
_LEFT_BEHIND = (
    ".bak",
    ".orig",
    ".rej",
    ".swp",
    ".disabled",
    ".dpkg-old",
    ".dpkg-new",
    ".dpkg-dist",
    ".dpkg-tmp",
)

# What the manager says to the unit's own process is not for its children.
_NOT_PASSED_ON = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
)
_OURS = "CLAIMD_"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Hook:
    """A name in hooks.d. `objection`: why it is not run, or None."""

    name: str
    path: str
    objection: str | None


class Identities(Protocol):
    def current(self) -> Identity | None:
        """The identity that serves, whole, or None. Raises ClaimdError when it is not whole."""


class Runner(Protocol):
    def __call__(
        self, path: str, environment: Mapping[str, str], seconds: float, say: Callable[[str], None], /
    ) -> str | None:
        """Run a program to its end; why it did not succeed, or None. `say` gets each line of its output."""


class Hooks:
    def __init__(self, layout: Layout, identities: Identities, disk: Disk) -> None:
        self._layout = layout
        self._identities = identities
        self._disk = disk
        self._state_file = os.path.join(layout.hooks_state_directory, "seen.json")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the state directory, which is made when it is missing; wait for whoever holds it now."""
        path = self._layout.hooks_state_directory
        self._disk.make_directory(path, 0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("hooks are being run already; waiting for their end")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._disk.sweep(path)
            yield
        finally:
            os.close(descriptor)

    def found(self) -> list[Hook]:
        """In the order in which they run. A directory that is not there holds none."""
        folder = self._layout.hooks_directory
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
        objection = None if not names else self._objection(folder, stat.S_IFDIR)
        found = []
        for name in names:
            path = os.path.join(folder, name)
            if not _NAME.match(name) or name.endswith(_LEFT_BEHIND):
                continue
            found.append(Hook(name, path, objection or self._objection(path, stat.S_IFREG)))
        return found

    def seen(self) -> dict[str, str]:
        """Hook name -> certificate id. One that can't be read is none: to run once more is what is safe."""
        try:
            document = json.loads(smallfile.read(self._state_file, _MAX_STATE_BYTES))
            if document["schema"] != _SCHEMA:
                raise ValueError("written by another version")
            return {str(name): str(identity) for name, identity in document["seen"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s can't be read, so every hook runs: %s", self._state_file, error)
            return {}

    def run(
        self,
        runner: Runner,
        seconds: float,
        environment: Mapping[str, str],
        again: bool = False,
    ) -> Exit:
        """Until every hook has seen the identity that serves by then. Raises ClaimdError."""
        tried: set[tuple[str, str]] = set()
        failures = 0
        while True:
            identity = self._identities.current()
            if identity is None:
                return Exit.NOTHING_TO_DO
            hook = self._next(identity, tried, again=again)
            if hook is None:
                break
            tried.add((hook.name, identity.certificate_id))
            failures += not self._run_one(hook, identity, runner, seconds, environment)
        if failures:
            return Exit.RETRY
        return Exit.OK if tried else Exit.NOTHING_TO_DO

    def _next(self, identity: Identity, tried: set[tuple[str, str]], *, again: bool) -> Hook | None:
        seen = self.seen()
        for hook in self.found():
            here = (hook.name, identity.certificate_id)
            if here not in tried and (again or seen.get(hook.name) != identity.certificate_id):
                return hook
        return None

    def _run_one(
        self,
        hook: Hook,
        identity: Identity,
        runner: Runner,
        seconds: float,
        environment: Mapping[str, str],
    ) -> bool:
        if hook.objection is not None:
            log.error("hook %s is not run: %s", hook.name, hook.objection)
            return False
        seen = self.seen()
        log.info("hook %s runs for certificate %s", hook.name, identity.certificate_id)
        variables = hook_environment(identity, seen.get(hook.name, ""), environment)
        trouble = runner(hook.path, variables, seconds, lambda line: log.info("hook %s: %s", hook.name, line))
        if trouble is not None:
            log.error("hook %s did not succeed: %s; it is run again later", hook.name, trouble)
            return False
        there = {found.name for found in self.found()}
        seen = {name: known for name, known in seen.items() if name in there}
        self._record(seen | {hook.name: identity.certificate_id})
        log.info("hook %s is done", hook.name)
        return True

    def _record(self, seen: Mapping[str, str]) -> None:
        text = json.dumps({"schema": _SCHEMA, "seen": dict(seen)}, indent=1, sort_keys=True) + "\n"
        self._disk.write_file(self._state_file, text.encode("ascii"), 0o600)

    def _objection(self, path: str, kind: int) -> str | None:
        """Why nobody should execute this as root, or None.

        Also of every directory on the way, and of a link and what it leads to: who may change one of them
        decides what runs. Below --root nobody but the caller is asked for.
        """
        owners = {0, os.geteuid()} if self._layout.root else {0}
        for place in _on_the_way(path, self._layout.root):
            try:
                found = os.lstat(place)
            except OSError as error:
                return _unseen(place, error)
            if found.st_uid not in owners:
                return f"{printable(place)} does not belong to root (chown root {printable(place)})"
            if found.st_mode & 0o022 and not stat.S_ISLNK(found.st_mode):
                return f"others may write {printable(place)} (chmod go-w {printable(place)})"
        try:
            found = os.stat(path)
        except OSError as error:  # each place was there by itself: links that lead to each other
            return _unseen(path, error)
        if stat.S_IFMT(found.st_mode) != kind:
            return "it is no ordinary file" if kind == stat.S_IFREG else "it is no directory"
        if kind == stat.S_IFREG and not found.st_mode & 0o100:
            return f"it is not executable (chmod +x {printable(path)})"
        return None


def _unseen(place: str, error: OSError) -> str:
    return f"{printable(place)}: {error.strerror}"


def _on_the_way(path: str, root: str) -> list[str]:
    """The path itself as it is named and as it resolves, with every directory of both, down to `root`."""
    places: dict[str, None] = {}
    for end in (path, os.path.realpath(path)):
        place = end
        while place not in ("/", root):
            places[place] = None
            place = os.path.dirname(place)
    return list(places)


def hook_environment(identity: Identity, previous: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What a hook is told. Of the caller's environment all but what is only for the caller itself.

    `previous`: the certificate that this hook has seen last, "" for none.
    """
    document = identity.document
    paths = document.get("paths", {})
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _NOT_PASSED_ON and not name.startswith(_OURS)
    }
    ours = {
        "CERTIFICATE_ID": identity.certificate_id,
        "PREVIOUS_CERTIFICATE_ID": previous,
        "THING_NAME": identity.thing_name or "",
        "CLIENT_ID": document.get("client_id", ""),
        "ENDPOINT": document.get("endpoint", ""),
        "PORT": document.get("port", ""),
        "TEMPLATE": document.get("template", ""),
        "CERTIFICATE_NOT_AFTER": document.get("certificate_not_after", ""),
        "IDENTITY": identity.path,
        "IDENTITY_JSON": os.path.join(identity.path, "identity.json"),
        "PRIVATE_KEY": paths.get("private_key", ""),
        "CERTIFICATE": paths.get("certificate", ""),
        "ROOT_CA": paths.get("root_ca", ""),
    }
    return {"PATH": _PATH} | kept | {_OURS + name: _word(value) for name, value in ours.items()}


def _word(value: object) -> str:
    """Names come from AWS and from the configuration: no NUL, which would end the variable, or a new line."""
    text = str(value)
    if not text.isprintable():
        raise fail(Code.INTERNAL_ERROR, detail="a value of identity.json can't be shown to a hook")
    return text
