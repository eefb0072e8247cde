"""Writes the manual pages: claimd(8), claimd-sandbox(8) and claimd.toml(5).

Invariant: what the code knows is taken from the code. Commands and options come from the argument parsers, exit
codes from their enum, configuration keys from the default configuration; only the prose around them stands here.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

_DESCRIPTION = """\
A technician copies a five-minute AWS IoT provisioning claim onto a device; seconds later the device has its own
permanent identity, and every trace of the claim is gone. claimd.service watches the drop directory and does this by
itself; the commands below are for people.

A claim is put with whatever copies files, in one file or two of any names: contents decide. For a technician who is a
member of the group claimd-drop:

.EX
aws iot create-provisioning-claim --template-name TEMPLATE > claim.json
scp claim.json DEVICE:/var/spool/claimd/drop/
.EE

The answer is in /var/spool/claimd/result/latest.txt and in `claimd status`.
"""

_EXITS = {
    "OK": "active, or done",
    "USAGE": "the command line is wrong",
    "OLD_IDENTITY_SERVES": "replacing did not succeed; the old identity serves",
    "NOTHING_TO_DO": "nothing to do",
    "CLAIM_UNUSABLE": "the claim can't be used",
    "REFUSED": "refused or blocked by AWS",
    "BUG": "a bug of claimd",
    "DISK": "the disk",
    "RETRY": "not now; it will be tried again (also: another pass is at work)",
    "PERMISSION": "permission",
    "CONFIGURATION": "configuration",
    "TIMEOUT": "time is up",
}

_FILES = {
    "/etc/claimd/claimd.toml, /etc/claimd/conf.d/*.toml": "The configuration: claimd.toml(5).",
    "/etc/claimd/hooks.d/": "Hooks: see below.",
    "/var/spool/claimd/drop/": "Where claims are put. Members of claimd-drop put, list and remove their own files; "
    "nobody reads another's, whatever mode the copy asks for.",
    "/var/spool/claimd/result/": "Answers to what was put, and latest.txt.",
    "/var/lib/claimd/identity/current": "The identity in force: private.key, certificate.pem, root-ca.pem, "
    "identity.json and identity.env, readable for members of claimd-identity. Resolve the link once, then open the "
    "files: so two generations are never mixed.",
    "/var/lib/claimd/activated": "Replaced after each change of identity; what path units watch.",
    "/run/claimd/status.json": "What `claimd status` shows.",
    "/usr/share/claimd/sbom.cdx.json": "The libraries inside the package, as a CycloneDX bill of materials.",
}

_UNITS = """\
A service that needs the identity orders itself After=claimd-identity.target and is WantedBy=claimd-identity.target: it
starts when the device is provisioned, at once or years after its first boot. claimd-hooks.service runs the hooks.
Change the units with `systemctl edit`.
"""

_HOOKS = """\
Executables of root's in /etc/claimd/hooks.d, which nobody else may write, are run by root in the order of their
names, outside the service's sandbox, after an identity became active or changed. Each hook sees each identity once: not
at every boot, not missed when the machine died in between; one that fails is run again. Each has 300 seconds. Its
output is in the journal of claimd-hooks.service. It is told in its environment: CLAIMD_CERTIFICATE_ID,
CLAIMD_PREVIOUS_CERTIFICATE_ID, CLAIMD_THING_NAME, CLAIMD_CLIENT_ID, CLAIMD_ENDPOINT, CLAIMD_PORT, CLAIMD_TEMPLATE,
CLAIMD_CERTIFICATE_NOT_AFTER, CLAIMD_PRIVATE_KEY, CLAIMD_CERTIFICATE, CLAIMD_ROOT_CA, CLAIMD_IDENTITY and
CLAIMD_IDENTITY_JSON.

/usr/share/claimd/hooks/50-aws-iot-device-client hands the identity to the AWS IoT Device Client; a symbolic link in
/etc/claimd/hooks.d is enough.
"""

_REMOVAL = """\
Removing or purging the package stops the service and leaves the identity, the users and the groups: other services may
be connected with it, and it can't be got twice. To have a purge take it away as well, create the file
/etc/claimd/purge-identity before.
"""

_SANDBOX = """\
A local stand-in for AWS IoT Core where provisioning is concerned: the HTTP call that `aws iot
create-provisioning-claim --endpoint-url` makes, and MQTT 5 and 3.1.1 over TLS with client certificates, templates,
ownership tokens, expiring claims, throttling, and faults on request. For demonstrations, tests and integrators.

.EX
claimd-sandbox serve --dir DIR
.EE

