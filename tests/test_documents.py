"""identity.json and identity.env, as programs on the device read them."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from claimd.documents import (
    MAX_STORED_BYTES,
    ROOM_FOR_THE_ANSWER,
    deactivation,
    identity_document,
    identity_env,
    identity_json,
)
from material import NOW, issued

ID, OLD = "1d" * 32, "0d" * 32
PATHS = {"private_key": "/k", "certificate": "/c", "root_ca": "/r"}


def document(
    configuration: dict[str, object] | None = None, replaces: str | None = None, thing: str | None = "thing"
) -> dict[str, Any]:
    made = identity_document(
        certificate_id=ID,
        certificate=issued(ID).certificate,
        endpoint="e.example",
        port=8883,
        template="T",
        client_id="client",
        thing_name=thing,
        thing_name_known=thing is not None,
        device_configuration=configuration,
        registered_at=NOW,
        replaces=replaces,
        replaced_thing="old-thing",
    )
    return {**made, "paths": PATHS}


def test_it_is_indented_for_people_and_ends_as_a_line() -> None:
    text = identity_json(document({"site": "north"}))
    assert b'\n  "device_configuration": {\n    "site": "north"\n  },\n' in text
    assert text.endswith(b"}\n")


def test_a_large_answer_is_on_one_line() -> None:
    asked: dict[str, object] = {"a": [0] * (ROOM_FOR_THE_ANSWER // 8)}
    text = identity_json(document(asked))
    assert text.count(b"\n") == 1
    assert json.loads(text)["device_configuration"] == asked


def test_what_could_not_be_read_back_is_left_out() -> None:
    text = identity_json(document({"a": "x" * MAX_STORED_BYTES}))
    assert len(text) < MAX_STORED_BYTES
    read = json.loads(text)
    assert (read["device_configuration"], read["certificate_id"]) == ("unknown", ID)


def test_what_nobody_kept_is_said_to_be_unknown() -> None:
    made = document(thing=None)
    assert (made["device_configuration"], made["thing_name"], made["thing_name_known"]) == (
        "unknown",
        None,
        False,
    )
    assert made["replaced_certificate"] is None


def test_the_replaced_certificate_comes_with_its_end() -> None:
    replaced = document(replaces=OLD)["replaced_certificate"]
    assert (replaced["certificate_id"], replaced["still_active"]) == (OLD, True)
    assert replaced["to_deactivate"] == deactivation(OLD, "old-thing")
    first, second = deactivation(OLD, "old-thing")
    assert first == f"aws iot update-certificate --certificate-id {OLD} --new-status INACTIVE"
    assert second.startswith("aws iot detach-thing-principal --thing-name old-thing ")
    assert deactivation(OLD) == [first], "a thing whose name is not known can't be named"


@pytest.mark.parametrize("client_id", ["client", "it's", "a'b\"c$d`e\\f", ""])
def test_a_shell_reads_the_environment(client_id: str) -> None:
    text = identity_env({**document(thing=None), "client_id": client_id})
    script = f'{text.decode()}printf "%s|%s|%s" "$CLAIMD_CLIENT_ID" "$CLAIMD_THING_NAME" "$CLAIMD_PORT"'
    said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True)
    assert said.stdout == f"{client_id}||8883"


def test_a_name_that_is_no_unicode_does_not_cost_the_identity() -> None:
    assert b"CLAIMD_THING_NAME='\xff'" in identity_env(document(thing="\udcff"))
