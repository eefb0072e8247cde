"""One client's connection, from its CONNECT to its end.

Invariant: after `run` returns nothing is written for this client, and its session knows that it is
gone. Nothing that a client sends raises out of `run`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, NoReturn

from claimd_sandbox import codec
from claimd_sandbox.admission import MAX_PACKET, Admission, Denied
from claimd_sandbox.broker import Broker, Session
from claimd_sandbox.ending import HangUpError, LostError
from claimd_sandbox.faults import Effects, Faults, Step, When, Who
from claimd_sandbox.identity import Identity, Refused
from claimd_sandbox.journal import Journal
from claimd_sandbox.packets import (
    ConnAck,
    Connect,
    Disconnect,
    FromClient,
    FromServer,
    MqttError,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    Reason,
    Subscribe,
    Unsubscribe,
    Version,
)
from claimd_sandbox.provisioning import Provisioning
from claimd_sandbox.requests import Requests
from claimd_sandbox.settings import Settings
from claimd_sandbox.tls import TlsStream


@dataclass(frozen=True)
class Core:
    """The parts of the server that every connection uses."""

    settings: Settings
    faults: Faults
    journal: Journal
    broker: Broker
    admission: Admission
    provisioning: Provisioning


UNACCEPTABLE_VERSION = 1  # MQTT 3.1.1 section 3.2.2.3


class Connection:
    """Implements the broker's `Link`."""

    def __init__(self, core: Core, stream: TlsStream, number: int, identity: Identity | Refused) -> None:
        self.core = core
        self._stream = stream
        self._number = number
        self._judged = identity
        self._splitter = codec.Splitter(MAX_PACKET)
        self._version = Version.V311  # until a CONNECT says otherwise: no reason codes
        self._ending: asyncio.Future[HangUpError] = asyncio.get_running_loop().create_future()
        self._silent = False
        self.client_id: str | None = None
        self.session: Session | None = None
        self._at_expiry: asyncio.TimerHandle | None = None
        self.window = core.settings.receive_maximum
        self.client_max_packet = MAX_PACKET

    # What the broker and the request handlers use

    @property
    def identity(self) -> Identity:
        assert isinstance(self._judged, Identity), "a refused certificate opens no session"
        return self._judged

    @property
    def number(self) -> int:
        return self._number

    @property
    def version(self) -> Version:
        return self._version

    def send(self, packet: FromServer) -> None:
        """Write a packet; after the end has begun, nothing."""
        if self._silent:
            return
        data = codec.encode(packet, self._version)
        if len(data) > self.client_max_packet:
            return  # "the Server MUST discard it without sending it": section 3.1.2.11.4
        self.core.journal.packet(self._number, f"> {type(packet).__name__.upper()}")
        try:
            self._stream.write(data)
        except LostError as error:
            self.hang_up(str(error))

    def taken_over(self) -> None:
        self.hang_up("another connection took over the client id", Reason.SESSION_TAKEN_OVER)

    def hang_up(self, why: str, reason: Reason | None = None) -> None:
        """End the connection soon, from wherever this is called."""
        if not self._ending.done():
            self._ending.set_result(HangUpError(why, reason))

    def effects(self, step: Step) -> Effects:
        who = self._judged.who if isinstance(self._judged, Identity) else Who.ANY
        return self.core.faults.at(step, who, self.client_id)

    # The connection's life

    async def run(self) -> str:
        """Serve the client to its end, and say why it ended; the caller closes the stream."""
        requests = Requests(self)
        reason: Reason | None = None
        orderly = False
        try:
            keep_alive = await self._admit()
            end = await self._serve(requests, keep_alive)
            orderly = end.reason != Reason.DISCONNECT_WITH_WILL
            why = "the client disconnected"
        except HangUpError as error:
            why, reason = str(error), error.reason
        except MqttError as error:
            why, reason = f"protocol error: {error}", error.reason
        except LostError as error:
            why = str(error)
        if self._at_expiry is not None:
            self._at_expiry.cancel()
        if self.session is not None:
            self.core.broker.closed(self.session, self, orderly=orderly)
        if reason is not None and self._version is Version.V5:
            if self.session is None:
                self.send(ConnAck(False, reason))
            else:
                self.send(Disconnect(reason))
        self._silent = True
        return why

    async def _admit(self) -> int:
        """Take CONNECT and answer it; gives the keep alive in force."""
        timeout = self.core.settings.connect_timeout
        first, body = await self._next_packet(timeout, f"no CONNECT within {timeout:g} s")
        connect = self._decode_connect(first, body)
        self._note_connect(connect)
        effects = self.effects(Step.CONNECT)
        await self.pause(effects.delay_before)
        if effects.hang_up is When.BEFORE:
            raise HangUpError("fault on request: hang-up before CONNACK")
        if effects.refuse is not None:
            self._refuse(Denied(effects.refuse, f"fault on request: CONNECT refused with {effects.refuse}"))
        terms = self.core.admission.decide(connect, self._judged)
        if isinstance(terms, Denied):
            self._refuse(terms)
        self.client_id, self.window = terms.client_id, terms.window
        self.client_max_packet = connect.properties.maximum_packet_size or MAX_PACKET
        self._cut_at_expiry()
        session, present = self.core.broker.open(connect, terms.client_id, self, terms.expiry)
        self.session = session
        await self.pause(effects.delay_after)
        if effects.hang_up is When.AFTER:
            raise HangUpError("fault on request: hang-up instead of CONNACK")
        if not effects.lose_answer:
            self.core.journal.note(self._number, connack=0, session_present=present)
            self.send(ConnAck(present, Reason.SUCCESS, terms.properties))
            session.resume()
        if effects.hang_up is When.ANSWERED:
            raise HangUpError("fault on request: hang-up after CONNACK")
        return terms.keep_alive

    def _cut_at_expiry(self) -> None:
        settings, not_after = self.core.settings, self.identity.not_after
        if settings.cut_at_expiry and not_after is not None:
            left = max(0.0, not_after - settings.clock())
            loop = asyncio.get_running_loop()
            self._at_expiry = loop.call_later(left, self.hang_up, "the claim expired", Reason.NOT_AUTHORIZED)

    def _decode_connect(self, first: int, body: bytes) -> Connect:
        if codec.is_connect_5(first, body):
            self._version = Version.V5
        try:
            return codec.decode_connect(first, body)
        except MqttError as error:
            if error.reason is Reason.UNSUPPORTED_VERSION:
                # A client of an older version understands only its own CONNACK (section 3.1.2.2).
                self._version = Version.V311
                self.core.journal.note(self._number, connack=1)
                self.send(ConnAck(False, UNACCEPTABLE_VERSION))
            raise

    def _note_connect(self, connect: Connect) -> None:
        self._version, self.client_id = connect.version, connect.client_id
        self.core.journal.packet(self._number, "< CONNECT")
        self.core.journal.note(
            self._number,
            version=int(connect.version),
            client_id=connect.client_id,
            clean_start=connect.clean_start,
            session_expiry=connect.properties.session_expiry,
            keep_alive=connect.keep_alive,
            username=connect.username,
        )

    def _refuse(self, denied: Denied) -> NoReturn:
        """Answer CONNECT with a refusal, or with nothing at all."""
        if denied.code is not None:
            self.core.journal.note(self._number, connack=denied.code)
            self.send(ConnAck(False, denied.code))
        raise HangUpError(denied.why)

    async def _serve(self, requests: Requests, keep_alive: int) -> Disconnect:
        """Handle packets until the client's DISCONNECT."""
        # One and a half times the keep alive: section 3.1.2.10.
        silence = 1.5 * keep_alive
        while True:
            try:
                first, body = await self._next_packet(silence, "")
            except asyncio.TimeoutError:
                raise HangUpError(f"silent for {silence:g} s", Reason.KEEP_ALIVE_TIMEOUT) from None
            self.core.journal.packet(self._number, f"< {codec.kind_of(first).name}")
            packet = codec.decode(first, body, self._version)
            if isinstance(packet, Disconnect):
                self._at_disconnect(packet)
                return packet
            await self._handle(packet, requests)

    async def _handle(self, packet: FromClient, requests: Requests) -> None:
        assert self.session is not None
        if isinstance(packet, Publish):
            requests.publish(packet)
        elif isinstance(packet, PubAck):
            self.session.acknowledged(packet.packet_id)
        elif isinstance(packet, Subscribe):
            await requests.subscribe(packet)
        elif isinstance(packet, Unsubscribe):
            requests.unsubscribe(packet)
        elif isinstance(packet, PingReq):
            self.send(PingResp())

    def _at_disconnect(self, packet: Disconnect) -> None:
        """A client may change its session's expiry at the end, except from 0 (section 3.14.2.2.2)."""
        assert self.session is not None
        expiry = packet.properties.session_expiry
        if expiry is None:
            return
        if expiry and not self.session.expiry:
            raise MqttError(Reason.PROTOCOL_ERROR, "DISCONNECT lengthens a session that was to end")
        self.session.expiry = min(expiry, self.core.settings.max_session_expiry)

    async def pause(self, seconds: float) -> None:
        """Wait for a fault's delay, or for the connection's end."""
        if seconds:
            await asyncio.wait([self._ending], timeout=seconds)
        if self._ending.done():
            raise self._ending.result()

    async def _next_packet(self, timeout: float, late: str) -> tuple[int, bytes]:
        """The next packet; raises HangUpError when the server ends the connection meanwhile."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            if self._ending.done():
                raise self._ending.result()
            packet = self._splitter.next()
            if packet is not None:
                return packet
            left = deadline - asyncio.get_running_loop().time()
            reading = asyncio.ensure_future(self._stream.read())
            try:
                either: list[asyncio.Future[Any]] = [reading, self._ending]
                await asyncio.wait(either, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
                if self._ending.done():
                    raise self._ending.result()
                if not reading.done():
                    raise HangUpError(late) if late else asyncio.TimeoutError
                data = reading.result()
            finally:
                if not reading.done():
                    reading.cancel()
                # Also fetches the error of a read that lost against the connection's end.
                await asyncio.gather(reading, return_exceptions=True)
            if not data:
                raise LostError("the client closed the connection without DISCONNECT")
            self._splitter.feed(data)
