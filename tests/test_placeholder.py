from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimd.placeholder import FACTS, Placeholder, PlaceholderError, escape, names_for, parse


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("plain", ("plain",)),
        ("dev-{serial}", ("dev-", Placeholder("serial"))),
        ("{mac:eth0}{hostname}", (Placeholder("mac", "eth0"), Placeholder("hostname"))),
        ("{file:/etc/serial number}", (Placeholder("file", "/etc/serial number"),)),
        ("{{serial}}", ("{", "serial", "}")),
        ("{{{machine-id}}}", ("{", Placeholder("machine-id"), "}")),
    ],
)
def test_a_pattern_is_its_parts(text: str, parts: tuple[object, ...]) -> None:
    assert parse(text) == parts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a{", "a { has no } after it; write {{ for a brace itself"),
        ("a}b", "a } has no { before it; write }} for a brace itself"),
        ("{a{serial}", "a { has no } after it; write {{ for a brace itself"),
        ("{seriall}", "unknown placeholder {seriall}; did you mean {serial}?"),
        ("{Machine_Id}", "unknown placeholder {Machine_Id}; did you mean {machine-id}?"),
        (
            "{zzz}",
            "unknown placeholder {zzz}; there are {serial}, {mac:eth0}, {machine-id}, {hostname},"
            " {file:/path}",
        ),
        ("{serial:1}", "{serial:1} takes nothing after its name: write {serial}"),
        ("{mac}", "{mac} needs a network interface: write {mac:eth0}"),
        ("{mac:}", "{mac:} needs a network interface: write {mac:eth0}"),
        ("{mac:..}", "{mac:..} needs a network interface: write {mac:eth0}"),
        ("{mac:a/b}", "{mac:a/b} needs a network interface: write {mac:eth0}"),
        ("{mac:sixteen-letters-}", "{mac:sixteen-letters-} needs a network interface: write {mac:eth0}"),
        ("{file}", "{file} needs an absolute path: write {file:/path}"),
        ("{file:etc/x}", "{file:etc/x} needs an absolute path: write {file:/path}"),
        ("{file:/a\x00b}", "{file:/a\\x00b} needs an absolute path: write {file:/path}"),
        ("{thing_name}", "{thing_name} can be used only in identity.client_id"),
        ("{fingerprint}", "{fingerprint} can be used only in claim.client_id"),
    ],
)
def test_what_is_wrong_is_told_with_what_is_right(text: str, said: str) -> None:
    with pytest.raises(PlaceholderError) as caught:
        parse(text)
    assert str(caught.value) == said


def test_a_long_one_is_cut() -> None:
    with pytest.raises(PlaceholderError) as caught:
        parse("{" + "x" * 1000 + "}")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("claim.client_id", ("fingerprint",)),
        ("identity.client_id", ("thing_name",)),
        ("template.parameters", ()),
    ],
)
def test_two_keys_may_use_what_only_an_attempt_knows(key: str, more: tuple[str, ...]) -> None:
    assert names_for(key) == (*more, *FACTS)


@pytest.mark.parametrize("text", ["{mac:eth0}", "{serial}"])
def test_a_placeholder_is_shown_as_it_is_written(text: str) -> None:
    (part,) = parse(text)
    assert str(part) == text


@given(st.text())
def test_an_escaped_text_stands_for_itself(text: str) -> None:
    assert "".join(str(part) for part in parse(escape(text))) == text


@given(st.text(alphabet="{}:/abserial mc0-_"))
def test_any_text_is_a_pattern_or_has_its_reason(text: str) -> None:
    try:
        parse(text)
    except PlaceholderError as error:
        assert str(error)