writes its CA, an endpoint.json and a ready claimd.toml into DIR and prints `ready`.
"""


def write(top: Path, debian: Path, version: str, epoch: int) -> None:
    """The pages, and the lists by which debhelper installs them."""
    sys.path.insert(0, str(top / "daemon"))
    from claimd import cli
    from claimd.codes import Exit
    from claimd_sandbox import cli as sandbox_cli

    date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    pages = {
        "claimd.8": _page("claimd", 8, date, version, "AWS IoT fleet provisioning by trusted user")
        + _section("SYNOPSIS", "`claimd` [OPTION...] COMMAND [ARGUMENT...]")
        + _section("DESCRIPTION", _DESCRIPTION)
        + _commands(cli._parser())
        + _list("EXIT STATUS", {str(int(code)): _EXITS[code.name] for code in Exit})
        + _list("FILES", _FILES)
        + _section("UNITS", _UNITS)
        + _section("HOOKS", _HOOKS)
        + _section("REMOVAL", _REMOVAL)
        + _section("SEE ALSO", "claimd.toml(5), claimd-sandbox(8), systemd.unit(5)"),
        "claimd-sandbox.8": _page(
            "claimd-sandbox", 8, date, version, "local stand-in for AWS IoT fleet provisioning"
        )
        + _section("SYNOPSIS", "`claimd-sandbox` COMMAND [ARGUMENT...]")
        + _section("DESCRIPTION", _SANDBOX)
        + _commands(sandbox_cli._parser())
        + _section("SEE ALSO", "claimd(8)"),
        "claimd.toml.5": _page("claimd.toml", 5, date, version, "configuration of claimd")
        + _section("SYNOPSIS", "/etc/claimd/claimd.toml, /etc/claimd/conf.d/*.toml")
        + _configuration((top / "etc/claimd.toml").read_text())
        + _section("SEE ALSO", "claimd(8)"),
    }
    for name, text in pages.items():
        (debian / name).write_text(text)
    (debian / "claimd.manpages").write_text("debian/claimd.8\ndebian/claimd.toml.5\n")
    (debian / "claimd-sandbox.manpages").write_text("debian/claimd-sandbox.8\n")


def _page(name: str, section: int, date: str, version: str, summary: str) -> str:
    title = f'.TH {name.upper()} {section} {date} "claimd {version}"\n'
    return title + f".SH NAME\n{_roff(name)} \\- {_roff(summary)}\n"


def _section(title: str, text: str) -> str:
    """Paragraphs apart by blank lines; `.EX` and `.EE` stand for themselves; `this` is bold."""
    lines = [f'.SH "{title}"']
    for paragraph in text.strip().split("\n\n"):
        if not paragraph.startswith(".E"):
            lines.append(".PP")
        lines += [line if line in (".EX", ".EE") else _bold(line) for line in paragraph.splitlines()]
    return "\n".join(lines) + "\n"


def _list(title: str, items: dict[str, str]) -> str:
    return f'.SH "{title}"\n' + "".join(_item(name, text) for name, text in items.items())


def _item(name: str, text: str) -> str:
    return f".TP\n.B {_roff(name)}\n{_bold(text)}\n"


def _commands(parser: argparse.ArgumentParser) -> str:
    text = '.SH "OPTIONS"\n' + "".join(_options(parser))
    return (
        text + '.SH "COMMANDS"\n' + "".join(_command(name, help_, sub) for name, help_, sub in _below(parser))
    )


def _below(
    parser: argparse.ArgumentParser, prefix: str = ""
) -> list[tuple[str, str, argparse.ArgumentParser]]:
    """Every command with its help, an action under its command's name."""
    found: list[tuple[str, str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                found.append((prefix + name, helps.get(name, ""), sub))
                found += _below(sub, f"{prefix}{name} ")
    return found


def _command(name: str, help_: str, parser: argparse.ArgumentParser) -> str:
    positional = [
        action.metavar or action.dest
        for action in parser._actions
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction)
    ]
    words = " ".join([name, *(str(word if isinstance(word, str) else word[0]) for word in positional)])
    options = "".join(_options(parser))
    return _item(words, help_ or parser.description or "") + (f".RS\n{options}.RE\n" if options else "")


def _options(parser: argparse.ArgumentParser) -> list[str]:
    found = []
    for action in parser._actions:
        if not action.option_strings or "--help" in action.option_strings:
            continue
        value = ""
        if action.nargs != 0:
            value = " " + str(action.metavar or action.dest.upper())
        found.append(_item(", ".join(action.option_strings) + value, (action.help or "").replace("%%", "%")))
    return found


def _configuration(text: str) -> str:
    """The default configuration's comments; each stands above its key, the first above all."""
    blocks = [block for block in re.split(r"\n\s*\n", text.strip()) if block.strip()]
    out = _section("DESCRIPTION", "\n\n".join(_prose(blocks[0])))
    out += '.SH "KEYS"\n'
    table = ""
    for block in blocks[1:]:
        prose, keys = [], []
        for line in block.splitlines():
            header = re.fullmatch(r"#?(\[[\w.]+\])", line)
            key = re.fullmatch(r"#?([\w-]+ = .+)", line)
            if header:
                table = header.group(1)[1:-1] + "."
                keys.append(header.group(1))
            elif key:
                keys.append(table + key.group(1))
            else:
                prose.append(line)
        head = _roff(", ".join(keys)) if keys else ""
        body = "\n.IP\n".join(_bold(part) for part in _prose("\n".join(prose)))
        out += f".TP\n.B {head}\n{body}\n" if head else f".PP\n{body}\n"
    return out


def _prose(block: str) -> list[str]:
    """Comment lines without their `#`, in paragraphs."""
    lines = [line.lstrip("#").removeprefix(" ") for line in block.splitlines()]
    return [part.strip("\n") for part in "\n".join(lines).split("\n\n") if part.strip()]


def _bold(text: str) -> str:
    return "\n".join(re.sub(r"`([^`]+)`", r"\\fB\1\\fR", _roff(line)) for line in text.splitlines())


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped[:1] in (".", "'") else escaped
