"""The link to the broker, against peers that keep to the protocol's letter and no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import peers
from claimd.fleet import CREATE_KEYS_TOPICS as TOPICS
from claimd.fleet import Credentials, Link, LinkError, Trouble
from claimd.model import Secret
from claimd.mqtt import CrtTransport
from material import device_pair

SECONDS = 30.0


@contextmanager
def linked(files: peers.TlsFiles, peer: peers.Peer) -> Iterator[Link]:
    pair = device_pair()
    credentials = Credentials(pair.certificate, Secret(pair.key.encode()), files.ca_file.read_bytes())
    with peer:
        link = CrtTransport(SECONDS, lambda: False).open("localhost", peer.port, "a-claim", credentials)
        try:
            assert link.wait_connected(SECONDS)
            link.subscribe((TOPICS.accepted, TOPICS.rejected), SECONDS)
            yield link
        finally:
            link.close()


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
