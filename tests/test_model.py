from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable

import pytest

from claimd.model import Claim, Layout, Secret, rebased, short
from material import claim, device_pair

TEXT = "correct-horse-battery-staple"
SECRET = Secret(TEXT.encode())

SHOWN: list[Callable[[Secret], str]] = [
    repr,
    str,
    format,
    lambda s: f"{s}",
    lambda s: f"{s!r:>20}",
    lambda s: "%s" % s,  # noqa: UP031  the old way is a way, too
    lambda s: f"{[s]} { ({'k': s}) }",
]


@pytest.mark.parametrize("show", SHOWN)
def test_every_way_to_print_a_secret_shows_the_word_instead(show: Callable[[Secret], str]) -> None:
    assert TEXT not in show(SECRET)
    assert "<secret>" in show(SECRET)


REFUSED: list[Callable[[Secret], object]] = [
    lambda s: format(s, "x"),
    pickle.dumps,
    copy.copy,
    copy.deepcopy,
    json.dumps,
    hash,
    lambda s: iter(s),  # type: ignore[call-overload]
    vars,
    lambda s: len(s),  # type: ignore[arg-type]
    lambda s: bytes(s),  # type: ignore[call-overload]
    lambda s: s + b"",  # type: ignore[operator]
    lambda s: dataclasses.asdict(claim().key),
]


@pytest.mark.parametrize("use", REFUSED)
def test_a_secret_can_not_be_copied_or_taken_apart(use: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError) as caught:
        use(SECRET)
    assert TEXT not in str(caught.value)


def test_a_traceback_with_local_variables_shows_no_secret() -> None:
    held = [SECRET]
    try:
        raise RuntimeError(held, SECRET)
    except RuntimeError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "held" in shown
    assert TEXT not in shown


def test_a_log_record_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("the key %s, %r", SECRET, {"key": SECRET})
    assert TEXT not in caplog.text
    assert "<secret>" in caplog.text


def test_a_secret_is_its_bytes_and_nothing_else_equals_it() -> None:
    secret = Secret(TEXT.encode())
    assert secret.reveal() == TEXT.encode()
    assert secret == SECRET
    assert secret != Secret(b"else")
    assert secret != TEXT.encode()


def test_a_claim_shows_no_key() -> None:
    made = claim()
    body = made.key.pem.reveal().decode("ascii").splitlines()[1]
    assert body not in repr(made)
    assert made.fingerprint == made.certificate.fingerprint


def test_a_claim_of_two_pairs_does_not_exist() -> None:
    with pytest.raises(ValueError, match="does not belong to the certificate"):
        Claim(claim().certificate, device_pair().claim.key)


def test_a_person_sees_the_first_twelve_digits() -> None:
    assert short("0123456789abcdef" * 4) == "0123456789ab"


@pytest.mark.parametrize(
    ("given", "root"), [("", ""), ("/", ""), ("///", ""), ("/srv/image", "/srv/image"), ("/a/", "/a")]
)
def test_a_root_is_rebased_without_a_slash_at_its_end(given: str, root: str) -> None:
    assert rebased(given) == root


def test_a_relative_root_is_refused() -> None:
    with pytest.raises(ValueError, match="absolute"):
        rebased("image")


PLACES = {
    "config_file": "/etc/claimd/claimd.toml",
    "config_directory": "/etc/claimd",
    "state_directory": "/var/lib/claimd",
    "identity_directory": "/var/lib/claimd/identity",
    "current_identity": "/var/lib/claimd/identity/current",
    "drop_directory": "/var/spool/claimd/drop",
    "result_directory": "/var/spool/claimd/result",
    "run_directory": "/run/claimd",
    "status_file": "/run/claimd/status.json",
    "supervisor_file": "/run/claimd/supervisor.json",
    "hooks_directory": "/etc/claimd/hooks.d",
    "hooks_state_directory": "/var/lib/claimd-hooks",
}


@pytest.mark.parametrize(("name", "path"), PLACES.items())
def test_the_design_s_places_are_fixed(name: str, path: str) -> None:
    assert getattr(Layout(), name) == path


def test_every_place_moves_with_the_root() -> None:
    properties = {name for name, value in vars(Layout).items() if isinstance(value, property)}
    assert properties >= PLACES.keys()
    for name in properties:
        path = getattr(Layout(), name)
        assert path.startswith("/"), name
        assert getattr(Layout("/r"), name) == "/r" + path
