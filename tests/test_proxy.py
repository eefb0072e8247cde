"""The CONNECT and what a proxy may answer to it; the password's file."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from claimd.errors import ClaimdError, Code, Problem
from claimd.model import Layout, Secret
from claimd.proxy import MAX_HEAD_BYTES, Proxy, read, tunnel
from claimd.settings import ProxySettings

PROXY = Proxy("proxy.example", 3128, "devices", Secret(b"canary"))
# A proxy that is silent is waited for so long; the others answer at once.
PATIENCE, SHORT = 60.0, 0.2


def asked(answer: bytes, seconds: float = PATIENCE, end: bool = True) -> tuple[Problem | None, bytes]:
    """What comes of an answer, and what the proxy was asked."""
    ours, theirs = socket.socketpair()
    request: list[bytes] = []

    def serve() -> None:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += theirs.recv(4096)
        request.append(data)
        try:
            theirs.sendall(answer)
            if end:
                theirs.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was not heard to the end

    serving = threading.Thread(target=serve)
    serving.start()
    with ours, theirs:
        found = tunnel(ours, PROXY, "e.example", 8883, seconds)
        ours.close()
        serving.join()
    return found, request[0]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 299 x\r\nVia: a\r\n\r\n"])
def test_the_tunnel_is_open(answer: bytes) -> None:
    found, request = asked(answer, end=False)
    assert found is None
    assert request.splitlines()[:2] == [b"CONNECT e.example:8883 HTTP/1.1", b"Host: e.example:8883"]
    assert b"Proxy-Authorization: Basic ZGV2aWNlczpjYW5hcnk=\r\n" in request


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (b"HTTP/1.1 407 canary\r\n\r\n", Code.PROXY_REFUSED, "it answers 407 Proxy Authentication Required"),
        (
            b"HTTP/1.1 403 \x1b[2J\r\n\r\nbody",
            Code.PROXY_REFUSED,
            "for e.example:8883 it answers 403 Forbidden",
        ),
        (b"HTTP/1.1 499 x\r\n\r\n", Code.PROXY_REFUSED, "it answers 499"),
        (b"HTTP/1.1 302 x\r\n\r\n", Code.PROXY_REFUSED, "it answers 302 Found"),
        (
            b"HTTP/1.1 504 x\r\n\r\n",
            Code.ENDPOINT_UNREACHABLE,
            "proxy.example:3128 answers 504 Gateway Timeout",
        ),
        (b"", Code.PROXY_UNREACHABLE, "it hangs up"),
        (b"HTTP/1.1 2", Code.PROXY_UNREACHABLE, "it does not answer like an HTTP proxy"),
        (b"220 mail.example ESMTP\r\n\r\n", Code.PROXY_UNREACHABLE, "it does not answer like an HTTP proxy"),
        (b"x" * (MAX_HEAD_BYTES * 2), Code.PROXY_UNREACHABLE, "it does not answer like an HTTP proxy"),
    ],
)
def test_a_no_has_its_name(answer: bytes, code: Code, said: str) -> None:
    found, _ = asked(answer)
    assert found is not None
    assert (found.code, said in found.happened) == (code, True), found.happened
    assert "canary" not in found.happened and "\x1b" not in found.happened


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_silence_has_an_end(answer: bytes) -> None:
    found, _ = asked(answer, SHORT, end=False)
    assert found is not None and found.code is Code.PROXY_UNREACHABLE
    assert "no answer" in found.happened or "does not answer" in found.happened


def test_an_ipv6_address_is_told_from_its_port() -> None:
    assert Proxy("fd00::1", 3128).place == "[fd00::1]:3128"


class TestThePassword:
    SETTINGS = ProxySettings(host="p", username="u", password_file="/etc/claimd/pw")

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "etc/claimd").mkdir(parents=True)
        return tmp_path / "etc/claimd/pw"

    @pytest.mark.parametrize("text", [b"s p\xc3\xa4ce", b"s p\xc3\xa4ce\n", b"s p\xc3\xa4ce\r\n"])
    def test_one_line(self, tmp_path: Path, file: Path, text: bytes) -> None:
        file.write_bytes(text)
        found = read(self.SETTINGS, Layout(str(tmp_path)))
        assert found is not None and found.password == Secret(b"s p\xc3\xa4ce")
        assert "ce" not in repr(found).replace("place", "")

    @pytest.mark.parametrize(
        "make",
        [
            lambda file: None,
            lambda file: file.mkdir(),
            lambda file: file.write_bytes(b""),
            lambda file: file.write_bytes(b"\n"),
            lambda file: file.write_bytes(b"canary\ncanary\n"),
            lambda file: file.write_bytes(b"canary\xff"),
            lambda file: file.write_bytes(b"canary" * 4096),
        ],
    )
    def test_anything_else(self, tmp_path: Path, file: Path, make: Callable[[Path], object]) -> None:
        make(file)
        with pytest.raises(ClaimdError) as caught:
            read(self.SETTINGS, Layout(str(tmp_path)))
        assert caught.value.problem.code is Code.PROXY_REFUSED
        assert str(file) in caught.value.problem.happened and "canary" not in caught.value.problem.happened

    def test_none_is_configured(self, tmp_path: Path) -> None:
        assert read(ProxySettings(), Layout(str(tmp_path))) is None
