"""What the output of a finished child process says. Pure.

Invariant: whatever a child printed or however it ended, there is a verdict, and a bad ending always has
a problem that a person can read.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import Code, problem

if TYPE_CHECKING:
    from collections.abc import Mapping

# Longer than any retry delay; a worker that names more is misread rather than right.
LONGEST_RETURN_SECONDS = 7 * 86400.0

# As settings.py has it; stands in until the configuration could be read.
DEFAULT_PASS_SECONDS = 120.0

_SCHEMA = 1


@dataclass(frozen=True)
class Verdict:
    """How a pass went. `after_seconds`: come back then. `failed`: it crashed or was stopped."""

    outcome: str
    problem: Mapping[str, Any] | None
    after_seconds: float | None
    failed: bool


@dataclass(frozen=True)
class Configuration:
    """What `config show` said. While nothing was read yet there is neither hash nor problem."""

    ok: bool = False
    problem: Mapping[str, Any] | None = None
    sha256: str | None = None
    pass_seconds: float = DEFAULT_PASS_SECONDS
    is_unread: bool = False  # the program that reads it failed: that says nothing about the files


def of_pass(output: str, ending: str) -> Verdict:
    """`ending`: how the process ended, in words, for when its last line does not tell."""
    said = _object(output.rstrip("\n").rpartition("\n")[2])
    outcome = None if said is None else said.get("outcome")
    if said is None or not isinstance(outcome, str):
        what = problem(Code.PASS_CRASHED, detail=f"{ending}, without a result")
        return Verdict(what.code.value, what.to_json(), None, failed=True)
    return Verdict(outcome, _problem(said), _after_seconds(said), failed=False)


def timed_out(seconds: float) -> Verdict:
    what = problem(Code.PASS_TIMED_OUT, seconds=f"{seconds:g}")
    return Verdict(what.code.value, what.to_json(), None, failed=True)


def not_started(reason: str) -> Verdict:
    what = problem(Code.PASS_CRASHED, detail=f"the process can't be started: {reason}")
    return Verdict(what.code.value, what.to_json(), None, failed=True)


def of_configuration(output: str, ending: str) -> Configuration:
    said = _object(output)
    if said is not None:
        values, sha256, found = said.get("values"), said.get("sha256"), _problem(said)
        if found is not None:
            return Configuration(problem=found)
        if isinstance(values, dict) and isinstance(sha256, str):
            return Configuration(ok=True, sha256=sha256, pass_seconds=_pass_seconds(values))
    return unread(ending)


def unread(reason: str) -> Configuration:
    what = problem(Code.INTERNAL_ERROR, detail=f"claimd config show: {reason}")
    return Configuration(problem=what.to_json(), is_unread=True)


def _object(text: str) -> dict[str, Any] | None:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and said.get("schema") == _SCHEMA else None


def _problem(said: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = said.get("problem")
    if not isinstance(found, dict) or not all(isinstance(found.get(k), str) for k in ("code", "message")):
        return None
    return found


def _after_seconds(said: Mapping[str, Any]) -> float | None:
    seconds = _number(said.get("after_seconds"))
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_RETURN_SECONDS)


def _pass_seconds(values: Mapping[str, Any]) -> float:
    timeouts = values.get("timeouts")
    seconds = _number(timeouts.get("pass_seconds")) if isinstance(timeouts, dict) else None
    return seconds if seconds is not None and seconds > 0 else DEFAULT_PASS_SECONDS


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
