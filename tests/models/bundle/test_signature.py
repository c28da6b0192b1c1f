"""Only what a listed key signed is served, and a signature covers all that is read."""

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from models.bundle.manifest import MANIFEST, BundleError, sha256_of
from models.bundle.read import Bundle, read_bundle
from models.bundle.signature import SIGNATURE, SignatureError, key_id, make_keys, public_path, sign
from tests.conftest import ROOT
from tests.tiny import FILES


class Signer:
    """A key pair in files."""

    def __init__(self, folder: Path, name: str):
        self.private = folder / f"{name}.pem"
        self.public = public_path(self.private)
        self.id = make_keys(self.private, self.public)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "one")


@pytest.fixture
def signed(tiny_bundle: Bundle, signer: Signer, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_bundle.folder, tmp_path / "signed"))
    assert sign(folder, signer.private) == signer.id
    return folder


def test_a_signed_bundle_is_read_with_its_key_and_without(signed: Path, signer: Signer, tiny_bundle: Bundle) -> None:
    assert read_bundle(signed, signer.public).version == tiny_bundle.version == read_bundle(signed).version
    assert {path.name for path in signed.iterdir()} == {*FILES, MANIFEST, SIGNATURE}
    assert [path.name for path in signed.parent.glob(f".{SIGNATURE}*")] == []


def test_an_unsigned_bundle_is_refused(tiny_bundle: Bundle, signer: Signer) -> None:
    with pytest.raises(BundleError, match=r"manifest\.sig is missing, and only signed bundles are accepted"):
        read_bundle(tiny_bundle.folder, signer.public)


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_is_covered(signed: Path, signer: Signer, name: str) -> None:
    content = bytearray((signed / name).read_bytes())
    content[len(content) // 2] ^= 1
    (signed / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        read_bundle(signed, signer.public)
    # Whoever can write the file can write its checksum too, but not the signature of that.
    manifest = json.loads((signed / MANIFEST).read_bytes())
    manifest["files"][name]["sha256"] = sha256_of(signed / name)
    (signed / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=rf"manifest\.json is not what the key {signer.id} signed"):
        read_bundle(signed, signer.public)


def test_a_manifest_of_other_bytes_is_refused_though_it_says_the_same(signed: Path, signer: Signer) -> None:
    (signed / MANIFEST).write_bytes((signed / MANIFEST).read_bytes() + b"\n")
    read_bundle(signed)
    with pytest.raises(BundleError, match="is not what the key"):
        read_bundle(signed, signer.public)


def test_a_file_that_the_manifest_does_not_name_is_refused(signed: Path, signer: Signer) -> None:
    manifest = json.loads((signed / MANIFEST).read_bytes())
    measured = (signed / "precisions.json").read_bytes()
    (signed / "precisions.json").unlink()
    del manifest["files"]["precisions.json"]
    (signed / MANIFEST).write_text(json.dumps(manifest))
    sign(signed, signer.private)
    read_bundle(signed, signer.public)
    (signed / "precisions.json").write_bytes(measured)
    with pytest.raises(BundleError, match=r"files does not name precisions\.json"):
        read_bundle(signed, signer.public)


def test_another_key_is_refused_and_keys_rotate(signed: Path, signer: Signer, tmp_path: Path) -> None:
    other, keys = Signer(tmp_path, "two"), tmp_path / "keys"
    keys.mkdir()
    with pytest.raises(BundleError, match=f"is of the key {signer.id}; accepted are {other.id}"):
        read_bundle(signed, other.public)
    shutil.copy(other.public, keys)
    with pytest.raises(BundleError, match=f"is of the key {signer.id}"):
        read_bundle(signed, keys)
    shutil.copy(signer.public, keys)
    read_bundle(signed, keys)
    sign(signed, other.private)
    read_bundle(signed, keys)
    (keys / other.public.name).unlink()
    with pytest.raises(BundleError, match=f"is of the key {other.id}"):
        read_bundle(signed, keys)


def test_one_file_may_hold_several_keys(signed: Path, signer: Signer, tmp_path: Path) -> None:
    both = tmp_path / "both.txt"
    both.write_bytes(b"# of May\n" + Signer(tmp_path, "two").public.read_bytes() + signer.public.read_bytes())
    read_bundle(signed, both)


def test_a_signature_under_another_keys_name_is_refused(signed: Path, signer: Signer, tmp_path: Path) -> None:
    other = Signer(tmp_path, "two")
    held = json.loads((signed / SIGNATURE).read_bytes())
    (signed / SIGNATURE).write_text(json.dumps({**held, "key": other.id}))
    both = tmp_path / "both.pem"
    both.write_bytes(other.public.read_bytes() + signer.public.read_bytes())
    with pytest.raises(BundleError, match=f"is not what the key {other.id} signed"):
        read_bundle(signed, both)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a signature"),
        (b"\0" * 64, "is not a signature"),
        (b"[" * 4000, "is not a signature"),
        (b"x" * 4097, "not a regular file of at most 4096 bytes"),
        (b'{"format_version":1,"key":"0123456789abcdef","signature":""}', "is not a signature"),
        (b'{"format_version":2,"key":"0123456789abcdef","signature":"%s"}' % (b"A" * 86 + b"=="), "is not a signature"),
        (b'{"format_version":1,"key":"../../etc/passwd","signature":"%s"}' % (b"A" * 86 + b"=="), "is not a signature"),
        (b'{"format_version":1,"key":"0123456789abcdef","signature":"%s"}' % (b"A" * 86 + b"=="), "is of the key 0123"),
    ],
)
def test_hostile_signatures_are_refused(signed: Path, signer: Signer, content: bytes, message: str) -> None:
    (signed / SIGNATURE).write_bytes(content)
    with pytest.raises(BundleError, match=message):
        read_bundle(signed, signer.public)


