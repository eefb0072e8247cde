"""claimd as on a kernel without IPv6: `python without_ipv6.py ARGUMENTS...` is `claimd ARGUMENTS...` there.

A filter (seccomp(2), classic BPF) fails socket(AF_INET6) and no other call. The resolver tells IPv6
addresses all the same, as it does on such a kernel. Invariant: without the filter in force nothing runs.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import runpy
import socket
import struct
import sys

import pytest

# socket(2) in the kernel's own tables; the filter counts on little-endian arguments, which both have.
_SOCKET_CALL = {"x86_64": 41, "aarch64": 198}
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EAFNOSUPPORT  # SECCOMP_RET_*: linux/seccomp.h
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_*: linux/bpf_common.h
_NUMBER, _FIRST_ARGUMENT = 0, 16  # where they stand in struct seccomp_data
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2  # PR_SET_*: linux/prctl.h


def command(*arguments: str) -> list[str]:
    """For subprocess. Skips the test on a machine whose calls' numbers are not known here."""
    if platform.machine() not in _SOCKET_CALL:
        pytest.skip("the number of socket(2) on this machine is not known here")
    return [sys.executable, __file__, *arguments]


def forbid() -> None:
    """For this process, for good."""
    steps = [
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 3, _SOCKET_CALL[platform.machine()]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_IF_EQUAL, 0, 1, socket.AF_INET6),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SECCOMP, _FILTER, program, 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "prctl")
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError as error:
        assert error.errno == errno.EAFNOSUPPORT
    else:
        raise AssertionError("the kernel still makes IPv6 sockets")


if __name__ == "__main__":
    forbid()
    runpy.run_module("claimd", run_name="__main__")
