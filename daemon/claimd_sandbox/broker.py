"""Sessions and messages: who is connected, who subscribed to what, what waits for whom.

Lives in the server's event loop. Invariant: a client id of an account has at most one connection; a
message for a persistent session is kept until the client has acknowledged it or the session ends.
Sections are those of MQTT 5; AWS's differences stand where they are made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Protocol

from claimd_sandbox.identity import Action, Identity, authorize
from claimd_sandbox.packets import Connect, Filter, Properties, Publish, Version, Will
from claimd_sandbox.settings import Clock
from claimd_sandbox.topics import matches

MAX_QUEUED = 1000  # messages of an offline session; AWS keeps them for the session's life


class Link(Protocol):
    """A connection as the broker sees it."""

    @property
    def identity(self) -> Identity: ...
    @property
    def window(self) -> int:
        """How many unacknowledged QoS 1 messages the client takes."""
        ...

    def send(self, packet: Publish) -> None: ...
    def taken_over(self) -> None:
        """Another connection uses the client id: say so, and close."""
        ...


@dataclass(frozen=True)
class Subscription:
    filter: Filter
    effective_at: float  # of the loop's clock


@dataclass
class Session:
    """What the server keeps of a client (section 4.1)."""

    account: str
    client_id: str
    expiry: int  # seconds after the connection's end
    link: Link | None = None
    expires_at: float | None = None  # of the settings' clock, while nobody is connected
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    queue: deque[Publish] = field(default_factory=lambda: deque(maxlen=MAX_QUEUED))
    in_flight: dict[int, Publish] = field(default_factory=dict)
    will: Will | None = None
    will_timer: asyncio.TimerHandle | None = None
    will_identity: Identity | None = None
    last_id: int = 0

    def granted(self, topic: str, now: float) -> int | None:
        """The QoS at which a topic's messages come here, or None."""
        qos = [
            item.filter.qos
            for item in self.subscriptions.values()
            if item.effective_at <= now and matches(item.filter.topic, topic)
        ]
        return max(qos) if qos else None

    def offer(self, message: Publish) -> None:
        """Send a message now, or keep it if it is QoS 1 and the session outlives its connection."""
        if message.qos == 0:
            if self.link is not None:
                self.link.send(message)
        elif self.link is not None and len(self.in_flight) < self.link.window:
            self._send(message)
        else:
            self.queue.append(message)

    def acknowledged(self, packet_id: int) -> None:
        self.in_flight.pop(packet_id, None)
        self._pump()

    def resume(self) -> None:
        """Send again what was not acknowledged, then what has waited (section 4.4)."""
        assert self.link is not None
        for message in list(self.in_flight.values()):
            self.link.send(replace(message, dup=True))
        self._pump()

    def _pump(self) -> None:
        while self.queue and self.link is not None and len(self.in_flight) < self.link.window:
            self._send(self.queue.popleft())

    def _send(self, message: Publish) -> None:
        assert self.link is not None
        self.last_id = self.last_id % 0xFFFF + 1
        while self.last_id in self.in_flight:
            self.last_id = self.last_id % 0xFFFF + 1
        numbered = replace(message, packet_id=self.last_id)
        self.in_flight[self.last_id] = numbered
        self.link.send(numbered)


class Broker:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[tuple[str, str], Session] = {}

    def open(self, connect: Connect, client_id: str, link: Link, expiry: int) -> tuple[Session, bool]:
        """Take over or make the client's session; says whether there was one (section 3.1.4)."""
        key = (link.identity.account, client_id)
        old = self._sessions.get(key)
        if old is not None and old.link is not None:
            taken = old.link
            self.closed(old, taken, orderly=False)
            taken.taken_over()
            old = self._sessions.get(key)
        if old is not None and old.expires_at is not None and old.expires_at <= self._clock():
            self._end(old)
            old = None
        if old is not None and connect.clean_start:
            self._end(old)
            old = None
        session = old or Session(*key, expiry)
        if session.will_timer is not None:
            session.will_timer.cancel()  # the client came back in time (section 3.1.3.2.2)
            session.will_timer = None
        session.link, session.expires_at, session.expiry = link, None, expiry
        session.will, session.will_identity = connect.will, link.identity
        self._sessions[key] = session
        return session, old is not None

    def closed(self, session: Session, link: Link, *, orderly: bool) -> None:
        """A connection has ended: `orderly` means without its will. Does nothing after a takeover."""
        if session.link is not link:
            return
        session.link = None
        if orderly:
            session.will = None
        delay = min((session.will.properties.will_delay or 0) if session.will else 0, session.expiry)
        if delay:
            loop = asyncio.get_running_loop()
            session.will_timer = loop.call_later(delay, self._send_will, session)
        else:
            self._send_will(session)
        if session.expiry:
            session.expires_at = self._clock() + session.expiry
        else:
            self._end(session)

    def publish(self, account: str, message: Publish, sender: Session | None) -> int:
        """Deliver to every subscriber of the account; says to how many."""
        now = asyncio.get_running_loop().time()
        reached = 0
        for session in list(self._sessions.values()):
            if session.account != account:
                continue
            if session.expires_at is not None and session.expires_at <= self._clock():
                self._end(session)
                continue
            granted = session.granted(message.topic, now)
            if granted is None or (session is sender and self._no_local(session, message.topic)):
                continue
            link = session.link
            if link is not None and not authorize(link.identity, Action.RECEIVE, message.topic):
                continue
            session.offer(outgoing(message, min(message.qos, granted)))
            reached += 1
        return reached

    def session(self, account: str, client_id: str) -> Session | None:
        return self._sessions.get((account, client_id))

    @staticmethod
    def _no_local(session: Session, topic: str) -> bool:
        """Whether every subscription that matches asks not to get the client's own messages back."""
        return all(
            item.filter.no_local
            for item in session.subscriptions.values()
            if matches(item.filter.topic, topic)
        )

    def _send_will(self, session: Session) -> None:
        will, identity = session.will, session.will_identity
        session.will = session.will_timer = None
        if will is not None and identity is not None and authorize(identity, Action.PUBLISH, will.topic):
            properties = replace(will.properties, will_delay=None)
            message = Publish(will.topic, will.payload, will.qos, properties=properties)
            self.publish(session.account, message, None)

    def _end(self, session: Session) -> None:
        """Forget a session; a will that still waits is sent first (section 3.1.2.5)."""
        if session.will_timer is not None:
            session.will_timer.cancel()
            self._send_will(session)
        if self._sessions.get((session.account, session.client_id)) is session:
            del self._sessions[session.account, session.client_id]


def outgoing(message: Publish, qos: int) -> Publish:
    """A message as a subscriber gets it: its own QoS and packet id, no alias, not retained."""
    properties: Properties = replace(message.properties, topic_alias=None)
    return Publish(message.topic, message.payload, qos, properties=properties)


def session_expiry(connect: Connect, longest: int) -> int:
    """Seconds that a session outlives its connection; AWS cuts it to its own limit."""
    if connect.version is Version.V311:
        return 0 if connect.clean_start else longest
    return min(connect.properties.session_expiry or 0, longest)
