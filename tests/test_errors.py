"""The catalogue of failures: whole, readable, never the wrong advice."""

from __future__ import annotations

import string

import pytest

from claimd.errors import CATALOGUE, Code, Exit, Kind, general, problem
from claimd.screen import explained, explained_list
from claimd.words import COLUMNS
from provocations import fields

ALL = list(Code)


def words(code: Code) -> str:
    """Everything that a person reads about a code."""
    found = general(code)
    return " ".join((found.happened, found.cause, found.remedy)).lower()


@pytest.mark.parametrize("code", ALL)
class TestEveryCode:
    def test_it_has_words(self, code: Code) -> None:
        explanation = CATALOGUE[code]
        for text in (explanation.happened, explanation.cause, explanation.remedy):
            assert text and not text.endswith("."), text
            assert text.count("`") % 2 == 0, "an open backtick"

    def test_its_name_is_kebab_case(self, code: Code) -> None:
        assert set(code.value) <= set(string.ascii_lowercase + "-")

    def test_its_fields_are_plain_names(self, code: Code) -> None:
        explanation = CATALOGUE[code]
        for text in (explanation.happened, explanation.cause, explanation.remedy):
            assert all(name.isidentifier() for name in fields(text)), text

    def test_it_is_readable_without_fields(self, code: Code) -> None:
        assert not set("{}<>`") & set(words(code)), words(code)

    def test_it_fits_the_screen(self, code: Code) -> None:
        longest_command = max((len(c) for c in general(code).commands), default=0)
        for line in explained(code):
            assert len(line) <= max(COLUMNS, 17 + longest_command + 1), line

    def test_a_command_that_needs_root_says_so(self, code: Code) -> None:
        for command in general(code).commands:
            if {"provision", "forget", "setup", "sweep", "run"} & set(command.split()[:3]):
                assert command.startswith("sudo claimd "), command

    def test_what_must_be_cured_says_how(self, code: Code) -> None:
        if CATALOGUE[code].kind is Kind.BLOCKED:
            assert general(code).remedy.strip() and "nothing to do" not in general(code).remedy


def test_every_code_has_an_explanation() -> None:
    assert set(CATALOGUE) == set(Code)


def test_the_list_is_a_line_a_code() -> None:
    lines = explained_list()
    assert [line.split()[0] for line in lines] == [code.value for code in Code]
    assert all(len(line) <= COLUMNS for line in lines)


# What sends a person the wrong way is worse than no advice.
_CERTIFICATES = {Code.TLS_UNTRUSTED_CA, Code.TLS_WRONG_HOST, Code.TLS_SERVER_CERTIFICATE_TIME}
_WAY = {Code.DNS_FAILED, Code.CONNECTION_REFUSED, Code.ENDPOINT_UNREACHABLE, Code.TLS_NO_ANSWER}
_CLAIMS = {
    Code.CLAIM_KEY_MISSING,
    Code.CLAIM_CERTIFICATE_MISSING,
    Code.CLAIM_KEY_MISMATCH,
    Code.CLAIM_KEY_ENCRYPTED,
    Code.CLAIM_NOT_RECOGNISED,
    Code.CLAIM_EXPIRED,
    Code.CLAIM_NOT_YET_VALID,
    Code.CLAIM_NOT_ACCEPTED,
}
_DISK = {Code.DISK_FULL, Code.DISK_READ_ONLY, Code.DISK_FAILED, Code.STATE_DIRECTORY_MISSING}


@pytest.mark.parametrize("code", sorted(_CERTIFICATES | _WAY))
def test_trouble_on_the_way_is_not_blamed_on_the_claim(code: Code) -> None:
    said = words(code).replace("while the claim lives", "")
    assert "claim " not in said.replace("claimd ", "") and "new claim" not in said
    assert "create-provisioning-claim" not in said


@pytest.mark.parametrize("code", sorted(_CLAIMS))
def test_trouble_with_the_claim_is_not_blamed_on_the_network(code: Code) -> None:
    said = words(code)
    for word in ("network", "firewall", "cable", "wi-fi", "proxy", "dns", "port "):
        assert word not in said, word


