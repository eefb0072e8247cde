"""The configuration: /etc/claimd/claimd.toml and its drop-ins, read and checked as a whole.

    /etc/claimd/claimd.toml      read first
    /etc/claimd/conf.d/*.toml    then these in the order of their names, each overriding key by key

With `--config FILE` only FILE is read, no drop-in. Invariant: either all of it is valid, or nothing of
it is used and every error is named with its file, line and key. Unknown keys are errors: a misspelt
one would otherwise be a silent default.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from . import tomlfiles
from .errors import Code, fail, printable
from .settings import Config, warnings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

    from .errors import ClaimdError
    from .model import Layout
    from .tomlfiles import KeyPath, Merged, TomlFile

__all__ = ["Config", "Loaded", "describe", "load", "root_certificates", "warnings"]

_SHOWN_CHARACTERS = 40

# difflib's own cutoff for close matches.
_ALIKE = 0.6

# The place of parameters; what stands under it is named by the fleet's engineers.
_PARAMETERS = ("template", "parameters")


@dataclass(frozen=True)
class Loaded:
    """A valid configuration and where it comes from.

    `sources`: dotted key -> file; keys at their default are absent. `sha256`: of the effective values,
    so that comments, order and the file that sets a key make no difference. `overridden`: a sentence for
    each value that has no effect, since a later file sets its key again.
    """

    config: Config
    sources: Mapping[str, str]
    sha256: str
    overridden: tuple[str, ...] = ()


def load(layout: Layout, file: str | None = None) -> Loaded:
    """Raises ClaimdError: NOT_CONFIGURED, CONFIG_INVALID, CONFIG_UNREADABLE, CONFIG_MISSING.

    CONFIG_INVALID has in `detail` the first error and how many more there are, and in `errors` all of
    them, one a line.
    """
    main = file if file is not None else layout.config_file
    merged = tomlfiles.merge(_files(main, layout.config_directory if file is None else None))
    values = _without_blanks(merged.values)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise _refusal(error, merged, main) from None
    sources = {tomlfiles.dotted(key): origin.path for key, origin in merged.origins.items()}
    return Loaded(config, MappingProxyType(sources), _hash(config), tuple(_overridden(merged)))


def root_certificates(config: Config, layout: Layout) -> bytes:
    """The trust roots in PEM, the same bytes for the same roots. Raises CA_UNUSABLE.

    `--root` rebases neither `ca_file` nor the distribution's roots: trust is the running machine's.
    """
    from . import roots  # it brings ssl, which `config show` at every start of the service doesn't need

    del layout  # in the signature because every other file is found through it
    return roots.configured_roots(config.ca_file) if config.ca_file else roots.amazon_roots()


def describe(loaded: Loaded) -> dict[str, object]:
    """What `claimd config show --json` prints; the watcher reads it too."""
    return {
        "schema": 1,
        "values": loaded.config.model_dump(mode="json"),
        "sources": dict(loaded.sources),
        "sha256": loaded.sha256,
        "warnings": warnings(loaded.config),
    }


def _files(main: str, directory: str | None) -> list[TomlFile]:
    """The layers in order. A syntax error in one doesn't hide that in the next."""
    paths = [main, *(_drop_ins(f"{directory}/conf.d") if directory is not None else ())]
    files, errors = [], []
    for path in paths:
        try:
            files.append(tomlfiles.read(path))
        except FileNotFoundError as error:
            # Drop-ins alone are a whole configuration, but a file that was asked for must be there.
            if directory is None or path != main:
                raise fail(Code.CONFIG_MISSING, file=path) from error
        except OSError as error:
            raise _unreadable(path, error) from error
        except tomlfiles.TomlError as error:
            errors.append(str(error))
    if errors:
        raise _invalid(errors)
    return files


