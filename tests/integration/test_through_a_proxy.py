"""Through an HTTP proxy: the real command, a real tunnel, basic authentication, and what goes wrong."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import peers
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import KeyKind
from device import Device, configuration, wait_for
from proxies import ConnectProxy

QUICK = Settings(key_kind=KeyKind.EC, connects_per_second=None)
USER, PASSWORD, WRONG = "devices", "canary-5f1c-of-the-proxy", "canary-77aa-that-is-wrong"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), QUICK) as running:
        yield running


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with ConnectProxy(USER, PASSWORD) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, sandbox: Sandbox, proxy: ConnectProxy) -> Iterator[Device]:
    made = Device(tmp_path / "root")
    configure(made, sandbox, proxy.port)
    password(made, PASSWORD)
    made.put("claim.json", json.dumps(sandbox.create_claim()))
    yield made
    made.stop()
    sandbox.faults.clear()


def configure(device: Device, sandbox: Sandbox, port: int, host: str = "127.0.0.1") -> None:
    table = f'[proxy]\nhost = "{host}"\nport = {port}\nusername = "{USER}"\n'
    table += 'password_file = "/etc/claimd/proxy-password"'
    device.configure(configuration(sandbox, thing=f"thing-{device.root.parent.name}", tables=table))


def password(device: Device, text: str) -> Path:
    path = Path(device.layout.under("/etc/claimd/proxy-password"))
    path.write_text(text + "\n")
    path.chmod(0o640)
    return path


def assert_unseen(device: Device, *said: str) -> None:
    """The password is in its file alone: in no text, nothing else on the disk, not even encoded."""
    for word in (PASSWORD, WRONG):
        pair = base64.b64encode(f"{USER}:{word}".encode())
        for needle in (word.encode(), pair, base64.b64encode(word.encode())):
            held = [path for path, data in device.files().items() if needle in data]
            assert set(held) <= {"etc/claimd/proxy-password"}, held
            assert not any(needle in text.encode() for text in said)


def test_it_is_the_only_way(device: Device, sandbox: Sandbox, proxy: ConnectProxy) -> None:
    before = len(sandbox.connections)
    ended = device.run("provision")
    assert ended.returncode == 0, ended.stderr
    assert {answer for _, answer in proxy.asked} == {200}
    tunnels = [place for place, _ in proxy.asked]
    assert set(tunnels) == {f"localhost:{sandbox.mqtt_port}"}
    assert len(sandbox.connections) - before <= len(tunnels), "nothing went past it"
    assert_unseen(device, ended.stdout, ended.stderr, device.run("status", "--json").stdout)


def test_a_wrong_password_is_named_and_cured(device: Device, proxy: ConnectProxy) -> None:
    password(device, WRONG)
    result = device.provision()
    assert (result["outcome"], result["exit"], result["next"]) == ("proxy-refused", 75, "again")
    place = f"127.0.0.1:{proxy.port}"
    assert f"the proxy {place} does not let this device through" in result["problem"]["message"]
    assert "407 Proxy Authentication Required" in result["problem"]["message"]
    assert "password_file" in result["problem"]["cause"]
    assert len(device.status()["claims"]) == 1, "the claim is not wasted"
    said = [device.run(*words) for words in (("provision",), ("status",), ("config", "show"), ("doctor",))]
    assert_unseen(device, *(each.stdout + each.stderr for each in said), json.dumps(result))
    password(device, PASSWORD)
    assert device.run("provision").returncode == 0


@pytest.mark.parametrize("text", ["", "two\nlines", None])
def test_a_password_that_can_not_be_read(device: Device, proxy: ConnectProxy, text: str | None) -> None:
    path = password(device, text or "")
    if text is None:
        path.unlink()
    result = device.provision()
    assert (result["outcome"], result["next"]) == ("proxy-refused", "again")
    assert str(path) in result["problem"]["message"]
    assert proxy.asked == []
    password(device, PASSWORD)
    assert device.run("provision").returncode == 0, "the same claim"


def test_nobody_there(device: Device, sandbox: Sandbox, proxy: ConnectProxy) -> None:
    proxy.stop()
    result = device.provision()
    assert (result["outcome"], result["next"]) == ("proxy-unreachable", "again")
    assert (
        f"the proxy 127.0.0.1:{proxy.port} can't be used: Connection refused" in result["problem"]["message"]
    )
    configure(device, sandbox, proxy.port, "claimd.invalid")
    assert device.provision()["outcome"] == "proxy-unreachable"


def test_a_server_that_is_no_proxy(device: Device, sandbox: Sandbox) -> None:
    with peers.resetting() as other:
        configure(device, sandbox, other.port)
        assert device.provision()["outcome"] == "proxy-unreachable"
    configure(device, sandbox, sandbox.mqtt_port)
    assert device.provision()["outcome"] == "proxy-unreachable"


def test_the_endpoint_is_not_behind_it(device: Device, sandbox: Sandbox, proxy: ConnectProxy) -> None:
    port = peers.closed_port()
    text = Path(device.layout.config_file).read_text()
    device.configure(text.replace(f"port = {sandbox.mqtt_port}\n", f"port = {port}\n"))
    result = device.provision()
    assert (result["outcome"], result["next"]) == ("endpoint-unreachable", "again")
    assert f"the proxy 127.0.0.1:{proxy.port} answers 502 Bad Gateway" in result["problem"]["message"]


def test_it_dies_in_the_middle(device: Device, sandbox: Sandbox, proxy: ConnectProxy) -> None:
    """While RegisterThing is on its way; when it is back the attempt goes on with what it has."""
    sandbox.faults.set("delay step=register ms=60000 times=1")
    results: list[dict[str, object]] = []
    passing = threading.Thread(target=lambda: results.append(device.provision()))
    passing.start()
    wait_for(lambda: (device.status()["attempt"] or {}).get("state") == "registering", "registering")
    proxy.stop()
    passing.join()
    sandbox.faults.clear()
    assert results[0]["outcome"] in ("connection-lost", "proxy-unreachable")
    key = next(
        data for path, data in device.files().items() if path.endswith("private.key") and "identity/" in path
    )
    assert device.run("provision").returncode == 75
    assert device.code() == "proxy-unreachable"
    proxy.start()
    assert device.run("provision").returncode == 0
    assert (device.identity / "private.key").read_bytes() == key, "no second certificate"


def test_what_is_asked_beforehand_goes_the_same_way(device: Device, proxy: ConnectProxy) -> None:
    assert json.loads(device.run("ready", "--json").stdout)["problem"]["code"] == "service-stopped"
    ended = device.run(
        "doctor", "--json", "--only", "network-proxy,network-port,network-reach,tls-chain,tls-version"
    )
    found = {check["id"]: check for check in json.loads(ended.stdout)["checks"]}
    assert {check["verdict"] for check in found.values()} == {"ok"}, found
    assert f"127.0.0.1:{proxy.port} is configured, as {USER}" in found["network-proxy"]["evidence"]
    assert len(proxy.asked) >= 3
    password(device, WRONG)
    assert "proxy-refused" in device.run("ready").stdout + device.run("ready").stderr
    assert "407" in device.run("doctor", "--only", "network-port").stdout
    password(device, PASSWORD).chmod(0o644)
    assert "chmod 0640" in device.run("doctor", "--only", "network-proxy").stdout
