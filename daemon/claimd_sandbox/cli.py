"""The command line: serve, list, claim, fault.

Invariant: standard output holds what was asked for and nothing else; the log goes to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claimd_sandbox.answers import Output, render
from claimd_sandbox.faults import Fault, FaultError
from claimd_sandbox.server import Sandbox
from claimd_sandbox.settings import ConnectRule, KeyKind, Refusal, Settings, TokenUse

TIMEOUT = 30.0  # seconds for a control call


class UsageError(Exception):
    """The command can't be carried out; the text says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except (UsageError, FaultError, OSError) as error:
        print(f"claimd-sandbox: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="claimd-sandbox", description="A local stand-in for AWS IoT Core's fleet provisioning."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    listing = commands.add_parser("list", help="show things and certificates")
    _add_directory(listing)
    listing.add_argument("--json", action="store_true", help="the whole registry as JSON")
    listing.set_defaults(run=_list)
    claim = commands.add_parser("claim", help="make a provisioning claim, quicker than the aws CLI")
    _add_directory(claim)
    claim.add_argument("--template", help="default: the account's first")
    claim.add_argument("--account", help="an account id of endpoint.json")
    claim.add_argument("--life", type=float, help="seconds; negative for an expired claim")
    claim.add_argument("--output", type=Output, choices=list(Output), default=Output.JSON)
    claim.add_argument(
        "--cli", type=int, choices=(1, 2), default=1, help="the version of the aws CLI to imitate"
    )
    claim.set_defaults(run=_claim)
    rule = commands.add_parser("rule", help="what the policy of registered certificates says about Connect")
    _add_directory(rule)
    rule.add_argument("rule", type=ConnectRule, choices=list(ConnectRule))
    rule.add_argument("--template", help="of every certificate that it registered or will register")
    rule.add_argument("--certificate", help="of one certificate id")
    rule.add_argument("--account")
    rule.set_defaults(run=_rule)
    fault = commands.add_parser(
        "fault",
        help="make things go wrong",
        epilog='example: fault --dir D set "reject step=register times=1"',
    )
    _add_directory(fault)
    fault.add_argument("action", choices=("set", "list", "clear"))
    fault.add_argument(
        "words", nargs="*", help="set: KIND step=STEP [key=value…]; clear: a number, or nothing"
    )
    fault.set_defaults(run=_fault)
    return parser


def _add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, required=True, help="the sandbox's directory")


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", help="run the sandbox; prints `ready` when it is")
    _add_directory(serve)
    serve.add_argument("--mqtt-port", type=int, default=0, help="default 0: any free port, see endpoint.json")
    serve.add_argument(
        "--alpn-port", type=int, help="a second MQTT port that requires ALPN, as AWS's 443 does"
    )
    serve.add_argument("--http-port", type=int, default=0, help="default 0: any free port")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on (default %(default)s)")
    serve.add_argument(
        "--server-name", default="localhost", help="the endpoint's host name (default %(default)s)"
    )
    serve.add_argument("--claim-life", type=float, default=Settings.claim_life, metavar="SECONDS")
    serve.add_argument("--token", type=TokenUse, choices=list(TokenUse), default=Settings.token_use)
    serve.add_argument("--refusal", type=Refusal, choices=list(Refusal), default=Settings.refusal)
    serve.add_argument("--keys", type=KeyKind, choices=list(KeyKind), default=Settings.key_kind)
    serve.add_argument("--no-limits", action="store_true", help="no limits on CONNECT and requests a second")
    serve.add_argument("--fault", action="append", default=[], metavar="WORDS", help="as in `fault set`")
    serve.add_argument("--verbose", "-v", action="store_true", help="log every connection to standard error")
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    settings = Settings(
        host=options.host,
        mqtt_port=options.mqtt_port,
        alpn_port=options.alpn_port,
        http_port=options.http_port,
        server_name=options.server_name,
        claim_life=options.claim_life,
        token_use=options.token,
        refusal=options.refusal,
        key_kind=options.keys,
        connects_per_second=None if options.no_limits else Settings.connects_per_second,
        operations_per_second=None if options.no_limits else Settings.operations_per_second,
    )
    faults = [Fault.parse(words) for words in options.fault]
    sandbox = Sandbox(options.dir, settings)
    for fault in faults:
        sandbox.faults.set(fault)
    asyncio.run(_until_signal(sandbox))
    return 0


async def _until_signal(sandbox: Sandbox) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    await sandbox.serve(stopping, ready=lambda: print("ready", flush=True))


def _list(options: argparse.Namespace) -> int:
    path = options.dir / "registry.json"
    if not path.exists():
        raise UsageError(f"cannot read {str(path)!r}: no sandbox has served from there")
    registry = json.loads(path.read_text(encoding="utf-8"))
    if options.json:
        print(json.dumps(registry, indent=2))
        return 0
    for thing in registry["things"]:
        print(f"thing        {thing['name']}  (account {thing['account']})")
    for item in registry["certificates"]:
        things = ", ".join(item["things"]) or "-"
        print(f"certificate  {item['certificate_id']}  {item['status']}  things: {things}")
    if not registry["things"] and not registry["certificates"]:
        print("no things, no certificates", file=sys.stderr)
    return 0


def _claim(options: argparse.Namespace) -> int:
    wanted = {"template": options.template, "account": options.account, "life": options.life}
    answer = _control(options.dir, "POST", "claims", wanted)
    sys.stdout.write(render(answer, options.output, cli=options.cli))
    return 0


def _rule(options: argparse.Namespace) -> int:
    if (options.template is None) == (options.certificate is None):
        raise UsageError("cannot set the rule: give either --template or --certificate")
    wanted = {
        "rule": options.rule.value,
        "template": options.template,
        "certificateId": options.certificate,
        "account": options.account,
    }
    _control(options.dir, "PUT", "rules", wanted)
    return 0


def _fault(options: argparse.Namespace) -> int:
    words = " ".join(options.words)
    if options.action == "set":
        Fault.parse(words)
        answer = _control(options.dir, "POST", "faults", {"fault": words})
    elif options.action == "clear":
        query = "?" + urllib.parse.urlencode({"number": words}) if words else ""
        answer = _control(options.dir, "DELETE", f"faults{query}")
    else:
        answer = _control(options.dir, "GET", "faults")
    print(json.dumps(answer, indent=2))
    return 0


def _control(directory: Path, method: str, call: str, body: dict[str, Any] | None = None) -> Any:
    """One control call to the sandbox that serves from `directory`."""
    path = directory / "endpoint.json"
    if not path.exists():
        raise UsageError(f"cannot read {str(path)!r}: start `claimd-sandbox serve --dir {directory}` first")
    url = json.loads(path.read_text(encoding="utf-8"))["control_url"]
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/{call}", data=data, method=method)  # noqa: S310 our own URL
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise UsageError(json.load(error)["message"]) from error
    except urllib.error.URLError as error:
        raise UsageError(f"cannot reach the sandbox at {url}: {error.reason}; is it running?") from error
