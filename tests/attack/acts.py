"""The acts of the permission table, each tried by a process of its own: `python -m attack.acts ACT`.

It imports next to nothing: a hundred of them are started.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

DROP = Path("/var/spool/claimd/drop")
RESULT = Path("/var/spool/claimd/result")
TINAS, FOLDER, LATEST = DROP / "claim.pem", DROP / "folder", RESULT / "latest.txt"
# tom's, in the hope that somebody copies a claim onto it.
TRAP = DROP / "trap.pem"
KEY = Path("/var/lib/claimd/identity/0/private.key")


def _write(path: Path, flags: int) -> None:
    os.close(os.open(path, os.O_WRONLY | flags, 0o644))


def _own(path: Path) -> Path:
    """A file of the actor's own, to be renamed over another's."""
    _write(path, os.O_CREAT)
    return path


TRIES_WITH_A_NEW_FILE = "rename another over tina's file"
ACTS: Mapping[str, Callable[[], object]] = {
    "list drop/": lambda: os.listdir(DROP),
    "put a file into drop/": lambda: _write(DROP / "new", os.O_CREAT | os.O_EXCL),
    "make a folder in drop/": lambda: os.mkdir(DROP / "new"),
    "read tina's file": lambda: TINAS.read_bytes(),
    "overwrite tina's file": lambda: _write(TINAS, os.O_TRUNC),
    "append to tina's file": lambda: _write(TINAS, os.O_APPEND),
    "rename tina's file": lambda: os.rename(TINAS, DROP / "renamed"),
    TRIES_WITH_A_NEW_FILE: lambda: os.rename(_own(DROP / "new"), TINAS),
    "remove tina's file": lambda: os.unlink(TINAS),
    "link tina's file": lambda: os.link(TINAS, DROP / "link"),
    "point a symlink at tina's file": lambda: os.symlink(TINAS, DROP / "symlink"),
    "chmod tina's file": lambda: os.chmod(TINAS, 0o666),
    "set times of tina's file": lambda: os.utime(TINAS, (1, 1)),
    "look into tina's folder": lambda: os.listdir(FOLDER),
    "put into tina's folder": lambda: _write(FOLDER / "new", os.O_CREAT),
    "rename tina's folder": lambda: os.rename(FOLDER, DROP / "renamed"),
    "copy onto tom's trap": lambda: _write(TRAP, os.O_TRUNC),
    "read what lies in tom's trap": lambda: TRAP.read_bytes(),
    "remove tom's trap": lambda: os.unlink(TRAP),
    "list result/": lambda: os.listdir(RESULT),
    "read result/latest.txt": lambda: LATEST.read_bytes(),
    "put a file into result/": lambda: _write(RESULT / "new", os.O_CREAT | os.O_EXCL),
    "overwrite result/latest.txt": lambda: _write(LATEST, os.O_TRUNC),
    "rename result/latest.txt": lambda: os.rename(LATEST, RESULT / "renamed"),
    "remove result/latest.txt": lambda: os.unlink(LATEST),
    "rename drop/": lambda: os.rename(DROP, DROP.with_name("renamed")),
    "remove result/": lambda: os.rmdir(RESULT),
    "put a file beside drop/": lambda: _write(DROP.with_name("new"), os.O_CREAT),
    "read the identity's key": lambda: KEY.read_bytes(),
    "list the claims that are kept": lambda: os.listdir("/var/lib/claimd/claims"),
}


def attempt(act: str) -> str:
    """What the kernel says to this process."""
    try:
        ACTS[act]()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "yes"


if __name__ == "__main__":
    print(attempt(sys.argv[1]))
