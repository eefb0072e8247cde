"""The configuration as a whole: layers, and errors that name file, line, key and what is right."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimd import config
from claimd.errors import ClaimdError, Code
from claimd.model import Layout
from claimd.settings import Config, warnings

BASE = """\
endpoint = "a1b2-ats.iot.eu-west-1.amazonaws.com"
[template]
name = "Fleet"
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "etc/claimd/conf.d").mkdir(parents=True)
    return Layout(str(tmp_path))


def write(layout: Layout, text: str | bytes) -> str:
    path = Path(layout.config_file)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def drop_in(layout: Layout, name: str, text: str) -> str:
    path = Path(layout.config_directory) / "conf.d" / name
    path.write_text(text)
    return str(path)


def errors(layout: Layout) -> list[str]:
    """All errors, a line each, without the directory."""
    with pytest.raises(ClaimdError) as caught:
        config.load(layout)
    assert caught.value.problem.code is Code.CONFIG_INVALID
    lines = caught.value.problem.fields["errors"].splitlines()
    return [line.removeprefix(layout.config_directory + "/") for line in lines]


class TestLayers:
    def test_the_least(self, layout: Layout) -> None:
        write(layout, BASE)
        loaded = config.load(layout)
        assert loaded.config.endpoint == "a1b2-ats.iot.eu-west-1.amazonaws.com"
        assert loaded.config.template.name == "Fleet"
        assert loaded.config.ports == (8883, 443)
        assert loaded.sources == {"endpoint": layout.config_file, "template.name": layout.config_file}

    def test_drop_ins_override_in_the_order_of_their_names(self, layout: Layout) -> None:
        write(layout, BASE + '[template.parameters]\na = "1"\nb = "1"\n')
        drop_in(layout, "20-b.toml", '[template.parameters]\nb = "3"')
        last = drop_in(layout, "10-a.toml", 'port = 443\n[template.parameters]\nb = "2"\nc = "2"')
        loaded = config.load(layout)
        assert loaded.config.template.parameters == {"a": "1", "b": "3", "c": "2"}
        assert loaded.config.ports == (443,)
        assert loaded.sources["port"] == last

    def test_what_another_file_overrides_is_named(self, layout: Layout) -> None:
        main = write(layout, "port = 8883\n" + BASE + '[template.parameters]\na = "1"\nb = "1"\n')
        one = drop_in(layout, "10-a.toml", '[template]\nname = "Other"\n[template.parameters]\na = "2"')
        two = drop_in(layout, "20-b.toml", 'port = 443\n[template.parameters]\na = "3"')
        assert config.load(layout).overridden == (
            f"{main}:4: template.name has no effect: {one} sets it again",
            f"{main}:6: template.parameters.a has no effect: {two} sets it again",
            f"{main}:1: port has no effect: {two} sets it again",
            f"{one}:4: template.parameters.a has no effect: {two} sets it again",
        )
        assert config.load(layout, main).overridden == ()

    def test_drop_ins_alone(self, layout: Layout) -> None:
        drop_in(layout, "x.toml", BASE)
        assert config.load(layout).config.template.name == "Fleet"

    def test_what_an_editor_leaves_is_no_drop_in(self, layout: Layout) -> None:
        write(layout, BASE)
        for name in (".10-a.toml.swp", ".#10-a.toml", "10-a.toml~", "10-a.toml.bak", ".hidden.toml"):
            drop_in(layout, name, "nonsense")
        config.load(layout)

    def test_a_file_of_its_own_has_no_drop_ins(self, layout: Layout, tmp_path: Path) -> None:
        drop_in(layout, "x.toml", "nonsense")
        own = tmp_path / "own.toml"
        own.write_text(BASE)
        assert config.load(layout, str(own)).config.template.name == "Fleet"

    def test_a_file_of_its_own_must_be_there(self, layout: Layout, tmp_path: Path) -> None:
        with pytest.raises(ClaimdError) as caught:
            config.load(layout, str(tmp_path / "missing.toml"))
        found = caught.value.problem
        assert found.code is Code.CONFIG_MISSING and "missing.toml is not there" in found.happened
        assert found.commands == (), "no mode helps"

    def test_a_drop_in_that_leads_nowhere(self, layout: Layout) -> None:
        write(layout, BASE)
        Path(layout.config_directory, "conf.d/50-x.toml").symlink_to("gone.toml")
        with pytest.raises(ClaimdError) as caught:
            config.load(layout)
        assert caught.value.problem.code is Code.CONFIG_MISSING

    def test_comments_order_and_place_change_no_hash(self, layout: Layout) -> None:
        write(layout, BASE)
        first = config.load(layout).sha256
        write(layout, "# a comment\n[template]\nname = 'Fleet'\n")
        drop_in(layout, "x.toml", 'endpoint = "A1B2-ats.iot.eu-west-1.amazonaws.com"')
        assert config.load(layout).sha256 == first
        drop_in(layout, "y.toml", "port = 443")
        assert config.load(layout).sha256 != first

    def test_a_byte_order_mark_and_windows_lines(self, layout: Layout) -> None:
        write(layout, b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
        assert config.load(layout).config.template.name == "Fleet"

    def test_described_for_the_watcher(self, layout: Layout) -> None:
        write(layout, BASE)
        said = config.describe(config.load(layout))
        assert said["schema"] == 1 and said["warnings"] == []
        values = said["values"]
        assert isinstance(values, dict) and values["timeouts"]["pass_seconds"] == 120


class TestNotConfigured:
    @pytest.mark.parametrize(
        ("text", "missing"),
        [
            (None, "endpoint and template.name"),
            ("", "endpoint and template.name"),
            ('endpoint = ""\n[template]\nname = ""\n', "endpoint and template.name"),
            ('endpoint = "localhost"\n', "template.name"),
            ("[template]\nname = 'x'\n", "endpoint"),
        ],
    )
    def test_what_is_missing_is_named(self, layout: Layout, text: str | None, missing: str) -> None:
        if text is not None:
            write(layout, text)
        with pytest.raises(ClaimdError) as caught:
            config.load(layout)
        found = caught.value.problem
        assert found.code is Code.NOT_CONFIGURED
        assert found.happened == f"not configured: set {missing}"
        assert layout.config_file in found.remedy


PORT = 'claimd.toml:1: port: takes "auto" or a number without quotes, 1 to 65535'


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (BASE + "nmae = 1\n", "claimd.toml:4: template.nmae: unknown key; did you mean template.name?"),
            ("endpiont = 'x'\n" + BASE, "claimd.toml:1: endpiont: unknown key; did you mean endpoint?"),
            (
                BASE + "[tiemouts]\nx = 1\n",
                "claimd.toml:4: tiemouts: unknown table; did you mean timeouts?",
            ),
            (BASE + "zzzzz = 1\n", "claimd.toml:4: template.zzzzz: unknown key"),
            (
                BASE + "port = 443\n",
                "claimd.toml:4: template.port: unknown key; did you mean port?"
                " It belongs above the first [table]",
            ),
            (
                "port = '443'\n" + BASE,
                PORT,
            ),
            ("port = 0\n" + BASE, PORT),
            (
                "port = true\n" + BASE,
                PORT,
            ),
            ("ca_file = 'ca.pem'\n" + BASE, "claimd.toml:1: ca_file: takes an absolute path in quotes"),
            (
                "reprovision = 'always'\n" + BASE,
                'claimd.toml:1: reprovision: takes "never" or "replace", not "always"',
            ),
            (
                BASE + "[timeouts]\npass_seconds = 5\n",
                "claimd.toml:5: timeouts.pass_seconds: takes at least 40 here:"
                " twice connect_seconds and answer_seconds",
            ),
            (
                BASE + "[timeouts]\nconnect_seconds = '5'\n",
                'claimd.toml:5: timeouts.connect_seconds: takes a number of seconds, 1 to 60, not "5"',
            ),
            (
                BASE + "[template.parameters]\nA = 5\n",
                "claimd.toml:5: template.parameters.A: takes text",
            ),
            (
                BASE + "[template.parameters]\nA = '{seriall}'\n",
                "claimd.toml:5: template.parameters.A: unknown placeholder {seriall}; did you mean {serial}?",
            ),
            (BASE + "[claim]\nclient_id = '$x'\n", "claimd.toml:5: claim.client_id: takes no client id that"),
            (
                BASE + "[claim]\nclient_id = ''\n",
                "claimd.toml:5: claim.client_id: takes text",
            ),
            (
                BASE + f"[claim]\nclient_id = '{'x' * 129}'\n",
                "claimd.toml:5: claim.client_id: takes a client id of at most 128 bytes",
            ),
            (
                BASE.replace('"Fleet"', '"a b"'),
                "claimd.toml:3: template.name: takes 1 to 36 letters, digits, _ and -",
            ),
            (
                BASE.replace('"Fleet"', '"arn:aws:iot:eu-west-1:1:provisioningtemplate/Fleet"'),
                'claimd.toml:3: template.name: takes the name alone: write name = "Fleet"',
            ),
            ("endpoint = x\n", 'claimd.toml:1: invalid value; text needs quotes: KEY = "TEXT"'),
            (BASE + "name = 'again'\n", "claimd.toml:4: cannot overwrite a value"),
            ("template = 5\nendpoint = 'x'\n", "claimd.toml:1: template: takes a table: [template], not 5"),
        ],
    )
    def test_file_line_key_and_what_is_right(self, layout: Layout, text: str, said: str) -> None:
        write(layout, text)
        assert errors(layout)[0].startswith(said)

    def test_all_at_once_in_the_order_of_the_files(self, layout: Layout) -> None:
        write(layout, "x1 = 1\n[template]\nname = 'a b'\n")
        drop_in(layout, "10-a.toml", "port = 0\n")
        found = errors(layout)
        assert [line.split(": ")[0] for line in found] == [
            *("claimd.toml:1", "claimd.toml:3", "conf.d/10-a.toml:1"),
            found[-1].split(": ")[0],
        ]
        assert found[-1].endswith("endpoint: is not set")

    def test_a_value_that_could_be_a_secret_is_not_quoted(self, layout: Layout) -> None:
        write(layout, BASE + "[template.parameters]\nPassword = '{hunter2'\n")
        assert "hunter2" not in "\n".join(errors(layout))

    def test_a_pasted_key_is_cut(self, layout: Layout) -> None:
        write(layout, f"reprovision = '{'x' * 5000}'\n" + BASE)
        assert len(errors(layout)[0]) < 200

    def test_syntax_errors_of_all_files(self, layout: Layout) -> None:
        write(layout, "a = \n")
        drop_in(layout, "x.toml", "b = \n")
        assert [line.split(":")[0] for line in errors(layout)] == ["claimd.toml", "conf.d/x.toml"]

    def test_no_text_at_all(self, layout: Layout) -> None:
        write(layout, b"a = 1\nb = '\xff'\n")
        assert errors(layout) == ["claimd.toml:2: it is not UTF-8 text"]

    def test_nested_without_end(self, layout: Layout) -> None:
        write(layout, "a = " + "[" * 20_000)
        assert errors(layout)[0].startswith("claimd.toml")

    @pytest.mark.parametrize("make", ["directory", "fifo", "large"])
    def test_what_is_no_file_of_a_sane_size(self, layout: Layout, make: str) -> None:
        path = Path(layout.config_file)
        if make == "directory":
            path.mkdir()
        elif make == "fifo":
            os.mkfifo(path)
        else:
            write(layout, "#" * 70_000)
        with pytest.raises(ClaimdError) as caught:
            config.load(layout)
        assert caught.value.problem.code is Code.CONFIG_UNREADABLE

    def test_a_drop_in_directory_that_is_a_file(self, layout: Layout) -> None:
        write(layout, BASE)
        (Path(layout.config_directory) / "conf.d").rmdir()
        (Path(layout.config_directory) / "conf.d").touch()
        with pytest.raises(ClaimdError) as caught:
            config.load(layout)
        assert caught.value.problem.code is Code.CONFIG_UNREADABLE


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("shut", ["", "conf.d", "claimd.toml", "conf.d/50-x.toml", "*"])
def test_the_remedy_opens_what_shuts_claimd_out(shut: str) -> None:
    """Once for each thing that does, the outermost first."""
    with tempfile.TemporaryDirectory() as root:  # pytest's own is root's alone
        Path(root).chmod(0o755)
        layout, above = Layout(root), Path(root, "etc/claimd")
        (above / "conf.d").mkdir(parents=True)
        write(layout, BASE)
        drop_in(layout, "50-x.toml", "port = 443")
        config.load(layout)  # also imports what the other account may not
        closed = [above, *above.rglob("*")] if shut == "*" else [above / shut]
        for each in closed:
            each.chmod(0o700 if each.is_dir() else 0o600)
        for _ in closed:
            command = _told_to_another(layout)
            assert command.startswith("sudo chmod ")
            subprocess.run(["/bin/sh", "-c", command.removeprefix("sudo ")], check=True)
        assert _told_to_another(layout) == "nothing"


