"""Bundles through a real S3-compatible server, and through one that misbehaves."""

import http.server
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec
import pytest

from models.bundle.bucket import MAX_KEPT, BucketError, bundle_folder, fetch, push
from models.bundle.manifest import sha256_of
from models.bundle.read import Bundle, read_bundle
from models.bundle.signature import make_keys, sign
from models.bundle.write import write_bundle
from tests.bucket import BucketServer, environment
from tests.deploy.programs import free_port
from tests.service.test_real import start, wait_ready
from tests.tiny import ORIGIN, Contents
from tests.training.commands import run

BUCKET = "bundles"


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with BucketServer() as server:
        assert server.ask("PUT", BUCKET) == 200
        yield server


@pytest.fixture(autouse=True)
def _only_ours(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    if "server" in request.fixturenames:
        for name, value in request.getfixturevalue("server").environment.items():
            monkeypatch.setenv(name, value)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own."""
    return f"s3://{BUCKET}/tests/{re.sub('[^a-z0-9]+', '-', request.node.name).strip('-')}"


def key(place: str, name: str) -> str:
    return f"{place.removeprefix(f's3://{BUCKET}/')}/{name}"


def another(contents: Contents, folder: Path, number: int) -> Bundle:
    return write_bundle(folder / f"bundle-{number}", {**contents, "README.md": f"# {number}\n".encode()}, ORIGIN)


def content(folder: Path) -> dict[str, str]:
    return {one.name: sha256_of(one) for one in folder.iterdir()}


def test_what_is_pushed_is_fetched_bit_for_bit_and_once(
    server: BucketServer, place: str, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    digest = push(tiny_bundle.folder, place)
    assert digest == sha256_of(tiny_bundle.folder / "manifest.json")
    found = fetch(place, tmp_path / "kept")
    assert found == tmp_path / "kept" / digest
    assert content(found) == content(tiny_bundle.folder)
    assert read_bundle(found).version == tiny_bundle.version
    # Of what is there already nothing but the manifest is asked for again.
    server.store(BUCKET).delete(key(place, f"{tiny_bundle.version}/model.safetensors"))
    assert fetch(place, tmp_path / "kept") == found
    assert [one.name for one in (tmp_path / "kept").iterdir()] == [digest]


def test_the_last_one_pushed_is_current_and_a_version_stays_what_it_is(
    server: BucketServer, place: str, tiny_contents: Contents, tmp_path: Path
) -> None:
    first, second = (another(tiny_contents, tmp_path, number) for number in (1, 2))
    digests = [push(one.folder, place) for one in (first, second)]
    kept = tmp_path / "kept"
    assert read_bundle(fetch(place, kept)).version == second.version
    for pinned in (first.version, digests[0], digests[0][:20]):
        assert read_bundle(fetch(f"{place}@{pinned}", kept)).version == first.version
    push(first.folder, place)
    assert read_bundle(fetch(place, kept)).version == first.version


def test_a_version_that_is_there_already_needs_no_server(
    server: BucketServer, place: str, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = push(tiny_bundle.folder, place)
    found = fetch(f"{place}@{digest}", tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert fetch(f"{place}@{tiny_bundle.version}", tmp_path) == found
    # Under the name of another it is not taken for it.
    other = found.rename(tmp_path / ("0" * 64))
    with pytest.raises(BucketError, match="cannot be reached"):
        fetch(f"{place}@{'0' * 64}", tmp_path)
    assert not other.exists()
    with pytest.raises(BucketError, match="cannot be reached"):
        fetch(place, tmp_path)


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert bundle_folder(str(tmp_path / "b"), tmp_path / "kept") == tmp_path / "b"
    assert list(tmp_path.iterdir()) == []


def test_a_signature_goes_along_and_is_asked_for(
    server: BucketServer, place: str, tiny_contents: Contents, tmp_path: Path
) -> None:
    bundle, kept = another(tiny_contents, tmp_path, 1), tmp_path / "kept"
    public = tmp_path / "key.pub.pem"
    make_keys(tmp_path / "key.pem", public)
    push(bundle.folder, place)
    fetch(place, kept)
    with pytest.raises(BucketError, match=r"manifest\.sig is missing, and only signed bundles are accepted"):
        fetch(place, kept, public)
    assert list(kept.iterdir()) == []
    sign(bundle.folder, tmp_path / "key.pem")
    push(bundle.folder, place)
    assert (fetch(place, kept, public) / "manifest.sig").exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.safetensors", lambda old: old[:-1] + bytes([old[-1] ^ 1]), "model.safetensors"),
        ("README.md", lambda old: old + b"more", "README.md has more than 7 bytes"),
        ("README.md", lambda old: old[:-1], "README.md has 6 bytes, the manifest says 7"),
        ("calibration.json", None, "calibration.json is missing"),
        ("manifest.json", lambda old: old.replace(b"tiny", b"TINY"), "was changed: its sha256 is"),
        ("manifest.json", lambda old: old + b" " * (1 << 18), "has more than 262144 bytes"),
        ("manifest.json", None, "there is no such bundle"),
    ],
)
def test_damage_is_named_and_nothing_of_it_stays(
    name: str, change: object, message: str, server: BucketServer, place: str, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    push(tiny_bundle.folder, place)
    at = key(place, f"{tiny_bundle.version}/{name}")
    if callable(change):
        server.store(BUCKET).put(at, change((tiny_bundle.folder / name).read_bytes()))
    else:
        server.store(BUCKET).delete(at)
    with pytest.raises(BucketError, match=message) as raised:
        fetch(place, tmp_path / "kept")
    assert place in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "kept").glob("*")) + list((tmp_path / "kept").glob(".*")) == []
    # Pushed again it is whole again.
    push(tiny_bundle.folder, place)
    assert fetch(place, tmp_path / "kept").is_dir()


@pytest.mark.parametrize("file", [{"../../escaped": 1}, {"README.md": 1 << 60}, {"README.md": -1}])
def test_a_manifest_of_anything_else_is_refused_before_anything_is_fetched(
    file: dict[str, int], server: BucketServer, place: str, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    manifest = msgspec.to_builtins(tiny_bundle.manifest)
    manifest["files"] = {name: {"sha256": "0" * 64, "size": size} for name, size in file.items()}
    encoded = msgspec.json.encode(manifest)
    (tmp_path / "manifest.json").write_bytes(encoded)
    digest = sha256_of(tmp_path / "manifest.json")
    server.store(BUCKET).put(key(place, f"{digest[:12]}/manifest.json"), encoded)
    with pytest.raises(BucketError, match="which no bundle has"):
        fetch(f"{place}@{digest}", tmp_path / "kept")
    assert list((tmp_path / "kept").glob("*")) == []


def test_a_kept_bundle_that_was_damaged_is_fetched_again(
    server: BucketServer, place: str, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    push(tiny_bundle.folder, place)
    found = fetch(place, tmp_path)
    (found / "README.md").write_text("# other\n")
    assert content(fetch(place, tmp_path)) == content(tiny_bundle.folder)


def test_those_used_last_are_kept(server: BucketServer, place: str, tiny_contents: Contents, tmp_path: Path) -> None:
    kept, digests = tmp_path / "kept", []
    for number in range(MAX_KEPT + 2):
        digests.append(push(another(tiny_contents, tmp_path, number).folder, place))
        folder = fetch(place, kept)
        # As if each had been used a second after the one before.
        os.utime(folder, (number, number))
    (kept / "state").mkdir()
    fetch(f"{place}@{digests[2]}", kept)
    assert {one.name for one in kept.iterdir()} == {*digests[2:], "state"}


def test_many_at_once_get_one_and_the_same(
    server: BucketServer, place: str, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    digest = push(tiny_bundle.folder, place)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: fetch(place, tmp_path / "kept"), range(6)))
    assert set(found) == {tmp_path / "kept" / digest}
    assert content(found[0]) == content(tiny_bundle.folder)
    assert [one.name for one in (tmp_path / "kept").iterdir()] == [digest]


def test_only_whole_bundles_are_pushed(server: BucketServer, place: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(Exception, match="is missing"):
        push(tmp_path, place)
    assert server.store(BUCKET).list(key(place, "")).collect() == []


@pytest.mark.parametrize(
    "reference",
    ["s3://bucket", "s3://b/", "s3://UPPER/x", "s3://bucket/../x", "s3://bucket/a//b", "s3://bucket/a@xyz", "s3://"],
)
def test_what_is_no_reference_is_told(reference: str, tmp_path: Path) -> None:
    with pytest.raises(BucketError, match=r"is not s3://BUCKET/PREFIX or s3://BUCKET/PREFIX@DIGITS"):
        fetch(reference, tmp_path)
    with pytest.raises(BucketError, match="its version follows from what it holds"):
        push(tmp_path, f"s3://bucket/prefix@{'0' * 12}")


def test_each_reason_is_one_plain_sentence(
    server: BucketServer, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BucketError, match="there is no such bundle: nothing was pushed here"):
        fetch(place, tmp_path)
    with pytest.raises(BucketError, match="s3://elsewhere/x: there is no such bucket"):
        fetch("s3://elsewhere/x", tmp_path)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
        with pytest.raises(BucketError, match="there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCES"):
            fetch(place, tmp_path)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(BucketError, match="the server cannot be reached; AWS_ENDPOINT_URL names it") as raised:
        fetch(place, tmp_path)
    assert "\n" not in str(raised.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:1")
    with pytest.raises(BucketError, match="AWS_ENDPOINT_URL must be a URL"):
        fetch(place, tmp_path)


class Misbehaving(http.server.BaseHTTPRequestHandler):
    """Denies everything, or answers with less than it announces."""

    denies = True

    def do_GET(self) -> None:
        if self.denies:
            body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
        else:
            body = b"0" * 10
            self.send_response(200)
            self.send_header("Content-Length", "65")
            self.send_header("ETag", '"x"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("denies", "message"), [(True, "access is denied to these credentials"), (False, "failed")])
def test_a_server_that_denies_or_breaks_off_is_told(
    denies: bool, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setattr(Misbehaving, "denies", denies)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving) as stub:
        threading.Thread(target=stub.serve_forever, daemon=True).start()
        for name, value in environment(stub.server_port).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(BucketError, match=message):
            fetch("s3://bucket/prefix", tmp_path)
        stub.shutdown()


@pytest.mark.slow
def test_push_pull_serve_and_reload_from_the_bucket(
    server: BucketServer, place: str, tiny_contents: Contents, tmp_path: Path
) -> None:
    first, second = (another(tiny_contents, tmp_path, number) for number in (1, 2))
    done = run("push", first.folder, place)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{place}@{first.version} is the current one" in done.stdout
    pulled = run("pull", place, "--into", tmp_path / "pulled")
    assert content(Path(pulled.stdout.strip())) == content(first.folder)
    port = free_port()
    process = start(
        "--bundle", place, "--bundles", tmp_path / "kept", "--port", port, "--grace-seconds", 0, "--state", ""
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    assert httpx.get(f"{url}/v1/model").json()["version"] == first.version
    push(second.folder, place)
    process.send_signal(signal.SIGHUP)
    for _ in range(300):
        if httpx.get(f"{url}/v1/model").json()["version"] == second.version:
            break
        threading.Event().wait(0.1)
    assert httpx.get(f"{url}/v1/model").json()["version"] == second.version
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    gone = run("pull", f"{place}@{'0' * 12}", "--into", tmp_path / "pulled")
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"training: {place}: there is no such bundle")
