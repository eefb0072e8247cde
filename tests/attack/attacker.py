"""One attacker: changes what its names in the drop directory are, as fast as it can, until it is killed."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from attack.reader import HONEST
from premises import DROP

NAMES_EACH = 4
# Below root's directory beside the drop directory, on the same file system. root's is closed to everybody;
# the other's belongs to another technician.
VAULT = DROP.parent.parent / "vault"
SECRETS = (VAULT / "root", VAULT / "tina")


def _file(path: Path, times: int = 1) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, HONEST * times)
    os.close(fd)


def _swap(name: Path, secret: Path, turn: int) -> None:
    """A file and a symbolic link change places in one step."""
    other = name.with_name(f".{name.name}-{turn % 2}")
    if turn % 2:
        os.symlink(secret, other)
    else:
        _file(other)
    os.rename(other, name)


def _symlink(name: Path, secret: Path, turn: int) -> None:
    _file(name)
    os.unlink(name)
    os.symlink(secret, name)
    os.unlink(name)


def _link(name: Path, secret: Path, turn: int) -> None:
    """A hard link, there for a moment: with one name before and after."""
    _file(name)
    os.unlink(name)
    os.link(secret, name)
    os.unlink(name)


def _link_over(name: Path, secret: Path, turn: int) -> None:
    """A hard link that takes a file's place in one step."""
    other = name.with_name(f".{name.name}-{turn % 2}")
    if turn % 2:
        os.link(secret, other)
    else:
        _file(other)
    os.rename(other, name)


def _rename(name: Path, secret: Path, turn: int) -> None:
    """Folders and links to them change places: a name within them means another file each time."""
    folder, link = name.with_name(f"{name.name}-folder"), name.with_name(f"{name.name}-link")
    if turn == 0:
        os.mkdir(folder)
        _file(folder / secret.name)
        os.symlink(VAULT, link)
    spare = name.with_name(f".{name.name}-spare")
    os.rename(folder, spare)
    os.rename(link, folder)
    os.rename(folder, link)
    os.rename(spare, folder)


def _truncate(name: Path, secret: Path, turn: int) -> None:
    _file(name, 1 + turn % 1000)
    os.truncate(name, 3)
    os.truncate(name, 70_000)


def _pipes(name: Path, secret: Path, turn: int) -> None:
    """What opens for ever: a FIFO, a socket."""
    other = name.with_name(f".{name.name}-{turn % 2}")
    if turn % 3 == 0:
        os.mkfifo(other)
    elif turn % 3 == 1:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(other))
    else:
        _file(other)
    os.rename(other, name)


ATTACKS: Mapping[str, Callable[[Path, Path, int], None]] = {
    "swap": _swap,
    "symlink": _symlink,
    "link": _link,
    "link over": _link_over,
    "rename": _rename,
    "truncate": _truncate,
    "pipes": _pipes,
}


def main() -> None:
    attack = sys.argv[1]
    act = ATTACKS[attack]
    names = [DROP / f"{attack.replace(' ', '-')}-{number}" for number in range(NAMES_EACH)]
    for turn in itertools.count():
        for number, name in enumerate(names):
            # The other attackers and the daemon's own removals come in between.
            with contextlib.suppress(OSError):
                act(name, SECRETS[number % 2], turn)


if __name__ == "__main__":
    main()
