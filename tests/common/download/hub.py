"""A Hugging Face hub on loopback for tests: the hub, which checks tokens, and the CDN, which holds large files.

It serves what the official client requests: `resolve` (redirects, ETag, X-Repo-Commit, X-Linked-Size, error codes),
creating a repository or a branch, preupload, the LFS batch with its upload and verification, the commit.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

OWNER, TOKEN, READ_TOKEN = "owner", "hf_may_write", "hf_may_read"
_LARGE = (".safetensors", ".bin")


@dataclass
class Repository:
    """Files by revision and path; `commits` are (revision, message, names of changed files)."""

    is_private: bool = False
    is_gated: bool = False
    revisions: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: list[tuple[str, str, list[str]]] = field(default_factory=list)

    def sha(self, revision: str) -> str:
        return hashlib.sha1(repr((revision, sorted(self.revisions[revision].items()))).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Records a request and answers it by the script, else by the first matching route."""

    protocol_version = "HTTP/1.1"
    server: "Side"

    def route(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # the official client sends this with the first request of a process; scripts do not count it
        if self.path == "/api/agent-harnesses":
            return self.answer(404)
        with self.server.guard:
            self.server.requests.append((self.command, self.path, dict(self.headers)))
            scripted = self.server.script.pop(0) if self.server.script else None
        with suppress(BrokenPipeError, ConnectionResetError):
            if scripted is not None:
                return self.answer(scripted[0], **scripted[1])
            for pattern, act in self.server.routes.items():
                if match := re.fullmatch(pattern, f"{self.command} {self.path.partition('?')[0]}"):
                    return act(self, *match.groups())
            return self.answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = route  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes | dict = b"", **headers: object) -> None:
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_file(self, content: bytes, **headers: object) -> None:
        """Answer with a file or the requested range of it; `cut` closes the connection after so many bytes."""
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and self.headers.get("If-Range") in (None, headers["ETag"]) else 0
        rest, cut = content[start:], self.server.cut
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if cut and self.command == "GET":
            self.server.cut = 0
            self.close_connection = True
        self.answer(206 if start else 200, rest[: cut or None], Content_Length=len(rest), **headers)


