"""Claim material by its contents: whatever was done to it, canonical or named for what it is.

Keys, certificates and containers come from openssl, answers from the `aws` command itself.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from claimd.errors import Code
from claimd.pem import (
    MAX_BLOCKS,
    MAX_CERTIFICATE_BYTES,
    MAX_FILE_BYTES,
    Material,
    pair_up,
    parse_certificate,
    parse_private_key,
    recognise,
)
from claimd_sandbox.server import Sandbox, Settings
from disfigure import COMMAND, DISFIGUREMENTS, ENCODINGS, RENDERINGS, Answer
from material import (
    NOW,
    Key,
    answer,
    authority,
    key_pem,
    new_key,
    odd_rsa_key,
    public_key_pem,
    rsa_key,
)

AWS = Path(sys.executable).with_name("aws")
BEGIN_WITH_SOMETHING_ELSE = ("pems-with-public-key", "pems-after-their-names")
KINDS = ("elliptic", "rsa")
# A public key or a line of somebody's own says nothing of what may follow it; the next look does.
BEGIN_AS_A_CLAIM = tuple(each for each in RENDERINGS if each not in BEGIN_WITH_SOMETHING_ELSE)


@pytest.fixture(scope="module")
def answers() -> dict[str, Answer]:
    return {"elliptic": answer(), "rsa": answer(rsa_key())}


@pytest.fixture(scope="module")
def ec_answer(answers: dict[str, Answer]) -> Answer:
    return answers["elliptic"]


@pytest.fixture(scope="module")
def rsa_answer(answers: dict[str, Answer]) -> Answer:
    return answers["rsa"]


def openssl(*arguments: str, data: str | bytes = b"") -> bytes:
    given = data.encode() if isinstance(data, str) else data
    done = subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def look(data: str | bytes) -> Material:
    return recognise("claim", data.encode() if isinstance(data, str) else data)


def assert_canonical(found: Material, answer: Answer) -> None:
    assert found.problems == ()
    assert [each.pem for each in found.certificates] == [answer.certificate]
    assert [each.pem.reveal().decode() for each in found.keys] == [answer.private_key]
    assert found.keys[0].public_key_id == found.certificates[0].public_key_id


def refused(data: str | bytes) -> tuple[Code, str]:
    """The only problem of a file that holds nothing usable: its code and its detail."""
    found = look(data)
    assert (found.certificates, found.keys) == ((), ())
    assert len(found.problems) == 1, found.problems
    return found.problems[0].code, found.problems[0].fields["detail"]


class TestShapes:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("rendering", RENDERINGS)
    def test_every_rendering_in_every_encoding(
        self, answers: dict[str, Answer], kind: str, rendering: str
    ) -> None:
        text = RENDERINGS[rendering](answers[kind])
        for encode in ENCODINGS.values():
            assert_canonical(look(encode(text)), answers[kind])

    @pytest.mark.parametrize("disfigurement", DISFIGUREMENTS)
    def test_every_disfigurement_of_every_rendering(
        self, answers: dict[str, Answer], disfigurement: str
    ) -> None:
        for each in answers.values():
            for render in RENDERINGS.values():
                assert_canonical(look(DISFIGUREMENTS[disfigurement](render(each))), each)

    @pytest.mark.parametrize("columns", [80, 120, 132])
    def test_a_wrap_at_every_offset_falls_between_backslash_and_n(
        self, ec_answer: Answer, columns: int
    ) -> None:
        """The prompt's length decides where a terminal wraps: every offset once."""
        text = json.dumps(ec_answer.document())
        split = 0
        for offset in range(columns):
            shifted = "x" * offset + text
            lines = [shifted[at : at + columns] for at in range(0, len(shifted), columns)]
            split += any(line.endswith("\\") for line in lines)
            assert_canonical(look("\n".join(lines)[offset:]), ec_answer)
        assert split > 0

    def test_a_paste_cut_in_front_of_the_prompt_that_follows(self, ec_answer: Answer) -> None:
        assert_canonical(look(json.dumps(ec_answer.document()) + f"\n$ {COMMAND}\n"), ec_answer)

    def test_an_end_line_that_was_not_copied_is_not_missed(self, ec_answer: Answer) -> None:
        text = ec_answer.certificate + ec_answer.private_key
        assert_canonical(look(text[: text.rindex("\n-----END") + 3]), ec_answer)

    def test_what_stands_around_a_whole_claim_may_be_cut(self, ec_answer: Answer) -> None:
        text = ec_answer.certificate + ec_answer.private_key + ec_answer.public_key
        assert_canonical(look(text[:-60]), ec_answer)

    def test_the_same_claim_twice_in_one_file_is_one(self, ec_answer: Answer) -> None:
        assert_canonical(look(json.dumps(ec_answer.document()) * 2), ec_answer)

    def test_text_that_openssl_puts_around_a_certificate(self, ec_answer: Answer) -> None:
        shown = openssl("x509", "-text", data=ec_answer.certificate).decode()
        assert "Serial Number" in shown
        assert_canonical(look(shown + ec_answer.private_key), ec_answer)

    def test_bag_attributes_of_a_pkcs12_export(self, ec_answer: Answer) -> None:
        both = ec_answer.private_key + ec_answer.certificate
        exported = openssl(
            "pkcs12", "-export", "-name", "claim", "-certpbe", "NONE", "-passout", "pass:x", data=both
        )
        shown = openssl("pkcs12", "-nodes", "-passin", "pass:x", data=exported)
        assert b"Bag Attributes" in shown
        found = look(shown)
        assert found.problems == ()
        assert found.certificates[0].pem == ec_answer.certificate
        assert found.keys[0].public_key_id == found.certificates[0].public_key_id

    def test_two_claims_in_one_file(self, ec_answer: Answer) -> None:
        other = answer()
        found = look(json.dumps(ec_answer.document()) + json.dumps(other.document()))
        assert [each.pem for each in found.certificates] == [ec_answer.certificate, other.certificate]
        assert len(pair_up({"claim": found}).claims) == 2

    def test_authorities_along_with_the_claim_are_left_out(self, ec_answer: Answer) -> None:
        text = authority().pem.decode() + ec_answer.certificate + ec_answer.private_key
        assert_canonical(look(text), ec_answer)

    def test_a_certificate_without_basic_constraints_is_a_leaf(self) -> None:
        key = new_key()
        name = x509.Name([])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
        builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(minutes=5))
        made = builder.public_key(key.public_key()).sign(key, hashes.SHA256())
        encoded = base64.b64encode(made.public_bytes(Encoding.DER)).decode()
        found = look(f"-----BEGIN CERTIFICATE-----{encoded}-----END CERTIFICATE-----")
        assert len(found.certificates) == 1


