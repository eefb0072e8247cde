"""python -m bench: measures, and prints a page."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import flows, processes
from bench.flows import Flow, median
from device import Device

ROUND_TRIP = 0.050  # seconds
AIM_RSS_KB = 16 * 1024
AIM_SECONDS = 0.9
AIM_ROUND_TRIPS = 6
AIM_STOP_SECONDS = 2.0


def verdict(reached: bool, aim: str) -> str:
    return f"aim {aim}: {'reached' if reached else 'MISSED'}"


def main() -> None:
    # Byte code is written when a package is installed; without it every import would compile.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["PYTHONPYCACHEPREFIX"] = cache
        print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores;", end=" ")
        print(f"load before: {os.getloadavg()[0]:.1f} (above {os.cpu_count()} others slow this down)")
        memory()
        starts()
        flow(0.0)
        flow(ROUND_TRIP / 2)
        stopping()


def memory() -> None:
    title("memory at rest", "RSS kB", "PSS kB", "threads", "wake-ups")
    processes.idle_service(seconds=0)  # the first one fills the caches
    bare = processes.bare_interpreter()
    idle = processes.idle_service()
    row("a bare interpreter", bare.rss, bare.pss, 1)
    row("claimd run", idle.memory.rss, idle.memory.pss, idle.threads, idle.wakeups)
    print(f"  {verdict(idle.memory.rss <= AIM_RSS_KB, f'RSS <= {AIM_RSS_KB} kB')}")
    print(f"  {verdict(idle.wakeups == 0, f'no wake-up in {idle.seconds:g} s but the one timer')}")


def starts() -> None:
    title("start to end of a process", "ms", "ms of CPU")
    with tempfile.TemporaryDirectory() as directory:
        device = Device(Path(directory))
        for name, arguments in {
            "a bare interpreter": ("-c", "pass"),
            "what the watcher imports": ("-c", processes.WATCHER),
            "what the worker imports": ("-c", processes.WORKER),
            "what the SDK's client imports": ("-c", processes.SDK),
            "claimd status": ("-m", "claimd", "--root", str(device.root), "status"),
        }.items():
            found = processes.start_of(*arguments)
            row(name, ms(found.wall), ms(found.cpu))


def flow(delay: float) -> None:
    where = f"a round trip of {delay * 2000:g} ms" if delay else "loopback"
    # On loopback what belongs to one flight arrives in pieces: there is nothing to count.
    trips = ["round trips"] if delay else []
    title(f"provisioning over {where}", "median ms", "best", "worst", "packets sent", *trips)
    ours, theirs = flows.of_claimd(delay), flows.of_sdk(delay)
    whole = [found for one in ours if (found := one.total) is not None]
    total = median(ours, lambda f: f.total)
    row("claimd: drop to proven identity", ms(total), ms(min(whole)), ms(max(whole)))
    row("  of it, until it connects", ms(median(ours, lambda f: f.until_open)))
    online("  connect to RegisterThing accepted", ours, counted=bool(delay))
    online("SDK's V2 client: the same two calls", theirs, counted=bool(delay))
    if delay:
        print(f"  claimd sends {', '.join(ours[0].packets)}")
        print(f"  the SDK sends {', '.join(theirs[0].packets)}")
        most = max(one.round_trips for one in ours)
        print(f"  {verdict(most <= AIM_ROUND_TRIPS, f'{AIM_ROUND_TRIPS} round trips to the answer')}")
        print(f"  {verdict(total <= AIM_SECONDS, f'drop to proven identity <= {ms(AIM_SECONDS)} ms')}")


def online(name: str, measured: Sequence[Flow], *, counted: bool) -> None:
    times = [one.online for one in measured]
    trips = [max(one.round_trips for one in measured)] if counted else []
    packets = len(measured[0].packets)
    row(name, ms(median(measured, lambda f: f.online)), ms(min(times)), ms(max(times)), packets, *trips)


def stopping() -> None:
    title("SIGTERM while an answer is awaited", "ms")
    seconds = flows.stop_in_mid_attempt()
    row("claimd run", ms(seconds))
    print(f"  {verdict(seconds <= AIM_STOP_SECONDS, f'{AIM_STOP_SECONDS * 1000:g} ms')}")


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


def title(name: str, *columns: str) -> None:
    print()
    row(name, *columns)


def row(name: str, *values: object) -> None:
    print(f"{name:<40}" + "".join(f"{value:>13}" for value in values), flush=True)


if __name__ == "__main__":
    main()
