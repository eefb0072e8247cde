"""Connecting and asking: what a connection's troubles mean for a person.

The transport says that a connection failed; a look at the endpoint without credentials says
whether the way is broken or only we are unwelcome. Invariant: a claim is called refused only
when the endpoint was reached and trusted a moment later.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from . import endpoint, fleet
from .errors import ClaimdError, Code, Problem, fail, problem
from .fleet import Credentials, Exchange, Link, LinkError, Trouble
from .model import short, spoken

if TYPE_CHECKING:
    from .fleet import IssuedKeys, Topics, Transport
    from .model import Claim, Secret, Target

# A stdlib TLS look at the endpoint starts when the SDK has not connected by then: it names in
# milliseconds what the SDK keeps to itself for 10 to 28 s. With a wrong server a person knows within 2 s,
# the start of Python included; with a right one that is far away it costs a second TLS handshake.
DIAGNOSE_AFTER_SECONDS = 0.5
# The SDK races one IPv4 and one IPv6 address of a name, and takes the next ones when it is asked again in
# the same process (measured with awscrt 0.36.1). So a name with some dead addresses costs 4 s for each
# of these tries at most, and not the pass: the next pass would begin with the same address.
ADDRESSES_TRIED = 3
# The next port is tried only when this one leads nowhere.
PORT_TROUBLES = frozenset(
    # Many a proxy lets nobody through but to 443.
    {Code.CONNECTION_REFUSED, Code.ENDPOINT_UNREACHABLE, Code.TLS_NO_ANSWER, Code.PROXY_REFUSED}
)

# CONNACK reason codes of MQTT 5, section 3.2.2.2: bad user name or password, not authorized, banned.
_UNWELCOME = frozenset({0x86, 0x87, 0x8A})
# The same: server unavailable, server busy, quota exceeded, connection rate exceeded.
_BUSY = frozenset({0x88, 0x89, 0x97, 0x9F})


class InterruptedPassError(Exception):
    """Told to stop: nothing new is sent."""


class CredentialsRefusedError(Exception):
    """The endpoint is there and trusted, and does not want these credentials."""

    def __init__(self, detail: str, *, unwelcome: bool, busy: bool = False, unusable: bool = False) -> None:
        """`unwelcome`: it does not know them or grants them nothing; `busy`: it has no time for them now;
        `unusable`: the TLS library here can't work with them, and it was not asked."""
        super().__init__(detail)
        self.detail = detail
        self.unwelcome = unwelcome
        self.busy = busy
        self.unusable = unusable


class DeadAddressError(ClaimdError):
    """The SDK found no way to the endpoint, and there is one: by another of the name's addresses."""


class RejectedError(ClaimdError):
    """A /rejected answer: a definite one."""


class Line:
    """An open connection that asks for one target, and names what goes wrong."""

    def __init__(self, link: Link, target: Target, answer_seconds: float) -> None:
        self._link = link
        self._target = target
        self._answer_seconds = answer_seconds

    def subscribe(self) -> None:
        try:
            self._link.subscribe(
                fleet.answer_topics(self._target.template, self._target.key_source), self._answer_seconds
            )
        except LinkError as error:
            raise self._trouble(error, "subscribing to the answers") from error

    def ask(self, exchange: Exchange, topics: Topics, payload: Secret) -> bytes:
        """The /accepted payload. Raises RejectedError, ClaimdError, InterruptedPassError."""
        try:
            accepted, answer = self._link.request(topics, payload, self._answer_seconds)
        except LinkError as error:
            raise self._trouble(error, exchange.value) from error
        if accepted:
            return answer
        try:
            rejection = fleet.parse_rejection(answer)
        except fleet.AnswerInvalidError as error:
            raise fail(Code.ANSWER_INVALID, step=exchange.value, detail=str(error)) from error
        raise RejectedError(fleet.rejection_problem(rejection, exchange, self._target.template))

    def close(self) -> None:
        self._link.close()

    def _trouble(self, error: LinkError, step: str) -> Exception:
        if error.trouble is Trouble.STOPPED:
            return InterruptedPassError()
        return ClaimdError(_problem(error, step, self._target, self._answer_seconds))


