"""MQTT 5 over TLS with awscrt: one connection, used once, never reconnected by itself.

Invariant: after the first failure or disconnection a link only fails. The CRT's reconnecting
is kept from ever happening: its offline queue would send an unanswered CreateKeys again and
mint a certificate each time.

Built on awscrt directly. awsiotsdk's builder has no way to raise the minimum TLS version
(the CRT's default is 1.0), and its IotIdentityClientV2 subscribes once an operation and
waits each time: eight round trips where six are enough.

No exception text here holds a payload: the SDK's own reprs print keys and tokens.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from awscrt import io, mqtt5

from . import preflight
from .endpoint import ALPN_PORT, ALPN_PROTOCOL
from .errors import Problem
from .fleet import MAX_PAYLOAD_BYTES, Credentials, LinkError, Topics, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from awscrt import http

    from .model import Secret
    from .proxy import Proxy

KEEP_ALIVE_SECONDS = 30  # the service's minimum; a pass is over sooner
# A blackholed address must not eat a five-minute claim.
TCP_CONNECT_MILLISECONDS = 4000
# Longer than any pass: the CRT can't be told not to reconnect, only when.
NEVER_MILLISECONDS = 3_600_000
STOP_SECONDS = 0.5
# As a guest in somebody's session: the longest that AWS keeps one (AWS IoT Core quotas, "Persistent session
# expiry period"), for a shorter one would end it earlier than its owner asked for.
LONGEST_SESSION_SECONDS = 7 * 86400
_SESSION_OF_ANOTHER = mqtt5.ClientSessionBehaviorType.REJOIN_ALWAYS
# How long an answer in flight is waited for after SIGTERM: within the 2 s that a stop may take.
STOP_PATIENCE_SECONDS = 1.4
LOOK_SECONDS = 0.1

_UNREACHABLE_ERRORS = frozenset(
    {
        "AWS_IO_DNS_QUERY_FAILED",
        "AWS_IO_DNS_INVALID_NAME",
        "AWS_IO_DNS_NO_ADDRESS_FOR_HOST",
        "AWS_IO_SOCKET_CONNECTION_REFUSED",
        "AWS_IO_SOCKET_TIMEOUT",
        "AWS_IO_SOCKET_NO_ROUTE_TO_HOST",
        "AWS_IO_SOCKET_NETWORK_DOWN",
        "AWS_IO_SOCKET_CONNECT_ABORTED",
        "AWS_IO_TLS_NEGOTIATION_TIMEOUT",
    }
)
# The CRT speaks HTTP with a proxy alone.
_PROXY_ERRORS = "AWS_ERROR_HTTP_"
_CONNACK_TIMEOUT = "AWS_ERROR_MQTT5_CONNACK_TIMEOUT"


class CrtTransport:
    """Opens links through one event-loop thread, made with the first link and kept for the pass."""

    def __init__(
        self, connect_seconds: float, stopping: Callable[[], bool], proxy: Proxy | None = None
    ) -> None:
        self._connect_seconds = connect_seconds
        self._stopping = stopping
        self._proxy = proxy
        self._bootstrap: io.ClientBootstrap | None = None

    def open(
        self, host: str, port: int, client_id: str, credentials: Credentials, *, as_guest: bool = False
    ) -> CrtLink:
        if self._bootstrap is None:
            group = io.EventLoopGroup(1)
            self._bootstrap = io.ClientBootstrap(group, io.DefaultHostResolver(group))
        return CrtLink(
            self._bootstrap,
            host,
            port,
            client_id,
            credentials,
            self._connect_seconds,
            self._stopping,
            as_guest=as_guest,
            proxy=self._proxy,
        )

    def check(self, credentials: Credentials) -> None:
        _tls_context(credentials, ALPN_PORT)

    def diagnose(self, host: str, port: int, roots: bytes) -> Problem | None:
        alpn = ALPN_PROTOCOL if port == ALPN_PORT else None
        came, found = preflight.trouble_unless(
            self._stopping, lambda: preflight.diagnose(host, port, roots, alpn, self._proxy), LOOK_SECONDS
        )
        if not came:
            raise LinkError(Trouble.STOPPED, "told to stop")
        return found


class CrtLink:
    """See `fleet.Link`. Callbacks come on the CRT's thread; they only record and wake."""

    def __init__(
        self,
        bootstrap: io.ClientBootstrap,
        host: str,
        port: int,
        client_id: str,
        credentials: Credentials,
        connect_seconds: float,
        stopping: Callable[[], bool],
        *,
        as_guest: bool = False,
        proxy: Proxy | None = None,
    ) -> None:
        self._stopping = stopping
        self._as_guest = as_guest
        self._session_present = False
        self._changed = threading.Condition()
        self._connected = False
        self._stopped = False
        self._failure: LinkError | None = None
        self._awaited: frozenset[str] = frozenset()
        self._answers: dict[str, bytes] = {}
        options = mqtt5.ClientOptions(
            host_name=host,
            port=port,
            bootstrap=bootstrap,
            socket_options=_socket_options(),
            tls_ctx=_tls_context(credentials, port),
            http_proxy_options=None if proxy is None else _proxy_options(proxy),
            connect_options=mqtt5.ConnectPacket(
                client_id=client_id,
                keep_alive_interval_sec=KEEP_ALIVE_SECONDS,
                session_expiry_interval_sec=LONGEST_SESSION_SECONDS if as_guest else None,
                receive_maximum=1 if as_guest else None,
                # No maximum_packet_size: the CRT does not hold a server to it (awscrt 0.36.1, measured), and
                # an honest server would drop somebody's longer messages. The unit's MemoryMax is the bound.
            ),
            session_behavior=_SESSION_OF_ANOTHER if as_guest else mqtt5.ClientSessionBehaviorType.CLEAN,
            offline_queue_behavior=mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT,
            min_reconnect_delay_ms=NEVER_MILLISECONDS,
            max_reconnect_delay_ms=NEVER_MILLISECONDS,
            retry_jitter_mode=mqtt5.ExponentialBackoffJitterMode.NONE,
            connack_timeout_ms=int(connect_seconds * 1000),
            on_publish_callback_fn=self._on_publish,
            on_lifecycle_event_connection_success_fn=self._on_connected,
            on_lifecycle_event_connection_failure_fn=self._on_connect_failed,
            on_lifecycle_event_disconnection_fn=self._on_disconnected,
            on_lifecycle_event_stopped_fn=self._on_stopped,
            # The user name is no place for the SDK's own metrics.
            disable_metrics=True,
        )
        self._client = mqtt5.Client(options)
        self._client.start()

    def wait_connected(self, seconds: float) -> bool:
        with self._changed:
            self._wait(lambda: self._connected, seconds, patience=0.0)
            # CONNACK said yes; that somebody took the client id over since (0x8E) takes nothing from that.
            if not self._connected:
                self._raise_failure()
            return self._connected

    def subscribe(self, topics: tuple[str, ...], seconds: float) -> None:
        # QoS 0 for the answers: a lost one shows as a lost connection, TCP knows nothing in between.
        subscriptions = [mqtt5.Subscription(topic_filter=t, qos=mqtt5.QoS.AT_MOST_ONCE) for t in topics]
        with self._changed:
            self._awaited = frozenset(topics)
        acknowledged = self._client.subscribe(mqtt5.SubscribePacket(subscriptions=subscriptions))
        codes = [int(c) for c in self._result(acknowledged, seconds, Trouble.SUBSCRIBE_REFUSED).reason_codes]
        if len(codes) != len(topics):
            detail = f"SUBACK has {len(codes)} reason codes for {len(topics)} topics"
            raise LinkError(Trouble.SUBSCRIBE_REFUSED, detail)
        refused = [topic for topic, code in zip(topics, codes, strict=True) if code >= 0x80]
        if refused:
            raise LinkError(Trouble.SUBSCRIBE_REFUSED, refused[-1], code=max(codes))

    def request(self, topics: Topics, payload: Secret, seconds: float) -> tuple[bool, bytes]:
        packet = mqtt5.PublishPacket(
            topic=topics.request, payload=payload.reveal(), qos=mqtt5.QoS.AT_LEAST_ONCE
        )
        published = self._client.publish(packet)
        # A refused PUBLISH is known from its PUBACK; the answer may come before or after that.
        published.add_done_callback(self._on_published)

        def answered() -> bool:
            return topics.accepted in self._answers or topics.rejected in self._answers

        with self._changed:
            self._wait(answered, seconds, patience=STOP_PATIENCE_SECONDS)
            # An answer that arrived counts, even when the connection broke right after it.
            if topics.accepted in self._answers:
                return True, self._answers.pop(topics.accepted)
            if topics.rejected in self._answers:
                return False, self._answers.pop(topics.rejected)
            self._raise_failure()
        raise LinkError(Trouble.NO_ANSWER, f"no answer within {seconds:g} s")

    def close(self) -> None:
        # Without a packet the CRT just hangs up, and the server would publish a will.
        packet = mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION)
        if self._as_guest and not self._session_present:
            # Nobody had a session: the one that this connection began must not look like somebody's.
            packet.session_expiry_interval_sec = 0
        self._client.stop(packet)
        with self._changed:
            # Before CONNACK there is nothing to say goodbye to; a TLS handshake that failed ends late.
            if self._connected:
                self._changed.wait_for(lambda: self._stopped, STOP_SECONDS)

    def _result(self, future: Any, seconds: float, refused: Trouble) -> Any:
        future.add_done_callback(self._on_done)
        with self._changed:
            # Nothing is lost with it, so a stop need not wait for it.
            self._wait(future.done, seconds, patience=0.0)
            if not future.done():
                self._raise_failure()
                raise LinkError(Trouble.NO_ANSWER, f"no acknowledgement within {seconds:g} s")
            error = future.exception()
            if error is None:
                return future.result()
            # The future may fail a moment before the lifecycle event that says why.
            self._changed.wait_for(lambda: self._failure is not None, STOP_SECONDS)
            self._raise_failure()
        raise LinkError(refused, _name(error))

    def _wait(self, done: Callable[[], bool], seconds: float, patience: float) -> None:
        """Until `done`, a failure, `seconds`, or `patience` after we were told to stop. Holds _changed.

        A signal handler can't wake a condition safely, so the flag is looked at every LOOK_SECONDS.
        """
        deadline = time.monotonic() + seconds
        told_to_stop = False
        while not done() and self._failure is None:
            if self._stopping() and not told_to_stop:
                told_to_stop = True
                deadline = min(deadline, time.monotonic() + patience)
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(min(left, LOOK_SECONDS))
        if told_to_stop and not done():
            raise LinkError(Trouble.STOPPED, "told to stop")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, failure: LinkError) -> None:
        with self._changed:
            if self._failure is None:
                self._failure = failure
            self._changed.notify_all()

    # -- callbacks, on the CRT's thread

    def _on_publish(self, data: mqtt5.PublishReceivedData) -> None:
        if self._as_guest:
            # Meant for the one whose session this is. Held back for good, so it comes to him again.
            if data.acquire_publish_acknowledgement_control is not None:
                data.acquire_publish_acknowledgement_control()
            return
        packet = data.publish_packet
        topic = str(packet.topic)
        with self._changed:
            # The first answer counts; QoS 1 semantics allow a second copy. What nobody subscribed to is not
            # kept: a server may invent topics without end.
            if topic in self._awaited and topic not in self._answers:
                self._answers[topic] = bytes(packet.payload or b"")[: MAX_PAYLOAD_BYTES + 1]
                self._changed.notify_all()

    def _on_done(self, future: Any) -> None:
        with self._changed:
            self._changed.notify_all()

    def _on_published(self, future: Any) -> None:
        error = future.exception()
        if error is not None:
            return  # the lifecycle event says more
        puback = future.result().puback
        if puback is not None and int(puback.reason_code) >= 0x80:
            code = int(puback.reason_code)
            self._fail(LinkError(Trouble.PUBLISH_REFUSED, f"PUBACK {code:#04x}", code=code))

    def _on_connected(self, data: mqtt5.LifecycleConnectSuccessData) -> None:
        with self._changed:
            self._connected = True
            self._session_present = bool(data.connack_packet and data.connack_packet.session_present)
            self._changed.notify_all()

    def _on_connect_failed(self, data: mqtt5.LifecycleConnectFailureData) -> None:
        self._fail(_connect_failure(data))

    def _on_disconnected(self, data: mqtt5.LifecycleDisconnectData) -> None:
        packet = data.disconnect_packet
        if packet is None:
            self._fail(LinkError(Trouble.LOST, _name(data.exception)))
            return
        code = int(packet.reason_code)
        taken = code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
        trouble = Trouble.TAKEN_OVER if taken else Trouble.LOST
        self._fail(LinkError(trouble, f"DISCONNECT {code:#04x}{_reason(packet)}", code=code))

    def _on_stopped(self, data: mqtt5.LifecycleStoppedData) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


