"""The permission table: who may do what with whose file, tried by real processes on a real file system.

A row is an act, a column is an actor; the cell is `yes`, or why not in the kernel's words. The expected
table stands below as a whole. Hard links are as they are with fs.protected_hardlinks=1, the default of Debian
and Ubuntu; without it a technician may also link another's file, which the daemon then refuses to read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from attack.acts import ACTS, DROP, FOLDER, KEY, LATEST, RESULT, TINAS, TRAP, TRIES_WITH_A_NEW_FILE
from premises import OUTSIDER, TECHNICIANS, must, run

TINA, TOM = TECHNICIANS
ACTORS = (TINA, TOM, OUTSIDER, "claimd")
AS_DAEMON = (
    *("setpriv", "--reuid=claimd", "--regid=claimd", "--init-groups", "--no-new-privs"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
    *("--bounding-set=-all,+dac_read_search",),
)

# tina's file was copied with mode 0644, as scp does it; result/latest.txt is the daemon's. tom's trap is 0666
# and rid of its ACL: what the kernel allows there is why the daemon destroys it on sight (`siege`: "traps").
EXPECTED = """
act                               tina    tom     olga    claimd
list drop/                        yes     yes     EACCES  yes
put a file into drop/             yes     yes     EACCES  yes
make a folder in drop/            yes     yes     EACCES  yes
read tina's file                  yes     EACCES  EACCES  yes
overwrite tina's file             yes     EACCES  EACCES  EACCES
append to tina's file             yes     EACCES  EACCES  EACCES
rename tina's file                yes     EPERM   EACCES  yes
rename another over tina's file   yes     EPERM   EACCES  yes
remove tina's file                yes     EPERM   EACCES  yes
link tina's file                  yes     EPERM   EACCES  EPERM
point a symlink at tina's file    yes     yes     EACCES  yes
chmod tina's file                 yes     EPERM   EACCES  EPERM
set times of tina's file          yes     EPERM   EACCES  EPERM
look into tina's folder           yes     EACCES  EACCES  yes
put into tina's folder            yes     EACCES  EACCES  EACCES
rename tina's folder              yes     EPERM   EACCES  yes
copy onto tom's trap              yes     yes     EACCES  yes
read what lies in tom's trap      yes     yes     EACCES  yes
remove tom's trap                 EPERM   yes     EACCES  yes
list result/                      yes     yes     EACCES  yes
read result/latest.txt            yes     yes     EACCES  yes
put a file into result/           EACCES  EACCES  EACCES  yes
overwrite result/latest.txt       EACCES  EACCES  EACCES  yes
rename result/latest.txt          EACCES  EACCES  EACCES  yes
remove result/latest.txt          EACCES  EACCES  EACCES  yes
rename drop/                      EACCES  EACCES  EACCES  EACCES
remove result/                    EACCES  EACCES  EACCES  EACCES
put a file beside drop/           EACCES  EACCES  EACCES  EACCES
read the identity's key           EACCES  EACCES  EACCES  yes
list the claims that are kept     EACCES  EACCES  EACCES  yes
""".strip()


def _set_the_stage() -> None:
    """Anew before each act: files as their makers make them."""
    must("find", DROP, RESULT, "-mindepth", "1", "-delete")
    upload = f"umask 022; echo key > {TINAS}; chmod 0644 {TINAS}; mkdir {FOLDER}; chmod 0755 {FOLDER}"
    must("sh", "-c", upload, user=TINA)
    must("sh", "-c", f": > {TRAP}; setfacl -b {TRAP}; chmod 0666 {TRAP}", user=TOM)
    words = f"umask 077; echo READY > {LATEST}; chmod 0640 {LATEST}; mkdir -p /var/lib/claimd/claims"
    words += f"; mkdir -p {KEY.parent}; echo key > {KEY}; chmod 0640 {KEY}"
    must(*AS_DAEMON, "sh", "-c", words)


def table() -> str:
    """The table as this machine has it."""
    lines = [f"{'act':<34}" + "".join(f"{actor:<8}" for actor in ACTORS).rstrip()]
    _set_the_stage()
    for act in ACTS:
        cells = []
        for actor in ACTORS:
            command = (sys.executable, "-m", "attack.acts", act)
            done = run(*AS_DAEMON, *command) if actor == "claimd" else run(*command, user=actor)
            cells.append(done.stdout.decode().strip() or done.stderr.decode()[-300:])
            # What was refused has changed nothing, but for what was made in order to try.
            if cells[-1] == "yes" or act == TRIES_WITH_A_NEW_FILE:
                _set_the_stage()
        lines.append(f"{act:<34}" + "".join(f"{cell:<8}" for cell in cells).rstrip())
    return "\n".join(lines)


# What sets an ACL itself (install, cp -p of a file that others may read) is its owner's own will: nothing
# that a directory says outlives it.
CLOSED = (
    "umask 000; echo key > {}",
    "umask 022; echo key > {}; chmod 0644 {}",
    "echo key > {}; chmod 0666 {}",
    "cp /etc/hostname {}",
    "echo key | dd of={} status=none",
    "umask 077; echo key > {}; chmod g+r,o+r {}",
    "umask 000; mkdir {}; chmod 0777 {}",
    "mkdir {}; chmod 0755 {}; echo key > {}/key; chmod 0644 {}/key",
    "mkdir -m 0777 -p {}/a/b",
)
OPENED = ("install -m 0644 /etc/hostname {}", "cp -p /etc/hostname {}")


def opened_uploads(ways: Sequence[str]) -> list[str]:
    """The ways of putting a file or a folder after which another technician can read something of it."""
    found = []
    for way in ways:
        _set_the_stage()
        must("sh", "-c", f"cd {DROP} && {way.replace('{}', 'upload')}", user=TINA)
        upload = DROP / "upload"
        for path in (upload, *upload.rglob("*")):
            if run("ls" if path.is_dir() else "cat", path, user=TOM).returncode == 0:
                found.append(way)
                break
    return found
