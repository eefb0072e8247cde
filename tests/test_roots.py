"""Trust roots: exactly those that were asked for, or a failure that says why."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from claimd import roots
from claimd.errors import ClaimdError, Code
from claimd.roots import AMAZON_ROOTS, Store
from material import Authority, key_pem, new_key

BUNDLE = Path(Store().bundle)
here = pytest.mark.skipif(not BUNDLE.exists(), reason="no ca-certificates on this machine")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


def refused(action: object, *arguments: object) -> str:
    assert callable(action)
    with pytest.raises(ClaimdError) as caught:
        action(*arguments)
    assert caught.value.problem.code is Code.CA_UNUSABLE
    return caught.value.problem.fields["detail"]


def split(pem: bytes) -> list[bytes]:
    end = b"-----END CERTIFICATE-----\n"
    return [block + end for block in pem.split(end) if block.strip()]


class TestAmazon:
    @here
    def test_five_from_the_distribution(self, tmp_path: Path) -> None:
        pem = roots.amazon_roots()
        assert len(split(pem)) == len(AMAZON_ROOTS) == 5
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=pem.decode())
        names = {dict(pair[0] for pair in one["subject"])["commonName"] for one in context.get_ca_certs()}  # type: ignore[misc]
        assert {"Amazon Root CA 1", "Amazon Root CA 4"} <= {str(name) for name in names}

    @here
    def test_the_order_and_the_neighbours_do_not_matter(self, tmp_path: Path, authority: Authority) -> None:
        pem = roots.amazon_roots()
        (tmp_path / "bundle").write_bytes(authority.pem + b"".join(reversed(split(pem))) + b"\n# end\n")
        assert roots.amazon_roots(Store(str(tmp_path / "bundle"))) == pem

    @here
    def test_the_directory_where_no_bundle_was_made(self, tmp_path: Path) -> None:
        pem = roots.amazon_roots()
        (tmp_path / "mozilla").mkdir()
        for number, one in enumerate(split(pem)):
            (tmp_path / f"mozilla/{number}.crt").write_bytes(one)
        (tmp_path / "mozilla/README").write_text("no certificate")
        store = Store(str(tmp_path / "missing"), str(tmp_path / "mozilla"))
        assert roots.amazon_roots(store) == pem

    @here
    def test_one_that_was_switched_off_is_named(self, tmp_path: Path) -> None:
        """The administrator's choice, and no silent way around it."""
        (tmp_path / "bundle").write_bytes(b"".join(split(roots.amazon_roots())[:-1]))
        said = refused(roots.amazon_roots, Store(str(tmp_path / "bundle")))
        assert said == "there is no Starfield Services Root CA - G2"

    def test_a_name_does_not_make_a_root(self, tmp_path: Path) -> None:
        (tmp_path / "bundle").write_bytes(Authority.new("Amazon Root CA 1").pem)
        assert "no Amazon Root CA 1" in refused(roots.amazon_roots, Store(str(tmp_path / "bundle")))

    def test_nothing_at_all(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "missing"), str(tmp_path / "missing too"))
        assert refused(roots.amazon_roots, store) == "No such file or directory"

    def test_a_directory_in_the_place_of_the_bundle(self, tmp_path: Path) -> None:
        assert refused(roots.amazon_roots, Store(str(tmp_path)))


class TestConfigured:
    def test_all_of_a_file_in_its_order(self, tmp_path: Path, authority: Authority) -> None:
        other = Authority.new("another")
        (tmp_path / "ca").write_bytes(b"# a comment\n" + authority.pem + b"\n" + other.pem)
        assert roots.configured_roots(str(tmp_path / "ca")) == authority.pem + other.pem

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda pem: b"", "there is no certificate in PEM in it"),
            (lambda pem: b"hello", "there is no certificate in PEM in it"),
            (lambda pem: pem[:-40], "it holds something that is not a whole certificate in PEM"),
            (lambda pem: pem + pem[:60], "it holds something that is not a whole certificate in PEM"),
            (
                lambda pem: pem + key_pem(new_key()).encode(),
                "it holds a private key; root certificates have none",
            ),
            (
                lambda pem: pem.replace(pem[40:44], b"AAAA", 1),
                "it holds a damaged certificate",
            ),
        ],
    )
    def test_what_is_not_whole_is_not_used(
        self, tmp_path: Path, authority: Authority, make: object, said: str
    ) -> None:
        assert callable(make)
        (tmp_path / "ca").write_bytes(make(authority.pem))
        assert refused(roots.configured_roots, str(tmp_path / "ca")) == said

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert refused(roots.configured_roots, str(tmp_path / "ca")) == "No such file or directory"
