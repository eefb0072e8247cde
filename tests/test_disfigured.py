"""Any valid claim through any chain of what can be mended comes out as its canonical form, byte by byte;
and nothing at all makes the parser raise, or work for longer than an honest claim of the same size allows."""

from __future__ import annotations

import base64
import time
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimd.pem import MAX_FILE_BYTES, parse_certificate, parse_private_key, recognise
from disfigure import DISFIGUREMENTS, ENCODINGS, RENDERINGS, Answer, disfigured
from fuzz.fuzz_claims import check
from material import answer, rsa_key

# UTF-16 doubles it.
MAX_TEXT_BYTES = MAX_FILE_BYTES // 2 - 1024

# The same examples in every run, and no limit of time: a slow machine is no failure.
bounded = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def answers() -> tuple[Answer, ...]:
    return (answer(), answer(rsa_key()))


@bounded
@given(
    which=st.integers(0, 1),
    rendering=st.sampled_from(sorted(RENDERINGS)),
    chain=st.lists(st.sampled_from(sorted(DISFIGUREMENTS)), max_size=6).map(tuple),
    encoding=st.sampled_from(sorted(ENCODINGS)),
)
def test_any_chain_of_disfigurements_is_mended(
    answers: tuple[Answer, ...], which: int, rendering: str, chain: tuple[str, ...], encoding: str
) -> None:
    made = answers[which]
    text = disfigured(RENDERINGS[rendering](made), chain, MAX_TEXT_BYTES)
    found = recognise("claim", ENCODINGS[encoding](text))
    assert found.problems == ()
    assert [each.pem for each in found.certificates] == [made.certificate]
    assert [each.pem.reveal().decode() for each in found.keys] == [made.private_key]


@bounded
@given(
    rendering=st.sampled_from(sorted(RENDERINGS)),
    chain=st.lists(st.sampled_from(sorted(DISFIGUREMENTS)), max_size=3).map(tuple),
    cut=st.floats(0, 1),
)
def test_a_part_of_a_disfigured_claim_is_never_another_claim(
    answers: tuple[Answer, ...], rendering: str, chain: tuple[str, ...], cut: float
) -> None:
    made = answers[0]
    data = disfigured(RENDERINGS[rendering](made), chain, MAX_TEXT_BYTES).encode()
    found = recognise("claim", data[: int(len(data) * cut)])
    assert [each.pem for each in found.certificates] in ([], [made.certificate])
    assert [each.pem.reveal().decode() for each in found.keys] in ([], [made.private_key])


PIECES = st.sampled_from(
    [
        *("-----BEGIN ", "-----END ", "CERTIFICATE", "RSA PRIVATE KEY", "PRIVATE KEY", "PUBLIC KEY", "-----"),
        *("\\", "\\n", "\\u", "\\u002b", "\\u001b[", "\x1b[", "\x1b]", "\x07", "\0", "\n", "\r", "(END)"),
        *("--More--", "{", "}", "[", "]", '"', "```", "MII", "MIIBIjANBg", "AAAA", "Proc-Type: 4,ENCRYPTED"),
    ]
)


@bounded
@given(
    st.one_of(
        st.binary(max_size=2000),
        st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=60).map(
            lambda pieces: "".join(pieces).encode("utf-8", "surrogatepass")
        ),
    )
)
def test_nothing_makes_it_raise(data: bytes) -> None:
    check(data, frozenset(), thorough=True)
    for parse in (parse_private_key, lambda data: parse_certificate(data.decode("utf-8", "replace"))):
        try:
            parse(data)
        except ValueError as error:
            assert not [line for line in data.split() if len(line) > 12 and line in str(error).encode()]


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "\\",
            "\\\\\\\\u00",
            "\x1b]",
            "\x1b[",
            "\x1b[0",
            "\\u001b[0",
            "-",
            "-BEGIN",
            "BEGIN",
            "--More--(",
            "=",
        ),
        *(
            "\u2014BEGIN A\u2014",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA",
            "certificateId:",
            "{",
            "A",
        ),
        *("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "A\n", "\n", "\0", "END-", "```"),
    ],
)
def test_the_largest_hostile_file_costs_no_more_than_some_honest_claims(piece: str) -> None:
    """Processor time against that of honest claims in the same process: the same on any machine."""
    hostile = (piece * MAX_FILE_BYTES).encode()[:MAX_FILE_BYTES]
    honest = RENDERINGS["json-v1"](answer(rsa_key())).encode()

    def cost(data: bytes, times: int) -> float:
        began = time.process_time()
        for _ in range(times):
            recognise("claim", data)
        return time.process_time() - began

    # 200 honest claims are more than 50 ms on every machine; what is not linear takes seconds.
    assert min(cost(hostile, 1) for _ in range(3)) < cost(honest, 200)


def test_a_hostile_number_is_not_searched_for_its_factors() -> None:
    """A key of 16,384 bits in a small file: refused by its size, before any arithmetic."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        number = b"\x02\x82\x08\x01\x00" + b"\xff" * 2048
        body = b"\x02\x01\x00" + number + b"\x02\x03\x01\x00\x01" + number * 6
        der = b"\x30\x82" + len(body).to_bytes(2, "big") + body
        text = (
            b"-----BEGIN RSA PRIVATE KEY-----\n"
            + base64.b64encode(der)
            + b"\n-----END RSA PRIVATE KEY-----\n"
        )
        found = recognise("claim", text)
    assert found.keys == ()
    assert len(found.problems) == 1