class Side(ThreadingHTTPServer):
    """The server of the hub or of its CDN: the `requests` so far, and the `script` of answers that come first."""

    daemon_threads = True

    def __init__(self, host: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://{host}:{self.server_port}"
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.script: list[tuple[int, dict[str, object]]] = []
        self.routes: dict[str, object] = {}
        self.cut = 0
        self.guard = threading.Lock()

    def asked(self, method: str) -> list[str]:
        return [path for command, path, _ in self.requests if command == method]

    def tokens(self, method: str) -> set[str | None]:
        shown = [headers for command, _, headers in self.requests if command == method]
        return {headers.get("Authorization", headers.get("authorization")) for headers in shown}


class Hub:
    """Both servers and their content. They have different host names, so that a token for one is not for the other."""

    def __init__(self) -> None:
        self.hub, self.cdn = Side("localhost"), Side("127.0.0.1")
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        name = r"((?:datasets/)?[\w.-]+/[\w.-]+)"
        self.hub.routes = {
            rf"(?:GET|HEAD) /{name}/resolve/([^/]+)/(.+)": self._resolve,
            rf"GET /api/models/{name}(?:/revision/[^/]+)?": self._info,
            r"POST /api/repos/create": self._create,
            r"POST /api/validate-yaml": lambda on: on.answer(200, {"errors": [], "warnings": []}),
            rf"POST /api/models/{name}/branch/([^/]+)": self._branch,
            rf"POST /api/models/{name}/preupload/([^/]+)": self._preupload,
            rf"POST /{name}\.git/info/lfs/objects/batch": self._batch,
            rf"POST /{name}\.git/info/lfs/verify": self._verify,
            rf"POST /api/models/{name}/commit/([^/]+)": self._commit,
        }
        self.cdn.routes = {r"(?:GET|HEAD) /large/(\w+)": self._send_large, r"PUT /large/(\w+)": self._store_large}

    def _token(self, on: Handler) -> str:
        return on.headers.get("Authorization", "").removeprefix("Bearer ")

    def _find(self, on: Handler, name: str, revision: str = "main") -> Repository | None:
        """The repository; None after an error was sent as the hub does."""
        found, token = self.repositories.get(name), self._token(on)
        if found is None or (found.is_private and token not in (TOKEN, READ_TOKEN)):
            message = "Repository not found" if token else "Invalid username or password."
            on.answer(404 if token else 401, X_Error_Code="RepoNotFound", X_Error_Message=message)
            return None
        if found.is_gated and token != TOKEN:
            message = f"Access to model {name} is restricted and you are not in the authorized list."
            on.answer(403 if token else 401, X_Error_Code="GatedRepo", X_Error_Message=message)
            return None
        if revision not in (*found.revisions, *map(found.sha, found.revisions)):
            on.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message=f"Invalid rev id: {revision}")
            return None
        return found

    def _may_write(self, on: Handler, name: str) -> bool:
        if self._token(on) == TOKEN and name.startswith(f"{OWNER}/"):
            return True
        if self._token(on) in (TOKEN, READ_TOKEN):
            message = f'You don\'t have the rights to create a model under the namespace "{name.partition("/")[0]}"'
            on.answer(403, {"error": message}, X_Error_Message=message)
        else:
            message = "Invalid username or password."
            on.answer(401, {"error": message}, X_Error_Message=message)
        return False

    def _resolve(self, on: Handler, name: str, revision: str, path: str) -> None:
        if (found := self._find(on, name, revision)) is None:
            return None
        branch = next(each for each in found.revisions if revision in (each, found.sha(each)))
        content = found.revisions[branch].get(path)
        if content is None:
            return on.answer(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        commit = {"X_Repo_Commit": found.sha(branch)}
        if not path.endswith(_LARGE):
            etag = hashlib.sha1(content).hexdigest()
            return on.send_file(content, ETag=f'"{etag}"', **commit)
        oid = hashlib.sha256(content).hexdigest()
        self.large[oid] = content
        linked = {"X_Linked_Size": len(content), "X_Linked_ETag": f'"{oid}"', "ETag": f'"{oid}"'}
        return on.answer(302, Location=f"{self.cdn.url}/large/{oid}?signature=x", **linked, **commit)

    def _info(self, on: Handler, name: str) -> None:
        if (found := self._find(on, name)) is not None:
            on.answer(200, {"id": name, "sha": found.sha("main"), "private": found.is_private, "siblings": []})

    def _create(self, on: Handler) -> None:
        asked = json.loads(on.body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self._may_write(on, name):
            return None
        url = {"url": f"{self.hub.url}/{name}"}
        if name in self.repositories:
            return on.answer(409, url | {"error": "You already created this model repo"})
        self.repositories[name] = Repository()
        return on.answer(200, url)

    def _branch(self, on: Handler, name: str, revision: str) -> None:
        if self._may_write(on, name) and (found := self._find(on, name)) is not None:
            is_new = revision not in found.revisions
            found.revisions.setdefault(revision, dict(found.revisions["main"]))
            on.answer(201 if is_new else 409, {} if is_new else {"error": "Reference already exists"})

    def _preupload(self, on: Handler, name: str, revision: str) -> None:
        if self._may_write(on, name) and self._find(on, name, revision) is not None:
            names = [file["path"] for file in json.loads(on.body)["files"]]
            modes = ["lfs" if each.endswith(_LARGE) else "regular" for each in names]
            files = [
                {"path": each, "uploadMode": mode, "shouldIgnore": False}
                for each, mode in zip(names, modes, strict=True)
            ]
            on.answer(200, {"files": files})

    def _batch(self, on: Handler, name: str) -> None:
        if not self._may_write(on, name):
            return
        objects = []
        for each in json.loads(on.body)["objects"]:
            actions = {
                "upload": {"href": f"{self.cdn.url}/large/{each['oid']}"},
                "verify": {"href": f"{self.hub.url}/{name}.git/info/lfs/verify"},
            }
            objects.append(each | ({} if each["oid"] in self.large else {"actions": actions}))
        on.answer(200, {"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")

    def _verify(self, on: Handler, _: str) -> None:
        asked = json.loads(on.body)
        is_whole = len(self.large.get(asked["oid"], b"")) == asked["size"]
        on.answer(200 if is_whole else 404)

    def _commit(self, on: Handler, name: str, revision: str) -> None:
        if not self._may_write(on, name) or (found := self._find(on, name, revision)) is None:
            return None
        header, *entries = (json.loads(line) for line in on.body.splitlines())
        files = {}
        for entry in entries:
            value = entry["value"]
            is_large = entry["key"] == "lfsFile"
            if is_large and value["oid"] not in self.large:
                return on.answer(400, {"error": f"LFS pointer pointed to a file that does not exist: {value['path']}"})
            files[value["path"]] = self.large[value["oid"]] if is_large else base64.b64decode(value["content"])
        found.revisions[revision] |= files
        found.commits.append((revision, header["value"]["summary"], sorted(files)))
        oid = found.sha(revision)
        return on.answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})

    def _send_large(self, on: Handler, oid: str) -> None:
        on.send_file(self.large[oid], ETag=f'"cdn-{oid[:16]}"')

    def _store_large(self, on: Handler, oid: str) -> None:
        if hashlib.sha256(on.body).hexdigest() != oid:
            return on.answer(400)
        self.large[oid] = on.body
        return on.answer(200)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    with hub.hub, hub.cdn:
        sides = (hub.hub, hub.cdn)
        threads = [threading.Thread(target=side.serve_forever, args=(0.02,), daemon=True) for side in sides]
        for thread in threads:
            thread.start()
        yield hub
        for side, thread in zip(sides, threads, strict=True):
            side.shutdown()
            thread.join()


def visit(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None = None) -> None:
    """Let huggingface_hub in this process use the test hub, logged in with `token`."""
    constants = pytest.importorskip("huggingface_hub.constants")
    template = f"{hub.hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    # older releases of the library keep a copy
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    # large files by HTTP: hf_xet uses other servers
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nobody/is/logged/in")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
