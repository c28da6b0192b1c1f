"""A model hub on this machine: the few endpoints that huggingface_hub calls to push and to pull a folder.

A commit's number is its place among the repository's commits; a token that begins with "bad" is refused.
"""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Files = dict[str, bytes]


class Repositories(dict[str, list[Files]]):
    """Name → the files of each commit."""


def commit_id(number: int) -> str:
    return f"{number:040x}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: Repositories

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization", "").startswith("Bearer bad"):
            self._answer(403, {"error": "forbidden"})
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"warnings": [], "errors": []})
        elif "/preupload/" in self.path:
            paths = [each["path"] for each in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            self._answer(200, {"files": modes})
        else:
            match = re.match(r"/api/models/([^/]+/[^/]+)/commit/main", self.path)
            assert match, self.path
            self._commit(match[1], [json.loads(line) for line in body.splitlines()])

    def do_GET(self) -> None:
        match = re.match(r"/(?:api/models/)?([^/?]+/[^/?]+)(?:/(revision|tree|resolve)/([^/?]+)/?([^?]*))?", self.path)
        assert match, self.path
        name, what, revision, file = match.groups()
        if name not in self.repositories:
            self._answer(404, {"error": "no repository"}, {"X-Error-Code": "RepoNotFound"})
            return
        commits = self.repositories[name]
        if revision not in (None, "main", *map(commit_id, range(len(commits)))):
            self._answer(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
            return
        number = len(commits) - 1 if revision in (None, "main") else int(revision, 16)
        sha, files = commit_id(number), commits[number]
        listed = [
            {"type": "file", "path": path, "rfilename": path, "size": len(content), "oid": sha}
            for path, content in files.items()
        ]
        if what == "resolve":
            self._send(200, files[file], {"X-Repo-Commit": sha, "ETag": f'"{sha}"'})
        else:
            model = {"id": name, "sha": sha, "private": True, "tags": [], "downloads": 0, "likes": 0}
            self._answer(200, listed if what == "tree" else {**model, "siblings": listed})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _create(self, asked: dict[str, Any]) -> None:
        assert asked["visibility"] == "private"
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        status = 409 if name in self.repositories else 200
        self.repositories.setdefault(name, [{}])
        self._answer(status, {"url": f"{self._address}/{name}"})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.repositories[name][-1])
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        self.repositories[name].append(files)
        oid = commit_id(len(self.repositories[name]) - 1)
        self._answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{self._address}/{name}/commit/{oid}"})

    @property
    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def hub() -> Iterator[tuple[str, Repositories]]:
    """Its address, and what it holds."""
    handler = type("Hub", (Handler,), {"repositories": Repositories()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler.repositories
        finally:
            server.shutdown()
            thread.join()
