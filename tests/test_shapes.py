"""The text under the disfigurements: blocks, what is no text at all, and what may still become a claim."""

from __future__ import annotations

import base64

import pytest

from claimd import shapes
from claimd.shapes import Block, Text
from disfigure import COMMAND

BLOCK = "-----BEGIN CERTIFICATE-----\nTUlJ\nQUJD\n-----END CERTIFICATE-----\n"


def read(text: str | bytes, max_blocks: int = 16) -> Text:
    return shapes.read(text.encode() if isinstance(text, str) else text, max_blocks)


def only_block(text: str | bytes) -> Block:
    found = read(text)
    assert len(found.blocks) == 1, found
    return found.blocks[0]


class TestRead:
    def test_a_plain_block(self) -> None:
        assert only_block(BLOCK) == Block("CERTIFICATE", "TUlJQUJD", ended=True, encrypted=False)

    def test_neither_a_block_nor_a_text_shows_its_contents(self) -> None:
        found = read(BLOCK + "more-that-is-secret")
        assert "TUlJ" not in repr(found)
        assert "secret" not in repr(found)

    @pytest.mark.parametrize(
        ("label", "noun"),
        [
            ("CERTIFICATE", "certificate"),
            ("X509 CERTIFICATE", "certificate"),
            ("PRIVATE KEY", "key"),
            ("RSA PRIVATE KEY", "key"),
            ("EC PRIVATE KEY", "key"),
            ("ENCRYPTED PRIVATE KEY", "key"),
            ("PUBLIC KEY", "text"),
            ("EC PARAMETERS", "text"),
        ],
    )
    def test_what_a_person_calls_it(self, label: str, noun: str) -> None:
        assert only_block(BLOCK.replace("CERTIFICATE", label)).noun == noun

    def test_a_block_without_its_end(self) -> None:
        found = only_block(BLOCK[:45])
        assert (found.characters, found.ended) == ("TUlJQUJD", False)

    def test_a_block_that_runs_into_the_next_one(self) -> None:
        """The end line is missing: base64 has no dash, so the next line of dashes ends it."""
        first, second = read(BLOCK[:37] + BLOCK).blocks
        assert (first.ended, second.ended) == (False, True)
        assert (first.characters, second.characters) == ("TUlJQUJD", "TUlJQUJD")

    def test_the_traditional_encryption_is_seen(self) -> None:
        header = "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nTUlJ"
        assert only_block(BLOCK.replace("\nTUlJ", header)).encrypted

    def test_no_more_blocks_than_asked_for(self) -> None:
        assert len(read(BLOCK * 5, max_blocks=3).blocks) == 3

    def test_a_word_that_ends_in_begin_begins_nothing(self) -> None:
        assert read("xBEGIN CERTIFICATE-----\nTUlJ").blocks == ()

    def test_the_rest_is_what_follows_the_last_block(self) -> None:
        assert read(BLOCK + "and more").rest == "andmore"

    @pytest.mark.parametrize("blank", [b"", b" \r\n\t", b"\xef\xbb\xbf\n", b"\xff\xfe\n\0", b"\0\0\0"])
    def test_nothing_but_white_space(self, blank: bytes) -> None:
        assert read(blank).is_blank

    def test_a_line_as_long_as_a_terminal_takes(self) -> None:
        assert shapes.TERMINAL_LINE_CHARACTERS == 4095
        assert not read("x" * 4094 + "\n").line_was_cut
        assert read("short\n" + "x" * 4095 + "\nmore").line_was_cut
        assert not read("x" * 4096).line_was_cut


class TestCompaction:
    @pytest.mark.parametrize(
        "inside",
        [
            "TUlJ QUJD",
            "TUlJ\\nQUJD",
            "TUlJ\\r\\nQUJD",
            "TUlJ\\\\nQUJD",  # JSON within JSON
            "TUlJ\\\nnQUJD",  # a terminal's line end between `\` and `n`
            "TUlJ\\\r\n  nQUJD",
            "TUlJ\\u000aQUJD",
            "TUlJ\\u000\nAQUJD",
            "TU\\u006cJQUJD",
            "TUlJ\x1b[0m\x1b[KQUJD",
            "TUlJ\x1b[1;\n32mQUJD",
            "TUlJ\\u001b[0;32mQUJD",
            "TUlJ\x1b]0;title\x07QUJD",
            "TUlJ\x1b]8;;https://example.com\x1b\\QUJD",
            "TUlJ\x07\x1bQUJD",
            "TUlJ--More--QUJD",
            "TUlJ\n--More--(47%)\nQUJD",
            "TUlJ\n:\nQUJD",
            "TUlJ\u00a0\u200b\u2028QUJD",
            "TUlJ\\/QUJD".replace("/", ""),
            "TUlJ\\t'QUJD'",
        ],
    )
    def test_what_is_taken_away_within_a_block(self, inside: str) -> None:
        whole = BLOCK.replace("TUlJ\nQUJD", inside)
        assert only_block(whole).characters == "TUlJQUJD"

    @pytest.mark.parametrize("dashes", ["\u2014\u2014-", "\u2013\u2013\u2013", "-", "\u2212" * 5, "\\u2014-"])
    def test_dashes_that_a_word_processor_made(self, dashes: str) -> None:
        assert only_block(BLOCK.replace("-----", dashes)).characters == "TUlJQUJD"

    @pytest.mark.parametrize(
        "end", ["\\", "\\u", "\\u0", "\\u002", "\\u001b[0;3", "\x1b", "\x1b[0;3", "\\u00\n"]
    )
    def test_a_copy_in_progress_that_stops_within_an_escape_or_a_code(self, end: str) -> None:
        """What is there of it is no part of the block: it would stand for characters still to come."""
        assert only_block(BLOCK[:37] + end).characters == "TUlJQUJD"

    def test_an_escaped_control_character_is_not_visible(self) -> None:
        assert only_block(BLOCK.replace("TUlJ", "TUlJ\\u0007\\u00e4")).characters == "TUlJQUJD"


