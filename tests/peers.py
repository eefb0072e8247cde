"""Servers that go wrong in one way each, on a free port of loopback, made for a test.

Invariant: a peer does its one thing to every connection until its `with` ends, and counts them: a test
whose peer nobody visited has tested nothing.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import mqtt5

from material import Authority, authority, key_pem, new_key
from wire import decoded, encoded, topic_filters

_LINGER_RESET = struct.pack("ii", 1, 0)  # close(2) then sends RST: socket(7), SO_LINGER


class Peer:
    """A listener whose connections are each given to `serve`, in a thread of their own."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.visits = 0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            self.visits += 1
            self._open.append(one)
            threading.Thread(target=self._one, args=(one,), daemon=True).start()

    def _one(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._serve(one)


def silent() -> Peer:
    """Takes the connection and says nothing."""
    return Peer(lambda one: None)


def web_page() -> Peer:
    """A captive portal: answers whatever comes with a page, in the clear."""

    def serve(one: socket.socket) -> None:
        one.recv(4096)
        one.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\nContent-Length: 0\r\n\r\n")
        one.close()

    return Peer(serve)


def resetting() -> Peer:
    """A firewall that lets TCP through and resets what looks like TLS."""

    def serve(one: socket.socket) -> None:
        one.recv(4096)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        one.close()

    return Peer(serve)


@contextlib.contextmanager
def deaf() -> Iterator[int]:
    """The port of a listener whose queue is full: a SYN gets no answer, as behind a dropping firewall."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        for _ in range(64):
            knock = stack.enter_context(socket.socket())
            knock.settimeout(0.2)
            try:
                knock.connect(("127.0.0.1", port))
            except TimeoutError:
                break
        else:
            raise AssertionError("the queue does not fill")
        yield port


def free_port() -> int:
    """For a program that wants to be told where to listen. Nobody else gets it by chance, as a rule."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


_taken: list[socket.socket] = []


def closed_port() -> int:
    """A port that nobody listens on, and that stays taken: no other test can get it and listen there."""
    taken = socket.socket()
    _taken.append(taken)
    taken.bind(("127.0.0.1", 0))
    return int(taken.getsockname()[1])


class TlsFiles:
    """A root in a file, and server certificates under it."""

    def __init__(self, directory: Path, name: str = "a root") -> None:
        self.authority = Authority.new(name)
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.ca_file = directory / "root.pem"
        self.ca_file.write_bytes(self.authority.pem)

    def context(self, host: str = "localhost", *, ends: timedelta = timedelta(days=30)) -> ssl.SSLContext:
        key, now = new_key(), datetime.now(timezone.utc)
        start = min(now, now + ends) - timedelta(days=30)
        certificate = self.authority.issue(host, key, start, now + ends, host)
        pem = self._directory / f"{host}.pem"
        pem.write_text(certificate + key_pem(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        # The SDK breaks off with a server that does not ask for its certificate.
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=authority().pem.decode("ascii"))
        return context


def tls(context: ssl.SSLContext) -> Peer:
    """Completes TLS, then hangs up."""

    def serve(one: socket.socket) -> None:
        with context.wrap_socket(one, server_side=True) as secure:
            secure.recv(4096)

    return Peer(serve)


def answering(context: ssl.SSLContext, *payloads: bytes, acknowledges: bool = True) -> Peer:
    """An MQTT 5 server that grants everything and answers every request with each of `payloads` on /accepted.

    `acknowledges`: whether a request has its PUBACK before that.
    """

    def serve(one: socket.socket) -> None:
        with context.wrap_socket(one, server_side=True) as secure:
            for packet in _packets(secure):
                if isinstance(packet, mqtt5.ConnectPacket):
                    secure.sendall(encoded(mqtt5.ConnAckPacket()))
                elif isinstance(packet, mqtt5.SubscribePacket):
                    granted = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE for _ in topic_filters(packet)]
                    secure.sendall(encoded(mqtt5.SubAckPacket(packet.packet_id, granted)))
                elif isinstance(packet, mqtt5.PublishPacket):
                    assert packet.packet_id is not None
                    if acknowledges:
                        secure.sendall(encoded(mqtt5.PubAckPacket(packet.packet_id)))
                    for payload in payloads:
                        secure.sendall(
                            encoded(mqtt5.PublishPacket(packet.topic + "/accepted", payload=payload))
                        )

    return Peer(serve)


def at_subscribe(context: ssl.SSLContext, act: Callable[[ssl.SSLSocket], None]) -> Peer:
    """An MQTT 5 server that acknowledges no SUBSCRIBE: it does `act` instead."""

    def serve(one: socket.socket) -> None:
        with context.wrap_socket(one, server_side=True) as secure:
            for packet in _packets(secure):
                if isinstance(packet, mqtt5.ConnectPacket):
                    secure.sendall(encoded(mqtt5.ConnAckPacket()))
                elif isinstance(packet, mqtt5.SubscribePacket):
                    act(secure)

    return Peer(serve)


def granting(context: ssl.SSLContext, codes: int) -> Peer:
    """An MQTT 5 server whose SUBACK has so many reason codes, however many topics were asked for."""

    def serve(one: socket.socket) -> None:
        with context.wrap_socket(one, server_side=True) as secure:
            for packet in _packets(secure):
                if isinstance(packet, mqtt5.ConnectPacket):
                    secure.sendall(encoded(mqtt5.ConnAckPacket()))
                elif isinstance(packet, mqtt5.SubscribePacket):
                    granted = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE] * codes
                    secure.sendall(encoded(mqtt5.SubAckPacket(packet.packet_id, granted)))

    return Peer(serve)


