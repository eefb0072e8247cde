"""TOML files in layers: read, merged key by key, each value traceable to its file and line.

Invariant: what comes out was read whole from ordinary files of a sane size; a later file's key wins
over an earlier one's, tables are merged, everything else is replaced.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import smallfile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# A configuration has some dozens of lines; more is a wrong file.
MAX_BYTES = 64 * 1024

# A key's place: ("template", "name").
KeyPath = tuple[str, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_PATH = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER = re.compile(rf"[ \t]*\[\[?[ \t]*({_PATH})[ \t]*\]")
_ASSIGNMENT = re.compile(rf"[ \t]*({_PATH})[ \t]*=[ \t]*(\"\"\"|''')?")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_POSITION = re.compile(r" \(at line (\d+), column \d+\)$")


class TomlError(ValueError):
    """A file's text is no TOML. Its `str`: "FILE:LINE: cause"."""


@dataclass(frozen=True)
class TomlFile:
    path: str
    text: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Merged:
    """The values of all layers, and for each the file that it comes from.

    `overridden`: what a file sets and a later one sets again.
    """

    files: tuple[TomlFile, ...]
    values: Mapping[str, Any]
    origins: Mapping[KeyPath, TomlFile]
    overridden: tuple[tuple[KeyPath, TomlFile], ...] = ()

    def origin(self, path: KeyPath) -> TomlFile | None:
        """The file that sets this key, or else something in it."""
        return next((file for key, file in self.origins.items() if key[: len(path)] == path), None)


def read(path: str) -> TomlFile:
    """Raises OSError, or TomlError when the text is no TOML."""
    return parse(path, smallfile.read(path, MAX_BYTES))


def parse(path: str, content: bytes) -> TomlFile:
    try:
        text = content.decode("utf-8-sig")  # editors on Windows put a byte order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TomlError(f"{path}:{line}: it is not UTF-8 text") from error
    try:
        return TomlFile(path, text, tomllib.loads(text))
    except RecursionError as error:
        raise TomlError(f"{path}: it is nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError, and int's own limit of digits
        raise TomlError(_syntax_error(path, text, str(error))) from error


def _syntax_error(path: str, text: str, message: str) -> str:
    position = _POSITION.search(message)
    line = int(position.group(1)) if position else None
    cause = _POSITION.sub("", message)
    cause = cause[:1].lower() + cause[1:]
    if line is None:
        return f"{path}: {cause}"
    if cause == "invalid value":
        cause += '; text needs quotes: KEY = "TEXT"'
    return f"{path}:{line}: {cause}"


def merge(files: Iterable[TomlFile]) -> Merged:
    values: dict[str, Any] = {}
    origins: dict[KeyPath, TomlFile] = {}
    overridden: list[tuple[KeyPath, TomlFile]] = []
    layers = tuple(files)
    for file in layers:
        before = dict(origins)
        _merge_table(values, origins, file, file.values, ())
        overridden += [(key, old) for key, old in before.items() if origins.get(key) is not old]
    return Merged(layers, values, origins, tuple(overridden))


def _merge_table(
    into: dict[str, Any],
    origins: dict[KeyPath, TomlFile],
    file: TomlFile,
    table: Mapping[str, Any],
    above: KeyPath,
) -> None:
    for name, value in table.items():
        path = (*above, name)
        if isinstance(value, dict) and value:
            origins.pop(path, None)
            below = into[name] if isinstance(into.get(name), dict) else {}
            into[name] = below
            _merge_table(below, origins, file, value, path)
        elif isinstance(value, dict) and into.get(name):
            continue  # an empty table changes nothing
        else:
            for old in [key for key in origins if key[: len(path)] == path]:
                del origins[old]
            into[name] = {} if isinstance(value, dict) else value
            origins[path] = file


def line_of(file: TomlFile, path: KeyPath) -> int | None:
    """The line that sets this key, or begins its table, or holds the inline table it is in."""
    around: tuple[int, int] | None = None
    below: int | None = None
    for line, key in _keys(file.text):
        if key == path:
            return line
        if key[: len(path)] == path:
            below = below or line
        elif path[: len(key)] == key and (around is None or len(key) >= around[0]):
            around = (len(key), line)
    return below or (around[1] if around else None)


def _keys(text: str) -> Iterator[tuple[int, KeyPath]]:
    """Where keys and table headers stand, in a text that is valid TOML."""
    table: KeyPath = ()
    until = ""
    for number, line in enumerate(text.split("\n"), 1):
        if until:
            until = "" if until in line else until
            continue
        header = _HEADER.match(line)
        if header:
            table = _parts(header.group(1))
            yield number, table
            continue
        assignment = _ASSIGNMENT.match(line)
        if assignment:
            yield number, (*table, *_parts(assignment.group(1)))
            quotes = assignment.group(2)
            until = quotes if quotes and quotes not in line[assignment.end() :] else ""


def _parts(path: str) -> KeyPath:
    return tuple(_unquoted(part) for part in re.findall(_PART, path))


def _unquoted(part: str) -> str:
    if part.startswith('"'):
        value = tomllib.loads(f"key = {part}")["key"]
        return str(value)
    return part.strip("'")


def dotted(path: Iterable[str]) -> str:
    """As TOML writes a dotted key: quotes only where a part needs them."""
    return ".".join(part if _BARE.fullmatch(part) else json.dumps(part) for part in path)
