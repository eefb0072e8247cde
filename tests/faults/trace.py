"""What a pass does to the disk and to AWS, recorded in order, so that power cuts can be replayed.

A trace is a list of operations on numbered nodes (files, directories, links), with AWS's events between
them. Each operation knows the step that it belongs to: one call of `durable.Disk`, or one request.
Invariant: playing all operations on the start gives the tree that is on disk at the end (a test says so).
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from claimd.durable import TEMPORARY_PREFIX, Calls, Disk
from faults.calls import PlainCalls

# Instead of the random bytes of a file that only holds room.
BALLAST = b"ballast"
# Steps in /run, which is not on a disk, and texts for people, on which nothing depends.
VOLATILE = "run:"


class Op(str, Enum):
    CREATE = "create"  # node, in directory, name, mode
    MKDIR = "mkdir"
    LINK = "link"  # a symbolic link; data is its target
    WRITE = "write"  # node, data
    CHMOD = "chmod"
    SYNC = "sync"  # node: its data and mode, or a directory's names
    RENAME = "rename"  # within a directory: name, to
    REMOVE = "remove"  # name
    EVENT = "event"  # data: what the cloud noted


@dataclass(frozen=True)
class Entry:
    """One operation. `step`: its number and label, such as `12 write_file attempt.json`."""

    op: Op
    step: tuple[int, str]
    node: int = 0
    directory: int = 0
    name: str = ""
    to: str = ""
    mode: int = 0
    data: bytes = b""

    @property
    def label(self) -> str:
        return f"{self.step[1]}: {self.op.value}{'' if not self.what else ' ' + self.what}"

    @property
    def is_ballast(self) -> bool:
        """Files that only hold room, or are on their way out: which of them are there says nothing."""
        if self.op is Op.REMOVE and self.step[1].startswith(("sweep ", "remove_tree ")):
            return True
        return self.step[1].startswith("probe ") or self.name.startswith("reserve-")

    @property
    def what(self) -> str:
        if self.op is not Op.SYNC:
            return ""
        return ("", "directory", "new directory")[self.mode] or self.name


@dataclass(frozen=True)
class Node:
    """A file's data, a link's target, or a directory's names. Never changed: a tree gets another one."""

    mode: int
    data: bytes = b""
    names: Mapping[str, int] | None = None
    is_link: bool = False


@dataclass
class Tree:
    """A file system in memory. Node 0 is the device's root."""

    nodes: dict[int, Node] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Tree:
        tree = cls()
        tree._read(root)
        return tree

    def _read(self, path: Path) -> int:
        number, found = len(self.nodes), path.lstat()
        mode = found.st_mode & 0o7777
        self.nodes[number] = Node(mode)
        if path.is_symlink():
            self.nodes[number] = Node(0o777, os.readlink(path).encode(), is_link=True)
        elif path.is_dir():
            self.nodes[number] = Node(mode, names={n: self._read(path / n) for n in sorted(os.listdir(path))})
        else:
            self.nodes[number] = Node(mode, path.read_bytes())
        return number

    def names(self, directory: int) -> Mapping[str, int]:
        found = self.nodes[directory].names
        assert found is not None, f"node {directory} is no directory"
        return found

    def find(self, path: str) -> int:
        """By a path relative to the root."""
        number = 0
        for part in filter(None, path.split("/")):
            number = self.names(number)[part]
        return number

    def apply(self, entry: Entry) -> None:
        """Leaves out what makes no sense any more, as a file system does that lost the name."""
        if entry.op in (Op.SYNC, Op.EVENT):
            return
        if entry.op in (Op.WRITE, Op.CHMOD):
            old = self.nodes[entry.node]
            mode = entry.mode if entry.op is Op.CHMOD else old.mode
            self.nodes[entry.node] = Node(mode, old.data + entry.data, old.names, old.is_link)
            return
        names = dict(self.names(entry.directory))
        if entry.op is Op.RENAME:
            if entry.name in names:
                names[entry.to] = names.pop(entry.name)
        elif entry.op is Op.REMOVE:
            names.pop(entry.name, None)
        else:
            names[entry.name] = entry.node
        self.nodes[entry.directory] = Node(self.nodes[entry.directory].mode, names=names)

    def copy(self) -> Tree:
        return Tree(dict(self.nodes))

    def listing(self) -> Iterator[tuple[str, Node]]:
        """Every path that can be reached, in order."""
        yield from self._listing(0, "")

    def _listing(self, number: int, path: str) -> Iterator[tuple[str, Node]]:
        node = self.nodes[number]
        yield path, node
        for name, child in sorted((node.names or {}).items()):
            yield from self._listing(child, f"{path}/{name}")


