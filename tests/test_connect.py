"""What a connection's trouble means for a person: the way is broken, or only we are unwelcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from claimd import fleet
from claimd.connect import (
    ADDRESSES_TRIED,
    CredentialsRefusedError,
    Dialer,
    InterruptedPassError,
    Line,
    RejectedError,
)
from claimd.errors import ClaimdError, Code, Problem, problem
from claimd.fleet import Credentials, Exchange, LinkError, Topics, Trouble
from claimd.model import Secret, Target
from material import claim, issued

ROOTS = b"roots"
CREDENTIALS = Credentials("certificate", Secret(b"key"), ROOTS)
NOBODY = problem(Code.CONNECTION_REFUSED, endpoint="e.example", port=8883)


def target(*ports: int) -> Target:
    return Target("e.example", ports or (8883,), "T", (), "claim-id", "{thing_name}", "ca" * 32)


@dataclass
class FakeLink:
    """Connects after so many waits, or fails; then answers what it was given."""

    waits: int = 1
    failure: LinkError | None = None
    refuses: LinkError | None = None
    answer: tuple[bool, bytes] | LinkError = (True, b"{}")
    closed: int = 0
    subscribed: list[tuple[str, ...]] = field(default_factory=list)

    def wait_connected(self, seconds: float) -> bool:
        if self.failure is not None:
            raise self.failure
        self.waits -= 1
        return self.waits <= 0

    def subscribe(self, topics: tuple[str, ...], seconds: float) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.subscribed.append(topics)

    def request(self, topics: Topics, payload: Secret, seconds: float) -> tuple[bool, bytes]:
        if isinstance(self.answer, LinkError):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed += 1


@dataclass
class FakeTransport:
    links: list[FakeLink]
    diagnosis: Callable[[int], Problem | None] = lambda port: None
    opened: list[tuple[int, str]] = field(default_factory=list)
    diagnosed: list[int] = field(default_factory=list)
    unusable: bool = False

    def open(
        self, host: str, port: int, client_id: str, credentials: Credentials, *, as_guest: bool = False
    ) -> FakeLink:
        self.check(credentials)
        self.opened.append((port, client_id))
        return self.links[len(self.opened) - 1]

    def check(self, credentials: Credentials) -> None:
        if self.unusable:
            raise LinkError(Trouble.UNUSABLE, "the library can't use it")

    def diagnose(self, host: str, port: int, roots: bytes) -> Problem | None:
        assert roots == ROOTS
        self.diagnosed.append(port)
        return self.diagnosis(port)


def connect(transport: FakeTransport, *ports: int) -> object:
    return Dialer(transport, 10.0, 10.0).connect(target(*ports), "id", CREDENTIALS)


class TestConnecting:
    def test_at_once(self) -> None:
        transport = FakeTransport([FakeLink()])
        assert connect(transport) is transport.links[0]
        assert transport.diagnosed == [], "nobody looks twice at a way that is open"

    def test_slowly_over_a_way_that_is_well(self) -> None:
        transport = FakeTransport([FakeLink(waits=2)])
        assert connect(transport) is transport.links[0]
        assert transport.diagnosed == [8883]

    def test_never_over_a_way_that_is_well(self) -> None:
        link = FakeLink(waits=99)
        with pytest.raises(ClaimdError) as caught:
            connect(FakeTransport([link]))
        assert caught.value.problem.code is Code.NO_ANSWER
        assert link.closed == 1

    def test_a_cause_that_the_look_finds_is_not_waited_out(self) -> None:
        untrusted = problem(Code.TLS_UNTRUSTED_CA, endpoint="e.example", detail="d")
        link = FakeLink(waits=2)
        with pytest.raises(ClaimdError) as caught:
            connect(FakeTransport([link], lambda port: untrusted))
        assert caught.value.problem is untrusted
        assert (link.closed, link.waits) == (1, 1)

    def test_told_to_stop(self) -> None:
        link = FakeLink(failure=LinkError(Trouble.STOPPED, "told to stop"))
        with pytest.raises(InterruptedPassError):
            connect(FakeTransport([link]))
        assert link.closed == 1

    @pytest.mark.parametrize(
        ("code", "unwelcome"),
        [(0x87, True), (0x86, True), (0x8A, True), (0x97, False), (0x88, False), (0x85, False)],
    )
    def test_a_connack_that_says_no(self, code: int, unwelcome: bool) -> None:
        link = FakeLink(failure=LinkError(Trouble.REFUSED, f"CONNACK {code:#04x}", code=code))
        transport = FakeTransport([link])
        with pytest.raises(CredentialsRefusedError) as caught:
            connect(transport)
        assert caught.value.unwelcome is unwelcome
        assert (link.closed, transport.diagnosed) == (1, [])

    def test_a_hang_up_of_a_server_that_is_well(self) -> None:
        """Only then are the credentials to blame."""
        transport = FakeTransport([FakeLink(failure=LinkError(Trouble.REFUSED, "1029"))])
        with pytest.raises(CredentialsRefusedError) as caught:
            connect(transport)
        assert caught.value.unwelcome and transport.diagnosed == [8883]

    def test_a_hang_up_of_a_server_that_is_none(self) -> None:
        transport = FakeTransport([FakeLink(failure=LinkError(Trouble.REFUSED, "1029"))], lambda port: NOBODY)
        with pytest.raises(ClaimdError) as caught:
            connect(transport)
        assert caught.value.problem is NOBODY

    @pytest.mark.parametrize(
        ("trouble", "code"),
        [
            (Trouble.UNREACHABLE, Code.ENDPOINT_UNREACHABLE),
            (Trouble.LOST, Code.CONNECTION_LOST),
            (Trouble.TAKEN_OVER, Code.CLIENT_ID_TAKEN),
            (Trouble.NO_ANSWER, Code.NO_ANSWER),
        ],
    )
    def test_any_other_trouble_has_its_name(self, trouble: Trouble, code: Code) -> None:
        links = [FakeLink(failure=LinkError(trouble, "d")) for _ in range(ADDRESSES_TRIED)]
        with pytest.raises(ClaimdError) as caught:
            connect(FakeTransport(links))
        assert caught.value.problem.code is code

    def test_a_dead_address_of_a_name_that_has_others(self) -> None:
        """The SDK found no way, the look found one: the SDK is asked again, and takes the next address."""
        dead = FakeLink(failure=LinkError(Trouble.UNREACHABLE, "1048"))
        transport = FakeTransport([dead, FakeLink()])
        assert connect(transport, 8883, 443) is transport.links[1]
        assert [port for port, _ in transport.opened] == [8883, 8883]
        assert dead.closed == 1

    def test_so_many_dead_addresses_and_no_more(self) -> None:
        failure = LinkError(Trouble.UNREACHABLE, "1048")
        transport = FakeTransport([FakeLink(failure=failure) for _ in range(9)])
        with pytest.raises(ClaimdError) as caught:
            connect(transport)
        assert caught.value.problem.code is Code.ENDPOINT_UNREACHABLE
        assert [link.closed for link in transport.links] == [1] * ADDRESSES_TRIED + [0] * (
            9 - ADDRESSES_TRIED
        )


class TestPorts:
    def failing(self) -> FakeLink:
        return FakeLink(failure=LinkError(Trouble.UNREACHABLE, "1047"))

    def test_the_second_when_the_first_leads_nowhere(self) -> None:
        transport = FakeTransport([self.failing(), FakeLink()], lambda port: NOBODY)
        assert connect(transport, 8883, 443) is transport.links[1]
        assert [port for port, _ in transport.opened] == [8883, 443]

    def test_the_port_that_was_open_comes_first_from_then_on(self) -> None:
        transport = FakeTransport([self.failing(), FakeLink()], lambda port: NOBODY)
        dialer = Dialer(transport, 10.0, 10.0)
        assert dialer.as_reached(target(8883, 443)).ports == (8883, 443)
        dialer.connect(target(8883, 443), "id", CREDENTIALS)
        assert dialer.as_reached(target(8883, 443)).ports == (443, 8883)

    def test_a_proxy_that_leads_to_web_servers_alone(self) -> None:
        refused = problem(Code.PROXY_REFUSED, proxy="p:3128", detail="for e.example:8883 it answers 403")
        transport = FakeTransport(
            [self.failing(), FakeLink()], lambda port: refused if port == 8883 else None
        )
        assert connect(transport, 8883, 443) is transport.links[1]

    def test_both_lead_nowhere(self) -> None:
        """The first one's trouble is told: it is the one that should be open."""
        transport = FakeTransport(
            [self.failing(), self.failing()],
            lambda port: problem(Code.CONNECTION_REFUSED, endpoint="e.example", port=port),
        )
        with pytest.raises(ClaimdError) as caught:
            connect(transport, 8883, 443)
        assert caught.value.problem.fields["port"] == "8883"

    def test_what_another_port_does_not_cure(self) -> None:
        transport = FakeTransport(
            [self.failing()], lambda port: problem(Code.DNS_FAILED, endpoint="e.example")
        )
        with pytest.raises(ClaimdError) as caught:
            connect(transport, 8883, 443)
        assert caught.value.problem.code is Code.DNS_FAILED
        assert len(transport.opened) == 1

    def test_a_refusal_is_not_asked_for_twice(self) -> None:
        refused = FakeLink(failure=LinkError(Trouble.REFUSED, "CONNACK 0x87", code=0x87))
        transport = FakeTransport([refused])
        with pytest.raises(CredentialsRefusedError):
            connect(transport, 8883, 443)
        assert len(transport.opened) == 1


