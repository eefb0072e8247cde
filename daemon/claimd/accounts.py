"""The machine's users and groups: who may drop claims.

Invariant: nothing is changed that was right already, and what is asked for is checked before it is done.
"""

from __future__ import annotations

import grp
import pwd
import subprocess

# sysusers.d of the package makes it; /var/spool/claimd belongs to it.
DROP_GROUP = "claimd-drop"

TIMEOUT_SECONDS = 60.0


class AccountError(Exception):
    """Why a user can't be made a member. Its `str` is for a person."""


def check(user: str, group: str) -> None:
    """Raises AccountError unless both exist."""
    try:
        pwd.getpwnam(user)
    except (KeyError, ValueError) as error:
        raise AccountError(f"there is no user {user!r} on this machine") from error
    try:
        grp.getgrnam(group)
    except KeyError as error:
        raise AccountError(
            f"there is no group {group}: the package makes it (run: sudo systemd-sysusers)"
        ) from error


def is_member(user: str, group: str) -> bool:
    """By the group's list or as the user's own group; a session that runs already may not know it."""
    found = grp.getgrnam(group)
    return user in found.gr_mem or pwd.getpwnam(user).pw_gid == found.gr_gid


def join(user: str, group: str, program: str = "usermod") -> None:
    """Make `user` a member of `group` besides its others. Raises AccountError."""
    # gpasswd(1) knows only local groups; usermod(8) says why it can't.
    command = [program, "--append", "--groups", group, user]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AccountError(f"{program} can't be run: {error}") from error
    if ended.returncode != 0:
        said = " ".join(ended.stderr.split()) or f"exit code {ended.returncode}"
        raise AccountError(f"{user} can't be added to group {group}: {said}")
