"""The provisioning API's topics, requests and answers, without a broker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimd import devicekey, fleet
from claimd.errors import Code
from claimd.fleet import (
    AnswerInvalidError,
    Exchange,
    LinkError,
    Rejection,
    Trouble,
    parse_issued_keys,
    parse_registration,
    parse_rejection,
    rejection_problem,
)
from claimd.model import Secret, Target
from claimd.pem import parse_private_key
from material import authority, device_pair, keys_answer, pair

ANSWER = keys_answer()


def encoded(answer: object) -> bytes:
    return json.dumps(answer).encode()


def test_four_topics_in_one_subscription() -> None:
    assert fleet.answer_topics("T") == (
        "$aws/certificates/create/json/accepted",
        "$aws/certificates/create/json/rejected",
        "$aws/provisioning-templates/T/provision/json/accepted",
        "$aws/provisioning-templates/T/provision/json/rejected",
    )


def test_the_request_to_register() -> None:
    payload = fleet.register_payload(Secret(b"token"), {"SerialNumber": "4711"})
    assert "4711" not in repr(payload)
    assert json.loads(payload.reveal()) == {
        "certificateOwnershipToken": "token",
        "parameters": {"SerialNumber": "4711"},
    }


class TestTheDevicesOwnKey:
    def test_the_topics(self) -> None:
        assert fleet.answer_topics("T", "device")[:2] == (
            "$aws/certificates/create-from-csr/json/accepted",
            "$aws/certificates/create-from-csr/json/rejected",
        )

    def test_the_request(self) -> None:
        request = devicekey.request(devicekey.new("P-256"), "claimd-0815")
        body = json.loads(fleet.create_from_csr_payload(request).reveal())
        assert list(body) == ["certificateSigningRequest"]
        assert body["certificateSigningRequest"].startswith("-----BEGIN CERTIFICATE REQUEST-----\n")

    def test_a_chain_of_the_customer_s_own_authority_is_kept_whole(self) -> None:
        made = device_pair()
        key = parse_private_key(made.key.encode("ascii"))
        chain = made.certificate + authority().pem.decode("ascii")
        answer = {k: v for k, v in ANSWER.items() if k != "privateKey"} | {"certificatePem": chain}
        issued = fleet.parse_issued_certificate(encoded(answer), key)
        assert issued.certificate.pem == chain
        assert issued.certificate.public_key_id == issued.key.public_key_id == key.public_key_id

    def test_a_certificate_for_another_key(self) -> None:
        key = devicekey.new("P-256")
        with pytest.raises(AnswerInvalidError, match="certificatePem was not made for this device's key"):
            fleet.parse_issued_certificate(encoded(ANSWER), key)


class TestIssuedKeys:
    def test_every_field_is_taken(self) -> None:
        issued = parse_issued_keys(encoded(ANSWER))
        assert issued.certificate_id == "c0" * 32
        assert issued.token == Secret(b"the-ownership-token")
        assert issued.certificate.public_key_id == issued.key.public_key_id

    def test_an_id_in_capitals(self) -> None:
        issued = parse_issued_keys(encoded({**ANSWER, "certificateId": "C0" * 32}))
        assert issued.certificate_id == "c0" * 32

    def test_more_fields_than_today(self) -> None:
        parse_issued_keys(encoded({**ANSWER, "new": {"field": 1}}))

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"certificateId": None}, "certificateId is missing or no text"),
            ({"certificateId": 7}, "certificateId is missing or no text"),
            ({"certificateId": ""}, "certificateId is missing or no text"),
            ({"certificateId": "c0"}, "certificateId is not 64 hex digits"),
            ({"certificateId": "../" + "c" * 61}, "certificateId is not 64 hex digits"),
            ({"certificateOwnershipToken": "a\nb"}, "certificateOwnershipToken has characters that"),
            ({"certificateOwnershipToken": "ü"}, "certificateOwnershipToken has characters that"),
            ({"certificateOwnershipToken": []}, "certificateOwnershipToken is missing or no text"),
            ({"certificatePem": "junk"}, "certificatePem is no certificate: "),
            ({"certificatePem": ANSWER["privateKey"]}, "certificatePem is no certificate: "),
            ({"privateKey": "junk"}, "privateKey is no usable key: "),
            ({"privateKey": "\ud800"}, "privateKey is no usable key: "),
            ({"privateKey": device_pair().key}, "privateKey does not belong to certificatePem"),
        ],
    )
    def test_one_wrong_field_is_named(self, changes: dict[str, Any], said: str) -> None:
        with pytest.raises(AnswerInvalidError) as caught:
            parse_issued_keys(encoded({**ANSWER, **changes}))
        assert str(caught.value).startswith(said)
        assert "PRIVATE" not in str(caught.value)
        assert caught.value.__cause__ is None, "whose text might quote the payload"

    @pytest.mark.parametrize("field", list(ANSWER))
    def test_each_field_is_needed(self, field: str) -> None:
        with pytest.raises(AnswerInvalidError, match=f"^{field} is missing or no text$"):
            parse_issued_keys(encoded({name: value for name, value in ANSWER.items() if name != field}))

    @pytest.mark.parametrize(
        ("payload", "said"),
        [
            (b"", "it is no JSON"),
            (b"{", "it is no JSON"),
            (b"\xff", "it is no JSON"),
            (b"[" * 100_000, "it is no JSON"),
            (b"[]", "it is no JSON object"),
            (b"null", "it is no JSON object"),
            (b" " * (fleet.MAX_PAYLOAD_BYTES + 1), "it is larger than 128 KiB"),
        ],
    )
    def test_what_is_no_answer(self, payload: bytes, said: str) -> None:
        with pytest.raises(AnswerInvalidError, match=f"^{said}$"):
            parse_issued_keys(payload)


class TestRegistration:
    @pytest.mark.parametrize(
        ("answer", "name", "configuration"),
        [
            ({"thingName": "t", "deviceConfiguration": {"a": "b"}}, "t", {"a": "b"}),
            ({"thingName": "a:b_c-D9"}, "a:b_c-D9", {}),
            ({"deviceConfiguration": {}}, None, {}),
            ({"deviceConfiguration": None}, None, {}),
            ({"thingName": None, "deviceConfiguration": {"x": 1}}, None, {"x": 1}),
        ],
    )
    def test_accepted(self, answer: object, name: str | None, configuration: object) -> None:
        found = parse_registration(encoded(answer))
        assert (found.thing_name, found.device_configuration) == (name, configuration)

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ({}, "neither thingName nor deviceConfiguration is there"),
            ({"thingName": 7}, "thingName is no text"),
            ({"thingName": ""}, "thingName has characters that a thing name does not have"),
            ({"thingName": "a/b"}, "thingName has characters that a thing name does not have"),
            ({"thingName": "x" * 129}, "thingName has characters that a thing name does not have"),
            ({"thingName": "t", "deviceConfiguration": []}, "deviceConfiguration is no object"),
        ],
    )
    def test_refused(self, answer: object, said: str) -> None:
        with pytest.raises(AnswerInvalidError, match=f"^{said}$"):
            parse_registration(encoded(answer))


class TestRejection:
    def test_in_aws_s_own_form(self) -> None:
        found = parse_rejection(b'{"statusCode": 404, "errorCode": "E", "errorMessage": "m"}')
        assert found == Rejection(404, "E", "m")
        assert found.detail == "404 E: m"

    def test_a_status_is_enough(self) -> None:
        assert parse_rejection(b'{"statusCode": 500}') == Rejection(500, "", "")

    @pytest.mark.parametrize("status", [None, "404", True, 4.5])
    def test_without_a_status(self, status: object) -> None:
        with pytest.raises(AnswerInvalidError, match=r"^statusCode is no number$"):
            parse_rejection(encoded({"statusCode": status}))

    @pytest.mark.parametrize(
        ("status", "error", "exchange", "code"),
        [
            (429, "X", Exchange.CREATE_KEYS, Code.THROTTLED),
            (429, "X", Exchange.REGISTER, Code.THROTTLED),
            (500, "X", Exchange.CREATE_KEYS, Code.AWS_UNAVAILABLE),
            (503, "X", Exchange.REGISTER, Code.AWS_UNAVAILABLE),
            (400, "InvalidCertificateOwnershipToken", Exchange.REGISTER, Code.TOKEN_INVALID),
            (400, "InvalidParameters", Exchange.REGISTER, Code.PARAMETERS_REFUSED),
            (403, "AccessDenied", Exchange.REGISTER, Code.REGISTRATION_DENIED),
            (404, "NotFound", Exchange.REGISTER, Code.TEMPLATE_NOT_FOUND),
            (409, "Conflict", Exchange.REGISTER, Code.REQUEST_REFUSED),
            (400, "InvalidCertificateOwnershipToken", Exchange.CREATE_KEYS, Code.REQUEST_REFUSED),
            (403, "AccessDenied", Exchange.CREATE_KEYS, Code.REQUEST_REFUSED),
        ],
    )
    def test_the_status_decides(self, status: int, error: str, exchange: Exchange, code: Code) -> None:
        found = rejection_problem(Rejection(status, error, "why"), exchange, "T")
        assert found.code is code
        assert f"{status} {error}: why" in " ".join((found.happened, found.cause, found.remedy))


class TestTheClientId:
    @pytest.mark.parametrize(
        ("pattern", "thing", "expected"),
        [
            ("{thing_name}", "t", "t"),
            ("{thing_name}", None, "c0" * 32),
            ("x-{thing_name}-{{y}}", "t", "x-t-{y}"),
            ("fixed", "t", "fixed"),
        ],
    )
    def test_of_the_identity(self, pattern: str, thing: str | None, expected: str) -> None:
        target = Target("e", (8883,), "T", (), "c", pattern, "0" * 64)
        assert fleet.identity_client_id(target, thing, "c0" * 32) == expected


def test_a_link_error_says_which_trouble() -> None:
    error = LinkError(Trouble.REFUSED, "CONNACK 0x87", code=0x87)
    assert str(error) == "refused: CONNACK 0x87"
    assert (error.trouble, error.code) == (Trouble.REFUSED, 0x87)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
NAMES = st.sampled_from([*ANSWER, "thingName", "deviceConfiguration", "statusCode", "errorCode"])


@given(st.dictionaries(NAMES, JSON, max_size=6) | JSON)
def test_whatever_comes_is_valid_or_named(answer: object) -> None:
    for parse in (parse_issued_keys, parse_registration, parse_rejection):
        try:
            parse(encoded(answer))
        except AnswerInvalidError as error:
            assert str(error)


def test_a_claim_is_not_taken_for_a_device_s_answer() -> None:
    """The workshop's claim file on the answer's topic: its members are others."""
    made = pair()
    with pytest.raises(AnswerInvalidError):
        parse_issued_keys(encoded({"certificatePem": made.certificate, "keyPair": {"PrivateKey": made.key}}))


class TestACertificateForTheDevice:
    """CreateCertificateFromCsr: the key is the device's own and comes in no answer."""

    def answer(self, certificate: str) -> bytes:
        without_key = {name: value for name, value in ANSWER.items() if name != "privateKey"}
        return encoded({**without_key, "certificatePem": certificate})

    def test_for_the_key_that_asked(self) -> None:
        made = device_pair()
        key = parse_private_key(made.key.encode())
        issued = fleet.parse_issued_certificate(self.answer(made.certificate), key)
        assert issued.key is key
        assert issued.certificate.public_key_id == key.public_key_id

    def test_for_another_key(self) -> None:
        key = parse_private_key(device_pair().key.encode())
        with pytest.raises(AnswerInvalidError, match=r"^certificatePem was not made for this device's key$"):
            fleet.parse_issued_certificate(self.answer(device_pair().certificate), key)

    def test_its_request_and_its_topics(self) -> None:
        assert json.loads(fleet.create_from_csr_payload("PEM").reveal()) == {
            "certificateSigningRequest": "PEM"
        }


@pytest.mark.parametrize("value", ["[" * 64 + "]" * 64, "[" * 900 + "]" * 900, "NaN", "[-Infinity]", "1e999"])
def test_a_device_configuration_that_could_not_be_written_is_no_answer(value: str) -> None:
    answer = '{"thingName": "pump", "deviceConfiguration": {"x": ' + value + "}}"
    with pytest.raises(fleet.AnswerInvalidError, match="nested too deeply"):
        fleet.parse_registration(answer.encode())
