"""A small HTTP/1.1 server: requests with a Content-Length, answers in JSON, connections kept open.

Enough for the aws CLI and for our own command line, and no more. Invariant: a request is bounded in
size before it is read, and whatever goes wrong in a handler is an answer, not a lost connection.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

MAX_HEAD = 32 * 1024
MAX_BODY = 256 * 1024  # a template body has at most 10,240 characters
IDLE = 60.0  # seconds between requests of a connection
log = logging.getLogger("claimd_sandbox")


@dataclass(frozen=True)
class Request:
    method: str
    path: tuple[str, ...]  # segments, percent-decoded
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body's JSON object; raises ValueError."""
        document = json.loads(self.body or b"{}")
        if not isinstance(document, dict):
            raise ValueError("the body is not a JSON object")
        return document


@dataclass(frozen=True)
class Response:
    status: int
    body: Any = field(default=None, repr=False)  # JSON; may hold a claim's private key
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


class BadRequestError(Exception):
    """The bytes are no request that we serve."""


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
    """Answer the requests of one connection until it ends."""
    try:
        while True:
            request = await asyncio.wait_for(_read(reader), IDLE)
            if request is None:
                break
            _write(writer, await _answer(request, handler))
            await writer.drain()
            if request.headers.get("connection", "").lower() == "close":
                break
    except BadRequestError as error:
        _write(writer, Response(400, {"message": str(error)}))
    except asyncio.CancelledError:
        pass  # the sandbox stops
    except (asyncio.TimeoutError, asyncio.IncompleteReadError, OSError):
        pass  # the client is gone, or has nothing more to say
    finally:
        writer.close()


async def _answer(request: Request, handler: Handler) -> Response:
    try:
        return await handler(request)
    except Exception:
        log.exception("cannot answer %s /%s: the sandbox failed", request.method, "/".join(request.path))
        failure = {"x-amzn-ErrorType": "InternalFailureException"}
        return Response(500, {"message": "the sandbox failed; its log says how"}, failure)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise BadRequestError("the request's head is cut short") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise BadRequestError("the request's head is too long") from error
    lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, version = lines[0].split(" ")
        headers = dict(_header(line) for line in lines[1:] if line)
        length = int(headers.get("content-length", "0"))
    except ValueError as error:
        raise BadRequestError("the request's head is not HTTP") from error
    if not version.startswith("HTTP/1.") or "transfer-encoding" in headers or not 0 <= length <= MAX_BODY:
        raise BadRequestError("only HTTP/1.x with a Content-Length of at most 256 KiB is served")
    body = await reader.readexactly(length)
    url = urlsplit(target)
    path = tuple(unquote(segment) for segment in url.path.split("/") if segment)
    return Request(method, path, dict(parse_qsl(url.query, keep_blank_values=True)), headers, body)


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError
    return name.strip().lower(), value.strip()


def _write(writer: asyncio.StreamWriter, response: Response) -> None:
    body = b"" if response.body is None else json.dumps(response.body).encode()
    phrase = http.HTTPStatus(response.status).phrase
    lines = [f"HTTP/1.1 {response.status} {phrase}", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json"] if body else []
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)
