"""What commands print, and what people, editors and terminals then do to it: everything that is mended.

Invariant: nothing here takes a character of a PEM block away or adds one that base64 has. So each of these
may follow any other, as often as a file stays below the limit of its size; `disfigured` knows the exception.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from claimd_sandbox.answers import Output, render

TEMPLATE = "TrustedUserProvisioningTemplate"
COMMAND = f"aws iot create-provisioning-claim --template-name {TEMPLATE}"


@dataclass(frozen=True)
class Answer:
    """What AWS answered, as the shapes need it."""

    certificate: str
    private_key: str = field(repr=False)
    public_key: str
    certificate_id: str = "5a" * 32
    expiration: float = 1595955066.0

    def document(self) -> dict[str, object]:
        return {
            "certificateId": self.certificate_id,
            "certificatePem": self.certificate,
            "keyPair": {"PublicKey": self.public_key, "PrivateKey": self.private_key},
            "expiration": self.expiration,
        }


def _json_v1(answer: Answer) -> str:
    return render(answer.document(), Output.JSON)


def _json_v2(answer: Answer) -> str:
    return render(answer.document(), Output.JSON, cli=2)


def _json_on_one_line(answer: Answer) -> str:
    return json.dumps(answer.document(), separators=(",", ":"))


def _json_sorted_with_tabs(answer: Answer) -> str:
    return json.dumps(answer.document(), indent="\t", sort_keys=True)


def _json_ascii_escapes(answer: Answer) -> str:
    """Some writers spell `/` as `\\/` (PHP), and `+` as `\\u002b` (.NET, PowerShell's ConvertTo-Json)."""
    return json.dumps(answer.document()).replace("/", "\\/").replace("+", "\\u002b")


def _yaml(answer: Answer) -> str:
    return render(answer.document(), Output.YAML, cli=2)


def _yaml_stream(answer: Answer) -> str:
    first, *rest = _yaml(answer).splitlines()
    return "\n".join([f"- {first}", *(f"  {line}" if line else "" for line in rest), ""])


def _yaml_with_blocks(answer: Answer) -> str:
    """As other YAML writers do it: literal blocks."""
    texts = {"certificatePem": answer.certificate, "privateKey": answer.private_key}
    return "".join(f"{name}: |\n  " + text.replace("\n", "\n  ") + "\n" for name, text in texts.items())


def _text(answer: Answer) -> str:
    return render(answer.document(), Output.TEXT)


def _query_pair_as_json(answer: Answer) -> str:
    """--query '[certificatePem,keyPair.PrivateKey]'"""
    return json.dumps([answer.certificate, answer.private_key], indent=4) + "\n"


def _query_pair_as_text(answer: Answer) -> str:
    """The same with --output text."""
    return f"{answer.certificate}\t{answer.private_key}\n"


def _query_renamed(answer: Answer) -> str:
    """--query '{c:certificatePem,k:keyPair.PrivateKey}'"""
    return json.dumps({"c": answer.certificate, "k": answer.private_key}, indent=4) + "\n"


def _pems(answer: Answer) -> str:
    return answer.certificate + answer.private_key


def _pems_key_first(answer: Answer) -> str:
    return answer.private_key + answer.certificate


def _pems_with_public_key(answer: Answer) -> str:
    return answer.public_key + answer.private_key + answer.certificate


def _pems_after_their_names(answer: Answer) -> str:
    """`head -n 99 *`"""
    return f"==> claim.crt <==\n{answer.certificate}\n==> claim.key <==\n{answer.private_key}"


RENDERINGS: Mapping[str, Callable[[Answer], str]] = {
    "json-v1": _json_v1,
    "json-v2": _json_v2,
    "json-on-one-line": _json_on_one_line,
    "json-sorted-with-tabs": _json_sorted_with_tabs,
    "json-ascii-escapes": _json_ascii_escapes,
    "yaml": _yaml,
    "yaml-stream": _yaml_stream,
    "yaml-with-blocks": _yaml_with_blocks,
    "text": _text,
    "query-pair-as-json": _query_pair_as_json,
    "query-pair-as-text": _query_pair_as_text,
    "query-renamed": _query_renamed,
    "pems": _pems,
    "pems-key-first": _pems_key_first,
    "pems-with-public-key": _pems_with_public_key,
    "pems-after-their-names": _pems_after_their_names,
}


def _wrapped(columns: int, end: str) -> Callable[[str], str]:
    """A terminal's hard line ends, wherever they fall: within base64, between `\\` and `n`."""

    def wrap(text: str) -> str:
        lines = []
        for line in text.split("\n"):
            lines += [line[at : at + columns] for at in range(0, len(line), columns)] or [""]
        return end.join(lines)

    return wrap


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _without_line_ends(text: str) -> str:
    return text.replace("\r", "").replace("\n", "")


def _literal_line_ends(text: str) -> str:
    return text.replace("\n", "\\n")


def _literal_windows_line_ends(text: str) -> str:
    return text.replace("\n", "\\r\\n")


def _json_string(text: str) -> str:
    return json.dumps(text)


def _indented(text: str) -> str:
    return "".join(f"    {line}" for line in text.splitlines(keepends=True))


def _indented_with_no_break_spaces(text: str) -> str:
    """What a browser copies from a web page."""
    return "".join(f"\u00a0\u00a0{line}" for line in text.splitlines(keepends=True))


def _spaces_at_the_ends(text: str) -> str:
    return text.replace("\n", "  \t\n") + "\n\n\n"


def _blank_lines_between(text: str) -> str:
    return text.replace("\n", "\n\n")


def _double_quoted(text: str) -> str:
    return f'"{text}"'


def _single_quoted(text: str) -> str:
    return f"'{text}'\n"


def _fenced(text: str) -> str:
    return f"Here it is:\n\n```json\n{text}\n```\n"


def _below_prompt(text: str) -> str:
    return f"technician@laptop:~/claims$ {COMMAND}\n{text}"


def _below_root_prompt_with_more(text: str) -> str:
    return f"[root@build-7 ~]# {COMMAND} \\\n>     --region eu-central-1\n{text}\n[root@build-7 ~]# "


def _below_powershell_prompt(text: str) -> str:
    return f"PS C:\\Users\\technician> {COMMAND}\r\n{text}\r\nPS C:\\Users\\technician>"


def _in_pager(text: str) -> str:
    """less(1): a colon where it waited for a key, (END) at the end."""
    lines = text.split("\n")
    middle = len(lines) // 2
    return "\n".join([*lines[:middle], ":", *lines[middle:], "(END)"])


def _in_more(text: str) -> str:
    """more(1)"""
    lines = text.split("\n")
    middle = len(lines) // 2
    return "\n".join([*lines[:middle], "--More--(47%)", *lines[middle:]])


def _in_colour(text: str) -> str:
    """jq(1) on a terminal, and what it leaves at the end of each line."""
    return "".join(f"\x1b[0;32m{line}\x1b[0m\x1b[K\n" for line in text.split("\n"))


def _bracketed_paste(text: str) -> str:
    return f"\x1b[200~{text}\x1b[201~"


def _typographic_dashes(text: str) -> str:
    """What a chat program or a word processor makes of `--`."""
    return text.replace("-----BEGIN", "——-BEGIN").replace("-----END", "—–-END")


def _quoted_in_mail(text: str) -> str:
    return "".join(f"> {line}" for line in text.splitlines(keepends=True))


def _below_words_in_any_language(text: str) -> str:
    return f"Hallo Jörg,\nhier der Schlüssel für 工場-7 ☺:\n{text}\nViele Grüße\n"


def _zero_width_spaces(text: str) -> str:
    return text.replace("\n", "\u200b\n\u2060")


DISFIGUREMENTS: Mapping[str, Callable[[str], str]] = {
    "wrapped-80": _wrapped(80, "\n"),
    "wrapped-120": _wrapped(120, "\n"),
    "wrapped-132-by-windows": _wrapped(132, "\r\n"),
    "wrapped-37": _wrapped(37, "\n"),
    "on-one-line": _on_one_line,
    "without-line-ends": _without_line_ends,
    "literal-line-ends": _literal_line_ends,
    "literal-windows-line-ends": _literal_windows_line_ends,
    "windows-line-ends": lambda text: text.replace("\n", "\r\n"),
    "old-mac-line-ends": lambda text: text.replace("\n", "\r"),
    "json-string": _json_string,
    "indented": _indented,
    "indented-with-no-break-spaces": _indented_with_no_break_spaces,
    "spaces-at-the-ends": _spaces_at_the_ends,
    "blank-lines-between": _blank_lines_between,
    "double-quoted": _double_quoted,
    "single-quoted": _single_quoted,
    "fenced": _fenced,
    "below-prompt": _below_prompt,
    "below-root-prompt-with-more": _below_root_prompt_with_more,
    "below-powershell-prompt": _below_powershell_prompt,
    "in-pager": _in_pager,
    "in-more": _in_more,
    "in-colour": _in_colour,
    "bracketed-paste": _bracketed_paste,
    "typographic-dashes": _typographic_dashes,
    "quoted-in-mail": _quoted_in_mail,
    "below-words-in-any-language": _below_words_in_any_language,
    "zero-width-spaces": _zero_width_spaces,
}

ENCODINGS: Mapping[str, Callable[[str], bytes]] = {
    "utf-8": lambda text: text.encode("utf-8"),
    "utf-8-with-mark": lambda text: text.encode("utf-8-sig"),
    "utf-16-le-with-mark": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "utf-16-be-with-mark": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "latin-1": lambda text: text.encode("latin-1", "replace"),
    "utf-8-in-a-preallocated-file": lambda text: text.encode("utf-8") + b"\0" * 512,
}


# These write something visible at the ends of lines. Where a terminal broke a line within an escape, a
# label or a word of a pager, what they write lies in the middle of it: that is past mending.
_WRITES_AT_LINE_ENDS = frozenset(
    {
        "in-colour",
        "in-more",
        "in-pager",
        "json-string",
        "literal-line-ends",
        "literal-windows-line-ends",
        "quoted-in-mail",
        "zero-width-spaces",
    }
)


def disfigured(text: str, chain: tuple[str, ...], limit: int) -> str:
    """The text after each of the chain in turn; what can't follow, or would exceed the limit, is left out."""
    wrapped = False
    for name in chain:
        if wrapped and name in _WRITES_AT_LINE_ENDS:
            continue
        changed = DISFIGUREMENTS[name](text)
        if len(changed.encode("utf-8")) <= limit:
            text = changed
            wrapped = wrapped or name.startswith("wrapped-")
    return text
