"""What a check is, and what it found: the frame of `claimd doctor`. Pure.

Invariant: a check that rests on another one which did not succeed is skipped and says because of which, so
that one cause is reported once. An id never changes its meaning: scripts name it in --skip and --only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import ClaimdError, Code, Problem, printable, problem
from .words import COLUMNS, labelled, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

S = TypeVar("S")


class Finding(str, Enum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Found:
    """`evidence`: what was seen. `remedy`: what to do about it, empty when there is nothing to do."""

    verdict: Finding
    evidence: str
    remedy: str = ""
    commands: tuple[str, ...] = ()


def ok(evidence: str) -> Found:
    return Found(Finding.OK, evidence)


def warning(evidence: str, remedy: str, *commands: str) -> Found:
    return Found(Finding.WARNING, evidence, remedy, commands)


def failed(evidence: str, remedy: str, *commands: str) -> Found:
    return Found(Finding.FAILED, evidence, remedy, commands)


def skipped(because: str) -> Found:
    return Found(Finding.SKIPPED, because)


def of_problem(found: Problem) -> Found:
    """A failure of the catalogue as a finding."""
    remedy = f"{found.remedy} (claimd explain {found.code.value})"
    return Found(Finding.FAILED, found.happened, remedy, found.commands)


@dataclass(frozen=True)
class Check(Generic[S]):
    """`needs`: ids of checks that must have succeeded (a warning is good enough)."""

    id: str
    description: str
    ask: Callable[[S], Found]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    id: str
    description: str
    found: Found

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "description": self.description,
            "verdict": self.found.verdict.value,
            "evidence": printable(self.found.evidence),
            "remedy": printable(self.found.remedy),
            "commands": list(self.found.commands),
        }


def examine(
    checks: Iterable[Check[S]], scene: S, *, only: Collection[str] = (), skip: Collection[str] = ()
) -> list[Answer]:
    """Every check in its order. With `only`, what those need is asked as well, but not told."""
    checks = list(checks)
    wanted = _with_needs(checks, only) if only else {check.id for check in checks}
    told: list[Answer] = []
    verdicts: dict[str, Finding] = {}
    for check in checks:
        if check.id not in wanted:
            continue
        stopper = next((n for n in check.needs if verdicts.get(n) in (Finding.FAILED, Finding.SKIPPED)), None)
        if check.id in skip:
            found = skipped("as asked")
        elif stopper is not None:
            found = skipped(f"because of {stopper}")
        else:
            found = _asked(check, scene)
        verdicts[check.id] = found.verdict
        if not only or check.id in only:
            told.append(Answer(check.id, check.description, found))
    return told


def _asked(check: Check[S], scene: S) -> Found:
    """A check that breaks is a finding of its own; the others go on."""
    try:
        return check.ask(scene)
    except ClaimdError as error:
        return of_problem(error.problem)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return failed(
            f"{where}{error.strerror or error}", "run it as root: sudo claimd doctor", "sudo claimd doctor"
        )
    except Exception as error:
        return of_problem(problem(Code.INTERNAL_ERROR, detail=f"check {check.id}: {type(error).__name__}"))


def _with_needs(checks: Sequence[Check[S]], only: Collection[str]) -> set[str]:
    by_id = {check.id: check for check in checks}
    wanted, todo = set(only), list(only)
    while todo:
        for need in by_id[todo.pop()].needs:
            if need not in wanted:
                wanted.add(need)
                todo.append(need)
    return wanted


def document(answers: Sequence[Answer]) -> dict[str, Any]:
    """`claimd doctor --json`."""
    return {"schema": 1, "summary": _counts(answers), "checks": [answer.to_json() for answer in answers]}


def _counts(answers: Sequence[Answer]) -> dict[str, int]:
    return {v.value: sum(a.found.verdict is v for a in answers) for v in Finding}


def exit_code(answers: Sequence[Answer], *, strict: bool) -> int:
    bad = {Finding.FAILED, Finding.WARNING} if strict else {Finding.FAILED}
    return 1 if any(answer.found.verdict in bad for answer in answers) else 0


_WIDTH = 9
_INDENT = " " * _WIDTH


def lines(answers: Sequence[Answer], columns: int = COLUMNS) -> list[str]:
    """`claimd doctor` for a person: the verdict first, a remedy below what has one."""
    found: list[str] = []
    for answer in answers:
        said = answer.found
        text = f"{answer.id}: {printable(said.evidence)}"
        found += wrapped(text, first=f"{said.verdict.value:<{_WIDTH}}", columns=columns)
        if said.remedy:
            found += labelled(
                _INDENT + "what to do",
                printable(said.remedy),
                width=_WIDTH + 12,
                commands=said.commands,
                columns=columns,
            )
    return [*found, "", *wrapped(_summary(answers) or "nothing was checked", columns=columns)]


def _summary(answers: Sequence[Answer]) -> str:
    """How many of each verdict; what needs somebody is named again, for it may have scrolled away."""
    counts = []
    for word, number in _counts(answers).items():
        names = ", ".join(each.id for each in answers if each.found.verdict.value == word)
        named = word in (Finding.FAILED.value, Finding.WARNING.value)
        counts += [f"{number} {word} ({names})" if named else f"{number} {word}"] if number else []
    return ", ".join(counts)


def list_lines(checks: Sequence[Check[S]]) -> list[str]:
    width = max(len(check.id) for check in checks) + 2
    return [f"{check.id:<{width}}{check.description}" for check in checks]