def test_a_signature_that_is_a_link_is_refused_also_where_none_is_needed(signed: Path, tmp_path: Path) -> None:
    (signed / SIGNATURE).rename(tmp_path / "elsewhere")
    (signed / SIGNATURE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"manifest\.sig is not a regular file"):
        read_bundle(signed)


def test_keys_that_are_none_are_refused(signed: Path, signer: Signer, tmp_path: Path) -> None:
    empty, curve = tmp_path / "empty", tmp_path / "curve.pem"
    empty.mkdir()
    other = generate_private_key(SECP256R1()).public_key()
    curve.write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    large = tmp_path / "large.pem"
    large.write_bytes(signer.public.read_bytes() * 2000)
    for keys, message in (
        (tmp_path / "nowhere.pem", "cannot be read"),
        (empty, "holds 0 public keys"),
        (signer.private, "holds a private key"),
        (curve, "another kind than Ed25519"),
        (garbage, "cannot be read"),
        (large, "more than 65536 bytes"),
    ):
        with pytest.raises(BundleError, match=message):
            read_bundle(signed, keys)


def test_private_keys_are_their_owners_and_are_not_replaced(signer: Signer, signed: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(signer.private.stat().st_mode) == 0o600
    assert stat.S_IMODE((signed / SIGNATURE).stat().st_mode) == 0o644
    with pytest.raises(FileExistsError):
        make_keys(signer.private, signer.public)
    locked, curve = tmp_path / "locked.pem", tmp_path / "curve.pem"
    form = (Encoding.PEM, PrivateFormat.PKCS8)
    locked.write_bytes(Ed25519PrivateKey.generate().private_bytes(*form, BestAvailableEncryption(b"secret")))
    curve.write_bytes(generate_private_key(SECP256R1()).private_bytes(*form, NoEncryption()))
    for key, message in (
        (locked, "is encrypted"), (curve, "another kind"), (signer.public, "not a private key"), (tmp_path, "not a pri")
    ):  # fmt: skip
        with pytest.raises(SignatureError, match=message):
            sign(signed, key)


def test_a_key_made_by_openssl_signs(tiny_bundle: Bundle, tmp_path: Path) -> None:
    # The form that `openssl genpkey -algorithm ed25519` writes.
    private, public = tmp_path / "k.pem", tmp_path / "k.pub.pem"
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    folder = Path(shutil.copytree(tiny_bundle.folder, tmp_path / "b"))
    assert sign(folder, private) == key_id(key.public_key()) == "56475aa75463474c"
    read_bundle(folder, public)


def test_the_commands(tiny_bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle.folder, tmp_path / "b"))

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "training", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    made = run("keygen", "--out", tmp_path / "key.pem")
    assert made.returncode == 0, made.stderr
    assert "key.pub.pem is for --require-signature" in made.stdout
    again = run("keygen", "--out", tmp_path / "key.pem")
    assert (again.returncode, len(again.stderr.splitlines())) == (1, 1)
    done = run("sign", folder, "--key", tmp_path / "key.pem")
    assert done.returncode == 0, done.stderr
    assert f"version {tiny_bundle.version} signed by key" in done.stdout
    read_bundle(folder, tmp_path / "key.pub.pem")
    (folder / "README.md").write_bytes(b"other")
    broken = run("sign", folder, "--key", tmp_path / "key.pem")
    assert broken.returncode == 1
    assert "README.md" in broken.stderr