@pytest.fixture(scope="module")
def create(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Runs the command with more options; gives what it printed."""
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), Settings()) as sandbox:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ACCESS_KEY_ID": "AKIASANDBOX",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

        def run(*options: str) -> str:
            command = [str(AWS), *COMMAND.split()[1:], "--endpoint-url", sandbox.http_url, *options]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        yield run


class TestTheAwsCommand:
    """What the real command prints, asked of the sandbox."""

    @pytest.mark.parametrize(
        "options",
        [
            ("--output", "json"),
            ("--output", "text"),
            ("--query", "[certificatePem,keyPair.PrivateKey]", "--output", "text"),
            ("--query", "{c:certificatePem,k:keyPair.PrivateKey}"),
            ("--query", "[certificatePem, keyPair]"),
        ],
        ids=" ".join,
    )
    def test_its_output_is_a_claim(self, create: Callable[..., str], options: tuple[str, ...]) -> None:
        found = look(create(*options))
        assert found.problems == ()
        ((claim, names),) = pair_up({"claim": found}).claims
        assert names == {"claim"}
        assert claim.key.algorithm == "RSA-2048"
        # Canonical is what AWS and openssl print: openssl writes it again as it is.
        assert openssl("x509", data=claim.certificate.pem).decode() == claim.certificate.pem
        key = claim.key.pem.reveal()
        assert openssl("rsa", "-traditional", data=key) == key

    def test_one_member_of_it_is_a_half(self, create: Callable[..., str]) -> None:
        found = look(create("--query", "keyPair.PrivateKey"))
        assert (len(found.keys), found.certificates, found.problems) == (1, (), ())

    def test_even_a_table_is_a_claim(self, create: Callable[..., str]) -> None:
        found = look(create("--output", "table"))
        assert len(pair_up({"claim": found}).claims) == 1


class TestKeys:
    @pytest.mark.parametrize(
        ("made", "algorithm"),
        [
            (ec.SECP256R1, "P-256"),
            (ec.SECP384R1, "P-384"),
            (ec.SECP521R1, "P-521"),
        ],
    )
    def test_curves(self, made: type[ec.EllipticCurve], algorithm: str) -> None:
        found = look(key_pem(ec.generate_private_key(made())))
        assert [each.algorithm for each in found.keys] == [algorithm]

    @pytest.mark.parametrize("kind", KINDS)
    def test_pkcs8_stays_pkcs8(self, answers: dict[str, Answer], kind: str) -> None:
        made = openssl("pkcs8", "-topk8", "-nocrypt", data=answers[kind].private_key)
        assert made.startswith(b"-----BEGIN PRIVATE KEY-----")
        found = look(made)
        assert found.problems == ()
        assert found.keys[0].pem.reveal() == made
        assert found.keys[0].public_key_id == look(answers[kind].certificate).certificates[0].public_key_id

    def test_the_label_is_of_no_account(self, rsa_answer: Answer) -> None:
        found = look(rsa_answer.private_key.replace("RSA PRIVATE", "EC PRIVATE"))
        assert found.keys[0].pem.reveal().decode() == rsa_answer.private_key

    def test_the_curve_s_parameters_in_front_of_a_key(self, ec_answer: Answer) -> None:
        made = openssl("ecparam", "-name", "prime256v1", "-genkey")
        assert b"EC PARAMETERS" in made
        found = look(made)
        assert (len(found.keys), found.problems) == (1, ())

    @pytest.mark.parametrize("option", [("-topk8",), ("-topk8", "-v1", "PBE-SHA1-3DES")])
    def test_a_passphrase(self, ec_answer: Answer, option: tuple[str, ...]) -> None:
        made = openssl("pkcs8", *option, "-passout", "pass:x", data=ec_answer.private_key)
        assert refused(made)[0] is Code.CLAIM_KEY_ENCRYPTED
        # The same below another label.
        assert refused(made.replace(b"ENCRYPTED ", b""))[0] is Code.CLAIM_KEY_ENCRYPTED

    def test_a_passphrase_of_the_traditional_kind(self, rsa_answer: Answer) -> None:
        made = openssl("rsa", "-traditional", "-aes256", "-passout", "pass:x", data=rsa_answer.private_key)
        assert b"Proc-Type: 4,ENCRYPTED" in made
        assert refused(made)[0] is Code.CLAIM_KEY_ENCRYPTED
        assert refused(DISFIGUREMENTS["json-string"](made.decode()))[0] is Code.CLAIM_KEY_ENCRYPTED

    @pytest.mark.parametrize(
        ("algorithm", "name"),
        [("ed25519", "Ed25519"), ("ed448", "Ed448"), ("x25519", "X25519"), ("x448", "X448")],
    )
    def test_kinds_that_aws_does_not_take(self, algorithm: str, name: str) -> None:
        made = openssl("genpkey", "-algorithm", algorithm)
        assert refused(made) == (Code.CLAIM_KEY_UNSUPPORTED, name)

    def test_an_algorithm_that_nobody_knows(self) -> None:
        der = openssl("genpkey", "-algorithm", "ed25519", "-outform", "DER").replace(b"+ep", b"+ez")
        assert refused(armoured("PRIVATE KEY", der)) == (Code.CLAIM_KEY_UNSUPPORTED, "unknown to claimd")

    def test_a_curve_that_aws_does_not_take(self) -> None:
        code, detail = refused(openssl("ecparam", "-name", "secp256k1", "-genkey", "-noout"))
        assert (code, detail) == (Code.CLAIM_KEY_UNSUPPORTED, "a curve other than P-256, P-384 and P-521")

    def test_dsa(self) -> None:
        der = b"\x30\x12" + b"\x02\x01\x01" * 6
        assert refused(armoured("DSA PRIVATE KEY", der)) == (Code.CLAIM_KEY_UNSUPPORTED, "DSA")

    def test_an_rsa_key_that_is_too_short(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = rsa.generate_private_key(65537, 1024)
        code, detail = refused(key_pem(key))
        assert code is Code.CLAIM_KEY_UNSUPPORTED
        assert detail == "RSA with 1,024 bits; 2,048 to 8,192 are taken"

    def test_an_rsa_key_whose_public_exponent_the_tls_library_refuses(self) -> None:
        code, detail = refused(key_pem(odd_rsa_key(exponent=(1 << 33) + 1)))
        assert code is Code.CLAIM_KEY_UNSUPPORTED
        assert detail == "RSA with a public exponent of 34 bits; 2 to 33 are taken"
        longest = odd_rsa_key(exponent=(1 << 32) + 1)
        assert look(key_pem(longest)).keys, "the longest one that is taken"


def armoured(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.b64encode(der).decode()}\n-----END {label}-----\n"


def pkcs1(key: rsa.RSAPrivateNumbers, d: int) -> str:
    """RFC 8017, A.1.2, with any `d`: the library makes none that is too long."""
    public = key.public_numbers
    numbers = (0, public.n, public.e, d, key.p, key.q, key.dmp1, key.dmq1, key.iqmp)
    whole = element(
        0x30, b"".join(element(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in numbers)
    )
    lines = textwrap.wrap(base64.b64encode(whole).decode(), 64)
    return "\n".join(("-----BEGIN RSA PRIVATE KEY-----", *lines, "-----END RSA PRIVATE KEY-----", ""))


def element(tag: int, content: bytes) -> bytes:
    """DER."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def body(pem: str) -> str:
    return "".join(pem.splitlines()[1:-1])


class TestCut:
    """Texts that stop in the middle are named for what they are."""

    def test_a_paste_that_a_terminal_cut(self, rsa_answer: Answer) -> None:
        """N_TTY throws away what follows the 4,095th character of a line."""
        line = " " * 1200 + json.dumps(rsa_answer.document())
        assert len(line) > 4095
        found = look(line[:4095] + "\n")
        assert len(found.certificates) == 1
        assert found.keys == ()
        assert [each.happened for each in found.problems] == [
            "claim is not complete: the key stops in the middle: pasted text was cut;"
            " a terminal line holds 4,095 characters"
        ]

    def test_a_copy_in_progress_says_how_far_it_is(self, ec_answer: Answer) -> None:
        need = len(body(ec_answer.private_key).rstrip("="))
        code, detail = refused(ec_answer.private_key[:90].rstrip())
        assert code is Code.CLAIM_STILL_ARRIVING
        have = len(ec_answer.private_key[:90].split("-----")[2].replace("\n", ""))
        assert detail == f"the key stops in the middle: {have} of {need} characters are here"

    def test_one_that_has_only_begun(self, ec_answer: Answer) -> None:
        start = ec_answer.certificate.index("\n") + 1
        code, detail = refused(ec_answer.certificate[: start + 4])
        assert (code, detail) == (
            Code.CLAIM_STILL_ARRIVING,
            "the certificate stops in the middle: it has only begun",
        )

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("rendering", BEGIN_AS_A_CLAIM)
    def test_at_no_byte_does_a_claim_that_is_arriving_look_wrong(
        self, answers: dict[str, Answer], kind: str, rendering: str
    ) -> None:
        """Every prefix is incomplete, or the claim itself; never refused, never another claim."""
        whole = answers[kind]
        text = RENDERINGS[rendering](whole).encode()
        step = 1 if kind == "elliptic" else 7
        for length in range(0, len(text), step):
            found = look(text[:length])
            assert [each.pem for each in found.certificates] in ([], [whole.certificate])
            assert [each.pem.reveal().decode() for each in found.keys] in ([], [whole.private_key])
            codes = {each.code for each in found.problems}
            assert codes <= {Code.CLAIM_STILL_ARRIVING}, (length, found.problems)
            assert found.certificates or found.keys or codes, length

    def test_a_block_whose_middle_is_missing(self, ec_answer: Answer) -> None:
        lines = ec_answer.certificate.splitlines(keepends=True)
        code, detail = refused("".join(lines[:3] + lines[4:]))
        need = len(body(ec_answer.certificate).rstrip("="))
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert detail == f"the certificate is damaged: 64 of its {need} characters are missing"

    def test_a_block_with_a_line_too_many(self, ec_answer: Answer) -> None:
        lines = ec_answer.private_key.splitlines(keepends=True)
        code, detail = refused("".join([*lines[:2], *lines[1:]]))
        need = len(body(ec_answer.private_key).rstrip("="))
        assert detail == f"the key is damaged: it has 64 characters more than its {need}"
        assert code is Code.CLAIM_NOT_RECOGNISED

    def test_what_a_trusted_certificate_has_behind_it_is_left_out(self, ec_answer: Answer) -> None:
        made = openssl("x509", "-trustout", "-addtrust", "clientAuth", data=ec_answer.certificate)
        assert b"TRUSTED CERTIFICATE" in made
        assert look(made).certificates[0].pem == ec_answer.certificate

    def test_a_block_without_its_first_line(self, ec_answer: Answer) -> None:
        code, detail = refused(ec_answer.private_key.split("\n", 1)[1])
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert detail == "a block's first line (-----BEGIN ...-----) is missing; copy the text as a whole"

    @pytest.mark.parametrize("contents", ["", "AA", "AAAAAAAA", "MAA", "////////"])
    def test_a_block_that_begins_with_nothing_known(self, contents: str) -> None:
        code, detail = refused(f"-----BEGIN CERTIFICATE-----\n{contents}\n-----END CERTIFICATE-----\n")
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert detail.startswith("the certificate is damaged: ")

    def test_a_letter_that_changed_within_a_certificate(self, ec_answer: Answer) -> None:
        """The version's tag: what openssl can't decode either."""
        der = bytearray(base64.b64decode(body(ec_answer.certificate)))
        der[12] ^= 0x40
        code, detail = refused(armoured("CERTIFICATE", bytes(der)))
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert detail == "the certificate is damaged: its contents can't be decoded"

    def test_a_letter_that_changed_within_an_rsa_key(self, rsa_answer: Answer) -> None:
        """Nothing but the arithmetic shows it; openssl's own check takes 40 ms."""
        der = bytearray(base64.b64decode(body(rsa_answer.private_key)))
        changed = 0
        for at in range(40, len(der) - 8, 53):
            flipped = bytes(der[:at]) + bytes([der[at] ^ 1]) + bytes(der[at + 1 :])
            found = look(armoured("RSA PRIVATE KEY", flipped))
            assert found.keys == (), at
            changed += 1
        assert changed > 10

    def test_a_private_exponent_that_is_longer_than_the_key(self) -> None:
        """RFC 8017, 3.2: less than n; the TLS library refuses what is much greater."""
        key = rsa_key().private_numbers()
        assert pkcs1(key, key.d) == key_pem(rsa_key()), "the same but for d"
        code, detail = refused(pkcs1(key, key.d + ((key.p - 1) * (key.q - 1) << 64)))
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert detail == "the key is damaged: its contents can't be decoded"

    def test_neither_a_certificate_nor_a_key(self) -> None:
        code, detail = refused(armoured("CERTIFICATE", b"\x30\x06\x0c\x04text"))
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert detail == "the certificate is damaged: it holds neither a certificate nor a key"


class TestRefused:
    """What can't be a claim: what it looks like, and what to send."""

    def test_a_file_that_is_too_large(self) -> None:
        code, detail = refused(b"x" * (MAX_FILE_BYTES + 1))
        assert (code, detail) == (Code.CLAIM_FILE_TOO_LARGE, "65,537 bytes of at most 65,536")

    def test_a_pkcs12_file(self, ec_answer: Answer) -> None:
        both = ec_answer.private_key + ec_answer.certificate
        code, detail = refused(openssl("pkcs12", "-export", "-passout", "pass:x", data=both))
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert detail == (
            "it looks like a PKCS#12 file (.p12);"
            " text is made by: openssl pkcs12 -nodes -in FILE -out claim.txt"
        )

    @pytest.mark.parametrize(
        ("arguments", "of", "detail"),
        [
            (("x509",), "certificate", "a certificate in binary form"),
            (("ec",), "private_key", "a key in binary form"),
            (("pkcs8", "-topk8", "-nocrypt"), "private_key", "a key in binary form"),
            (("pkcs8", "-topk8", "-passout", "pass:x"), "private_key", "an encrypted key in binary form"),
        ],
    )
    def test_binary_forms(self, ec_answer: Answer, arguments: tuple[str, ...], of: str, detail: str) -> None:
        made = openssl(*arguments, "-outform", "DER", data=getattr(ec_answer, of))
        code, shown = refused(made)
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert shown.startswith(f"it looks like {detail}")

    def test_the_command_that_the_text_names_makes_a_claim_of_it(
        self, ec_answer: Answer, tmp_path: Path
    ) -> None:
        file = tmp_path / "claim.p12"
        both = ec_answer.private_key + ec_answer.certificate
        file.write_bytes(openssl("pkcs12", "-export", "-passout", "pass:x", data=both))
        _, detail = refused(file.read_bytes())
        command = detail.split("text is made by: ")[1].replace("FILE", str(file)).split()
        command[command.index("-out") + 1] = str(tmp_path / "claim.txt")
        subprocess.run([*command, "-passin", "pass:x"], check=True, capture_output=True)
        assert len(pair_up({"claim": look((tmp_path / "claim.txt").read_bytes())}).claims) == 1

    @pytest.mark.parametrize(
        ("data", "detail"),
        [
            (b"PK\x03\x04\x14", "it looks like a zip archive or an office document: unpack it"),
            (b"\x89PNG\r\n", "it looks like a picture (PNG): copy the text itself, not a screenshot"),
            (b"bash: aws: command not found\n", "it looks like an error message of the aws command"),
            (b"ssh-ed25519 AAAA me", "it looks like a public key for SSH, not a claim"),
            (b"Dear customer", "there is no certificate and no private key in it"),
        ],
    )
    def test_what_it_looks_like(self, data: bytes, detail: str) -> None:
        code, shown = refused(data)
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert shown.startswith(detail)

    def test_an_ssh_key(self, tmp_path: Path) -> None:
        key = tmp_path / "id"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        code, detail = refused(key.read_bytes())
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert "OpenSSH key" in detail
        assert "SSH" in refused(key.with_suffix(".pub").read_bytes())[1]

    def test_a_certificate_request(self, tmp_path: Path, ec_answer: Answer) -> None:
        key = tmp_path / "key"
        key.write_text(ec_answer.private_key)
        made = openssl("req", "-new", "-key", str(key), "-subj", "/CN=x")
        assert "certificate request" in refused(made)[1]

    def test_a_pkcs7_file(self, tmp_path: Path, ec_answer: Answer) -> None:
        file = tmp_path / "certificate"
        file.write_text(ec_answer.certificate)
        assert "PKCS#7" in refused(openssl("crl2pkcs7", "-nocrl", "-certfile", str(file)))[1]

    def test_only_a_public_key(self, ec_answer: Answer) -> None:
        code, detail = refused(ec_answer.public_key)
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert detail == "it has only a public key; copy the private key and the certificate"

    def test_only_authorities(self) -> None:
        code, detail = refused(authority().pem)
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert (
            detail == "it has only certificates of authorities (CA); claimd has its own, and needs the claim"
        )

    def test_a_certificate_that_is_too_large(self) -> None:
        key = new_key()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
        padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x" * MAX_CERTIFICATE_BYTES)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
        builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(minutes=5))
        builder = builder.public_key(key.public_key()).add_extension(padding, critical=False)
        der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
        code, detail = refused(armoured("CERTIFICATE", der))
        assert code is Code.CLAIM_NOT_RECOGNISED
        assert detail == f"a certificate in it has {len(der):,} bytes; at most 16,384 are read"

    def test_more_blocks_than_two_claims_have(self, ec_answer: Answer) -> None:
        found = look(ec_answer.public_key * MAX_BLOCKS + ec_answer.certificate + ec_answer.private_key)
        assert (found.certificates, found.keys) == ((), ())
        details = [each.fields["detail"] for each in found.problems]
        assert details[-1] == "it has more than 16 PEM blocks; only the first ones were read"

    def test_every_problem_is_named_once(self) -> None:
        found = look(armoured("CERTIFICATE", b"\x30\x02\x0c\x00") * 3)
        assert len(found.problems) == 1

    def test_no_problem_shows_what_is_in_the_file(self, rsa_answer: Answer) -> None:
        """Not even a piece of eight characters of the key."""
        lines = rsa_answer.private_key.splitlines(keepends=True)
        secret = body(rsa_answer.private_key)
        pieces = {secret[at : at + 8] for at in range(len(secret) - 8)}
        for at in range(1, len(lines)):
            for changed in (
                lines[:at] + lines[at + 1 :],
                lines[:at],
                lines[at:],
                lines[:at] + lines[at - 1 :],
            ):
                shown = repr(look("".join(changed))) + str(
                    [each.to_json() for each in look("".join(changed)).problems]
                )
                assert not [piece for piece in pieces if piece in shown]


