"""What is done with a finished bundle: ``keygen``, ``sign``, ``push``, ``pull``."""

import argparse
from pathlib import Path
from typing import Any

from models.bundle.bucket import fetch, push
from models.bundle.read import read_bundle
from models.bundle.signature import make_keys, public_path, sign
from training.bundle import hub


def add(commands: Any) -> None:
    """Add the commands; ``run`` of each gives its exit code."""
    keygen = commands.add_parser("keygen", help="make a pair of keys to sign bundles with and to check them")
    keygen.set_defaults(run=_keygen)
    keygen.add_argument(
        "--out", type=Path, required=True, metavar="KEY.pem", help="the private key; the public one is KEY.pub.pem"
    )
    signing = commands.add_parser("sign", help="verify a bundle and sign it, for services with --require-signature")
    signing.set_defaults(run=_sign)
    signing.add_argument("bundle", type=Path, metavar="BUNDLE")
    signing.add_argument("--key", type=Path, required=True, metavar="KEY.pem", help="an Ed25519 private key")
    upload = commands.add_parser(
        "push", help="verify a bundle and put it into an S3-compatible bucket as its current one, or on the hub"
    )
    upload.set_defaults(run=_push)
    upload.add_argument("bundle", type=Path, metavar="BUNDLE")
    upload.add_argument("uri", metavar="s3://BUCKET/PREFIX|hf://OWNER/NAME")
    download = commands.add_parser("pull", help="fetch a bundle from a bucket or the hub, verify it, print its folder")
    download.set_defaults(run=_pull)
    download.add_argument(
        "uri", metavar="s3://BUCKET/PREFIX[@VERSION]|hf://OWNER/NAME[@REVISION]",
        help="without a version or revision: the current one",
    )  # fmt: skip
    download.add_argument(
        "--into", type=Path, default=Path("artifacts/bundles"), metavar="DIR", help="default: %(default)s"
    )
    download.add_argument("--require-signature", type=Path, metavar="KEYS", help="public keys; one must have signed it")


def _keygen(options: argparse.Namespace) -> int:
    public = public_path(options.out)
    print(f"key {make_keys(options.out, public)}: {options.out} signs, {public} is for --require-signature")
    return 0


def _sign(options: argparse.Namespace) -> int:
    bundle = read_bundle(options.bundle)
    print(f"{options.bundle}: version {bundle.version} signed by key {sign(options.bundle, options.key)}")
    return 0


def _push(options: argparse.Namespace) -> int:
    if options.uri.startswith(hub.SCHEME):
        print(f"{options.uri}@{hub.push(options.bundle, options.uri)} holds the bundle")
        return 0
    digest = push(options.bundle, options.uri)
    print(f"{options.uri}@{digest[:12]} is the current one; its manifest's sha256 is {digest}")
    return 0


def _pull(options: argparse.Namespace) -> int:
    # Nothing but the folder, so that a script can use it.
    get = hub.pull if options.uri.startswith(hub.SCHEME) else fetch
    print(get(options.uri, options.into, options.require_signature))
    return 0
