"""What stands between here and the endpoint, named against real TLS servers on loopback."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import peers
import without_ipv6
from claimd import preflight
from claimd.errors import Code
from material import Authority, key_pem, new_key

AUTHORITY = Authority.new("the endpoint's root")
ALPN = "x-amzn-mqtt-ca"


def now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


@dataclass
class Server:
    """Accepts on loopback, in a thread, and does with each connection what it was told."""

    act: Callable[[socket.socket], None]

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(20)
                    self.act(connection)

    def close(self) -> None:
        # close(2) alone leaves accept(2) in the other thread waiting.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


MakeServer = Callable[[Callable[[socket.socket], None]], Server]


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    made: list[Server] = []

    def make(act: Callable[[socket.socket], None]) -> Server:
        made.append(Server(act))
        return made[-1]

    yield make
    for server in made:
        server.close()


def tls(
    directory: Path,
    *hosts: str,
    authority: Authority = AUTHORITY,
    begins: timedelta = timedelta(days=-1),
    ends: timedelta = timedelta(days=1),
    client_certificate: bool = False,
    version: ssl.TLSVersion | None = None,
    alpn: list[str] | None = None,
    heard: list[str | None] | None = None,
) -> Callable[[socket.socket], None]:
    """A TLS server's side of one connection."""
    key = new_key()
    (directory / "server.pem").write_text(
        authority.issue("server", key, now() + begins, now() + ends, *(hosts or ("localhost",)))
        + key_pem(key)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    if client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn is not None:
        context.set_alpn_protocols(alpn)

    def act(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            if heard is not None:
                heard.append(secure.selected_alpn_protocol())
            secure.recv(1)

    return act


def diagnosed(server: Server, host: str = "localhost", alpn: str | None = None) -> Code | None:
    found = preflight.diagnose(host, server.port, AUTHORITY.pem, alpn)
    return None if found is None else found.code


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("client_certificate", [False, True])
def test_a_server_that_is_vouched_for(
    make_server: MakeServer, tmp_path: Path, version: ssl.TLSVersion, client_certificate: bool
) -> None:
    """One that asks for a client's certificate was reached, too: nothing is wrong with the way."""
    server = make_server(tls(tmp_path, version=version, client_certificate=client_certificate))
    assert diagnosed(server) is None


def test_alpn_is_asked_for(make_server: MakeServer, tmp_path: Path) -> None:
    heard: list[str | None] = []
    server = make_server(tls(tmp_path, alpn=[ALPN], heard=heard))
    assert diagnosed(server, alpn=ALPN) is None
    server = make_server(tls(tmp_path, alpn=[ALPN], heard=heard))
    assert diagnosed(server) is None
    assert heard[:1] == [ALPN]


def test_another_root(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(tls(tmp_path, authority=Authority.new("a firewall that reads along")))
    assert diagnosed(server) is Code.TLS_UNTRUSTED_CA


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        (timedelta(days=-2), timedelta(days=-1)),
        (timedelta(days=1), timedelta(days=2)),
    ],
)
def test_a_certificate_that_is_not_valid_now(
    make_server: MakeServer, tmp_path: Path, begins: timedelta, ends: timedelta
) -> None:
    """More often the clock is wrong than the certificate: the words show what time it is here."""
    server = make_server(tls(tmp_path, begins=begins, ends=ends))
    found = preflight.diagnose("localhost", server.port, AUTHORITY.pem, None)
    assert found is not None and found.code is Code.TLS_SERVER_CERTIFICATE_TIME
    assert str(now().year) in " ".join((found.happened, found.cause, found.remedy))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_certificate_for_another_name(make_server: MakeServer, tmp_path: Path, host: str) -> None:
    server = make_server(tls(tmp_path, "elsewhere.example"))
    assert diagnosed(server, host) is Code.TLS_WRONG_HOST


def test_no_tls_there(make_server: MakeServer) -> None:
    server = make_server(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    assert diagnosed(server) is Code.TLS_NO_ANSWER


def test_a_server_that_says_nothing(make_server: MakeServer) -> None:
    def listen(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            pass

    assert diagnosed(make_server(listen)) is Code.TLS_NO_ANSWER


def answering(data: bytes) -> Callable[[socket.socket], None]:
    def act(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(data)

    return act


def test_a_server_that_hangs_up(make_server: MakeServer) -> None:
    assert diagnosed(make_server(answering(b""))) is Code.TLS_FAILED


# The alerts' numbers: RFC 8446 section 6, RFC 7301 section 3.2.
@pytest.mark.parametrize(
    ("alert", "code"),
    [
        pytest.param(70, Code.TLS_FAILED, id="protocol_version"),
        pytest.param(120, Code.TLS_FAILED, id="no_application_protocol"),
        pytest.param(112, Code.TLS_FAILED, id="unrecognized_name"),
        pytest.param(116, None, id="certificate_required"),
        pytest.param(40, None, id="handshake_failure"),
    ],
)
def test_a_server_that_answers_with_an_alert(make_server: MakeServer, alert: int, code: Code | None) -> None:
    """Some say that it wants a certificate, which is well; others that it will talk to nobody like us."""
    assert diagnosed(make_server(answering(bytes([21, 3, 3, 0, 2, 2, alert])))) is code


def test_nobody_listens() -> None:
    found = preflight.diagnose("127.0.0.1", peers.closed_port(), AUTHORITY.pem, None)
    assert found is not None and found.code is Code.CONNECTION_REFUSED


def test_a_name_that_does_not_exist() -> None:
    found = preflight.diagnose("claimd.invalid", 8883, AUTHORITY.pem, None)
    assert found is not None and found.code is Code.DNS_FAILED
    assert found.fields["endpoint"] == "claimd.invalid"


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", ["proxy..example", "a" * 64 + ".example"])
def test_a_name_that_can_not_be(name: str) -> None:
    """The resolver's IDNA raises on it: no trace of its thread, and the answer without a wait."""
    assert preflight.addresses(name, 3128) == []


def test_an_address_that_does_not_answer() -> None:
    """As behind a firewall that drops: here the kernel drops, because the queue of the port is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        found = preflight.diagnose("127.0.0.1", full.getsockname()[1], AUTHORITY.pem, None)
    assert found is not None and found.code is Code.ENDPOINT_UNREACHABLE
    assert found.fields["detail"] == "no answer"


def test_a_kernel_without_ipv6(tmp_path: Path) -> None:
    """The resolver tells such addresses all the same. It is the network's trouble, and no failing disk."""
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    (tmp_path / "etc/claimd").mkdir(parents=True)
    configuration = f'endpoint = "e.example"\nca_file = "{tmp_path}/ca.pem"\n[template]\nname = "T"\n'
    (tmp_path / "etc/claimd/claimd.toml").write_text(configuration + '[proxy]\nhost = "::1"\n')
    asked = subprocess.run(
        without_ipv6.command("--root", str(tmp_path), "ready", "--json"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert asked.stderr == ""
    said = json.loads(asked.stdout)
    assert said["problem"]["code"] == "proxy-unreachable", said
    assert "Address family not supported by protocol" in said["problem"]["message"]
