"""MQTT 5 packets to bytes and back, for tests: over either interface that the package mqtt5 has had.

Up to 0.3, which is the last one for Python 3.10, a packet is written into a buffer of the caller's, and a
topic filter is called a subscription.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_package: Any = import_module("mqtt5")
_LARGEST = 1 << 20
_IS_OLD = not hasattr(_package, "TopicFilter")


def encoded(packet: Any) -> bytes:
    if not _IS_OLD:
        return bytes(packet.write())
    buffer = bytearray(_LARGEST)
    return bytes(buffer[: packet.write(buffer)])


def decoded(data: bytes | bytearray) -> tuple[Any, int]:
    """The first packet, and how many bytes it took. Raises IndexError when it is not whole yet."""
    try:
        packet, used = _package.read(bytearray(data) if _IS_OLD else memoryview(bytes(data)))
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # 0.3's way to say it of a large PUBLISH
            raise IndexError("not whole") from None
        raise
    return packet, used


def topic_filter(pattern: str, **more: Any) -> Any:
    """At most QoS 2 unless said otherwise."""
    make = _package.Subscription if _IS_OLD else _package.TopicFilter
    return make(pattern, **{"max_qos": _package.QoS.EXACTLY_ONCE, **more})


def topic_filters(packet: Any) -> list[Any]:
    """Of a SUBSCRIBE."""
    return list(packet.subscriptions if _IS_OLD else packet.topic_filters)