class Dialer:
    """Opens connections for one pass."""

    def __init__(self, transport: Transport, connect_seconds: float, answer_seconds: float) -> None:
        self._transport = transport
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._port: int | None = None

    def as_reached(self, target: Target) -> Target:
        """The target with the port first that the last connection found open: nobody waits for the others."""
        if self._port is None:
            return target
        return replace(target, ports=(self._port, *(each for each in target.ports if each != self._port)))

    def line(self, claim: Claim, target: Target, roots: bytes) -> Line:
        """Connected with the claim and subscribed to all four answers."""
        credentials = Credentials(claim.certificate.pem, claim.key.pem, roots)
        try:
            link = self.connect(target, target.claim_client_id, credentials)
        except CredentialsRefusedError as error:
            raise fail(
                Code.CLAIM_NOT_ACCEPTED if error.unwelcome else Code.CONNECT_REFUSED,
                endpoint=target.endpoint,
                region=endpoint.region(target.endpoint),
                claim=short(claim.fingerprint),
                not_after=spoken(claim.certificate.not_after),
                detail=error.detail,
            ) from error
        line = Line(link, target, self._answer_seconds)
        try:
            line.subscribe()
        except Exception:
            line.close()
            raise
        return line

    def check(self, issued: IssuedKeys, roots: bytes) -> None:
        """Try what AWS answered before anything is registered with it. Raises ClaimdError."""
        try:
            self._transport.check(Credentials(issued.certificate.pem, issued.key.pem, roots))
        except LinkError as error:
            raise fail(Code.ANSWER_INVALID, step=Exchange.CREATE_KEYS.value, detail=error.detail) from error

    def connect(
        self, target: Target, client_id: str, credentials: Credentials, *, as_guest: bool = False
    ) -> Link:
        """Each port in turn. Raises ClaimdError, or CredentialsRefusedError when only we are unwelcome."""
        found: Problem | None = None
        for port in target.ports:
            try:
                link = self._connect_port(target, port, client_id, credentials, as_guest)
            except ClaimdError as error:
                found = found or error.problem
                if error.problem.code not in PORT_TROUBLES:
                    raise
            else:
                self._port = port
                return link
        assert found is not None, "a target has a port"
        raise ClaimdError(found)

    def _connect_port(
        self, target: Target, port: int, client_id: str, credentials: Credentials, as_guest: bool
    ) -> Link:
        for _ in range(ADDRESSES_TRIED - 1):
            try:
                return self._connect_address(target, port, client_id, credentials, as_guest)
            except DeadAddressError:
                continue  # it came to no CONNECT: nothing has to be waited for
        return self._connect_address(target, port, client_id, credentials, as_guest)

    def _connect_address(
        self, target: Target, port: int, client_id: str, credentials: Credentials, as_guest: bool
    ) -> Link:
        try:
            link = self._transport.open(target.endpoint, port, client_id, credentials, as_guest=as_guest)
        except LinkError as error:
            raise self._trouble(error, target, port, credentials) from error
        try:
            if link.wait_connected(DIAGNOSE_AFTER_SECONDS):
                return link
            found = self._transport.diagnose(target.endpoint, port, credentials.roots)
            if found is None and link.wait_connected(self._connect_seconds):
                return link
        except LinkError as error:
            link.close()
            raise self._trouble(error, target, port, credentials) from error
        link.close()
        raise ClaimdError(
            found or problem(Code.NO_ANSWER, step="connecting", seconds=f"{self._connect_seconds:g}")
        )

    def _trouble(self, error: LinkError, target: Target, port: int, credentials: Credentials) -> Exception:
        if error.trouble is Trouble.STOPPED:
            return InterruptedPassError()
        if error.trouble is Trouble.REFUSED and error.code is not None:
            return CredentialsRefusedError(
                error.detail, unwelcome=error.code in _UNWELCOME, busy=error.code in _BUSY
            )
        # The way may be broken, or open and only closed to us: look at it without credentials.
        try:
            found = self._transport.diagnose(target.endpoint, port, credentials.roots)
        except LinkError:
            return InterruptedPassError()
        if found is not None:
            return ClaimdError(found)
        if error.trouble is Trouble.UNUSABLE:
            return CredentialsRefusedError(error.detail, unwelcome=True, unusable=True)
        if error.trouble is Trouble.REFUSED:
            return CredentialsRefusedError("the server hung up on this certificate", unwelcome=True)
        if error.trouble is Trouble.UNREACHABLE:
            return DeadAddressError(_problem(error, "connecting", target, self._connect_seconds))
        return ClaimdError(_problem(error, "connecting", target, self._connect_seconds))


_CODES = {
    Trouble.UNREACHABLE: Code.ENDPOINT_UNREACHABLE,
    Trouble.REFUSED: Code.TLS_FAILED,
    Trouble.LOST: Code.CONNECTION_LOST,
    Trouble.TAKEN_OVER: Code.CLIENT_ID_TAKEN,
    Trouble.SUBSCRIBE_REFUSED: Code.SUBSCRIBE_REFUSED,
    Trouble.PUBLISH_REFUSED: Code.PUBLISH_REFUSED,
    Trouble.NO_ANSWER: Code.NO_ANSWER,
}


def _problem(error: LinkError, step: str, target: Target, seconds: float) -> Problem:
    return problem(
        _CODES[error.trouble],
        endpoint=target.endpoint,
        port=target.ports[0],
        template=target.template,
        client_id=target.claim_client_id,
        step=step,
        seconds=f"{seconds:g}",
        detail=error.detail,
    )
