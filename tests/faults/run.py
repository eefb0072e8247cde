"""`make faults`: every sweep at its full length, and one table of what it found.

    python -m faults.run [--only WORD] [--every N] [--jobs N]

Each sweep is a job in a process of its own, N at once; `--every N` takes one point of so many. Exit code 0
means that every row has zeros where zeros belong and that in every row something was really struck; 1
that it has not; the objections follow the table.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faults import (
    clocks,
    conditions,
    cpp,
    errnos,
    ext4,
    forgetting,
    kills,
    network,
    powercut,
    scenarios,
    straced,
    teeth,
    walks,
)
from faults.judge import Kind
from faults.powercut import Court, record
from faults.scenarios import DEVICE_KEY, LOST_REGISTER, PLAIN, REPLACE, Scenario
from faults.table import Row, lines

SEEDS = (1, 2, 3, 4, 5)
# Each seed strikes one of so many calls, elsewhere than the seed before: all of them, or all by turns.
EVERY = {PLAIN.name: 1, LOST_REGISTER.name: 5}
OTHERS_EVERY = 15

# With one of how many points: 1 is the full length.
Job = Callable[[Path, int], list[Row]]


def _kill(scenario: Scenario) -> Job:
    every = EVERY.get(scenario.name, OTHERS_EVERY)
    return lambda place, more: [kills.sweep(scenario, place, seeds=SEEDS, every=every * more)]


def _power(scenario: Scenario) -> Job:
    def job(place: Path, more: int) -> list[Row]:
        (place / "court").mkdir()
        court, trace = Court(place / "court"), record(scenario, place / "device")
        return [
            powercut.replay(trace, court, every=more),
            powercut.replay_twice(trace, court, every=41 * more, second_every=17),
        ]

    return job


def _forget(place: Path, more: int) -> list[Row]:
    (place / "cut").mkdir()
    struck = forgetting.killed(place / "kill", seeds=SEEDS, every=len(SEEDS) * more)
    return [struck, forgetting.cut_off(place / "cut", every=more)]


def _errno(*, persistent: bool) -> Job:
    return lambda place, more: [errnos.sweep(PLAIN, place, persistent=persistent, every=more)]


def _clock(place: Path, more: int) -> list[Row]:
    rows = [clocks.starts_wrong(place / "start")]
    return rows + [clocks.jumps(s, place / str(n)) for n, s in enumerate((PLAIN, LOST_REGISTER))]


# The long ones first, so that two cores end together.
JOBS: dict[str, Job] = {
    "walks": walks.job,
    **{f"kill: {s.name}": _kill(s) for s in scenarios.ALL},
    **{f"power: {s.name}": _power(s) for s in (PLAIN, LOST_REGISTER, DEVICE_KEY, REPLACE)},
    "forget": _forget,
    "teeth": teeth.job,
    "errno once": _errno(persistent=False),
    "errno lasting": _errno(persistent=True),
    "chaos relay": lambda place, more: [network.cuts(place, every=more)],
    "kill: network boundaries": lambda place, more: [network.kills(place, times=5, every=more)],
    "real calls": lambda place, more: [straced.sweep(place, every=more)],
    "network conditions": lambda place, more: conditions.rows_of_a_program(),
    "ext4": lambda place, more: [ext4.row_of_a_program(every=more)],
    "clock": _clock,
    "power: the C++ client": lambda place, more: [cpp.replay(place)],
}


def main() -> int:
    parser = argparse.ArgumentParser(description="every sweep of faults, and one table")
    parser.add_argument("--only", default="", help="jobs whose name has this word in it")
    parser.add_argument("--every", type=int, default=1, help="one point of so many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        return _one(options.job, options.every)
    began = time.monotonic()
    names = [name for name in JOBS if options.only in name]
    found = _all(names, options.jobs, options.every)
    rows = [row for name in names for row in found.get(name, [])]
    failed = [name for name in names if name not in found]
    print()
    print("\n".join(lines(rows)))
    objections = [f"{name}: the sweep broke" for name in failed]
    objections += [text for row in rows for text in row.objections()]
    print(f"\n{len(rows)} classes, {sum(r.points for r in rows)} points", end=", ")
    print(f"{time.monotonic() - began:.0f} s; {len(objections)} objections")
    print("\n".join(objections))
    return 1 if objections or not rows else 0


def _one(name: str, every: int) -> int:
    """In a process of its own: the rows as one line of JSON."""
    logging.disable()  # what a device in trouble says is not what is judged here
    gc.freeze()  # a child that collected garbage would copy every page of what is loaded here
    os.register_at_fork(after_in_child=gc.disable)
    place = Path(
        tempfile.mkdtemp(prefix="claimd-faults-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    )
    try:
        rows = JOBS[name](place, every)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(json.dumps([asdict(row) for row in rows]))
    return 0


def _all(names: list[str], jobs: int, every: int) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    waiting = list(names)
    running: dict[str, tuple[float, subprocess.Popen[str]]] = {}
    while waiting or running:
        while waiting and len(running) < max(jobs, 1):
            name = waiting.pop(0)
            running[name] = (time.monotonic(), _start(name, every))
        for name, (began, process) in list(running.items()):
            try:
                output, _ = process.communicate(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue
            del running[name]
            took = time.monotonic() - began
            if process.returncode == 0:
                found[name] = [_row(each) for each in json.loads(output.splitlines()[-1])]
            points = sum(row.points for row in found.get(name, []))
            print(f"{took:6.0f} s  {points:6d} points  {name}", flush=True)
    return found


def _start(name: str, every: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "faults.run", "--job", name, "--every", str(every)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _row(said: dict[str, Any]) -> Row:
    return Row(**{**said, "found": {Kind(kind): count for kind, count in said["found"].items()}})


if __name__ == "__main__":
    sys.exit(main())
