"""Laying out sentences for a terminal. Pure.

Invariant: a command is never broken over two lines, and one that begins a line is all that is on it: it
can be selected and pasted. Text that is plain ASCII stays so; what a C locale
can't show is replaced, never an exception.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

COLUMNS = 80

# textwrap takes only ASCII blanks for places to break.
_UNBREAKABLE = "\u00a0"


# What joins a command to the words after it in a sentence, and would be pasted into a shell with it.
_JOINS = ",;:."
_ENDS = frozenset(" )" + _JOINS)


def wrapped(
    text: str,
    *,
    first: str = "",
    rest: str | None = None,
    commands: Iterable[str] = (),
    columns: int = COLUMNS,
) -> list[str]:
    """Lines of at most `columns`; a longer command or path stands on a line of its own, whole.

    `first` begins the first line, `rest` (default: as many blanks) the others. A command that begins one of
    the others ends it: the words after it go on below, without the comma between.
    """
    whole = []
    for command in sorted(set(commands), key=len, reverse=True):
        whole.append(command.replace(" ", _UNBREAKABLE))
        text = text.replace(command, whole[-1])
    indent = " " * len(first) if rest is None else rest
    lines: list[str] = []
    while text:
        broken = _broken(text, indent if lines else first, indent, columns)
        # The text's own first line begins with the label, not with a command.
        begun = 0 if lines else 1
        number, command = next(
            (
                (number, command)
                for number, line in enumerate(broken[begun:], begun)
                for command in whole
                if _begins(line[len(indent) :], command)
            ),
            (len(broken), ""),
        )
        lines += broken[:number]
        if not command:
            break
        lines.append(indent + command)
        left = " ".join(line[len(indent) :] for line in broken[number:])
        text = left[len(command) :].lstrip(_JOINS).lstrip()
    return [line.replace(_UNBREAKABLE, " ") for line in lines] or [first.rstrip()]


def _begins(line: str, command: str) -> bool:
    return line.startswith(command) and (line == command or line[len(command)] in _ENDS)


def _broken(text: str, first: str, rest: str, columns: int) -> list[str]:
    return textwrap.wrap(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def labelled(
    label: str, text: str, *, width: int, commands: Iterable[str] = (), columns: int = COLUMNS
) -> list[str]:
    """`label:` in a column of `width`, the text beside it."""
    return wrapped(text, first=f"{label + ':':<{width}}", commands=commands, columns=columns)
