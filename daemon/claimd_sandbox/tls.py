"""TLS after TCP: a server's side of a connection whose failures are explained.

TCP is accepted first, then the handshake runs over memory buffers, so the sandbox sees the first bytes,
sends the alert of a failed handshake before it closes, and can say what the client did wrong.
Invariant: nothing is read from a client before its certificate chains to one of our issuers.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

from claimd_sandbox.ending import LostError

ALPN_PORT = 443  # where AWS requires ALPN
ALPN = "x-amzn-mqtt-ca"  # MQTT with a client certificate on port 443: "Device communication protocols"
CHUNK = 65536
LINGER = 1.0  # seconds to wait for the client's end, so that our last bytes are not lost to a reset
MAX_HELLO = 16384
# X509_V_FLAG_NO_CHECK_TIME of openssl/x509_vfy.h, which the ssl module does not name.
NO_CHECK_TIME = 0x200000
NO_APPLICATION_PROTOCOL = bytes.fromhex("15030300020278")  # a fatal alert, RFC 7301 section 3.2

# What OpenSSL's reasons mean to somebody who debugs a client. The alerts are the client's to us.
_EXPLAINED = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client sent no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust the sandbox's CA (is ca.pem its CA file?)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client rejects the server's certificate (host name?)",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client rejects the server's certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client finds the server's certificate expired (its clock?)",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the client wants another version of TLS",
    "UNSUPPORTED_PROTOCOL": "the client offers no TLS 1.2 or 1.3",
    "NO_SHARED_CIPHER": "the client and the sandbox share no cipher suite",
    "BAD_SIGNATURE": "the client's key does not belong to its certificate",
    "WRONG_SIGNATURE_TYPE": "the client's key does not belong to its certificate",
}
# X509_V_ERR_… of openssl/x509_vfy.h.
_VERIFY = {
    9: "the client's certificate is not yet valid",
    10: "the client's certificate has expired",
    18: "the client's certificate is self-signed",
    19: "the client's certificate chains to an unknown root",
    20: "the client's certificate is of an unknown issuer",
    21: "the client's certificate is of an unknown issuer",
}


class HandshakeError(Exception):
    """TLS did not come about; the text says why."""


@dataclass(frozen=True)
class Hello:
    """What a ClientHello says in clear."""

    server_name: str | None
    alpn: tuple[str, ...]


def server_context(chain: Path, client_roots: str, *, check_time: bool) -> ssl.SSLContext:
    """TLS 1.2 and 1.3, a client certificate required; without `check_time` an expired one passes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=client_roots)
    context.set_alpn_protocols([ALPN])
    # A resumed session would not show its certificate again.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    if not check_time:
        context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    return context


class TlsStream:
    """Bytes over TLS over a TCP connection that is already there."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._closed = False

    @property
    def version(self) -> str | None:
        return self._tls.version()

    @property
    def peer_certificate(self) -> bytes:
        """The client's certificate, DER."""
        der = self._tls.getpeercert(binary_form=True)
        assert der is not None
        return der

    async def hello(self) -> Hello:
        """Read the ClientHello, and keep it for the handshake; raises HandshakeError."""
        seen = b""
        while True:
            data = await self._receive()
            if not data:
                raise HandshakeError("the client closed the connection before TLS" if not seen else _CLOSED)
            seen += data
            self._incoming.write(data)
            if seen[0] != 0x16:
                raise HandshakeError(f"the client does not speak TLS (its first bytes: {seen[:16]!r})")
            hello = parse_hello(seen)
            if hello is not None:
                return hello
            if len(seen) > MAX_HELLO:
                raise HandshakeError("the ClientHello is too long")

    async def handshake(self) -> None:
        """Raises HandshakeError; the alert has been sent by then."""
        while True:
            try:
                self._tls.do_handshake()
                self._flush()
                return
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError as error:
                self._flush()
                raise HandshakeError(_explain(error)) from error
            data = await self._receive()
            if not data:
                raise HandshakeError(_CLOSED)
            self._incoming.write(data)

    async def read(self) -> bytes:
        """Some bytes, or none at the client's orderly end; raises LostError."""
        while True:
            try:
                return self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise LostError(f"TLS broke: {_explain(error)}") from error
            data = await self._receive()
            if not data:
                raise LostError("the client closed the connection")
            self._incoming.write(data)

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise LostError(f"TLS broke: {_explain(error)}") from error
        self._flush()

    def alert(self, record: bytes) -> None:
        """Send an alert in clear, which is right only before the handshake has begun."""
        self._writer.write(record)

    async def close(self) -> None:
        """Send what is due, end our side, and give the client a moment to end its own."""
        if self._closed:
            return
        self._closed = True
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # the peer has not answered, or there was no handshake: close_notify is out if it can be
        try:
            self._flush()
            if self._writer.can_write_eof():
                self._writer.write_eof()
            await asyncio.wait_for(self._drain_input(), LINGER)
        except (OSError, asyncio.TimeoutError):
            pass
        finally:
            self._writer.close()

    async def _drain_input(self) -> None:
        while await self._reader.read(CHUNK):
            pass

    async def _receive(self) -> bytes:
        try:
            return await self._reader.read(CHUNK)
        except OSError as error:
            raise LostError(f"the connection broke: {error.strerror or error}") from error

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._writer.is_closing():
            self._writer.write(data)


_CLOSED = "the client closed the connection in the TLS handshake (does it trust ca.pem?)"


def _explain(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, error.verify_message)
    reason = error.reason or ""
    return _EXPLAINED.get(reason, reason.replace("_", " ").lower() or "TLS failed")


def parse_hello(data: bytes) -> Hello | None:
    """SNI and ALPN of a ClientHello (RFC 8446 section 4.1.2), or None until it is whole."""
    body = b""
    at = 0
    while at + 5 <= len(data) and data[at] == 0x16:
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        body += data[at + 5 : at + 5 + length]
        at += 5 + length
    if len(body) < 4 or len(body) < 4 + int.from_bytes(body[1:4], "big"):
        return None
    cursor = 4 + 2 + 32  # header, version, random
    try:
        cursor += 1 + body[cursor]  # session id
        cursor += 2 + int.from_bytes(body[cursor : cursor + 2], "big")  # cipher suites
        cursor += 1 + body[cursor]  # compression methods
    except IndexError:
        return Hello(None, ())
    return _extensions(body[cursor + 2 :])


def _extensions(data: bytes) -> Hello:
    server_name: str | None = None
    alpn: list[str] = []
    while len(data) >= 4:
        kind, length = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        value, data = data[4 : 4 + length], data[4 + length :]
        if kind == 0 and len(value) > 5:  # server_name, RFC 6066 section 3
            server_name = value[5:].decode("ascii", "replace")
        elif kind == 16:  # application_layer_protocol_negotiation, RFC 7301 section 3.1
            names = value[2:]
            while names:
                alpn.append(names[1 : 1 + names[0]].decode("ascii", "replace"))
                names = names[1 + names[0] :]
    return Hello(server_name, tuple(alpn))
