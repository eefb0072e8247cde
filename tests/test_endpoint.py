from __future__ import annotations

import pytest

from claimd.endpoint import parse, region, warnings

ATS = "a1b2c3d4e5f6g7-ats.iot.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (ATS, ATS),
        (ATS.upper(), ATS),
        ("localhost", "localhost"),
        ("iot.example.com", "iot.example.com"),
        ("10.0.0.7", "10.0.0.7"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_a_host_name(text: str, name: str) -> None:
    assert parse(text) == name


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (f"https://{ATS}", f'endpoint = "{ATS}"'),
        (f"https://{ATS}:8443/things?x=1#y", f'endpoint = "{ATS}"'),
        (f"mqtts://user:hunter2@{ATS}", f'endpoint = "{ATS}"'),
        (f"{ATS}:8883", f'endpoint = "{ATS}" and port = 8883'),
        (f"{ATS}/", f'endpoint = "{ATS}"'),
        (f" {ATS}\n", f'endpoint = "{ATS}"'),
        (f"{ATS}.", f'endpoint = "{ATS}"'),
    ],
)
def test_what_was_pasted_around_it_is_told(text: str, right: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert str(caught.value) == f"takes the host name alone: write {right}"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "https://",
        "-bad.example",
        "bad-.example",
        "a..b",
        "under_score.example",
        "a" * 64 + ".example",
        ".".join(["a" * 50] * 6),
        "[::1]:8883",
        "two words",
        "müller.example",
        "a\x00b",
    ],
)
def test_what_is_no_host_name(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    said = str(caught.value)
    assert said.startswith("takes a host name; this prints it: aws iot describe-endpoint")
    assert not text.strip() or text not in said, "a refused text is not quoted"


@pytest.mark.parametrize(
    ("endpoint", "where"),
    [
        (ATS, "eu-west-1"),
        ("abc.ats.iot.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("abc-ats.iot.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("vpce-1-x.data.iot.eu-central-1.vpce.amazonaws.com", "eu-central-1"),
        ("abc-ats.iot.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
        ("iot.example.com", "unknown"),
        ("localhost", "unknown"),
    ],
)
def test_the_region_in_the_name(endpoint: str, where: str) -> None:
    assert region(endpoint) == where


@pytest.mark.parametrize(
    "endpoint",
    [
        ATS,
        "abc.ats.iot.cn-north-1.amazonaws.com.cn",
        "abc-ats.iot-fips.us-gov-west-1.amazonaws.com",
        "abc-ats.iot.eusc-de-east-1.amazonaws.eu",
        "abc-ats.iot.eu-west-1.api.aws",
    ],
)
def test_an_ats_endpoint_is_no_reason_for_a_warning(endpoint: str) -> None:
    assert warnings(endpoint) == []


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        (
            "a1b2c3.iot.eu-west-1.amazonaws.com",
            'this is an old endpoint that AWS shut down; likely right: endpoint = "a1b2c3-ats.iot.eu-west-1',
        ),
        ("a1b2.credentials.iot.eu-west-1.amazonaws.com", "this is an endpoint for another purpose"),
        ("a1b2.jobs.iot.eu-west-1.amazonaws.com", "this is an endpoint for another purpose"),
        ("iot.eu-west-1.amazonaws.com", "this is an endpoint for another purpose"),
        ("10.0.0.7", "this is an address"),
        ("iot.example.com", "right for a custom domain or a VPC endpoint only"),
        ("localhost", "this does not look like an endpoint of AWS IoT Core"),
    ],
)
def test_what_only_looks_wrong_gets_a_warning(endpoint: str, said: str) -> None:
    (warning,) = warnings(endpoint)
    assert warning.startswith("endpoint: ") and said in warning
