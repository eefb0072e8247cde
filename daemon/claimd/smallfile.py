"""Read a small ordinary file whole, or say why not.

Invariant: it never blocks and never reads without bound, whatever lies at the path: a FIFO, a device,
a file of a terabyte.
"""

from __future__ import annotations

import errno
import os
import stat


def read(path: str, limit: int) -> bytes:
    """All bytes, at most `limit`. Raises OSError; its `strerror` is for a person. Symlinks are followed."""
    # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes")
    return content