class TestCredentialsThatTheLibraryRefuses:
    def test_the_claim_is_not_accepted(self) -> None:
        """So another claim has its turn."""
        with pytest.raises(ClaimdError) as caught:
            Dialer(FakeTransport([], unusable=True), 10.0, 10.0).line(claim(), target(), ROOTS)
        assert caught.value.problem.code is Code.CLAIM_NOT_ACCEPTED

    def test_a_way_that_is_broken_is_told_first(self) -> None:
        """Roots that nobody can read look the same to the library: the claim is not to blame for them."""
        with pytest.raises(ClaimdError) as caught:
            connect(FakeTransport([], lambda port: NOBODY, unusable=True))
        assert caught.value.problem is NOBODY

    def test_an_answer_is_invalid(self) -> None:
        Dialer(FakeTransport([]), 10.0, 10.0).check(issued(), ROOTS)
        with pytest.raises(ClaimdError) as caught:
            Dialer(FakeTransport([], unusable=True), 10.0, 10.0).check(issued(), ROOTS)
        assert caught.value.problem.code is Code.ANSWER_INVALID
        assert caught.value.problem.fields["detail"] == "the library can't use it"


class TestAStopMeanwhile:
    """The look at the endpoint takes seconds, which a stop does not have."""

    @staticmethod
    def stopped(port: int) -> Problem | None:
        raise LinkError(Trouble.STOPPED, "told to stop")

    @pytest.mark.parametrize(
        "link",
        [
            FakeLink(waits=99),
            FakeLink(failure=LinkError(Trouble.REFUSED, "AWS_IO_TLS_ERROR_NEGOTIATION_FAILURE")),
        ],
        ids=["no-answer-yet", "failed"],
    )
    def test_ends_the_look(self, link: FakeLink) -> None:
        transport = FakeTransport([link], self.stopped)
        with pytest.raises(InterruptedPassError):
            connect(transport, 8883, 443)
        assert (link.closed, transport.diagnosed) == (1, [8883])


