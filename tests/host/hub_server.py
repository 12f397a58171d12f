"""A little hub on this machine: as much of the hub's HTTP interface as huggingface_hub uses to download a model.

Small files are answered directly; weights by a redirect to another host name, with the headers of a stored large file,
as the real hub does it. It can break connections off, and it writes down what was asked.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "fedcba9876543210fedcba9876543210fedcba98"


@dataclass
class Repo:
    """One model: its files at each commit, and what its branches and tags mean."""

    commits: dict[str, dict[str, bytes]]
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    gated: bool = False
    """Everybody may list it; files are for who brings the token `let-me-in`."""
    claimed_size: int = 0
    """What is said about the weights' size instead of the truth, where not 0."""


@dataclass
class Hub:
    """The running server. ``asked`` holds method, path and headers of each request."""

    repos: dict[str, Repo]
    port: int = 0
    break_after: list[int] = field(default_factory=list)
    """How many bytes the next transfers of weights get before their connection breaks, one number each."""
    stall_after: int = -1
    """From how many bytes on a transfer of weights stands still, until `released`."""
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def transfers(self) -> list[str]:
        """The ranges of the weights' transfers so far; empty for a whole one."""
        return [
            headers.get("range", "")
            for method, path, headers in self.asked
            if method == "GET" and path.startswith("/cdn/")
        ]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve on a free port of this machine until the block ends."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        hub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silence: `Hub.asked` has it all."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(
            (self.command, path, {name.lower(): value for name, value in self.headers.items()})
        )
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            self._describe(found[1], found[2] or "revision", found[3] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*found.groups())
        elif found := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            self._transfer(found[1])
        else:
            self._refuse(404, "EntryNotFound", "no such page")

    def _describe(self, model: str, kind: str, revision: str) -> None:
        repo = self.hub.repos.get(model)
        if repo is None:  # the hub does not tell strangers whether a private model exists
            stranger = "authorization" not in self.headers
            self._refuse(401 if stranger else 404, "RepoNotFound", "Repository not found")
            return
        commit = repo.revisions.get(revision, revision)
        if commit not in repo.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = repo.commits[commit]
        siblings = [{"rfilename": name} for name in files]
        tree = [
            {"type": "file", "path": name, "size": len(content), "oid": etag(name, content)}
            for name, content in files.items()
        ]
        document: object = tree if kind == "tree" else {"id": model, "sha": commit, "siblings": siblings}
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _resolve(self, model: str, revision: str, name: str) -> None:
        repo = self.hub.repos[model]
        if repo.gated and self.headers.get("Authorization") != "Bearer let-me-in":
            known = "Authorization" in self.headers
            self._refuse(403 if known else 401, "GatedRepo", f"Access to model {model} is restricted.")
            return
        commit = repo.revisions.get(revision, revision)
        content = repo.commits[commit][name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag(name, content)}"', "Accept-Ranges": "bytes"}
        if name.endswith(".safetensors"):
            size = repo.claimed_size or len(content)
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(size)}
            headers |= {"Location": f"http://localhost:{self.hub.port}/cdn/{etag(name, content)}"}
            self._send(302, b"", headers)
        else:
            self._send(200, content, headers)

    def _transfer(self, digest: str) -> None:
        contents = (
            content
            for repo in self.hub.repos.values()
            for files in repo.commits.values()
            for content in files.values()
        )
        content = next(each for each in contents if hashlib.sha256(each).hexdigest() == digest)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = start + self.hub.break_after.pop(0) if self.hub.break_after else len(content)
        if self.hub.stall_after >= 0:
            self.wfile.write(content[start : self.hub.stall_after])
            self.wfile.flush()
            self.hub.released.wait(30)
            start = max(start, self.hub.stall_after)
        with suppress(ConnectionError):  # the other side may have left
            self.wfile.write(content[start:end])
        self.close_connection = end < len(content)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def etag(name: str, content: bytes) -> str:
    """Of a large file its SHA-256; of others git's hash."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