class TestPairing:
    def test_names_are_of_no_account(self, ec_answer: Answer) -> None:
        """AWS's workshop writes the key into *.pem.crt and the certificate into *.pem.key."""
        files = {"claim.pem.crt": ec_answer.private_key, "claim.pem.key": ec_answer.certificate}
        found = pair_up({name: recognise(name, text.encode()) for name, text in files.items()})
        ((claim, names),) = found.claims
        assert names == set(files)
        assert claim.certificate.pem == ec_answer.certificate
        assert (found.lonely_certificates, found.lonely_keys) == ((), ())

    def test_the_same_claim_in_several_files_is_one(self, ec_answer: Answer) -> None:
        whole = look(json.dumps(ec_answer.document()))
        found = pair_up({"a": whole, "b": whole, "c": look(ec_answer.private_key)})
        ((_, names),) = found.claims
        assert names == {"a", "b", "c"}

    def test_halves_of_different_claims(self, ec_answer: Answer, rsa_answer: Answer) -> None:
        found = pair_up({"c": look(ec_answer.certificate), "k": look(rsa_answer.private_key)})
        assert found.claims == ()
        assert [name for _, name in found.lonely_certificates] == ["c"]
        assert [name for _, name in found.lonely_keys] == ["k"]


class TestParse:
    """The strict doors: AWS's answers, and what lies in the store."""

    def test_a_chain_is_kept_whole_with_the_leaf_first(self, ec_answer: Answer) -> None:
        chain = ec_answer.certificate + authority().pem.decode()
        parsed = parse_certificate(chain)
        assert parsed.pem == chain
        assert parsed.fingerprint == parse_certificate(ec_answer.certificate).fingerprint
        assert parsed.subject == "CN=a claim"

    def test_a_key(self, ec_answer: Answer) -> None:
        assert parse_private_key(ec_answer.private_key.encode()).algorithm == "P-256"

    def test_a_key_is_no_certificate(self, ec_answer: Answer) -> None:
        with pytest.raises(ValueError, match="something else than certificates"):
            parse_certificate(ec_answer.private_key)

    @pytest.mark.parametrize("of", ["certificate", "public_key"])
    def test_a_certificate_is_no_key(self, ec_answer: Answer, of: str) -> None:
        with pytest.raises(ValueError, match="something else than one private key"):
            parse_private_key(getattr(ec_answer, of).encode())

    def test_a_key_with_a_certificate_is_not_one_key(self, ec_answer: Answer) -> None:
        with pytest.raises(ValueError, match="something else than one private key"):
            parse_private_key((ec_answer.private_key + ec_answer.certificate).encode())

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            ("", "no PEM block"),
            ("x" * (MAX_FILE_BYTES + 1), "65,537 bytes, more than 65,536"),
            ("-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n" * 17, "more than 16"),
            ("-----BEGIN CERTIFICATE-----\nMIIB", "stops in the middle"),
            ('{"a": "-----BEGIN CERTIFICATE-----', "stops before its closing bracket"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB", "a passphrase"),
        ],
    )
    def test_anything_else(self, data: str, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            parse_certificate(data)


def test_the_made_answers_are_what_they_say(answers: dict[str, Answer]) -> None:
    """The material of all these tests, by openssl's own judgement."""
    for each in answers.values():
        public = openssl("x509", "-pubkey", "-noout", data=each.certificate).decode()
        assert public == each.public_key
        assert openssl("pkey", "-pubout", data=each.private_key).decode() == each.public_key
    key: Key = rsa_key()
    assert public_key_pem(key) == answers["rsa"].public_key
