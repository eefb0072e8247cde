"""What a connected client asks for: SUBSCRIBE, UNSUBSCRIBE, PUBLISH, and the provisioning requests in it.

Invariant: a request of the provisioning API is answered to the connection that made it, and to no
other subscriber.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from claimd_sandbox.broker import Subscription
from claimd_sandbox.ending import HangUpError
from claimd_sandbox.faults import Effects, Step, When
from claimd_sandbox.identity import Action, authorize
from claimd_sandbox.journal import OperationRecord
from claimd_sandbox.packets import (
    Filter,
    MqttError,
    PubAck,
    Publish,
    Reason,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    Version,
)
from claimd_sandbox.provisioning import Answer, rejected_by
from claimd_sandbox.settings import LegacyRefusal
from claimd_sandbox.topics import ProvisioningTopic, provisioning_topic, valid_filter, valid_name

log = logging.getLogger("claimd_sandbox")

if TYPE_CHECKING:
    from claimd_sandbox.connection import Connection


class Requests:
    """Handles the requests of one connection, and owns the tasks that answer late.

    A request that came in is carried out, also when its client is gone by then.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._settings = connection.core.settings
        self._aliases: dict[int, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # SUBSCRIBE and UNSUBSCRIBE

    async def subscribe(self, packet: Subscribe) -> None:
        connection = self._connection
        if packet.properties.subscription_id is not None:
            raise MqttError(Reason.SUBSCRIPTION_IDS_NOT_SUPPORTED, "there are no subscription identifiers")
        effects = connection.effects(Step.SUBSCRIBE)
        await connection.pause(effects.delay_before)
        self._hang_up_at(effects, When.BEFORE, "SUBSCRIBE")
        codes = tuple(self._subscribe_one(packet, item, effects) for item in packet.filters)
        if connection.version is Version.V311 and any(code >= Reason.UNSPECIFIED for code in codes):
            # AWS closes an MQTT 3.1.1 connection that subscribes to what it may not.
            connection.hang_up("a subscription was denied")
            return
        await connection.pause(effects.delay_after)
        self._hang_up_at(effects, When.AFTER, "SUBSCRIBE")
        if not effects.lose_answer:
            connection.send(SubAck(packet.packet_id, codes))
        self._hang_up_at(effects, When.ANSWERED, "SUBSCRIBE")

    def _subscribe_one(self, packet: Subscribe, item: Filter, effects: Effects) -> int:
        """Subscribe to one filter; gives its SUBACK code."""
        session, settings = self._connection.session, self._settings
        assert session is not None
        if effects.reject is not None:
            return effects.reject.code
        if item.topic.startswith("$share/"):
            return Reason.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        if not valid_filter(
            item.topic, max_bytes=settings.max_topic_bytes, max_slashes=settings.max_topic_slashes
        ):
            return Reason.TOPIC_FILTER_INVALID
        if not authorize(self._connection.identity, Action.SUBSCRIBE, item.topic):
            return Reason.NOT_AUTHORIZED
        more = item.topic not in session.subscriptions
        if len(packet.filters) > settings.max_topics or (
            more and len(session.subscriptions) >= settings.max_subscriptions
        ):
            return Reason.QUOTA_EXCEEDED
        granted = Filter(item.topic, min(item.qos, 1), item.no_local)
        effective = asyncio.get_running_loop().time() + effects.late
        session.subscriptions[item.topic] = Subscription(granted, effective)
        return granted.qos

    def unsubscribe(self, packet: Unsubscribe) -> None:
        session = self._connection.session
        assert session is not None
        codes = tuple(
            Reason.SUCCESS
            if session.subscriptions.pop(topic, None) is not None
            else Reason.NO_SUBSCRIPTION_EXISTED
            for topic in packet.topics
        )
        self._connection.send(UnsubAck(packet.packet_id, codes))

    # PUBLISH

    def publish(self, packet: Publish) -> None:
        """Check a PUBLISH and start on it; what takes time runs in a task of its own."""
        message = self._resolved(packet)
        if message.qos > 1:
            raise MqttError(Reason.QOS_NOT_SUPPORTED, "QoS 2 is not supported")
        if message.retain and self._connection.version is Version.V5:
            raise MqttError(Reason.RETAIN_NOT_SUPPORTED, "retained messages are not supported")
        if len(message.payload) > self._settings.max_payload:
            raise MqttError(
                Reason.PACKET_TOO_LARGE, f"a payload of {len(message.payload)} bytes is too large"
            )
        if not valid_name(
            message.topic,
            max_bytes=self._settings.max_topic_bytes,
            max_slashes=self._settings.max_topic_slashes,
        ):
            raise MqttError(Reason.TOPIC_NAME_INVALID, "the topic of a PUBLISH is not valid")
        if not authorize(self._connection.identity, Action.PUBLISH, message.topic):
            self._deny(message)
            return
        topic = provisioning_topic(message.topic)
        work = self._deliver(message) if topic is None else self._operate(message, topic)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("connection %d: the sandbox failed", self._connection.number, exc_info=task.exception())
            self._connection.hang_up("the sandbox failed", Reason.UNSPECIFIED)

    def _resolved(self, packet: Publish) -> Publish:
        """The packet with its topic alias replaced (MQTT 5 section 3.3.2.3.4)."""
        alias = packet.properties.topic_alias
        if alias is None:
            return packet
        if not 1 <= alias <= self._settings.topic_alias_maximum:
            raise MqttError(Reason.TOPIC_ALIAS_INVALID, f"topic alias {alias} is out of range")
        if packet.topic:
            self._aliases[alias] = packet.topic
            return packet
        if alias not in self._aliases:
            raise MqttError(Reason.PROTOCOL_ERROR, f"topic alias {alias} is not known")
        return replace(packet, topic=self._aliases[alias])

    def _deny(self, message: Publish) -> None:
        connection = self._connection
        if connection.version is Version.V5 and message.qos:
            self._acknowledge(message, Reason.NOT_AUTHORIZED)
        elif connection.version is Version.V5:
            raise MqttError(Reason.NOT_AUTHORIZED, f"may not publish to {message.topic!r}")
        elif self._settings.legacy_refusal is LegacyRefusal.SILENCE:
            self._acknowledge(message, Reason.SUCCESS)
        else:
            connection.hang_up(f"may not publish to {message.topic!r}")

    def _acknowledge(self, message: Publish, reason: int) -> None:
        if message.packet_id is not None:
            self._connection.send(PubAck(message.packet_id, reason))

    async def _deliver(self, message: Publish) -> None:
        """An ordinary message, to whoever subscribed."""
        connection = self._connection
        effects = connection.effects(Step.PUBLISH)
        await asyncio.sleep(effects.delay_before)
        if self._hung_up(effects, When.BEFORE, "PUBLISH"):
            return
        if effects.reject is not None:
            self._acknowledge(message, effects.reject.code)
            return
        if not message.topic.startswith("$"):
            # Nobody answers on the topics of the shadow service here.
            connection.core.broker.publish(connection.identity.account, message, connection.session)
        await asyncio.sleep(effects.delay_after)
        if self._hung_up(effects, When.AFTER, "PUBLISH"):
            return
        if not effects.lose_answer:
            self._acknowledge(message, Reason.SUCCESS)
        self._hung_up(effects, When.ANSWERED, "PUBLISH")

    async def _operate(self, message: Publish, topic: ProvisioningTopic) -> None:
        """A request of the provisioning API: acknowledge, act, answer to the requester."""
        connection = self._connection
        step = Step(topic.operation.value)
        effects = connection.effects(step)
        if self._hung_up(effects, When.BEFORE, step.value):
            return
        self._acknowledge(message, Reason.SUCCESS)
        await asyncio.sleep(effects.delay_before)
        account = connection.identity.account
        if effects.reject is not None:
            answer = rejected_by(effects.reject)
        else:
            provisioning = connection.core.provisioning
            answer = await asyncio.get_running_loop().run_in_executor(
                None, provisioning.serve, account, topic, message.payload
            )
        await asyncio.sleep(effects.delay_after)
        answer_topic = f"{message.topic}/{answer.outcome}"
        granted = self._granted(answer_topic)
        if effects.lose_answer or effects.hang_up is When.AFTER:
            granted = None
        # Who has the answer can rely on the record.
        self._record(topic, answer, delivered=granted is not None)
        for _ in range(0 if granted is None else 1 + effects.twice):
            assert connection.session is not None
            connection.session.offer(Publish(answer_topic, answer.payload, granted or 0))
        self._hung_up(effects, effects.hang_up, step.value)

    def _granted(self, topic: str) -> int | None:
        """The QoS at which the requester has subscribed to a topic, if it is still connected."""
        session = self._connection.session
        if session is None or session.link is not self._connection:
            return None
        return session.granted(topic, asyncio.get_running_loop().time())

    def _record(self, topic: ProvisioningTopic, answer: Answer, *, delivered: bool) -> None:
        self._connection.core.journal.operation(
            OperationRecord(
                at=self._settings.clock(),
                connection=self._connection.number,
                operation=topic.operation.value,
                template=topic.template,
                status=answer.status,
                error=answer.error,
                certificate_id=answer.certificate_id,
                thing=answer.thing,
                delivered=delivered,
            )
        )

    def _hung_up(self, effects: Effects, when: When | None, step: str) -> bool:
        if when is None or effects.hang_up is not when:
            return False
        self._connection.hang_up(f"fault on request: hang-up at {step} ({when.value})")
        return True

    @staticmethod
    def _hang_up_at(effects: Effects, when: When, step: str) -> None:
        """As `_hung_up`, for a caller inside the connection's own task."""
        if effects.hang_up is when:
            raise HangUpError(f"fault on request: hang-up at {step} ({when.value})")
