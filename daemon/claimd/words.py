"""Laying out sentences for a terminal. Pure.

Invariant: a command is never broken over two lines: it can be selected and pasted. Text that is plain
ASCII stays so; what a C locale can't show is replaced, never an exception.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

COLUMNS = 80

# textwrap takes only ASCII blanks for places to break.
_UNBREAKABLE = "\u00a0"


def wrapped(
    text: str,
    *,
    first: str = "",
    rest: str | None = None,
    commands: Iterable[str] = (),
    columns: int = COLUMNS,
) -> list[str]:
    """Lines of at most `columns`; a longer command or path stands on a line of its own, whole.

    `first` begins the first line, `rest` (default: as many blanks) the others.
    """
    for command in commands:
        text = text.replace(command, command.replace(" ", _UNBREAKABLE))
    lines = textwrap.wrap(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_UNBREAKABLE, " ") for line in lines] or [first.rstrip()]


def labelled(
    label: str, text: str, *, width: int, commands: Iterable[str] = (), columns: int = COLUMNS
) -> list[str]:
    """`label:` in a column of `width`, the text beside it."""
    return wrapped(text, first=f"{label + ':':<{width}}", commands=commands, columns=columns)
