"""What a device says about itself, and what it must not say: a value that another device has as well."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimd import facts
from claimd.errors import ClaimdError, Code
from claimd.facts import Places
from claimd.model import Layout
from claimd.settings import Config


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "root"))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(str(tmp_path / "sys"), str(tmp_path / "proc"), lambda: "gateway-7")


def put(path: str, content: str | bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)


def resolved(text: str, layout: Layout, places: Places) -> str:
    return facts.resolve(text, "template.parameters", layout, places=places)


def refused(text: str, layout: Layout, places: Places) -> str:
    """Why it can't be resolved."""
    with pytest.raises(ClaimdError) as caught:
        resolved(text, layout, places)
    found = caught.value.problem
    assert found.code is Code.PARAMETER_UNRESOLVED
    assert found.fields["parameter"] == "template.parameters"
    return found.fields["detail"].replace(layout.root, "").replace(os.path.dirname(places.sys), "")


class TestSerial:
    def test_the_device_tree_s(self, layout: Layout, places: Places) -> None:
        put(f"{places.proc}/device-tree/serial-number", b"10000000abcdef01\0")
        put(f"{layout.run_directory}/dmi-serial", "other")
        assert resolved("dev-{serial}", layout, places) == "dev-10000000abcdef01"

    def test_sysfs_s_when_there_is_no_proc(self, layout: Layout, places: Places) -> None:
        put(f"{places.sys}/firmware/devicetree/base/serial-number", b"77\0")
        assert resolved("{serial}", layout, places) == "77"

    def test_dmi_s_as_the_unit_copied_it(self, layout: Layout, places: Places) -> None:
        put(f"{layout.run_directory}/dmi-serial", "ABC 123\n")
        assert resolved("{serial}", layout, places) == "ABC 123"

    @pytest.mark.parametrize(
        "filler",
        [
            "To Be Filled By O.E.M.",
            "Default string",
            "None",
            "0",
            "00000000",
            "ffff",
            "FFFF",
            "....",
            "Unknown",
        ],
    )
    def test_a_maker_s_filler_is_none(self, layout: Layout, places: Places, filler: str) -> None:
        put(f"{layout.run_directory}/dmi-serial", f"{filler}\n")
        said = refused("{serial}", layout, places)
        assert said.endswith(f"/run/claimd/dmi-serial says {filler!r}, which is no serial number")

    def test_after_a_filler_the_next_place_counts(self, layout: Layout, places: Places) -> None:
        put(f"{places.proc}/device-tree/serial-number", b"0000000000000000\0")
        put(f"{layout.run_directory}/dmi-serial", "S-1")
        assert resolved("{serial}", layout, places) == "S-1"

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is empty"),
            (b"\0", "is empty"),
            (b"a\x07b", "holds control characters"),
            (b"\xff\xfe", ": is not UTF-8 text"),
            (b"x" * 5000, ": more than 4096 bytes"),
        ],
    )
    def test_what_is_no_text(self, layout: Layout, places: Places, content: bytes, said: str) -> None:
        put(f"{places.proc}/device-tree/serial-number", content)
        assert said in refused("{serial}", layout, places)

    def test_none_at_all(self, layout: Layout, places: Places) -> None:
        assert refused("{serial}", layout, places) == (
            "this device has no serial number for {serial}: no device tree, no DMI"
        )


class TestMac:
    def address(self, places: Places, text: str, assigned: str | None = "0") -> None:
        put(f"{places.sys}/class/net/eth0/address", text)
        if assigned is not None:
            put(f"{places.sys}/class/net/eth0/addr_assign_type", assigned)

    @pytest.mark.parametrize("assigned", ["0", "3", None])
    def test_in_small_letters(self, layout: Layout, places: Places, assigned: str | None) -> None:
        self.address(places, "DC:A6:32:01:02:03\n", assigned)
        assert resolved("{mac:eth0}", layout, places) == "dc:a6:32:01:02:03"

    def test_a_random_one_is_no_identity(self, layout: Layout, places: Places) -> None:
        self.address(places, "dc:a6:32:01:02:03\n", "1\n")
        assert "is random" in refused("{mac:eth0}", layout, places)

    @pytest.mark.parametrize("text", ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "", "junk"])
    def test_a_null_address_is_none(self, layout: Layout, places: Places, text: str) -> None:
        self.address(places, text)
        assert refused("{mac:eth0}", layout, places) == (
            "the network interface 'eth0' has no hardware address"
        )

    def test_the_interfaces_that_are_there_are_named(self, layout: Layout, places: Places) -> None:
        for name in ("lo", "end0", "wlan0"):
            put(f"{places.sys}/class/net/{name}/address", "x")
        assert refused("{mac:eth0}", layout, places) == (
            "no network interface 'eth0'; there are: end0, wlan0"
        )

    def test_no_interface_at_all(self, layout: Layout, places: Places) -> None:
        assert refused("{mac:eth0}", layout, places).endswith("there are: none")