def _connect_failure(data: mqtt5.LifecycleConnectFailureData) -> LinkError:
    packet = data.connack_packet
    if packet is not None and packet.reason_code:
        code = int(packet.reason_code)
        return LinkError(Trouble.REFUSED, f"CONNACK {code:#04x}{_reason(packet)}", code=code)
    name = _name(data.exception)
    if name in _UNREACHABLE_ERRORS or name.startswith(_PROXY_ERRORS):
        return LinkError(Trouble.UNREACHABLE, name)
    if name == _CONNACK_TIMEOUT:
        return LinkError(Trouble.NO_ANSWER, name)
    return LinkError(Trouble.REFUSED, name)


def _name(error: object) -> str:
    """The CRT's name of an error: a constant, never an outside text."""
    return str(getattr(error, "name", None) or type(error).__name__)


def _reason(packet: Any) -> str:
    text = packet.reason_string
    return f" ({text})" if text else ""


def _socket_options() -> io.SocketOptions:
    options = io.SocketOptions()
    options.connect_timeout_ms = TCP_CONNECT_MILLISECONDS
    return options


def _proxy_options(proxy: Proxy) -> http.HttpProxyOptions:
    """The CRT keeps the password as long as its client; this process ends with the pass."""
    from awscrt import http  # only behind a proxy

    password = None if proxy.password is None else proxy.password.reveal().decode()
    basic = http.HttpProxyAuthenticationType.Basic if proxy.username else None
    return http.HttpProxyOptions(
        proxy.host,
        proxy.port,
        auth_type=basic or http.HttpProxyAuthenticationType.Nothing,
        auth_username=proxy.username or None,
        auth_password=password or ("" if proxy.username else None),
        connection_type=http.HttpProxyConnectionType.Tunneling,
    )


def _tls_context(credentials: Credentials, port: int) -> io.ClientTlsContext:
    if not credentials.roots:
        # An empty override silently means the system's trust store.
        raise ValueError("no root certificates")
    options = io.TlsContextOptions.create_client_with_mtls(
        credentials.certificate.encode("ascii"), credentials.key.reveal()
    )
    options.override_default_trust_store(credentials.roots)
    options.min_tls_ver = io.TlsVersion.TLSv1_2
    if port == ALPN_PORT:
        options.alpn_list = [ALPN_PROTOCOL]
    try:
        return io.ClientTlsContext(options)
    except RuntimeError:
        # Key, certificate or roots: the CRT says no more than that it failed.
        raise LinkError(Trouble.UNUSABLE, "the TLS library can't use certificate and key") from None
