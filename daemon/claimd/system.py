"""What claimd asks of the kernel for itself: user, capabilities, no core dumps.

Linux only, by ctypes on the C library: prctl(2), capset(2). Invariant: after
`give_up_capabilities` this process can't read what its user may not read, nor regain it.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource

from .errors import Code, fail

USER = "claimd"
CAP_DAC_READ_SEARCH = 2

_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def hide_memory() -> None:
    """No core dump and no ptrace by others: keys are in this process's memory."""
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def become_service_user() -> None:
    """As root: become user claimd, keeping the one capability. As anybody else: stay who we are.

    Before the first open, so that `sudo claimd provision` leaves no file the daemon can't write.
    """
    if os.geteuid() != 0:
        return
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        raise fail(
            Code.PERMISSION_DENIED,
            path="the user claimd",
            detail="it does not exist; install the package, or name a directory with --root",
        ) from None
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.initgroups(USER, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    _capset(1 << CAP_DAC_READ_SEARCH)


def give_up_capabilities() -> None:
    """Clear effective, permitted, inheritable and ambient sets, and check that they are clear.

    In a single thread: capset(2) is per thread, and a thread that exists already would keep them.
    Root keeps what root is: under --root nothing is given up that was not a capability of the unit.
    """
    if os.geteuid() == 0:
        return
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _capset(0)
    left = held_capabilities()
    if any(left.values()):
        raise RuntimeError(f"capabilities were not given up: {left}")


def held_capabilities() -> dict[str, int]:
    """Permitted and effective sets of every thread of this process, by thread id, where not empty."""
    held: dict[str, int] = {}
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(("CapPrm:", "CapEff:")):
                    held[task] = held.get(task, 0) | int(line.split()[1], 16)
    return {task: mask for task, mask in held.items() if mask}


_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int) -> None:
    _check(_libc.prctl(option, argument, 0, 0, 0), "prctl")


def _capset(mask: int) -> None:
    header = _Header(_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)(_Data(mask, mask, mask), _Data(0, 0, 0))
    _check(_libc.capset(ctypes.byref(header), data), "capset")


def _check(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
