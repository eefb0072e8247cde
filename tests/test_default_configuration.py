"""etc/claimd.toml, the file that a device gets: complete, right in every line, and true."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from claimd import config
from claimd.errors import ClaimdError, Code
from claimd.model import Layout
from claimd.settings import Config

FILE = Path(__file__).resolve().parent.parent / "etc" / "claimd.toml"
TEXT = FILE.read_text(encoding="utf-8")
REQUIRED = {"endpoint", "template.name"}

_KEY = re.compile(r"#([a-z_]+ = .*)")
_EXAMPLE = re.compile(r"#   (\w+ = .*)")


def _uncommented() -> str:
    return "\n".join(_KEY.sub(r"\1", line) for line in TEXT.splitlines())


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the configuration with its default; None where it is required."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            yield prefix + name, None if default is PydanticUndefined else default


def _examples() -> list[tuple[str, str]]:
    """(table, line) of every example."""
    found, table = [], ""
    sections = TEXT.split("\n\n")
    for section in sections:
        header = re.search(r"^\[(.+)\]$", section, re.MULTILINE)
        # The parameters' examples stand above their header, in the paragraph that explains them.
        table = header.group(1) if header else table
        found += [(table, example) for example in _EXAMPLE.findall(section)]
    return found


def _load(tmp_path: Path, text: str) -> config.Loaded:
    file = tmp_path / "claimd.toml"
    file.write_text(text)
    return config.load(Layout(str(tmp_path)), str(file))


def test_every_key_is_in_it_with_its_default() -> None:
    expected = {key: "" if default is None else default for key, default in _keys(Config)}
    assert {key for key, default in _keys(Config) if default is None} == REQUIRED
    assert dict(_leaves(tomli.loads(_uncommented()))) == expected


def test_every_key_has_words_and_an_example() -> None:
    examples = {f"{table}.{line}".lstrip(".").partition(" = ")[0] for table, line in _examples()}
    for key, _ in _keys(Config):
        if key == "template.parameters":
            assert any(example.startswith("template.parameters.") for example in examples)
        else:
            assert key in examples
            name = key.rpartition(".")[2]
            assert re.search(rf"^# [A-Z].*\n(#.*\n)*#{name} = ", TEXT, re.MULTILINE), key


def test_as_shipped_it_is_not_configured_and_not_wrong(tmp_path: Path) -> None:
    for text in (TEXT, _uncommented()):
        with pytest.raises(ClaimdError) as caught:
            _load(tmp_path, text)
        assert caught.value.problem.code is Code.NOT_CONFIGURED
        assert "endpoint and template.name" in caught.value.problem.happened


def _filled(text: str) -> str:
    text = text.replace('endpoint = ""', 'endpoint = "a1b2-ats.iot.eu-central-1.amazonaws.com"')
    return re.sub(r'^name = ""', 'name = "T"', text, flags=re.MULTILINE)


def test_with_the_two_required_values_every_line_uncommented_is_right(tmp_path: Path) -> None:
    everything = _load(tmp_path, _filled(_uncommented()))
    least = _load(tmp_path, 'endpoint = "a1b2-ats.iot.eu-central-1.amazonaws.com"\ntemplate.name = "T"\n')
    assert everything.config == least.config
    assert everything.sha256 == least.sha256


@pytest.mark.parametrize(("table", "line"), _examples())
def test_every_example_is_right(tmp_path: Path, table: str, line: str) -> None:
    key = line.partition(" = ")[0]
    text = _filled(TEXT.replace('#endpoint = ""', 'endpoint = ""').replace('#name = ""', 'name = ""'))
    text = re.sub(rf"^#?{key} = .*\n", "", text, flags=re.MULTILINE)
    header = f"[{table}]\n"
    text = text.replace(header, header + line + "\n") if table else line + "\n" + text
    loaded = _load(tmp_path, text)
    expected = tomli.loads(line)[key]
    shown: Any = loaded.config.model_dump()
    for name in [*filter(None, table.split(".")), key]:
        shown = shown[name]
    assert shown == expected
    assert f"{table}.{key}".lstrip(".") in loaded.sources


def test_there_are_examples() -> None:
    assert len(_examples()) >= len(list(_keys(Config)))


def test_the_drop_ins_work_as_the_file_says(tmp_path: Path) -> None:
    directory = tmp_path / "etc" / "claimd"
    (directory / "conf.d").mkdir(parents=True)
    (directory / "claimd.toml").write_text(TEXT)
    for name, location in (("10-site", "Berlin"), ("90-device", "Potsdam"), (".99-swap", "nowhere")):
        text = 'endpoint = "a1b2-ats.iot.eu-central-1.amazonaws.com"\n[template]\nname = "T"\n'
        text += f'[template.parameters]\nDeviceLocation = "{location}"\n'
        (directory / "conf.d" / f"{name}.toml").write_text(text)
    loaded = config.load(Layout(str(tmp_path)))
    assert loaded.config.template.parameters == {"DeviceLocation": "Potsdam"}
    assert loaded.sources["template.parameters.DeviceLocation"].endswith("conf.d/90-device.toml")