@pytest.mark.parametrize("code", sorted(_DISK))
def test_trouble_with_the_disk_asks_for_no_new_claim(code: Code) -> None:
    assert "create-provisioning-claim" not in words(code)


def test_a_refused_template_is_not_blamed_on_the_network_or_the_clock() -> None:
    for code in (Code.SUBSCRIBE_REFUSED, Code.TEMPLATE_NOT_FOUND, Code.PARAMETERS_REFUSED):
        assert not {"network", "clock", "firewall"} & set(words(code).split())


def test_an_untrusted_server_never_suggests_to_trust_it() -> None:
    for code in _CERTIFICATES:
        assert "insecure" not in words(code) and "verify" not in words(code)


def test_no_remedy_names_a_file_that_another_may_override() -> None:
    """`claimd setup` writes a drop-in, which wins over claimd.toml."""
    for code in Code:
        assert "claimd.toml" not in general(code).remedy, code
        if "in /etc/claimd" in general(code).remedy:
            assert "claimd config show" in general(code).commands, code


def test_a_claim_of_another_account_shows_both_sides() -> None:
    found = problem(
        Code.CLAIM_NOT_ACCEPTED,
        endpoint="x-ats.iot.eu-west-1.amazonaws.com",
        region="eu-west-1",
        claim="c0ffee",
    )
    assert "x-ats.iot.eu-west-1.amazonaws.com (region: eu-west-1)" in found.happened
    assert found.commands == (
        "aws sts get-caller-identity",
        "aws iot describe-endpoint --endpoint-type iot:Data-ATS",
        "claimd config show",
    )


class TestFields:
    def test_a_command_takes_a_hostile_field_as_one_word(self) -> None:
        found = problem(Code.CONFIG_UNREADABLE, path="/etc/a b'; rm -rf x", detail="no")
        assert found.commands == ("sudo chmod a+rX '/etc/a b'\\''; rm -rf x'",)

    def test_what_is_known_besides_has_its_place(self) -> None:
        expired = problem(Code.CLAIM_EXPIRED, claim="c", not_after="then", now="now")
        assert expired.commands == ("aws iot create-provisioning-claim --template-name TEMPLATE", "date -u")
        told = expired.about(template="Fleet-7")
        assert told.commands == ("aws iot create-provisioning-claim --template-name Fleet-7", "date -u")
        assert expired.about(template=None) == expired

    def test_what_is_known_besides_takes_nobody_else_s_place(self) -> None:
        refused = problem(Code.TEMPLATE_NOT_FOUND, template="T", detail="d")
        assert refused.about(template="U") == refused
        assert problem(Code.DNS_FAILED, host="h").about(template="U").fields == {"host": "h"}

    def test_braces_in_a_field_stand_for_themselves(self) -> None:
        assert "{endpoint}" in problem(Code.CLAIM_FILE_TOO_LARGE, file="{endpoint}").happened

    def test_control_characters_are_shown(self) -> None:
        assert "\x1b" not in problem(Code.DROP_ENTRY_REFUSED, file="\x1b[2J", detail="x").happened

    def test_json_holds_what_the_sentences_are_made_of(self) -> None:
        said = problem(Code.DNS_FAILED, endpoint="host").to_json()
        assert said["commands"] == ["getent hosts host"]
        assert said["documentation"] == "docs/failures.md#dns-failed"
        assert said["fields"] == {"endpoint": "host"}


def test_exit_codes_are_those_of_the_design() -> None:
    assert {e.value for e in Exit} == {0, 2, 3, 4, 65, 69, 70, 74, 75, 77, 78, 124}


@pytest.mark.parametrize(
    ("code", "fields", "begins"),
    [
        (Code.CLAIM_NOT_RECOGNISED, {"file": "holiday.txt", "detail": "d"}, "holiday.txt holds no claim"),
        (Code.CLAIM_KEY_MISSING, {"file": "cert.pem"}, "The certificate is here (cert.pem)"),
    ],
)
def test_a_sentence_leaves_a_name_as_it_is(code: Code, fields: dict[str, str], begins: str) -> None:
    said = problem(code, **fields).sentence
    assert said.startswith(begins) and said.endswith(".")
