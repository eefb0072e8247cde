"""A ProxyCommand whose link is lost as soon as the copy has begun: `python -m habits.lost_link PORT PATH`.

What the client sends goes on to the server until PATH is there; not a byte after that.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys

_CHUNK = 65536


def main(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port)) as server, selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while True:
            for ready, _ in selector.select():
                data = os.read(ready.fd, _CHUNK)
                if not data:
                    return
                if ready.fd == server.fileno():
                    os.write(sys.stdout.fileno(), data)
                elif os.path.lexists(path):
                    return
                else:
                    server.sendall(data)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