def _told_to_another(layout: Layout) -> str:
    """The command that another account is told; "nothing" when it could read the configuration."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            config.load(layout)
            os.write(writer, b"nothing")
        except ClaimdError as error:
            os.write(writer, error.problem.commands[0].encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        said = told.read()
    os.waitpid(child, 0)
    return said


def made(**values: object) -> Config:
    return Config.model_validate({"endpoint": "localhost", "template": {"name": "x"}, **values})


@pytest.mark.parametrize(("port", "ports"), [("auto", (8883, 443)), (443, (443,)), (8443, (8443,))])
def test_the_ports_that_are_tried(port: object, ports: tuple[int, ...]) -> None:
    assert made(port=port).ports == ports


def test_roots_of_one_s_own() -> None:
    assert made(ca_file="/etc/claimd/ca.pem").ca_file == "/etc/claimd/ca.pem"
    assert made(ca_file="").ca_file == ""


@pytest.mark.parametrize("table", ["claim", "identity"])
def test_one_client_id_for_a_whole_fleet_gets_a_warning(table: str) -> None:
    found = warnings(made(**{table: {"client_id": "gateway"}}))
    assert any(text.startswith(f"{table}.client_id: with one client id for all devices") for text in found)


def test_the_defaults_are_no_reason_for_a_warning() -> None:
    assert [text for text in warnings(made()) if "client_id" in text] == []


@pytest.mark.parametrize(
    "host",
    ["proxy.example.com", "Proxy.Example.COM", "10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "p", "a" * 63, ""],
)
def test_a_proxy(host: str) -> None:
    table = {"host": host, "port": 8080, "username": "u", "password_file": "/etc/claimd/proxy-password"}
    assert made(proxy=table).proxy.host == host
    assert not any("proxy" in text for text in warnings(made(proxy=table)))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"host": "http://proxy"}, "without http://"),
        ({"host": "proxy:3128"}, "without a port"),
        ({"host": "a b"}, "takes a host name"),
        ({"host": "proxy..corp.example"}, "takes a host name"),
        ({"host": "a" * 64 + ".example"}, "takes a host name"),
        ({"host": "-proxy.example"}, "takes a host name"),
        ({"host": "proxy.example."}, "takes a host name"),
        ({"host": ".".join(["a" * 63] * 4)}, "takes a host name"),
        ({"host": ".."}, "takes a host name"),
        ({"host": ":::"}, "takes a host name"),
        ({"host": "[fd00::1]"}, "takes a host name"),
        ({"host": "fe80::1%eth0"}, "takes a host name"),
        ({"host": "\N{KELVIN SIGN}.example"}, "takes a host name"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"username": "u:p"}, "without a colon"),
        ({"username": "u\n"}, "without a colon"),
        ({"password_file": "secret"}, "takes an absolute path"),
        ({"password": "secret"}, "Extra inputs"),
    ],
)
def test_a_proxy_that_can_not_be(table: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(proxy=table)


def test_a_password_without_a_user_gets_a_warning() -> None:
    found = warnings(made(proxy={"host": "p", "password_file": "/p"}))
    assert "proxy.password_file: is not used without proxy.username" in found


@pytest.mark.parametrize("length", [0, 2049])
def test_a_parameter_s_name_has_a_length(length: int) -> None:
    with pytest.raises(ValueError, match=f"its name has {length} characters"):
        made(template={"name": "x", "parameters": {"n" * length: "v"}})


@pytest.mark.parametrize("length", [0, 4097])
def test_a_parameter_s_value_has_a_length(length: int) -> None:
    with pytest.raises(ValueError, match=f"its value has {length} characters"):
        made(template={"name": "x", "parameters": {"n": "v" * length}})


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_an_error_with_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    layout = Layout(str(tmp_path_factory.getbasetemp() / "fuzzed"))
    os.makedirs(layout.config_directory, exist_ok=True)
    write(layout, text.encode("utf-8", "surrogatepass"))
    try:
        config.load(layout)
    except ClaimdError as error:
        assert error.problem.happened