class Recorder(PlainCalls):
    """Carries out every call, and writes it down."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self.start = Tree.read(root)
        self.now = self.start.copy()
        self.entries: list[Entry] = []
        self._next = len(self.start.nodes)
        self._open: dict[int, int] = {}
        self._ballast: set[int] = set()
        self._unnamed: set[int] = set()
        self._called: dict[int, str] = {}  # files that were made under their own name
        self._steps = 0
        self._step = (0, "")

    # Steps

    @contextmanager
    def step(self, label: str) -> Iterator[None]:
        """What happens inside belongs together; an inner step belongs to the outer one."""
        if self._step[1]:
            yield
            return
        self._steps += 1
        self._step = (self._steps, label)
        try:
            yield
        finally:
            self._step = (self._steps, "")

    def event(self, text: str) -> None:
        """What AWS noted. A request and what came of it are one step."""
        noted = json.loads(text)
        last = self.entries[-1] if self.entries else None
        if noted["event"] in ("issued", "activated") and last is not None and last.op is Op.EVENT:
            step = last.step
        else:
            self._steps += 1
            step = (self._steps, f"aws {noted.get('step', noted['event'])}")
        self._note(Entry(Op.EVENT, step, data=text.encode("ascii")))

    def _note(self, entry: Entry) -> None:
        self.now.apply(entry)
        self.entries.append(entry)

    # Calls

    def _relative(self, path: str, directory: int | None = None) -> str:
        if directory is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), path)
        elif path.startswith("/proc/self/fd/"):
            path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        assert path.startswith(self._root), path
        return path[len(self._root) :]

    def _parent(self, path: str) -> tuple[int, str]:
        directory, name = os.path.split(path)
        return self.now.find(directory), name

    def _new(self, op: Op, path: str, mode: int, data: bytes = b"") -> int:
        directory, name = self._parent(self._relative(path))
        number, self._next = self._next, self._next + 1
        # From the start it is there without a name: what a directory that was lost held is nowhere.
        node = Node(mode, data, {} if op is Op.MKDIR else None, op is Op.LINK)
        self.start.nodes[number] = self.now.nodes[number] = node
        entry = Entry(op, self._step, number, directory, name, mode=mode, data=data)
        if entry.is_ballast:
            self._ballast.add(number)
        if not name.startswith(TEMPORARY_PREFIX):
            self._called[number] = name
        elif op is Op.MKDIR:
            self._unnamed.add(number)
        self._note(entry)
        return number

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        is_new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
        fd = super().open(path, flags, mode, dir_fd=dir_fd)
        if is_new:
            self._open[fd] = self._new(Op.CREATE, path, os.fstat(fd).st_mode & 0o7777)
        else:
            self._open[fd] = self.now.find(self._relative(path, dir_fd))
        return fd

    def write(self, fd: int, data: bytes | memoryview, /) -> int:
        written = super().write(fd, data)
        kept = BALLAST if self._open[fd] in self._ballast else bytes(data[:written])
        self._note(Entry(Op.WRITE, self._step, self._open[fd], data=kept))
        return written

    def fsync(self, fd: int) -> None:
        number = self._open.get(fd)
        if number is None:
            number = self.now.find(self._relative(os.readlink(f"/proc/self/fd/{fd}")))
        is_directory = self.now.nodes[number].names is not None
        name = self._called.get(number, "")
        # A directory that is not under its own name yet is another matter than the one around it.
        mode = int(is_directory) + int(number in self._unnamed)
        self._note(Entry(Op.SYNC, self._step, number, name=name, mode=mode))

    def fchmod(self, fd: int, mode: int) -> None:
        super().fchmod(fd, mode)
        self._note(Entry(Op.CHMOD, self._step, self._open[fd], mode=mode))

    def close(self, fd: int) -> None:
        super().close(fd)
        self._open.pop(fd, None)

    def rename(self, src: str, dst: str) -> None:
        super().rename(src, dst)
        (directory, name), (other, to) = self._parent(self._relative(src)), self._parent(self._relative(dst))
        assert directory == other, "nothing is renamed across directories"
        self._note(Entry(Op.RENAME, self._step, 0, directory, name, to))

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        directory, name = self._parent(self._relative(path, dir_fd))
        super().unlink(path, dir_fd=dir_fd)
        self._note(Entry(Op.REMOVE, self._step, 0, directory, name))

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        super().mkdir(path, mode)
        self._new(Op.MKDIR, path, os.stat(path).st_mode & 0o7777)

    def rmdir(self, path: str) -> None:
        super().rmdir(path)
        directory, name = self._parent(self._relative(path))
        self._note(Entry(Op.REMOVE, self._step, 0, directory, name))

    def symlink(self, src: str, dst: str) -> None:
        super().symlink(src, dst)
        self._new(Op.LINK, dst, 0o777, src.encode())


class RecordedJournal:
    """The cloud's journal, with every event in the trace as well."""

    def __init__(self, recorder: Recorder, events: Sequence[str]) -> None:
        self._recorder = recorder
        self._events = list(events)

    def append(self, event: str) -> None:
        self._events.append(event)
        self._recorder.event(event)

    def events(self) -> Sequence[str]:
        return self._events


def stepping(recorder: Recorder, kind: type[Disk] = Disk) -> Callable[[Calls, Callable[[], str]], Disk]:
    """A Disk of `kind` each of whose methods is a step of the trace."""

    def stepped(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: Disk, where: object, *more: object, **named: object) -> Any:
            with recorder.step(_label(method.__name__, where, more)):
                return method(self, where, *more, **named)

        return call

    public = [name for name, member in vars(Disk).items() if not name.startswith("_") and callable(member)]
    made: type[Disk] = type("Stepping", (kind,), {name: stepped(getattr(kind, name)) for name in public})
    return made


def _label(method: str, where: object, more: tuple[object, ...]) -> str:
    if not isinstance(where, str):
        return f"{method} drop"
    if method == "write_volatile" or "/run/claimd" in where:
        return f"{VOLATILE} {method}"
    return f"{method} {_short(where)}{_state(where, more[0] if more else None)}"


def _short(path: str) -> str:
    """A path below the state directory without what differs from run to run."""
    parts = path.rpartition("/var/lib/claimd")[2].strip("/").split("/") if "/var/lib/claimd" in path else []
    if not parts:
        return os.path.basename(path)
    return "/".join("ID" if len(part) == 64 else part for part in parts) or "."


def _state(path: str, data: object) -> str:
    """Which state of the attempt a record holds."""
    if not path.endswith("attempt.json") or not isinstance(data, bytes):
        return ""
    attempt = json.loads(data)["attempt"]
    return "" if attempt is None else f" ({attempt['state']})"