def inventing(context: ssl.SSLContext, topics: int, size: int, answer: bytes) -> Peer:
    """An MQTT 5 server that has a message of `size` bytes on so many topics that nobody asked for, before it
    answers a request."""
    noise = bytes(size)

    def serve(one: socket.socket) -> None:
        with context.wrap_socket(one, server_side=True) as secure:
            for packet in _packets(secure):
                if isinstance(packet, mqtt5.ConnectPacket):
                    secure.sendall(encoded(mqtt5.ConnAckPacket()))
                elif isinstance(packet, mqtt5.SubscribePacket):
                    granted = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE for _ in topic_filters(packet)]
                    secure.sendall(encoded(mqtt5.SubAckPacket(packet.packet_id, granted)))
                elif isinstance(packet, mqtt5.PublishPacket):
                    for number in range(topics):
                        secure.sendall(
                            encoded(mqtt5.PublishPacket(f"{packet.topic}/{number}", payload=noise))
                        )
                    secure.sendall(encoded(mqtt5.PublishPacket(packet.topic + "/accepted", payload=answer)))

    return Peer(serve)


def refusing_publish(context: ssl.SSLContext) -> Peer:
    """An MQTT 5 server that grants the subscriptions and refuses every PUBLISH."""

    def serve(one: socket.socket) -> None:
        with context.wrap_socket(one, server_side=True) as secure:
            for packet in _packets(secure):
                if isinstance(packet, mqtt5.ConnectPacket):
                    secure.sendall(encoded(mqtt5.ConnAckPacket()))
                elif isinstance(packet, mqtt5.SubscribePacket):
                    granted = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE for _ in topic_filters(packet)]
                    secure.sendall(encoded(mqtt5.SubAckPacket(packet.packet_id, granted)))
                elif isinstance(packet, mqtt5.PublishPacket):
                    assert packet.packet_id is not None
                    refused = mqtt5.PubAckReasonCode.NOT_AUTHORIZED
                    secure.sendall(encoded(mqtt5.PubAckPacket(packet.packet_id, reason_code=refused)))

    return Peer(serve)


def _packets(secure: ssl.SSLSocket) -> Iterator[object]:
    buffer = bytearray()
    while True:
        try:
            packet, used = decoded(buffer)
        except IndexError:
            data = secure.recv(65536)
            if not data:
                return
            buffer += data
        else:
            del buffer[:used]
            yield packet


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()
