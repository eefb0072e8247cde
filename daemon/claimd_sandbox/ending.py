"""The two ways in which a connection ends other than by the client's DISCONNECT or a protocol error."""

from __future__ import annotations

from claimd_sandbox.packets import Reason


class LostError(Exception):
    """The connection broke, or the client just left."""


class HangUpError(Exception):
    """The server ends the connection; `reason` is for MQTT 5's DISCONNECT, None for none."""

    def __init__(self, why: str, reason: Reason | None = None) -> None:
        super().__init__(why)
        self.reason = reason
