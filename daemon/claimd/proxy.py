"""The HTTP proxy on the way to the endpoint: who it is, and the CONNECT that asks it for a tunnel.

Invariant: the password stays a Secret until the bytes of the request; no text here holds it, and nothing
that a proxy says gets into a text but its three-digit status.
"""

from __future__ import annotations

import base64
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from . import smallfile
from .errors import Code, Problem, fail, problem
from .model import Secret

if TYPE_CHECKING:
    import socket

    from .model import Layout
    from .settings import ProxySettings

MAX_PASSWORD_BYTES = 4096
# Of an answer's head; a body is not waited for.
MAX_HEAD_BYTES = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([2-5][0-9]{2})")


@dataclass(frozen=True)
class Proxy:
    host: str
    port: int
    username: str = ""
    password: Secret | None = None

    @property
    def place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read(settings: ProxySettings, layout: Layout) -> Proxy | None:
    """The configured one, or None. Raises ClaimdError(PROXY_REFUSED) when its password can't be read."""
    if not settings.host:
        return None
    password = None
    if settings.password_file:
        path = layout.under(settings.password_file)
        try:
            text = smallfile.read(path, MAX_PASSWORD_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise _no_password(settings, f"{path}: {reason}") from error
        text = text.removesuffix("\n").removesuffix("\r")
        if not text or not text.isprintable():
            raise _no_password(settings, f"{path} does not hold one line with a password")
        password = Secret(text.encode())
    return Proxy(settings.host, settings.port, settings.username, password)


def _no_password(settings: ProxySettings, detail: str) -> Exception:
    return fail(Code.PROXY_REFUSED, proxy=f"{settings.host}:{settings.port}", detail=detail)


def unreachable(proxy: Proxy, detail: str) -> Problem:
    return problem(Code.PROXY_UNREACHABLE, proxy=proxy.place, detail=detail)


def tunnel(tcp: socket.socket, proxy: Proxy, host: str, port: int, seconds: float) -> Problem | None:
    """Ask for the way to host:port on a connection to the proxy. None: the tunnel is open."""
    deadline = time.monotonic() + seconds
    try:
        tcp.settimeout(seconds)
        tcp.sendall(_request(proxy, host, port).reveal())
        head = b""
        while b"\r\n\r\n" not in head:
            left = deadline - time.monotonic()
            if left <= 0 or len(head) > MAX_HEAD_BYTES:
                return unreachable(proxy, "it does not answer like an HTTP proxy")
            tcp.settimeout(left)
            # Nobody but the proxy speaks before we do: what follows the head is no part of the tunnel.
            more = tcp.recv(4096)
            if not more:
                break
            head += more
    except TimeoutError:
        return unreachable(proxy, "no answer")
    except OSError as error:
        return unreachable(proxy, error.strerror or "the connection broke")
    return _judged(head, proxy, host, port)


def _judged(head: bytes, proxy: Proxy, host: str, port: int) -> Problem | None:
    found = _STATUS.match(head)
    if found is None:
        return unreachable(proxy, "it hangs up" if not head else "it does not answer like an HTTP proxy")
    status = int(found[1])
    if status < 300:
        return None
    said = f"it answers {status}{_phrase(status)}"
    if status < 500:
        return problem(Code.PROXY_REFUSED, proxy=proxy.place, detail=f"for {host}:{port} {said}")
    detail = f"the proxy {proxy.place} answers {status}{_phrase(status)}"
    return problem(Code.ENDPOINT_UNREACHABLE, endpoint=host, port=port, detail=detail)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _request(proxy: Proxy, host: str, port: int) -> Secret:
    """RFC 9110, sections 9.3.6 and 11.7.2; RFC 7617 for the credentials."""
    lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
    if proxy.username:
        password = b"" if proxy.password is None else proxy.password.reveal()
        pair = base64.b64encode(proxy.username.encode() + b":" + password)
        lines.append(f"Proxy-Authorization: Basic {pair.decode('ascii')}")
    return Secret("\r\n".join([*lines, "", ""]).encode())
