"""The signature of a bundle: Ed25519 (RFC 8032) of its manifest's exact bytes, in ``manifest.sig``.

The manifest holds the sha256 of every other file, and a file that it does not name is refused, so the signature covers
all that is read. Keys are PEM files as OpenSSL writes them. ``cryptography`` is loaded only where this is used.
"""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from models.files import AtomicFile

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "manifest.sig"
MAX_SIGNATURE_BYTES = 4096
MAX_KEY_BYTES = 1 << 16
MAX_KEYS = 100
PURPOSE = b"evenkeel bundle manifest 1\n"
"""Signed before the manifest, so that a signature for another purpose is none of a bundle, and the other way round."""
END = b"-----END PUBLIC KEY-----"


class SignatureError(Exception):
    """A signature that is missing or not valid, or a key that cannot be used."""


class Signature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``manifest.sig`` holds; ``key`` is the `key_id` of the signer's public key."""

    format_version: Literal[1]
    key: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


def verify(manifest: bytes, signature: bytes | None, keys: "dict[str, Ed25519PublicKey]") -> str:
    """The id of the key that signed the manifest; raises SignatureError if none of ``keys`` did."""
    from cryptography.exceptions import InvalidSignature

    if signature is None:
        raise SignatureError(f"{SIGNATURE} is missing, and only signed bundles are accepted")
    try:
        record = msgspec.json.decode(signature, type=Signature)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SignatureError(f"{SIGNATURE} is not a signature: {str(error)[:200]}") from error
    if record.key not in keys:
        raise SignatureError(f"{SIGNATURE} is of the key {record.key}; accepted are {', '.join(sorted(keys))}")
    try:
        keys[record.key].verify(record.signature, PURPOSE + manifest)
    except InvalidSignature as error:
        raise SignatureError(f"{SIGNATURE}: manifest.json is not what the key {record.key} signed") from error
    return record.key


def public_keys(path: Path) -> "dict[str, Ed25519PublicKey]":
    """Key id → key, of a PEM file with one or more public keys, or of every ``*.pem`` of a folder.

    Raises SignatureError, also when there is none: no key must not mean that all are accepted.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    keys: dict[str, Ed25519PublicKey] = {}
    try:
        for file in sorted(path.glob("*.pem")) if path.is_dir() else [path]:
            content = _read(file)
            if b"PRIVATE KEY" in content:
                raise SignatureError(f"{file} holds a private key; a verifier has public ones only")
            for block in content.split(END)[:-1]:
                key = load_pem_public_key(block + END)
                if not isinstance(key, Ed25519PublicKey):
                    raise SignatureError(f"{file} holds a key of another kind than Ed25519")
                keys[key_id(key)] = key
    except (OSError, ValueError) as error:
        raise SignatureError(f"the public keys {path} cannot be read: {error}") from error
    if not 1 <= len(keys) <= MAX_KEYS:
        raise SignatureError(f"{path} holds {len(keys)} public keys (PEM, Ed25519); it must hold 1 to {MAX_KEYS}")
    return keys


def key_id(key: "Ed25519PublicKey") -> str:
    """The first 16 hex digits of the raw key's sha256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign(folder: Path, key: Path) -> str:
    """Write the signature of a bundle's manifest beside it and return the key's id.

    It says that the signer accepts these bytes: read the bundle first. Raises SignatureError, OSError.
    """
    private = _private_key(key)
    signer = key_id(private.public_key())
    signature = private.sign(PURPOSE + (folder / "manifest.json").read_bytes())
    record = Signature(format_version=1, key=signer, signature=signature)
    # Made beside the folder: a bundle holds no file that does not belong to it, not for a moment.
    with AtomicFile(folder / SIGNATURE, binary=True, beside=folder.absolute().parent) as output:
        output.file.write(msgspec.json.encode(record) + b"\n")
        output.commit()
    return signer


def make_keys(private: Path, public: Path) -> str:
    """Write a new key pair as PEM files, the private one for its owner's eyes only, and return its id.

    Raises OSError; a file that is there is not replaced.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for path, content, mode in ((private, private_pem, 0o600), (public, public_pem, 0o644)):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    return key_id(key.public_key())


def public_path(private: Path) -> Path:
    """KEY.pem → KEY.pub.pem."""
    return private.with_suffix(f".pub{private.suffix or '.pem'}")


def _private_key(path: Path) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(path), None)
    except TypeError as error:
        raise SignatureError(f"{path} is encrypted; give a file without a password") from error
    except (OSError, ValueError) as error:
        raise SignatureError(f"{path} is not a private key (PEM): {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path} is a key of another kind than Ed25519")
    return key


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_KEY_BYTES + 1)
    if len(content) > MAX_KEY_BYTES:
        raise ValueError(f"{path.name} has more than {MAX_KEY_BYTES} bytes")
    return content
