"""Every disk call of a pass fails, once and for as long as the trouble lasts, with every likely errno.

Invariant: a pass never ends in a traceback for it, and once the disk is well the device comes to rest by
itself with the claim that it had.
"""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

from faults.calls import Failing
from faults.judge import Finding, Kind, judge
from faults.kills import calls_of, end_of
from faults.rig import Rig, copy_of
from faults.scenarios import Scenario
from faults.table import Row

ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EINTR,
)
DISK_CALLS = frozenset({"open", "write", "fsync", "fchmod", "close", "rename", "unlink", "mkdir", "symlink"})


def sweep(scenario: Scenario, place: Path, *, persistent: bool, every: int = 1) -> Row:
    row = Row(f"errno, {'lasting' if persistent else 'once'}: {scenario.name}")
    start = scenario.make(place / "start")
    names = calls_of(start, place / "map")
    points = [(n, e) for n, name in enumerate(names, 1) if name in DISK_CALLS | {"rmdir"} for e in ERRNOS]
    for number, error in points[::every]:
        rig = copy_of(start, place / "point")
        failing = Failing(number, error, persistent=persistent)
        findings = strike(rig, scenario, failing)
        where = f"{errno.errorcode[error]} at call {number} ({names[number - 1]})"
        row.add(where, findings, struck=min(failing.struck, 1))
        shutil.rmtree(place / "point")
    shutil.rmtree(place / "start")
    return row


def strike(rig: Rig, scenario: Scenario, failing: Failing) -> list[Finding]:
    """One pass at least meets the trouble; then it is over."""
    try:
        while not failing.struck:
            result = rig.one_pass(failing, failing.boundary)
            if not failing.struck:
                if result.after_seconds is None and rig.waits_for_a_claim() and rig.dropped < len(rig.claims):
                    rig.drop(rig.dropped)
                elif result.after_seconds is None:
                    return [Finding(Kind.STUCK, "the trouble never came")]
                rig.advance(max(result.after_seconds or 0.0, 0.5))
    except Exception as error:
        return [Finding(Kind.STUCK, f"the pass broke: {type(error).__name__}: {error}")]
    findings = judge(rig.root, rig.known(), rig.live_claims)
    rig.advance(max(result.after_seconds or 0.0, 0.5))
    return findings + end_of(replace(rig, seed=rig.seed + 1), scenario, kills=1)
