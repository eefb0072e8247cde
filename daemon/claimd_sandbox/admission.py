"""CONNECT: may this client in, and under which terms.

Invariant: a decision changes nothing but the count of connects a client id; the session is opened by
who asked. Sources: MQTT 5 section 3.1 and 3.2; AWS IoT Core quotas for connections.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from claimd_sandbox.broker import session_expiry
from claimd_sandbox.faults import RateLimit
from claimd_sandbox.identity import Action, Identity, Refused, authorize
from claimd_sandbox.packets import Connect, Properties, Reason, Version, Will
from claimd_sandbox.settings import LegacyRefusal, Refusal, Settings
from claimd_sandbox.topics import valid_name

# "Message size … CONNACK Maximum Packet Size": AWS IoT Core's MQTT 5 features; payload and headers.
MAX_PACKET = 149_504
RETURN_CODE_7 = 7


@dataclass(frozen=True)
class Denied:
    """`code` None: hang up without a CONNACK."""

    code: int | None
    why: str


@dataclass(frozen=True)
class Admitted:
    client_id: str
    keep_alive: int  # seconds, as the server holds the client to
    expiry: int  # of the session, seconds
    window: int  # QoS 1 messages in flight to the client
    properties: Properties  # of the CONNACK


class Admission:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limits: dict[tuple[str, str], RateLimit] = {}

    def decide(self, connect: Connect, identity: Identity | Refused) -> Admitted | Denied:
        settings = self._settings
        if isinstance(identity, Refused):
            if settings.refusal is Refusal.CONNACK:
                return self._denied(connect, identity.why)
            return Denied(None, identity.why)
        problem = self._problem(connect)
        if problem is not None:
            reason, why = problem
            return Denied(_return_code(reason) if connect.version is Version.V311 else reason, why)
        client_id = connect.client_id or f"$GEN/{secrets.token_hex(16)}"
        if not authorize(identity, Action.CONNECT, client_id):
            return self._denied(connect, f"the policy denies iot:Connect for client id {client_id!r}")
        if connect.will is not None and not authorize(identity, Action.PUBLISH, connect.will.topic):
            return self._denied(connect, "the policy denies iot:Publish for the will's topic")
        if not self._in_time(identity.account, client_id):
            code = None if connect.version is Version.V311 else Reason.QUOTA_EXCEEDED
            return Denied(
                code, f"more than {settings.connects_per_second:g} CONNECT a second for {client_id!r}"
            )
        return self._terms(connect, client_id)

    def _denied(self, connect: Connect, why: str) -> Denied:
        """Not authorized, as the version and the settings show it."""
        if connect.version is Version.V5:
            return Denied(Reason.NOT_AUTHORIZED, why)
        return Denied(RETURN_CODE_7 if self._settings.legacy_refusal is LegacyRefusal.CODE_7 else None, why)

    def _problem(self, connect: Connect) -> tuple[Reason, str] | None:
        """What is wrong with a CONNECT, whoever sends it."""
        settings = self._settings
        if connect.properties.authentication_method is not None:
            return Reason.BAD_AUTHENTICATION_METHOD, "enhanced authentication is not supported"
        if len(connect.client_id.encode()) > settings.max_client_id:
            return Reason.CLIENT_ID_NOT_VALID, f"the client id is longer than {settings.max_client_id} bytes"
        if connect.client_id.startswith("$"):
            return Reason.CLIENT_ID_NOT_VALID, "the client id begins with $"
        if not connect.client_id and connect.version is Version.V311 and not connect.clean_start:
            return Reason.CLIENT_ID_NOT_VALID, "the client id is empty, and the session is to be kept"
        return None if connect.will is None else self._will_problem(connect.will)

    def _will_problem(self, will: Will) -> tuple[Reason, str] | None:
        settings = self._settings
        if not valid_name(
            will.topic, max_bytes=settings.max_topic_bytes, max_slashes=settings.max_topic_slashes
        ):
            return Reason.TOPIC_NAME_INVALID, "the will's topic is not valid"
        if will.qos > 1:
            return Reason.QOS_NOT_SUPPORTED, "the will has QoS 2"
        if will.retain:
            return Reason.RETAIN_NOT_SUPPORTED, "the will is to be retained"
        return None

    def _in_time(self, account: str, client_id: str) -> bool:
        rate = self._settings.connects_per_second
        if rate is None:
            return True
        limit = self._limits.setdefault((account, client_id), RateLimit(rate))
        return limit.take(time.monotonic())

    def _terms(self, connect: Connect, client_id: str) -> Admitted:
        settings = self._settings
        expiry = session_expiry(connect, settings.max_session_expiry)
        keep_alive = self._keep_alive(connect.keep_alive)
        asked = connect.properties.session_expiry
        properties = Properties(
            session_expiry=expiry if asked is not None and asked != expiry else None,
            receive_maximum=settings.receive_maximum,
            maximum_qos=1,
            retain_available=0,
            maximum_packet_size=MAX_PACKET,
            assigned_client_id=client_id if not connect.client_id else None,
            topic_alias_maximum=settings.topic_alias_maximum,
            wildcard_available=1,
            subscription_ids_available=0,
            shared_available=0,
            server_keep_alive=keep_alive if keep_alive != connect.keep_alive else None,
        )
        window = min(connect.properties.receive_maximum or settings.receive_maximum, settings.receive_maximum)
        return Admitted(client_id, keep_alive, expiry, window, properties)

    def _keep_alive(self, asked: int) -> int:
        """AWS takes 30 to 1200 s; 0 and more mean 1200, less means 30."""
        if asked == 0 or asked > self._settings.max_keep_alive:
            return self._settings.max_keep_alive
        return max(asked, self._settings.min_keep_alive)


def _return_code(reason: Reason) -> int | None:
    """A problem's MQTT 3.1.1 return code, or None where it has none: then the server hangs up."""
    return 2 if reason is Reason.CLIENT_ID_NOT_VALID else None
