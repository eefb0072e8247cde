"""The link to the broker, against peers that keep to the protocol's letter and no more."""

from __future__ import annotations

import ssl
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import peers
from claimd.errors import Code
from claimd.fleet import CREATE_KEYS_TOPICS as TOPICS
from claimd.fleet import Credentials, Link, LinkError, Trouble
from claimd.model import Secret
from claimd.mqtt import CrtTransport
from material import device_pair, odd_rsa_key, pair

SECONDS = 30.0
ANSWERS = (TOPICS.accepted, TOPICS.rejected)


@contextmanager
def connected(
    files: peers.TlsFiles, peer: peers.Peer, stopping: Callable[[], bool] = lambda: False
) -> Iterator[Link]:
    pair = device_pair()
    credentials = Credentials(pair.certificate, Secret(pair.key.encode()), files.ca_file.read_bytes())
    with peer:
        link = CrtTransport(SECONDS, stopping).open("localhost", peer.port, "a-claim", credentials)
        try:
            assert link.wait_connected(SECONDS)
            yield link
        finally:
            link.close()


@contextmanager
def linked(files: peers.TlsFiles, peer: peers.Peer) -> Iterator[Link]:
    with connected(files, peer) as link:
        link.subscribe(ANSWERS, SECONDS)
        yield link


@pytest.fixture
def files(tmp_path: Path) -> peers.TlsFiles:
    return peers.TlsFiles(tmp_path)


def test_an_answer_counts_though_its_request_was_never_acknowledged(files: peers.TlsFiles) -> None:
    with linked(files, peers.answering(files.context(), b"{}", acknowledges=False)) as link:
        assert link.request(TOPICS, Secret(b"{}"), SECONDS) == (True, b"{}")


def test_of_two_answers_the_first_counts(files: peers.TlsFiles) -> None:
    with linked(files, peers.answering(files.context(), b"1", b"2")) as link:
        assert link.request(TOPICS, Secret(b"{}"), SECONDS) == (True, b"1")


def test_an_acknowledgement_is_no_answer(files: peers.TlsFiles) -> None:
    with linked(files, peers.answering(files.context())) as link:
        with pytest.raises(LinkError) as caught:
            link.request(TOPICS, Secret(b"{}"), 0.5)
        assert caught.value.trouble is Trouble.NO_ANSWER


def test_what_nobody_subscribed_to_is_not_kept(files: peers.TlsFiles) -> None:
    topics, size = 200, 128 * 1024
    with linked(files, peers.inventing(files.context(), topics, size, b"{}")) as link:
        tracemalloc.start()
        try:
            assert link.request(TOPICS, Secret(b"{}"), SECONDS) == (True, b"{}")
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # One connection keeps the order: before the answer all of them had come.
    assert held < topics * size / 10


@pytest.mark.parametrize("codes", [1, 3])
def test_a_subscription_is_acknowledged_topic_by_topic(files: peers.TlsFiles, codes: int) -> None:
    with connected(files, peers.granting(files.context(), codes)) as link, pytest.raises(LinkError) as caught:
        link.subscribe(ANSWERS, SECONDS)
    assert caught.value.trouble is Trouble.SUBSCRIBE_REFUSED
    assert caught.value.detail == f"SUBACK has {codes} reason codes for 2 topics"


class TestAnAcknowledgementThatDoesNotCome:
    def test_a_stop_is_obeyed_meanwhile(self, files: peers.TlsFiles) -> None:
        told = threading.Event()
        peer = peers.at_subscribe(files.context(), lambda secure: told.set())
        with connected(files, peer, told.is_set) as link, pytest.raises(LinkError) as caught:
            link.subscribe(ANSWERS, SECONDS)
        assert caught.value.trouble is Trouble.STOPPED
        assert told.is_set()

    def test_a_connection_that_ends_is_named_at_once(self, files: peers.TlsFiles) -> None:
        def hang_up(secure: ssl.SSLSocket) -> None:
            secure.close()

        peer = peers.at_subscribe(files.context(), hang_up)
        with connected(files, peer) as link, pytest.raises(LinkError) as caught:
            link.subscribe(ANSWERS, SECONDS)
        assert caught.value.trouble is Trouble.LOST

    def test_silence_has_an_end(self, files: peers.TlsFiles) -> None:
        peer = peers.at_subscribe(files.context(), lambda secure: None)
        with connected(files, peer) as link, pytest.raises(LinkError) as caught:
            link.subscribe(ANSWERS, 0.5)
        assert caught.value.trouble is Trouble.NO_ANSWER
        assert caught.value.detail == "no acknowledgement within 0.5 s"


class TestAKeyThatTheLibraryRefuses:
    """Its numbers belong together; only the library sees that one of its primes is none."""

    @pytest.fixture
    def credentials(self, files: peers.TlsFiles) -> Credentials:
        made = pair(key=odd_rsa_key(composite=True))
        assert made.claim.key.algorithm == "RSA-2048", "it passes for a claim's"
        return Credentials(made.certificate, made.claim.key.pem, files.ca_file.read_bytes())

    @pytest.fixture
    def transport(self) -> CrtTransport:
        return CrtTransport(SECONDS, lambda: False)

    def test_a_check_says_so(self, transport: CrtTransport, credentials: Credentials) -> None:
        honest = device_pair().claim
        transport.check(Credentials(honest.certificate.pem, honest.key.pem, credentials.roots))
        with pytest.raises(LinkError) as caught:
            transport.check(credentials)
        assert caught.value.trouble is Trouble.UNUSABLE
        assert caught.value.detail == "the TLS library can't use certificate and key"

    def test_and_no_connection_is_made(self, transport: CrtTransport, credentials: Credentials) -> None:
        with peers.silent() as peer, pytest.raises(LinkError) as caught:
            transport.open("localhost", peer.port, "a-claim", credentials)
        assert (caught.value.trouble, peer.visits) == (Trouble.UNUSABLE, 0)


def test_a_stop_is_obeyed_while_the_endpoint_is_looked_at(files: peers.TlsFiles) -> None:
    """What hangs here is the handshake: the peer took the connection and says nothing."""
    with peers.silent() as peer:
        transport = CrtTransport(SECONDS, lambda: peer.visits > 0)
        with pytest.raises(LinkError) as caught:
            transport.diagnose("localhost", peer.port, files.ca_file.read_bytes())
        assert caught.value.trouble is Trouble.STOPPED
        assert peer.visits == 1


def test_what_the_look_finds_is_told(files: peers.TlsFiles) -> None:
    with peers.tls(files.context()) as peer:
        look = CrtTransport(SECONDS, lambda: False).diagnose
        assert look("localhost", peer.port, files.ca_file.read_bytes()) is None
        found = look("localhost", peer.port, peers.TlsFiles(files.ca_file.parent / "b").ca_file.read_bytes())
    assert found is not None and found.code is Code.TLS_UNTRUSTED_CA