def _drop_ins(directory: str) -> list[str]:
    """By name. Hidden ones are left out: editors keep their swap and lock files so."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(directory, error) from error
    return [
        f"{directory}/{name}" for name in sorted(names) if name.endswith(".toml") and not name.startswith(".")
    ]


def _without_blanks(values: Mapping[str, Any]) -> dict[str, Any]:
    """Required keys that are empty text count as not set: an uncommented line that was never filled in."""
    kept = {name: value for name, value in values.items() if (name, value) != ("endpoint", "")}
    template = kept.setdefault("template", {})
    if isinstance(template, dict):
        kept["template"] = {name: value for name, value in template.items() if (name, value) != ("name", "")}
    return kept


def _overridden(merged: Merged) -> Iterator[str]:
    for key, file in merged.overridden:
        line, wins = tomlfiles.line_of(file, key), merged.origin(key)
        place = file.path + (f":{line}" if line else "")
        by = f": {wins.path} sets it again" if wins else ""
        yield f"{place}: {_shown(tomlfiles.dotted(key))} has no effect{by}"


def _hash(config: Config) -> str:
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _refusal(error: ValidationError, merged: Merged, main: str) -> ClaimdError:
    details = error.errors(include_url=False)
    missing = [_path(one) for one in details if one["type"] == "missing"]
    wrong = [one for one in details if one["type"] != "missing"]
    if not wrong:
        names = " and ".join(tomlfiles.dotted(path) for path in missing)
        return fail(Code.NOT_CONFIGURED, missing=names, file=main)
    # In the order of the text, file by file, as a person walks through it.
    places = {file.path: number for number, file in enumerate(merged.files)}
    errors = sorted(
        (_complaint(one, merged, main) for one in wrong),
        key=lambda one: (places.get(one.file, 0), one.line or 0),
    )
    meant = {one.meant for one in errors}
    lines = [str(one) for one in errors]
    lines += [f"{main}: {tomlfiles.dotted(path)}: is not set" for path in missing if path not in meant]
    return _invalid(lines)


def _path(detail: ErrorDetails) -> KeyPath:
    """The key that an error is about. For a mapping's key pydantic adds "[key]" to its place."""
    path = tuple(str(part) for part in detail["loc"])
    return path[:3] if path[:2] == _PARAMETERS else path


@dataclass(frozen=True)
class _Complaint:
    file: str
    line: int | None
    key: KeyPath
    cause: str
    meant: KeyPath | None = None

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line else "")
        hint = f"; did you mean {tomlfiles.dotted(self.meant)}?" if self.meant else ""
        if self.meant and len(self.meant) == 1 < len(self.key) and self.meant not in _TABLES:
            hint += " It belongs above the first [table]"
        return f"{place}: {_shown(tomlfiles.dotted(self.key))}: {self.cause}{hint}"


def _complaint(detail: ErrorDetails, merged: Merged, main: str) -> _Complaint:
    path = _path(detail)
    file = merged.origin(path)
    line = tomlfiles.line_of(file, path) if file else None
    place = file.path if file else main
    if detail["type"] == "extra_forbidden":
        table = isinstance(detail["input"], dict)
        return _Complaint(place, line, path, f"unknown {'table' if table else 'key'}", _nearest(path, table))
    if detail["type"] == "value_error":
        return _Complaint(place, line, path, str(detail["ctx"]["error"]))
    return _Complaint(place, line, path, f"takes {_KEYS[path]}, not {_value(detail['input'])}")


def _value(value: object) -> str:
    """A value as TOML writes it; cut, so that a pasted file or key doesn't get into an error."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return _shown(json.dumps(value, ensure_ascii=False, default=str))


def _shown(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _keys(model: type[BaseModel], above: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    for name, field in model.model_fields.items():
        yield (*above, name), str(field.description)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, (*above, name))


# Every key and table of the model, with what it takes.
_KEYS: Mapping[KeyPath, str] = MappingProxyType(dict(_keys(Config)))
_TABLES = frozenset(key[:-1] for key in _KEYS if key[:-1]) | {_PARAMETERS}


def _nearest(path: KeyPath, table: bool) -> KeyPath | None:
    """The key, or the table, that was likely meant: alike in its last part, or written without the dot."""
    from difflib import SequenceMatcher  # only an error needs it: 10 ms of every start

    name = path[-1].lower().replace("-", "_")

    def likeness(key: KeyPath) -> tuple[float, bool]:
        ratio = max(SequenceMatcher(None, name, other).ratio() for other in (key[-1], "_".join(key)))
        return ratio, key[:-1] == path[:-1]

    best = max((key for key in _KEYS if (key in _TABLES) == table), key=likeness)
    return best if likeness(best)[0] >= _ALIKE else None


def _invalid(errors: list[str]) -> ClaimdError:
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return fail(Code.CONFIG_INVALID, detail=errors[0] + more, errors="\n".join(errors))


def _unreadable(path: str, error: OSError) -> ClaimdError:
    shuts_out = _shuts_out(path) if isinstance(error, PermissionError) else path
    return fail(Code.CONFIG_UNREADABLE, file=path, path=shuts_out, detail=error.strerror or str(error))


def _shuts_out(path: str) -> str:
    """What has to be opened first: the outermost folder that can't be entered, or else the file itself."""
    above = [path[:at] for at, character in enumerate(path) if character == "/" and at > 0]
    for folder in above:
        try:
            os.stat(f"{folder}/.")
        except PermissionError:
            return folder
        except OSError:
            break
    return path