class TestALine:
    def test_connected_and_subscribed_to_all_four(self) -> None:
        transport = FakeTransport([FakeLink()])
        Dialer(transport, 10.0, 10.0).line(claim(), target(), ROOTS)
        assert transport.opened == [(8883, "claim-id")]
        assert transport.links[0].subscribed == [fleet.answer_topics("T")]

    @pytest.mark.parametrize(
        ("code", "named"), [(0x87, Code.CLAIM_NOT_ACCEPTED), (0x97, Code.CONNECT_REFUSED)]
    )
    def test_a_refused_claim(self, code: int, named: Code) -> None:
        link = FakeLink(failure=LinkError(Trouble.REFUSED, "CONNACK", code=code))
        kept = claim()
        with pytest.raises(ClaimdError) as caught:
            Dialer(FakeTransport([link]), 10.0, 10.0).line(kept, target(), ROOTS)
        found = caught.value.problem
        assert found.code is named
        assert found.fields["claim"] == kept.fingerprint[:12]

    def test_a_refused_subscription_closes_the_connection(self) -> None:
        link = FakeLink(refuses=LinkError(Trouble.SUBSCRIBE_REFUSED, "topic", code=0x87))
        with pytest.raises(ClaimdError) as caught:
            Dialer(FakeTransport([link]), 10.0, 10.0).line(claim(), target(), ROOTS)
        assert caught.value.problem.code is Code.SUBSCRIBE_REFUSED
        assert link.closed == 1


class TestAsking:
    def ask(self, answer: tuple[bool, bytes] | LinkError) -> bytes:
        line = Line(FakeLink(answer=answer), target(), 10.0)
        return line.ask(Exchange.CREATE_KEYS, fleet.CREATE_KEYS_TOPICS, fleet.CREATE_KEYS_PAYLOAD)

    def test_accepted(self) -> None:
        assert self.ask((True, b"the answer")) == b"the answer"

    def test_rejected(self) -> None:
        body = json.dumps({"statusCode": 429, "errorCode": "E", "errorMessage": "m"}).encode()
        with pytest.raises(RejectedError) as caught:
            self.ask((False, body))
        assert caught.value.problem.code is Code.THROTTLED

    def test_a_rejection_that_can_not_be_read(self) -> None:
        with pytest.raises(ClaimdError) as caught:
            self.ask((False, b"no"))
        assert caught.value.problem.code is Code.ANSWER_INVALID
        assert not isinstance(caught.value, RejectedError), "it is no definite one"

    @pytest.mark.parametrize(
        ("trouble", "code"),
        [
            (Trouble.LOST, Code.CONNECTION_LOST),
            (Trouble.PUBLISH_REFUSED, Code.PUBLISH_REFUSED),
            (Trouble.NO_ANSWER, Code.NO_ANSWER),
            (Trouble.TAKEN_OVER, Code.CLIENT_ID_TAKEN),
        ],
    )
    def test_no_answer_says_at_which_step(self, trouble: Trouble, code: Code) -> None:
        with pytest.raises(ClaimdError) as caught:
            self.ask(LinkError(trouble, "d"))
        assert caught.value.problem.code is code
        assert caught.value.problem.fields["step"] == "asking for a certificate"

    def test_told_to_stop(self) -> None:
        with pytest.raises(InterruptedPassError):
            self.ask(LinkError(Trouble.STOPPED, "told to stop"))
