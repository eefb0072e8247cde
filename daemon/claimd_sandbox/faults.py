"""Faults on request: what goes wrong, where, how often.

A fault is written as words, on the command line and in the control call alike:

    KIND step=STEP [key=value…]        reject step=register status=429 times=2

Invariant: a fault with `times` is used exactly that often, whoever asks at the same time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from claimd_sandbox.packets import Reason


class Step(str, Enum):
    """Where a fault can strike."""

    ACCEPT = "accept"  # the TCP connection is there, TLS has not begun
    TLS = "tls"  # TLS is complete
    CONNECT = "connect"
    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"  # an ordinary PUBLISH, not a request of the provisioning API
    CREATE_KEYS = "create-keys"
    CREATE_CSR = "create-csr"
    REGISTER = "register"
    CLAIM = "claim"  # CreateProvisioningClaim, over HTTP


class FaultKind(str, Enum):
    REFUSE = "refuse"  # CONNACK with code=
    HANG_UP = "hang-up"  # close the connection; when= says at what point
    REJECT = "reject"  # answer with status= (or code= for SUBACK and PUBACK) and do not act
    DELAY = "delay"  # wait ms= before acting, or with when=after before answering
    ANSWER_TWICE = "answer-twice"
    LOSE_ANSWER = "lose-answer"  # act, and do not answer
    THROTTLE = "throttle"  # more than rate= a second are rejected (or refused)
    LATE_SUBSCRIBE = "late-subscribe"  # SUBACK at once, effective after ms=


class When(str, Enum):
    BEFORE = "before"  # the request came in and was not acted on
    AFTER = "after"  # it was acted on and not answered
    ANSWERED = "answered"  # the answer was sent


class Who(str, Enum):
    """Whose connections a fault strikes."""

    ANY = "any"
    CLAIM = "claim"
    PERMANENT = "permanent"


_OPERATIONS = frozenset({Step.CREATE_KEYS, Step.CREATE_CSR, Step.REGISTER})
_STEPS: dict[FaultKind, frozenset[Step]] = {
    FaultKind.REFUSE: frozenset({Step.CONNECT}),
    FaultKind.HANG_UP: frozenset(Step) - {Step.CLAIM},
    FaultKind.REJECT: _OPERATIONS | {Step.SUBSCRIBE, Step.PUBLISH, Step.CLAIM},
    FaultKind.DELAY: frozenset(Step),
    FaultKind.ANSWER_TWICE: _OPERATIONS,
    FaultKind.LOSE_ANSWER: _OPERATIONS | {Step.CONNECT, Step.SUBSCRIBE, Step.PUBLISH},
    FaultKind.THROTTLE: _OPERATIONS | {Step.CONNECT, Step.CLAIM},
    FaultKind.LATE_SUBSCRIBE: frozenset({Step.SUBSCRIBE}),
}
# Error codes as they are seen in /rejected; AWS's set is open.
_ERROR_CODES = {
    400: "InvalidParameters",
    401: "UNAUTHORIZED",
    403: "ACCESS_DENIED",
    404: "RESOURCE_NOT_FOUND",
    429: "THROTTLED",
    500: "INTERNAL_FAILURE",
    503: "SERVICE_UNAVAILABLE",
}


class FaultError(ValueError):
    """The words describe no fault."""


@dataclass(frozen=True)
class Fault:
    """One fault; fields that its kind does not use keep their defaults."""

    kind: FaultKind
    step: Step
    when: When = When.BEFORE
    who: Who = Who.ANY
    client_id: str | None = None
    times: int | None = None  # None: until cleared
    ms: int = 0
    rate: float = 1.0  # a second
    status: int = 500
    error: str | None = None
    message: str = "fault on request"
    code: int = Reason.NOT_AUTHORIZED

    @property
    def error_code(self) -> str:
        return self.error or _ERROR_CODES.get(self.status, "FAILURE")

    @classmethod
    def parse(cls, words: str) -> Fault:
        """Read `KIND step=STEP [key=value…]`; a message's spaces are written as `_`."""
        kind_word, _, rest = words.strip().partition(" ")
        values: dict[str, Any] = {}
        for word in rest.split():
            key, equals, value = word.partition("=")
            if not equals or key not in _PARSERS or key in values:
                raise FaultError(f"cannot read the fault: {word!r} is no key=value of {', '.join(_PARSERS)}")
            try:
                values[key] = _PARSERS[key](value)
            except ValueError as error:
                raise FaultError(
                    f"cannot read the fault: {word!r} has no valid value{_known(key)}"
                ) from error
        try:
            kind = FaultKind(kind_word)
        except ValueError as error:
            known = ", ".join(item.value for item in FaultKind)
            raise FaultError(f"cannot read the fault: {kind_word!r} is none of {known}") from error
        if kind is FaultKind.REFUSE:
            values.setdefault("step", Step.CONNECT)
        elif kind is FaultKind.LATE_SUBSCRIBE:
            values.setdefault("step", Step.SUBSCRIBE)
        if values.get("step") not in _STEPS[kind]:
            known = ", ".join(step.value for step in Step if step in _STEPS[kind])
            raise FaultError(f"cannot read the fault: {kind.value!r} needs step= one of {known}")
        return cls(kind=kind, **values)


