"""Attackers in the technicians' group race the daemon's reading; a secret of others must never come out.

They may even give any file a second name, which fs.protected_hardlinks forbids on Debian and Ubuntu: they run
with CAP_FOWNER, which is what its being off would give them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from attack.attacker import SECRETS, VAULT
from attack.permissions import AS_DAEMON, TINA, TOM
from attack.reader import CANARY, HANGS_SECONDS
from premises import DROP, must

MAX_LOOK_SECONDS = 1.0
# A program that checks a name and then opens it must be caught within so many reads: else the attack is none.
NAIVE_READS = 1_000_000
_LEAKING = ("swap", "symlink", "link", "link over")


def _set_the_stage() -> None:
    must("find", DROP, "-mindepth", "1", "-delete")
    VAULT.mkdir(exist_ok=True)
    for secret in SECRETS:
        secret.write_bytes(CANARY)
        secret.chmod(0o600)
    shutil.chown(SECRETS[1], TINA, TINA)


def _attackers(attacks: tuple[str, ...]) -> list[subprocess.Popen[bytes]]:
    as_tom = ("setpriv", f"--reuid={TOM}", f"--regid={TOM}", "--init-groups", "--pdeathsig=KILL")
    able = (*as_tom, "--inh-caps=-all,+fowner", "--ambient-caps=-all,+fowner")
    return [
        subprocess.Popen([*able, sys.executable, "-m", "attack.attacker", attack], stderr=subprocess.DEVNULL)
        for attack in attacks
    ]


def _read(attacks: tuple[str, ...], reads: int, *, naive: bool) -> dict[str, Any]:
    _set_the_stage()
    attackers = _attackers(attacks)
    try:
        options = ("--naive",) if naive else ()
        command = (*AS_DAEMON, sys.executable, "-m", "attack.reader", str(reads), *options)
        done = must(*command, timeout=HANGS_SECONDS + reads / 100)
    finally:
        for attacker in attackers:
            attacker.kill()
            attacker.wait()
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def races(reads: int, attacks: Sequence[str]) -> list[str]:
    """Prints a row for each attack; what went wrong."""
    wrong = []
    print(f"{'attack':<12}{'reads':>10}{'looks':>9}{'leaks':>7}{'longest':>9}   a naive reader leaks after")
    share = reads // len(attacks) + 1
    total = leaked = 0
    for attack in attacks:
        naive = _read((attack,), NAIVE_READS, naive=True) if attack in _LEAKING else None
        began = time.monotonic()
        found = _read((attack,), share, naive=False)
        total += found["reads"]
        leaked += found["leaks"]
        longest = found["longest_cpu_seconds"]
        fooled = "-" if naive is None else f"{naive['reads']:,}"
        print(
            f"{attack:<12}{found['reads']:>10,}{found['looks']:>9,}{found['leaks']:>7}{longest:>8.3f}s"
            f"{fooled:>8}   ({time.monotonic() - began:.0f} s; {_outcomes(found)})",
            flush=True,
        )
        if found["leaks"]:
            wrong.append(f"{attack}: {found['leaks']} leaks")
        if longest > MAX_LOOK_SECONDS:
            wrong.append(f"{attack}: a look took {longest:.1f} s")
        if naive is not None and not naive["leaks"]:
            wrong.append(f"{attack}: not even a naive reader was fooled; the attack is none")
    print(f"{total:,} reads: {leaked} leaks, {sum('took' in each for each in wrong)} blocks")
    return wrong


def _outcomes(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(found["outcomes"].items()))