class TestBinary:
    @pytest.mark.parametrize(
        ("data", "word"),
        [
            (b"\x89PNG\r\n\x1a\n", "picture"),
            (b"\xff\xd8\xff\xe0", "picture"),
            (b"PK\x03\x04", "zip"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"7z\xbc\xaf\x27\x1c", "7z"),
            (b"\xfd7zXZ\x00", "xz"),
            (b"\xd0\xcf\x11\xe0", "office document"),
            (b"{\\rtf1\\ansi", "formatting"),
            (b"%PDF-1.7", "PDF"),
            (b"\xfe\xed\xfe\xed", "Java key store"),
            (b"\x7fELF", "program"),
            (b"PuTTY-User-Key-File-3: ssh-ed25519", "PuTTY"),
            (b"openssh-key-v1\x00", "OpenSSH"),
        ],
    )
    def test_what_it_looks_like(self, data: bytes, word: str) -> None:
        assert word in (shapes.binary(data) or "")

    def test_text_is_not_binary(self) -> None:
        assert shapes.binary(BLOCK.encode()) is None


class TestForeign:
    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("An error occurred (ThrottlingException) when calling", "error message"),
            ("usage: aws [options] <command>", "error message"),
            ("Unable to locate credentials. You can configure", "error message"),
            ("Could not connect to the endpoint URL", "error message"),
            ("bash: aws: command not found", "error message"),
            ("The config profile (x) could not be found", "error message"),
            ("'aws' is not recognized as an internal or external command", "error message"),
            ("ssh-rsa AAAAB3NzaC1yc2E technician@laptop", "SSH"),
            ("ecdsa-sha2-nistp256 AAAA", "SSH"),
            ("<!DOCTYPE html><html>", "web page"),
            ("<?xml version='1.0'?>", "web page"),
        ],
    )
    def test_what_it_looks_like(self, text: str, word: str) -> None:
        assert word in (shapes.foreign(read(text)) or "")

    def test_anything_else_may_become_a_claim(self) -> None:
        assert shapes.foreign(read("{")) is None


class TestHeadless:
    def test_a_block_without_its_first_line(self) -> None:
        assert shapes.headless(read(BLOCK.split("\n", 1)[1]))

    def test_base64_that_begins_as_a_key_does(self) -> None:
        assert shapes.headless(read("MIIEpAIBAAKCAQEAqmHZIhbKGuHkhscWdPalH6B0"))

    def test_a_whole_block_has_its_head(self) -> None:
        assert not shapes.headless(read(BLOCK))


class TestUnfinished:
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "it is empty"),
            (" \n", "it is empty"),
            (BLOCK + "-----BEGIN RSA PRI", "it stops within a line -----BEGIN ...-----"),
            (BLOCK + "-----", "it stops within a line -----BEGIN ...-----"),
            ('{"certificateId": "5a"', "it stops before its closing bracket"),
            ('["5a"', "it stops before its closing bracket"),
            ("```", "it stops after its quotation mark"),
            ("`", "it stops after its quotation mark"),
            ("'", "it stops after its quotation mark"),
            (f"$ {COMMAND}\n", "so far it holds only the command, not its answer"),
            ("103c0d5f9846be40", "so far it holds only the id of a certificate"),
            ('"103c0d5f9846be40"', "so far it holds only the id of a certificate"),
            ("certificateId: 103c", "it stops before the certificate"),
            ("- certificateId: 103c", "it stops before the certificate"),
            ("certif", "it stops before the certificate"),
        ],
    )
    def test_it_may_still_become_a_claim(self, text: str, why: str) -> None:
        assert shapes.unfinished(read(text)) == why

    @pytest.mark.parametrize(
        "text",
        [
            BLOCK,
            BLOCK + "}",
            "Dear customer, thank you for your order.",
            "{}",
            "\u00fc\u00f6\u00e4",
            "{" + "x" * shapes.MAX_LEAD_CHARACTERS,
        ],
    )
    def test_it_is_all_that_it_will_be(self, text: str) -> None:
        assert shapes.unfinished(read(text)) is None


def test_a_terabyte_s_worth_of_backslashes_costs_one_look_each() -> None:
    """The regular expressions are linear: what doubles the text no more than doubles the steps."""
    hostile = (
        "\\" * 30 + "u00",
        "\x1b]",
        "\x1b[",
        "-BEGIN",
        "-",
        "--More--(",
        "BEGIN" + "A" * 40,
        "\\u001b[0",
    )
    for piece in hostile:
        text = read(piece * (60_000 // len(piece)))
        assert len(text.compact) <= 60_000
        shapes.foreign(text)
        shapes.headless(text)
        shapes.unfinished(text)


def test_base64_itself_is_never_taken_for_a_pager_or_an_escape() -> None:
    every = base64.b64encode(bytes(range(256)) * 3).decode()
    whole = f"-----BEGIN CERTIFICATE-----\n{every}\n-----END CERTIFICATE-----"
    assert only_block(whole).characters == every.rstrip("=")