def _known(key: str) -> str:
    """The values that a key of a closed set may have."""
    parser = _PARSERS[key]
    if isinstance(parser, type) and issubclass(parser, Enum):
        return f"; {key}= is one of {', '.join(item.value for item in parser)}"
    return ""


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _number(text: str) -> int:
    value = int(text, 0)
    if value < 0:
        raise ValueError
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError
    return value


_PARSERS: dict[str, Callable[[str], Any]] = {
    "step": Step,
    "when": When,
    "who": Who,
    "client_id": str,
    "times": _count,
    "ms": _number,
    "rate": _rate,
    "status": _number,
    "error": str,
    "message": lambda text: text.replace("_", " "),
    "code": _number,
}


@dataclass(frozen=True)
class Effects:
    """All faults that strike one step of one connection, put together."""

    refuse: int | None = None
    hang_up: When | None = None
    reject: Fault | None = None
    delay_before: float = 0.0  # seconds
    delay_after: float = 0.0
    twice: bool = False
    lose_answer: bool = False
    late: float = 0.0


class RateLimit:
    """At most `rate` in any second (a sliding window); a rate below 1 stretches the window."""

    def __init__(self, rate: float) -> None:
        self._most = max(1, int(rate))
        self._window = self._most / rate
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        while self._taken and self._taken[0] <= now - self._window:
            self._taken.popleft()
        if len(self._taken) >= self._most:
            return False
        self._taken.append(now)
        return True


@dataclass
class _Active:
    fault: Fault
    left: int | None
    used: int = 0
    limit: RateLimit | None = field(default=None)


class Faults:
    """The faults in force."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: dict[int, _Active] = {}
        self._next = 1

    def set(self, fault: Fault | str) -> int:
        """Put a fault in force; gives its number."""
        made = Fault.parse(fault) if isinstance(fault, str) else fault
        limit = RateLimit(made.rate) if made.kind is FaultKind.THROTTLE else None
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._active[number] = _Active(made, made.times, limit=limit)
        return number

    def clear(self, number: int | None = None) -> int:
        """Take one fault, or all, out of force; says how many there were."""
        with self._lock:
            if number is not None:
                return 0 if self._active.pop(number, None) is None else 1
            count = len(self._active)
            self._active.clear()
            return count

    def used(self, number: int) -> int:
        """How often a fault in force has struck; a used-up fault stays listed."""
        with self._lock:
            return self._active[number].used

    def to_json(self) -> list[dict[str, Any]]:
        with self._lock:
            return [
                {"number": number, "used": item.used, "left": item.left, **asdict(item.fault)}
                for number, item in self._active.items()
            ]

    def at(self, step: Step, who: Who, client_id: str | None = None) -> Effects:
        """What strikes now; counts each fault as used."""
        struck: list[Fault] = []
        with self._lock:
            for item in self._active.values():
                fault = item.fault
                if fault.step is not step or item.left == 0 or fault.who not in (Who.ANY, who):
                    continue
                if fault.client_id is not None and fault.client_id != client_id:
                    continue
                if item.limit is not None and item.limit.take(time.monotonic()):
                    continue
                item.used += 1
                item.left = None if item.left is None else item.left - 1
                struck.append(fault)
        return _together(struck)


def _together(struck: list[Fault]) -> Effects:
    effects: dict[str, Any] = {"delay_before": 0.0, "delay_after": 0.0}
    for fault in struck:
        if fault.kind is FaultKind.REFUSE:
            effects["refuse"] = fault.code
        elif fault.kind is FaultKind.HANG_UP:
            effects["hang_up"] = fault.when
        elif fault.kind is FaultKind.REJECT:
            effects["reject"] = fault
        elif fault.kind is FaultKind.DELAY:
            effects["delay_before" if fault.when is When.BEFORE else "delay_after"] += fault.ms / 1000
        elif fault.kind is FaultKind.ANSWER_TWICE:
            effects["twice"] = True
        elif fault.kind is FaultKind.LOSE_ANSWER:
            effects["lose_answer"] = True
        elif fault.kind is FaultKind.LATE_SUBSCRIBE:
            effects["late"] = fault.ms / 1000
        elif fault.step is Step.CONNECT:
            effects["refuse"] = Reason.QUOTA_EXCEEDED
        else:
            effects["reject"] = THROTTLED
    return Effects(**effects)


THROTTLED = Fault(FaultKind.REJECT, Step.REGISTER, status=429, message="Rate exceeded")
