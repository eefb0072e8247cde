"""What could be a secret leaves the device in no text, and what support needs does."""

from __future__ import annotations

import json
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

import material
from claimd.redaction import SECRET, is_secret, parameters, scrubbed

# Always the same one: the last line of a random one has no digit in it twice in a thousand runs.
KEY = material.key_pem(ec.derive_private_key(0x5EC12E7 << 192 | 0xC1A1D, ec.SECP256R1()))
WINDOW = 32


def body(pem: str) -> str:
    return "".join(line for line in pem.splitlines() if not line.startswith("-----"))


def leaked(text: str, pem: str = KEY) -> list[str]:
    """What of the key is still to be read in one piece, however its lines are broken."""
    plain, secret = re.sub(r"\s|\\+[rn]", "", text), body(pem)
    pieces = (secret[at : at + WINDOW] for at in range(len(secret) - WINDOW + 1))
    return [piece for piece in pieces if piece in plain]


SHAPES = {
    "as it is": KEY,
    "CRLF": KEY.replace("\n", "\r\n"),
    "in JSON": json.dumps({"privateKey": KEY}),
    "in JSON in JSON": json.dumps(json.dumps({"privateKey": KEY})),
    "on one line": KEY.replace("\n", " "),
    "without its end": KEY[: len(KEY) // 2],
    "without its lines": body(KEY),
    "without its head": KEY.partition("\n")[2],
    "PKCS#8": KEY.replace("EC PRIVATE", "PRIVATE"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_key_in_any_shape_goes(shape: str) -> None:
    assert leaked(SHAPES[shape]), "the test sees it"
    said = scrubbed(f"before {SHAPES[shape]}")
    assert said.startswith("before ") and SECRET in said
    assert leaked(said) == [] and "BEGIN" not in said


def test_a_long_one_too() -> None:
    key = material.key_pem(material.rsa_key())
    assert leaked(key, key) and scrubbed(key) == SECRET + "\n"


def test_two_keys_take_nothing_between_them_along() -> None:
    assert scrubbed(f"{KEY}between{KEY}after") == f"{SECRET}\nbetween{SECRET}\nafter"


@given(st.text(alphabet=" \n\"'ab1:,{}", max_size=40), st.text(alphabet=" \n\"'ab1:,{}", max_size=40))
def test_whatever_stands_around_it(before: str, after: str) -> None:
    said = scrubbed(before + KEY + after)
    assert said == before + SECRET + "\n" + after
    assert scrubbed(said) == said, "scrubbing again takes nothing more"


def test_an_ownership_token_goes() -> None:
    token = "eyJ2ZXJzaW9uIjoiMjAxOTEwMjMiLCJjaXBoZXIiOiJBaXFH" * 4
    assert scrubbed(f'{{"certificateOwnershipToken": "{token}"}}') == (
        f'{{"certificateOwnershipToken": "{SECRET}"}}'
    )


@pytest.mark.parametrize(
    "text",
    [
        "c0ffee" + "12" * 29,
        ("c0ffee" + "12" * 29).upper(),
        "/var/lib/claimd/identity/" + "ab" * 32 + "/private.key",
        "a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com",
        "2026-03-01T12:00:00.000000+00:00",
        "identity-certificate-not-after-of-the-one-before",
        "TrustedUserProvisioningTemplateName",  # 35 letters, and no digit
        "Aa1" * 10,  # 30 characters
    ],
)
def test_what_support_needs_stays(text: str) -> None:
    assert scrubbed(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "HookPassword",
        "passphrase",
        "SECRET",
        "OwnershipToken",
        "pin",
        "UserPIN",
        "AwsCredentials",
        "PrivateValue",
        "api_key",
        "ApiKey",
    ],
)
def test_a_name_tells_a_secret(name: str) -> None:
    assert is_secret(name)
    assert parameters({name: "x"}) == {name: SECRET}


@pytest.mark.parametrize("name", ["ThingName", "SerialNumber", "Pineapple", "Site", "KeyId"])
def test_another_name_does_not(name: str) -> None:
    assert not is_secret(name)
    assert parameters({name: "pump-4711"}) == {name: "pump-4711"}


def test_a_key_under_a_harmless_name_goes_all_the_same() -> None:
    assert parameters({"Note": KEY.strip()}) == {"Note": SECRET}
