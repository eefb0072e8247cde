"""A journal to be run beside claimd, in a mount namespace of its own: takes what systemd's library sends.

`python journal.py FILE COMMAND...` runs COMMAND with its standard error as the journal's stream and writes
into FILE the entries that came, as JSON, a line each. Its caller has made /run/systemd/journal its own.
"""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")


def main(file: Path, command: list[str]) -> int:
    SOCKET.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door, tempfile.TemporaryFile() as stream:
        door.bind(str(SOCKET))
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        status = os.fstat(stream.fileno())
        known = f"{status.st_dev}:{status.st_ino}"
        code = subprocess.run(
            command, stderr=stream, env={**os.environ, "JOURNAL_STREAM": known}, check=False
        ).returncode
        door.setblocking(False)
        entries = []
        while (entry := _receive(door)) is not None:
            entries.append(entry)
        file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        stream.seek(0)
        sys.stderr.buffer.write(stream.read())
    return code


def _receive(door: socket.socket) -> dict[str, str] | None:
    try:
        data, ancillary, _, _ = door.recvmsg(1 << 16, socket.CMSG_SPACE(4))
    except BlockingIOError:
        return None
    for _, _, passed in ancillary:
        # An entry that is too large for a datagram comes as a sealed file.
        data = os.fdopen(array.array("i", passed)[0], "rb").read()
    # systemd.journal-fields(7), native protocol: NAME=value lines; none of claimd's has a line end in it.
    return dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
