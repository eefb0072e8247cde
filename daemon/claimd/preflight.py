"""Names what stands between this device and the endpoint, with the standard library alone.

The SDK hides the cause of a TLS failure for 10 to 28 s and then calls them all 1029; `ssl`
names it at once. Invariant: no credentials are shown and no claim is judged here; a server
that asks for a client certificate and hangs up without one is a server that is reached.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from .errors import ClaimdError, Code, Problem, problem
from .model import spoken
from .proxy import tunnel, unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .proxy import Proxy

DNS_SECONDS = 4.0
# Blackholed addresses (IPv6 above all) are common, and a name can have several.
ADDRESS_SECONDS = 2.0
TOTAL_SECONDS = 8.0

# X509_V_ERR_* of OpenSSL's x509_vfy.h
_TIME_ERRORS = frozenset({9, 10})  # CERT_NOT_YET_VALID, CERT_HAS_EXPIRED
_NAME_ERRORS = frozenset({62, 64})  # HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH
# What a server says to a client without a certificate. The server's own certificate was accepted by then.
_ASKS_FOR_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE", "ALERT")
# Alerts that come before any certificate was shown.
_DISAGREES = ("PROTOCOL_VERSION", "NO_APPLICATION_PROTOCOL", "UNRECOGNIZED_NAME")
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


def diagnose(
    host: str, port: int, roots: bytes, alpn: str | None, proxy: Proxy | None = None
) -> Problem | None:
    """What is wrong on the way to host:port, or None when a TLS server is there that `roots` vouch for.

    Takes TOTAL_SECONDS at most. `roots`: PEM. Behind a proxy it is the proxy that looks names up.
    """
    found_addresses = addresses(host, port) if proxy is None else addresses(proxy.host, proxy.port)
    if not found_addresses:
        if proxy is not None:
            return unreachable(proxy, "its name can't be resolved")
        return problem(Code.DNS_FAILED, endpoint=host)
    deadline = time.monotonic() + TOTAL_SECONDS
    found: Problem | None = None
    for family, address in found_addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        way = _Way(host, port, proxy, min(left, ADDRESS_SECONDS))
        trouble = _try_address(family, address, way, roots, alpn)
        if trouble is None:
            return None
        # One address that answers tells more than another that is dead.
        if found is None or found.code in _DEAD:
            found = trouble
    return found


def trouble_unless(
    interrupted: Callable[[], bool], ask: Callable[[], Problem | None], every_seconds: float = 0.1
) -> tuple[bool, Problem | None]:
    """(whether the answer came, the answer): given up as soon as there is something better to do.

    Raises what `ask` raises: an answer that can't be had is not something better to do.
    """
    answers: queue.SimpleQueue[Problem | Exception | None] = queue.SimpleQueue()

    def answer() -> None:
        try:
            answers.put(ask())
        except Exception as error:  # of another thread, so it is carried to the one who asked
            answers.put(error)

    thread = threading.Thread(target=answer, name="look", daemon=True)
    thread.start()
    while thread.is_alive() and not interrupted():
        thread.join(every_seconds)
    try:
        found = answers.get_nowait()
    except queue.Empty:
        return False, None
    if isinstance(found, Exception):
        raise found
    return True, found


def connection(host: str, port: int, proxy: Proxy | None, seconds: float) -> socket.socket:
    """To host:port, through the proxy where there is one. Raises OSError; ClaimdError for the proxy's no."""
    if proxy is None:
        return socket.create_connection((host, port), seconds)
    try:
        tcp = socket.create_connection((proxy.host, proxy.port), seconds)
    except OSError as error:
        raise ClaimdError(unreachable(proxy, error.strerror or "no answer")) from error
    found = tunnel(tcp, proxy, host, port, seconds)
    if found is not None:
        tcp.close()
        raise ClaimdError(found)
    tcp.settimeout(seconds)
    return tcp


_DEAD = frozenset({Code.ENDPOINT_UNREACHABLE, Code.PROXY_UNREACHABLE})


@dataclass(frozen=True)
class _Way:
    host: str
    port: int
    proxy: Proxy | None
    seconds: float


_Address = tuple[socket.AddressFamily, Any]


def addresses(host: str, port: int) -> list[_Address]:
    """getaddrinfo with an end: the resolver's own can take half a minute."""
    answer: queue.Queue[list[_Address]] = queue.Queue(1)

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # the latter for what can't be a name: an empty or a too long label
            found = []
        answer.put([(family, address) for family, _, _, _, address in found])

    threading.Thread(target=look_up, name="dns", daemon=True).start()
    try:
        return answer.get(timeout=DNS_SECONDS)
    except queue.Empty:
        return []


def _try_address(
    family: socket.AddressFamily, address: Any, way: _Way, roots: bytes, alpn: str | None
) -> Problem | None:
    # A kernel without IPv6 refuses to make the socket already, while the resolver still tells such addresses.
    try:
        tcp = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        return _no_connection(error, way)
    with tcp:
        tcp.settimeout(way.seconds)
        try:
            tcp.connect(address)
        except OSError as error:
            return _no_connection(error, way)
        if way.proxy is not None:
            found = tunnel(tcp, way.proxy, way.host, way.port, way.seconds)
            if found is not None:
                return found
            tcp.settimeout(way.seconds)
        return _handshake(tcp, way.host, way.port, roots, alpn)


def _no_connection(error: OSError, way: _Way) -> Problem:
    why = "no answer" if isinstance(error, TimeoutError) else (error.strerror or "no connection")
    if way.proxy is not None:
        return unreachable(way.proxy, why)
    if isinstance(error, ConnectionRefusedError):
        return problem(Code.CONNECTION_REFUSED, endpoint=way.host, port=way.port)
    return problem(Code.ENDPOINT_UNREACHABLE, endpoint=way.host, port=way.port, detail=why)


def _handshake(tcp: socket.socket, host: str, port: int, roots: bytes, alpn: str | None) -> Problem | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=roots.decode("ascii"))
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    try:
        with context.wrap_socket(tcp, server_hostname=host):
            return None
    except ssl.SSLCertVerificationError as error:
        return _verification_problem(error, host)
    except ssl.SSLError as error:
        reason = error.reason or ""
        if any(word in reason for word in _NOT_TLS):
            return problem(Code.TLS_NO_ANSWER, endpoint=host, port=port)
        if any(word in reason for word in _DISAGREES):
            return problem(Code.TLS_FAILED, endpoint=host, detail=reason)
        if any(word in reason for word in _ASKS_FOR_CERTIFICATE):
            return None
        if isinstance(error, ssl.SSLEOFError):
            return problem(Code.TLS_FAILED, endpoint=host, detail="the server hung up")
        return problem(Code.TLS_FAILED, endpoint=host, detail=reason or "the handshake failed")
    except TimeoutError:
        return problem(Code.TLS_NO_ANSWER, endpoint=host, port=port)
    except OSError as error:
        return problem(Code.TLS_FAILED, endpoint=host, detail=error.strerror or "the connection broke")


def _verification_problem(error: ssl.SSLCertVerificationError, host: str) -> Problem:
    detail = error.verify_message
    if error.verify_code in _TIME_ERRORS:
        now = spoken(datetime.now(timezone.utc))
        return problem(Code.TLS_SERVER_CERTIFICATE_TIME, endpoint=host, detail=detail, now=now)
    if error.verify_code in _NAME_ERRORS:
        return problem(Code.TLS_WRONG_HOST, endpoint=host, detail=detail)
    return problem(Code.TLS_UNTRUSTED_CA, endpoint=host, detail=detail)
