"""Reads the drop directory as the daemon does, for as long as it takes to read so many files under attack.

Run as user claimd with its capability. Prints one object: what was read, what was leaked, the longest look.
With `--naive` it opens names as a program does that knows nothing of attackers: to prove that the attack
is one.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import signal
import sys
import time
from collections.abc import Iterator

from claimd.drop import Drop
from claimd.durable import Disk
from premises import DROP

# What a secret holds, and what a file holds that its dropper may show.
# Written backwards: it is searched for below /tmp, where these files themselves may lie.
CANARY = bytes(reversed(b"SIHT-SWOHS-REVEN-NOMEAD-EHT-YRANAC"))
HONEST = b"-----honest-----\n"
# A look that hangs (a FIFO, a device) never comes back by itself.
HANGS_SECONDS = 60


def _looks() -> Iterator[list[tuple[bytes, str]]]:
    drop = Drop(str(DROP), Disk(), own_files=False)
    while True:
        yield [
            (entry.data, entry.problem.code.value if entry.problem else "read")
            for entry in drop.look(()).entries
        ]


def _naive_looks() -> Iterator[list[tuple[bytes, str]]]:
    while True:
        found = []
        for name in os.listdir(DROP):
            try:
                # Checked, and then opened by its name: the mistake itself.
                if os.path.islink(DROP / name) or not os.path.isfile(DROP / name):
                    continue
                fd = os.open(DROP / name, os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue
            with os.fdopen(fd, "rb") as file:
                found.append((file.read(65536), "read"))
        yield found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reads", type=int)
    parser.add_argument("--naive", action="store_true")
    options = parser.parse_args()
    outcomes: collections.Counter[str] = collections.Counter()
    leaks = looks = 0
    longest = longest_cpu = 0.0
    signal.alarm(HANGS_SECONDS)
    began, cpu = time.monotonic(), time.process_time()
    for found in _naive_looks() if options.naive else _looks():
        now, cpu_now = time.monotonic(), time.process_time()
        longest, longest_cpu = max(longest, now - began), max(longest_cpu, cpu_now - cpu)
        looks += 1
        for data, outcome in found:
            outcomes[outcome] += 1
            leaks += CANARY in data
        if sum(outcomes.values()) >= options.reads or (options.naive and leaks):
            break
        if looks % 100 == 0:
            signal.alarm(HANGS_SECONDS)
        began, cpu = time.monotonic(), time.process_time()
    document = {
        "reads": sum(outcomes.values()),
        "looks": looks,
        "leaks": leaks,
        "longest_seconds": longest,
        "longest_cpu_seconds": longest_cpu,
        "outcomes": dict(outcomes),
    }
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
