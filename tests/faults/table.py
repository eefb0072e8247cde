"""The one table of faults: a row a class, with what was tried and what it cost.

Invariant: a row in which nothing was struck is an error, not a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from faults.judge import Finding, Kind

_EXAMPLES = 12


@dataclass
class Row:
    """`struck`: faults that really happened; `points`: situations judged."""

    name: str
    points: int = 0
    struck: int = 0
    recovered: int = 0
    found: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    examples: list[str] = field(default_factory=list)
    note: str = ""
    is_ours: bool = True  # False: another program's, printed for comparison

    def add(self, where: str, findings: Sequence[Finding], *, struck: int = 1) -> None:
        """One point. It has recovered when nothing was found."""
        self.points += 1
        self.struck += struck
        self.recovered += not findings
        for kind in {finding.kind for finding in findings}:
            self.found[kind] += 1
        if findings and len(self.examples) < _EXAMPLES:
            self.examples.append(f"{where}: {'; '.join(map(str, findings))}")

    def merge(self, other: Row) -> None:
        self.points += other.points
        self.struck += other.struck
        self.recovered += other.recovered
        for kind in Kind:
            self.found[kind] += other.found[kind]
        self.examples = (self.examples + other.examples)[:_EXAMPLES]

    @property
    def bad(self) -> int:
        return self.points - self.recovered

    def objections(self) -> list[str]:
        """Why this row is no pass."""
        if not self.is_ours or self.note.startswith("skipped"):
            return []
        found = [f"{self.name}: {example}" for example in self.examples]
        if self.points == 0 or self.struck == 0:
            found.append(f"{self.name}: nothing was struck, so nothing is proved")
        if self.bad and not self.examples:
            found.append(f"{self.name}: {self.bad} bad points")
        return found


_HEAD = ("fault class", "points", "lost", "half", "leaked", "claim wasted", "recovered alone")


def lines(rows: Sequence[Row]) -> list[str]:
    """The table as text."""
    cells: list[tuple[str, ...]] = [_HEAD]
    for row in rows:
        numbers = (row.found[Kind.LOST], row.found[Kind.HALF], row.found[Kind.LEAKED], row.found[Kind.WASTED])
        alone = f"{row.recovered} of {row.points}"
        cells.append((row.name, str(row.points), *map(str, numbers), alone))
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    text = []
    for line in cells:
        first = line[0].ljust(widths[0])
        text.append("  ".join([first, *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]))
    for number, row in enumerate(rows, 1):
        text[number] += f"  {row.note}" if row.note else ""
    text.insert(1, "  ".join("-" * width for width in widths))
    return text