class TestMachineId:
    def test_the_root_s_own(self, layout: Layout, places: Places) -> None:
        put(layout.under("/etc/machine-id"), "0123456789abcdef" * 2 + "\n")
        assert resolved("{machine-id}", layout, places) == "0123456789abcdef" * 2

    @pytest.mark.parametrize("text", ["", "\n", "uninitialized\n"])
    def test_not_made_yet(self, layout: Layout, places: Places, text: str) -> None:
        put(layout.under("/etc/machine-id"), text)
        assert "is not initialised; run: systemd-machine-id-setup" in refused("{machine-id}", layout, places)

    @pytest.mark.parametrize("text", ["0" * 32, "xyz", "0123"])
    def test_none(self, layout: Layout, places: Places, text: str) -> None:
        put(layout.under("/etc/machine-id"), text)
        assert "does not hold 32 hexadecimal digits" in refused("{machine-id}", layout, places)

    def test_missing(self, layout: Layout, places: Places) -> None:
        assert refused("{machine-id}", layout, places) == "/etc/machine-id: No such file or directory"


class TestHostname:
    def test_its_own(self, layout: Layout, places: Places) -> None:
        assert resolved("{hostname}", layout, places) == "gateway-7"

    @pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "(none)", "", "localhost.localdomain"])
    def test_none_of_its_own(self, layout: Layout, places: Places, name: str) -> None:
        assert "has no name of its own" in refused(
            "{hostname}", layout, replace(places, hostname=lambda: name)
        )

    def test_the_kernel_s(self) -> None:
        assert Places().hostname() == os.uname().nodename


class TestFile:
    @pytest.mark.parametrize("content", ["value", "value\n", "value\r\n"])
    def test_its_one_line_below_the_root(self, layout: Layout, places: Places, content: str) -> None:
        put(layout.under("/etc/serial"), content)
        assert resolved("{file:/etc/serial}", layout, places) == "value"

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("", "/etc/serial is empty"),
            ("\n", "/etc/serial is empty"),
            ("secret\nsecret", "/etc/serial holds more than one line, or control characters"),
            (b"\xffsecret", "/etc/serial: is not UTF-8 text"),
        ],
    )
    def test_what_is_no_line(self, layout: Layout, places: Places, content: str | bytes, said: str) -> None:
        put(layout.under("/etc/serial"), content)
        assert refused("{file:/etc/serial}", layout, places) == said


class TestTheWhole:
    def test_too_long_for_aws(self, layout: Layout, places: Places) -> None:
        put(layout.under("/f"), "x" * 4000)
        assert refused("{file:/f}{file:/f}", layout, places) == (
            "its value has 8000 characters; AWS takes 4096"
        )

    def test_empty(self, layout: Layout, places: Places) -> None:
        assert refused("", layout, places) == "its value is empty"

    def test_a_pattern_that_is_none(self, layout: Layout, places: Places) -> None:
        assert "has no } after it" in refused("{", layout, places)

    def test_parameters_by_name(self, layout: Layout, places: Places) -> None:
        parameters = {"b": "{hostname}", "a": "1"}
        config = Config.model_validate(
            {"endpoint": "localhost", "template": {"name": "x", "parameters": parameters}}
        )
        assert facts.resolve_parameters(config, layout, places) == (("a", "1"), ("b", "gateway-7"))


class TestClientIds:
    def test_what_only_an_attempt_knows(self, layout: Layout, places: Places) -> None:
        known = {"fingerprint": "c0ffee"}
        found = facts.resolve_client_id("x-{fingerprint}", "claim.client_id", layout, known, places)
        assert found == "x-c0ffee"

    @pytest.mark.parametrize(
        ("text", "said"),
        [("x" * 129, "the client id has 129 bytes; AWS takes 128"), ("$x", "the client id begins with $")],
    )
    def test_what_aws_takes_not(self, layout: Layout, places: Places, text: str, said: str) -> None:
        put(layout.under("/f"), text)
        with pytest.raises(ClaimdError) as caught:
            facts.resolve_client_id("{file:/f}", "claim.client_id", layout, places=places)
        assert said in caught.value.problem.fields["detail"]

    @pytest.mark.parametrize(
        ("key", "text", "said"),
        [
            ("claim.client_id", "{fingerprint}", "{fingerprint} is known only once there is a claim"),
            ("identity.client_id", "{thing_name}", "AWS returned no thing name for {thing_name}"),
        ],
    )
    def test_what_is_not_known_yet(
        self, layout: Layout, places: Places, key: str, text: str, said: str
    ) -> None:
        with pytest.raises(ClaimdError) as caught:
            facts.resolve_client_id(text, key, layout, places=places)
        assert caught.value.problem.fields["detail"] == said

    @given(name=st.text(min_size=1, max_size=20))
    def test_a_fact_with_braces_names_no_placeholder(self, name: str) -> None:
        """A host name is no pattern, whatever is in it."""
        if name.lower() in ("localhost", "(none)", "localhost.localdomain"):
            return
        places = Places("/nonexistent", "/nonexistent", lambda: name)
        key = "identity.client_id"
        frozen = facts.freeze_client_id("{hostname}-{thing_name}", key, Layout("/x"), places=places)
        known = {"thing_name": "t"}
        assert facts.resolve(frozen, key, Layout("/x"), known, places) == f"{name}-t"
