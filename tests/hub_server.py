"""A small Hub on 127.0.0.1 for tests: the true clients (huggingface_hub, datasets) talk to it over HTTP.

    with HubServer() as server:
        server.add_token("hf_write", "ann")
        server.fault(r"^POST .*/commit/", LoseAnswer())
        HfApi(endpoint=server.url, token="hf_write").create_repo("ann/x")

It keeps repos in memory as Git would (immutable commits, refs that point at them) and large files as Git LFS would (by
sha256, uploaded before the commit that names them). Large files go to and come from `storage_url`, another host, as on
the Hub, which refuses a request that carries a token. Tests read the requests and put faults in their way.

The endpoints stand in the order of a push (create, card check, preupload, LFS batch, upload, verify, commit) and of a
pull (info, tree, resolve, download). Not here: Xet (set HF_HUB_DISABLE_XET=1), search, discussions.
Only the standard library, and PyYAML for the card check.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from math import ceil
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

LFS_OVER = 10 * 2**20  # bytes; from here on every file is LFS
LFS_TYPES = (
    "7z arrow bin bz2 ckpt ftz gz h5 joblib mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl pt pth rar "
    "safetensors tar tflite tgz wasm xz zip zst"
)
LFS_MEDIA = "bmp flac gif jpeg jpg mp3 mp4 ogg png tiff wav webm webp"  # in datasets
WEB = {"model": "", "dataset": "datasets/", "space": "spaces/"}  # kind -> where its pages are
PAGE_SIZE = 1000  # entries of a tree on a page
PART_SIZE = 16 * 2**20  # bytes; a larger object is uploaded in parts of this size
DATE = "2025-01-01T00:00:00.000Z"  # of everything: the server has no clock
FRONT_MATTER = re.compile(r"^\s*---\r?\n(.*?)\r?\n---(?:\r?\n|$)", re.DOTALL)


# --- faults: what can be put in a request's way -----------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """Answers with this status, and does nothing."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True)
class ResetBefore:
    """Reads the request, does nothing, and resets the connection (RST) without an answer."""


@dataclass(frozen=True)
class ResetUpload:
    """Resets the connection when this many bytes of the request's body were read; does nothing."""

    after_bytes: int = 0


@dataclass(frozen=True)
class ResetDownload:
    """Does the work, and resets the connection (RST) when this many bytes of the answer's body were sent."""

    after_bytes: int = 0


@dataclass(frozen=True)
class CutDownload:
    """As `ResetDownload`, but the connection ends in order (FIN): the body is shorter than its Content-Length says."""

    after_bytes: int = 0


@dataclass(frozen=True)
class Truncate:
    """Sends only the first bytes of the answer's body, with the Content-Length of what is sent."""

    length: int


@dataclass(frozen=True)
class Corrupt:
    """Flips the bits of the byte in the middle of the answer's body: the length stays right."""


@dataclass(frozen=True)
class LoseAnswer:
    """Does the work, and resets the connection without an answer."""


@dataclass(frozen=True)
class Delay:
    """Waits before the request is read; then all goes its usual way."""

    seconds: float


Action = Status | ResetBefore | ResetUpload | ResetDownload | CutDownload | Truncate | Corrupt | LoseAnswer | Delay


@dataclass
class Fault:
    pattern: re.Pattern[str]
    action: Action
    left: int | None  # None: always


class Request(NamedTuple):
    """A request the server has seen: enough to say who asked for what, never the token."""

    method: str
    path: str  # with the query
    status: int | None  # None: the connection ended without an answer
    size: int  # bytes of its body
    authorised: bool  # it carried a token that the server knows
    answered: int = 0  # bytes of the answer's body, as it was meant


# --- what is kept: accounts, commits, large files ---------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    user: str
    role: str  # "read" or "write"
    orgs: tuple[str, ...] = ()

    def is_in(self, namespace: str) -> bool:
        return namespace == self.user or namespace in self.orgs

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and self.is_in(namespace)


def lfs_types(kind: str) -> list[str]:
    return f"{LFS_TYPES} {LFS_MEDIA}".split() if kind == "dataset" else LFS_TYPES.split()


def is_lfs(kind: str, path: str, size: int) -> bool:
    """The Hub's default rule. An empty file never is."""
    return size > LFS_OVER or (size > 0 and any(path.endswith(f".{name}") for name in lfs_types(kind)))


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Blob:
    """A file's bytes and its names: `oid`, Git's (of the pointer, if LFS), and `sha256` if LFS, else None."""

    def __init__(self, data: bytes, lfs: bool) -> None:
        self.data = data
        self.sha256 = hashlib.sha256(data).hexdigest() if lfs else None
        self.pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(data)}\n".encode()
        )
        self.oid = git_hash(self.pointer if lfs else data)

    @property
    def etag(self) -> str:
        return f'"{self.sha256 or self.oid}"'


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    blobs: dict[str, Blob] = field(repr=False)

    @property
    def files(self) -> dict[str, bytes]:
        """All files at this commit, not only the changed ones."""
        return {path: blob.data for path, blob in self.blobs.items()}


class Repo:
    """Commits, refs and LFS objects. A new one has a first commit, as on the Hub, with `.gitattributes`, and a Space's
    with a README.md."""

    def __init__(self, kind: str, repo_id: str, private: bool = False, gated: bool = False) -> None:
        self.kind, self.id, self.private, self.gated = kind, repo_id, private, gated
        self.commits: dict[str, Commit] = {}
        self.tags: dict[str, str] = {}
        self.refs: dict[str, str] = {}  # "main", another branch's name, or "refs/pr/1" -> sha
        self.objects: dict[str, bytes] = {}  # LFS, by sha256
        self.announced: dict[str, int] = {}  # sha256 -> size: objects that may be uploaded
        self.parts: dict[tuple[str, int], bytes] = {}  # (sha256, number from 1): of uploads in parts
        rules = "".join(f"*.{name} filter=lfs diff=lfs merge=lfs -text\n" for name in lfs_types(kind))
        files = {".gitattributes": rules} | ({"README.md": "---\nsdk: gradio\n---\n"} if kind == "space" else {})
        blobs = {name: Blob(text.encode(), lfs=False) for name, text in files.items()}
        self.commit("main", None, "initial commit", blobs)

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    @property
    def web_path(self) -> str:
        return WEB[self.kind] + self.id

    def commit(self, ref: str, parent: str | None, title: str, blobs: dict[str, Blob]) -> Commit:
        """Adds a commit with exactly these files and points `ref` at it."""
        content = sorted((path, blob.oid) for path, blob in blobs.items())
        sha = hashlib.sha1(f"{self.kind}{self.id}{len(self.commits)}{parent}{title}{content}".encode()).hexdigest()
        self.commits[sha] = Commit(sha, parent, title, blobs)
        self.refs[ref] = sha
        self.objects |= {blob.sha256: blob.data for blob in blobs.values() if blob.sha256}
        return self.commits[sha]

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a tag, a pull request's ref or a full sha."""
        sha = (self.tags | self.refs).get(revision, revision)
        if sha not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
        return self.commits[sha]

    def history(self, revision: str) -> list[Commit]:
        """From the newest to the first."""
        commits = [self.at(revision)]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def last_change(self, revision: str, path: str) -> Commit:
        """The commit that has given a file the content that it has at a revision."""
        history = self.history(revision)
        for commit, older in pairwise(history):
            if path not in older.blobs or older.blobs[path].oid != commit.blobs[path].oid:
                return commit
        return history[-1]

    def keep_object(self, sha256: str, data: bytes) -> None:
        """Keeps an uploaded LFS object if it is the one that was announced."""
        if len(data) != self.announced[sha256] or hashlib.sha256(data).hexdigest() != sha256:
            raise Refused(400, f"The upload is not the announced object {sha256}")
        self.objects[sha256] = data


# --- endpoints: a call comes in, an answer goes out -------------------------------------------------------------------


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """An error as the Hub says it: the status, a message in header and body, often a code that the client reads."""

    def __init__(
        self, status: int, message: str, *, code: str = "", headers: dict[str, str] | None = None, **body: Any
    ):
        super().__init__(message)
        said = {"X-Error-Code": code} if code else {}
        said |= {"X-Error-Message": " ".join(message.split()).encode("ascii", "replace").decode()} | (headers or {})
        self.answer = as_json({"error": message} | body, status, **said)


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(value, default=str).encode(), {"Content-Type": "application/json"} | headers)


@dataclass
class Call:
    """One request, as the endpoints see it. `parts` are the named pieces of its path, unquoted."""

    hub: "HubServer"
    target: str  # path and query, as sent
    query: dict[str, list[str]]
    headers: dict[str, str]  # by names in lower case
    body: bytes
    account: Account | None
    parts: dict[str, str]

    def flag(self, name: str) -> bool:
        return self.query.get(name, ["false"])[0].lower() in ("1", "true")

    def json(self) -> Any:
        return json.loads(self.body)

    def signed_in(self) -> Account:
        if self.account is None:
            raise Refused(401, "Invalid username or password.")
        return self.account

    def repo(self) -> Repo:
        """The repo that the path names; one that this account may not see is as one that is not there."""
        kind = self.parts.get("kind") or next(kind for kind, below in WEB.items() if below == self.parts["below"])
        repo = self.hub.repos.get((kind, self.parts["repo"]))
        if repo is not None and (not repo.private or (self.account and self.account.is_in(repo.namespace))):
            return repo
        if self.account is None:
            raise Refused(401, "Invalid username or password.", code="RepoNotFound")
        raise Refused(404, "Repository not found", code="RepoNotFound")

    def repo_to_write(self) -> Repo:
        """As `repo`, when this account may push to it; anyone with a write token may propose a pull request."""
        repo, account = self.repo(), self.signed_in()
        if account.may_write(repo.namespace) or (account.role == "write" and self.flag("create_pr")):
            return repo
        raise Refused(403, "You have read access but not the required permissions for this operation")

    def repo_to_download(self) -> Repo:
        repo = self.repo()
        if not repo.gated or (self.account and self.account.is_in(repo.namespace)):
            return repo
        raise Refused(401 if self.account is None else 403, f"Access to {repo.id} is restricted.", code="GatedRepo")


Endpoint = Callable[[Call], Answer]
ROUTES: list[tuple[str, re.Pattern[str], Endpoint]] = []
PIECES = {
    "{api}": "/api/(?P<kind>model|dataset|space)s/(?P<repo>[^/]+/[^/]+)",
    "{web}": "/(?P<below>datasets/|spaces/|)(?P<repo>[^/]+/[^/]+?)",
    "{storage}": "/storage/(?P<kind>model|dataset|space)s/(?P<repo>[^/]+/[^/]+)",
    "{rev}": "(?P<rev>[^/]+)",  # quoted: refs%2Fpr%2F1
    "{path}": "(?P<path>.+)",
    "{sha256}": "(?P<sha256>[0-9a-f]{64})",
}


def route(methods: str, template: str) -> Callable[[Endpoint], Endpoint]:
    """Serves `methods` of the paths of this form with the decorated function."""
    for name, pattern in PIECES.items():
        template = template.replace(name, pattern)

    def add(endpoint: Endpoint) -> Endpoint:
        ROUTES.extend((method, re.compile(template), endpoint) for method in methods.split())
        return endpoint

    return add


@route("GET", "/api/whoami-v2")
def whoami(call: Call) -> Answer:
    me = call.signed_in()
    token = {"displayName": "test", "role": me.role}
    orgs = [{"type": "org", "name": org} for org in me.orgs]
    return as_json({"type": "user", "name": me.user, "orgs": orgs, "auth": {"accessToken": token}})


@route("POST", "/api/repos/create")
def create_repo(call: Call) -> Answer:
    """`{name, organization, type, visibility}`; for one that exists 409, and the url that `exist_ok` reads."""
    asked, me = call.json(), call.signed_in()
    kind, namespace = asked.get("type") or "model", asked.get("organization") or me.user
    repo_id = f"{namespace}/{asked['name']}"
    known = kind in WEB and (kind == "space") == ("sdk" in asked)
    if not known or not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", repo_id):
        raise Refused(400, f"Invalid repo: {kind} {repo_id}")
    if not me.may_write(namespace):
        raise Refused(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
    repo = Repo(kind, repo_id, private=asked.get("visibility") == "private" or bool(asked.get("private")))
    url = f"{call.hub.url}/{repo.web_path}"
    if (kind, repo_id) in call.hub.repos:
        raise Refused(409, f"You already created this {kind} repo", url=url)
    call.hub.repos[kind, repo_id] = repo
    return as_json({"url": url, "name": repo_id})


@route("POST", "{api}/branch/{rev}")
def create_branch(call: Call) -> Answer:
    repo, name = call.repo_to_write(), call.parts["rev"]
    if name in repo.refs:
        raise Refused(409, f"Reference refs/heads/{name} already exists")
    repo.refs[name] = repo.at(call.json().get("startingPoint") or "main").sha
    return as_json({})


@route("POST", "{api}/tag/{rev}")
def create_tag(call: Call) -> Answer:
    repo, name = call.repo_to_write(), call.json()["tag"]
    if name in repo.tags:
        raise Refused(409, f"Reference refs/tags/{name} already exists")
    repo.tags[name] = repo.at(call.parts["rev"]).sha
    return as_json({})


def collection(call: Call) -> Answer:
    """A collection as the client reads it."""
    slug = call.parts["repo"]
    if slug not in call.hub.collections:
        raise Refused(404, "Collection not found")
    items = [
        {"_id": str(k), "id": repo, "type": kind, "position": k}
        for k, (kind, repo) in enumerate(call.hub.collections[slug])
    ]
    told = {"slug": slug, "title": slug.partition("/")[2], "owner": slug.partition("/")[0], "items": items}
    return as_json(told | {"lastUpdated": DATE, "position": 0, "private": False, "theme": "blue", "upvotes": 0})


@route("GET", "/api/collections/(?P<repo>[^/]+/[^/]+)")
def get_collection(call: Call) -> Answer:
    return collection(call)


@route("POST", "/api/collections/(?P<repo>[^/]+/[^/]+)/items")
def add_to_collection(call: Call) -> Answer:
    if not call.signed_in().may_write(call.parts["repo"].partition("/")[0]):
        raise Refused(403, "You don't have the rights to change this collection")
    collection(call)
    items, item = call.hub.collections[call.parts["repo"]], call.json()["item"]
    if (item["type"], item["id"]) in items:
        raise Refused(409, "The item is in the collection already")
    items.append((item["type"], item["id"]))
    return collection(call)


@route("POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Answer:
    """The check of a README.md that the client asks for before it uploads anything."""
    try:
        data = card_data(call.json()["content"])
    except ValueError as error:
        return as_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    missing = [{"message": "empty or missing yaml metadata in repo card"}]
    return as_json({"errors": [], "warnings": [] if data else missing})


def card_data(readme: str) -> dict[str, Any]:
    """A card's front matter; empty without one, ValueError for one that is no YAML mapping."""
    found = FRONT_MATTER.match(readme)
    try:
        data = (yaml.safe_load(found[1]) if found else None) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"YAML metadata is invalid: {error}") from error
    if not isinstance(data, dict):
        raise ValueError("YAML metadata is not a mapping")
    return data


@route("POST", "{api}/preupload/{rev}")
def preupload(call: Call) -> Answer:
    """How each file is to be sent, and the name of the one that is there: the client skips what is the same."""
    repo = call.repo_to_write()
    blobs = repo.at(call.parts["rev"]).blobs

    def told(path: str, size: int) -> dict[str, Any]:
        there = blobs.get(path)
        mode = "lfs" if is_lfs(repo.kind, path, size) else "regular"
        oid = {"oid": there.sha256 or there.oid} if there else {}
        return {"path": path, "uploadMode": mode, "shouldIgnore": False} | oid

    return as_json({"files": [told(file["path"], file["size"]) for file in call.json()["files"]]})


@route("POST", r"{web}\.git/info/lfs/objects/batch")
def lfs_batch(call: Call) -> Answer:
    """Where to send each object, at once or in parts; no actions for an object that is there."""
    repo, asked = call.repo(), call.json()
    if call.signed_in().role != "write":  # also of others: theirs is a pull request
        raise Refused(403, "You have read access but not the required permissions for this operation")
    if asked["operation"] != "upload" or asked["hash_algo"] != "sha256":
        raise Refused(400, "Only uploads by sha256")

    def told(oid: str, size: int) -> dict[str, Any]:
        if oid in repo.objects:
            return {"oid": oid, "size": size}
        repo.announced[oid] = size
        href = f"{call.hub.storage_url}/storage/{repo.kind}s/{repo.id}/{oid}"
        upload: dict[str, Any] = {"href": href}
        if size > call.hub.part_size:
            parts = ceil(size / call.hub.part_size)
            upload["header"] = {"chunk_size": str(call.hub.part_size)}
            upload["header"] |= {str(part): f"{href}?part={part}" for part in range(1, parts + 1)}
        verify = {"href": f"{call.hub.url}/{repo.web_path}.git/info/lfs/objects/verify"}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    return as_json({"transfer": "basic", "objects": [told(each["oid"], each["size"]) for each in asked["objects"]]})


def storage_repo(call: Call) -> Repo:
    """The repo whose object a storage URL names. The URL is its own permission, as a signed one is."""
    repo = call.hub.repos.get((call.parts["kind"], call.parts["repo"]))
    if "authorization" in call.headers:
        raise Refused(400, "Only one auth mechanism allowed")
    if repo is None or call.parts["sha256"] not in repo.announced | repo.objects:
        raise Refused(403, "AccessDenied")
    return repo


@route("PUT", "{storage}/{sha256}")
def upload(call: Call) -> Answer:
    """An object, or one part of it (`?part=1`); a part's ETag comes back in the completing call."""
    repo, sha256 = storage_repo(call), call.parts["sha256"]
    if "part" in call.query:
        repo.parts[sha256, int(call.query["part"][0])] = call.body
    else:
        repo.keep_object(sha256, call.body)
    return Answer(headers={"ETag": part_etag(call.body)})


@route("POST", "{storage}/{sha256}")
def complete_upload(call: Call) -> Answer:
    """`{oid, parts: [{partNumber, etag}]}`: joins the parts."""
    repo, sha256 = storage_repo(call), call.parts["sha256"]
    parts = [repo.parts[sha256, part["partNumber"]] for part in call.json()["parts"]]
    if [part_etag(part) for part in parts] != [part["etag"] for part in call.json()["parts"]]:
        raise Refused(400, "InvalidPart")
    repo.keep_object(sha256, b"".join(parts))
    return as_json({})


def part_etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@route("POST", r"{web}\.git/info/lfs/objects/verify")
def verify_upload(call: Call) -> Answer:
    repo, asked = call.repo(), call.json()
    call.signed_in()
    if len(repo.objects.get(asked["oid"], b"")) != asked["size"]:
        raise Refused(404, f"Object {asked['oid']} is not there")
    return as_json({})


@route("POST", "{api}/commit/{rev}")
def commit(call: Call) -> Answer:
    """All operations or none: one JSON a line, first the header, then files, LFS files and deletions."""
    repo, ref = call.repo_to_write(), call.parts["rev"]
    lines = [json.loads(line) for line in call.body.splitlines()]
    header = lines[0]["value"]
    if lines[0]["key"] != "header" or not header["summary"]:
        raise Refused(400, "The first line must be a header with a summary")
    head = repo.at(ref)
    if ref not in repo.refs:
        raise Refused(400, f"{ref} is not a branch")
    parent = header.get("parentCommit") or head.sha
    if call.flag("create_pr"):  # begins at any commit
        head, ref = repo.at(parent), f"refs/pr/{1 + sum(name.startswith('refs/pr/') for name in repo.refs)}"
    elif parent != head.sha:
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    blobs = dict(head.blobs)
    for line in lines[1:]:
        apply_operation(repo, blobs, line["key"], line["value"])
    made = repo.commit(ref, head.sha, header["summary"], blobs)
    url = f"{call.hub.url}/{repo.web_path}"
    answer = {"success": True, "commitOid": made.sha, "commitUrl": f"{url}/commit/{made.sha}"}
    if call.flag("create_pr"):
        answer["pullRequestUrl"] = f"{url}/discussions/{ref.split('/')[-1]}"
    return as_json(answer)


def apply_operation(repo: Repo, blobs: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
    """Changes `blobs` by one line of a commit; a file that preupload would have sent another way is refused."""
    path = value["path"].removesuffix("/") if key == "deletedFolder" else value["path"]
    if any(step in ("", ".", "..", ".git") for step in path.split("/")):
        raise Refused(400, f"Invalid path: {path}")
    if key in ("file", "lfsFile"):
        if key == "file":
            data = base64.b64decode(value["content"], validate=True)
        elif value["oid"] in repo.objects:
            data = repo.objects[value["oid"]]
        else:
            raise Refused(400, f"{path}: the LFS object {value['oid']} was not uploaded")
        lfs = is_lfs(repo.kind, path, len(data))
        if lfs != (key == "lfsFile") or value.get("size", len(data)) != len(data):
            raise Refused(400, f"{path}: wrong size, or LFS where it must not be, or the other way round")
        if path == "README.md":
            card_data(data.decode())
        blobs[path] = Blob(data, lfs)
    elif key in ("deletedFile", "deletedFolder"):
        folder = key == "deletedFolder"
        gone = [name for name in blobs if (name.startswith(path + "/") if folder else name == path)]
        if not gone:
            raise Refused(404, f"A file with this name doesn't exist: {path}", code="EntryNotFound")
        for name in gone:
            del blobs[name]
    else:
        raise Refused(400, f"Unknown operation {key}")


@route("GET", "{api}")
@route("GET", "{api}/revision/{rev}")
def repo_info(call: Call) -> Answer:
    """A repo at a revision, with its file names; with sizes and hashes if `blobs`."""
    repo = call.repo()
    at = repo.at(call.parts.get("rev", "main"))
    siblings: list[dict[str, Any]] = []
    for path, blob in sorted(at.blobs.items()):
        siblings.append({"rfilename": path})
        if call.flag("blobs"):
            siblings[-1] |= {"size": len(blob.data), "blobId": blob.oid}
            siblings[-1] |= {"lfs": lfs_facts(blob) | {"sha256": blob.sha256}} if blob.sha256 else {}
    info = {
        "id": repo.id,
        "author": repo.namespace,
        "sha": at.sha,
        "private": repo.private,
        "gated": "auto" if repo.gated else False,
        "disabled": False,
        "createdAt": DATE,
        "lastModified": DATE,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": siblings,
    }
    with suppress(KeyError, ValueError):  # no card, or a seeded one that is broken
        info["cardData"] = card_data(at.blobs["README.md"].data.decode())
    return as_json(info)


def lfs_facts(blob: Blob) -> dict[str, Any]:
    return {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}


def file_entry(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.data)}
    return entry | ({"lfs": lfs_facts(blob)} if blob.sha256 else {})


def entries(blobs: dict[str, Blob]) -> dict[str, dict[str, Any]]:
    """Every file and folder of a commit by path, in the order of their paths."""
    found = {path: file_entry(path, blob) for path, blob in blobs.items()}
    for folder in {"/".join(path.split("/")[:depth]) for path in blobs for depth in range(1, path.count("/") + 1)}:
        inside = sorted(blob.oid for path, blob in blobs.items() if path.startswith(folder + "/"))
        found[folder] = {"type": "directory", "path": folder, "oid": git_hash(repr(inside).encode()), "size": 0}
    return dict(sorted(found.items()))


@route("GET", "{api}/tree/{rev}")
@route("GET", "{api}/tree/{rev}/{path}")
def tree(call: Call) -> Answer:
    """What is in a folder (and below it if `recursive`), in pages: the next one's URL is in the Link header."""
    at = call.repo().at(call.parts["rev"])
    folder = call.parts.get("path")
    inside = f"{folder}/" if folder else ""
    found = [entry for path, entry in entries(at.blobs).items() if path.startswith(inside)]
    if folder and not found:
        raise Refused(404, f'"{folder}" does not exist on "{call.parts["rev"]}"', code="EntryNotFound")
    if not call.flag("recursive"):
        found = [entry for entry in found if "/" not in entry["path"].removeprefix(inside)]
    start = int(call.query.get("cursor", ["0"])[0])
    stop = start + call.hub.page_size
    page = as_json(found[start:stop])
    if stop < len(found):
        rest = re.sub(r"[?&]cursor=\d+", "", call.target)
        url = f"{call.hub.url}{rest}{'&' if '?' in rest else '?'}cursor={stop}"
        page.headers["Link"] = f'<{url}>; rel="next"'
    return page


@route("POST", "{api}/paths-info/{rev}")
def paths_info(call: Call) -> Answer:
    """The named files and folders (a form: `paths=a&paths=b`); what is not there is left out."""
    repo, asked = call.repo(), parse_qs(call.body.decode())
    at = repo.at(call.parts["rev"])
    found = entries(at.blobs)
    wanted = [found[path] for path in asked.get("paths", []) if path in found]
    if asked.get("expand", ["false"])[0].lower() == "true":
        for entry in wanted:
            made = repo.last_change(at.sha, entry["path"])
            entry["lastCommit"] = {"id": made.sha, "title": made.title, "date": DATE}
    return as_json(wanted)


@route("GET", "{api}/commits/{rev}")
def commits(call: Call) -> Answer:
    author = [{"user": call.repo().namespace}]
    made = call.repo().history(call.parts["rev"])
    return as_json([{"id": c.sha, "title": c.title, "message": "", "date": DATE, "authors": author} for c in made])


@route("GET", "{api}/refs")
def refs(call: Call) -> Answer:
    groups: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    for name, sha in call.repo().refs.items():
        pull_request = name.startswith("refs/pr/")
        ref = {"name": name, "ref": name if pull_request else f"refs/heads/{name}", "targetCommit": sha}
        groups["pullRequests" if pull_request else "branches"].append(ref)
    for name, sha in call.repo().tags.items():
        groups["tags"].append({"name": name, "ref": f"refs/tags/{name}", "targetCommit": sha})
    return as_json(groups)


@route("HEAD GET", "{web}/resolve/{rev}/{path}")
def resolve(call: Call) -> Answer:
    """A file; for an LFS file only its hash, its size and where it is."""
    repo = call.repo_to_download()
    at = repo.at(call.parts["rev"])
    headers, blob = {"X-Repo-Commit": at.sha}, at.blobs.get(call.parts["path"])
    if blob is None:
        raise Refused(404, "Entry not found", code="EntryNotFound", headers=headers)
    if blob.sha256 is None:
        return content(call, blob.data, headers | {"ETag": blob.etag})
    location = f"{call.hub.storage_url}/storage/{repo.kind}s/{repo.id}/{blob.sha256}"
    linked = {"X-Linked-Etag": blob.etag, "X-Linked-Size": str(len(blob.data)), "Location": location}
    return Answer(302, b"", headers | linked)


@route("HEAD GET", "{storage}/{sha256}")
def download(call: Call) -> Answer:
    repo, sha256 = storage_repo(call), call.parts["sha256"]
    return content(call, repo.objects[sha256], {"ETag": f'"{sha256}"'})


def content(call: Call, data: bytes, headers: dict[str, str]) -> Answer:
    """`data`, or the one range of it that was asked for."""
    headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("range", ""))
    if not asked:
        return Answer(200, data, headers)
    first, last = asked.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= stop:
        return Answer(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
    return Answer(206, data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})


# --- the server: what tests hold, and the sockets ---------------------------------------------------------------------


class HubServer:
    """The Hub of one test or of many (`reset` between them). `url` is valid from `start` to `stop`.

    `page_size` (entries of a tree) and `part_size` (bytes; larger objects are uploaded in parts) may be set.
    """

    def __init__(self) -> None:
        self._port = 0  # not chosen yet
        self._lock = threading.RLock()  # endpoints run one at a time
        self._closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self.reset()

    def reset(self) -> None:
        """Forgets repos, tokens, faults, requests and settings."""
        with self._lock:
            self.repos: dict[tuple[str, str], Repo] = {}
            self.accounts: dict[str, Account] = {}
            self.collections: dict[str, list[tuple[str, str]]] = {}  # slug -> (kind, repo) of its items
            self.faults: list[Fault] = []
            self.requests: list[Request] = []
            self.page_size, self.part_size = PAGE_SIZE, PART_SIZE

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def storage_url(self) -> str:
        return f"http://localhost:{self._port}"  # by name: to the clients another host

    def start(self) -> Self:
        """Also after `stop`: at the same port, with everything it held."""
        self._closing.clear()
        handler = type("HubHandler", (_Handler,), {"hub": self})
        self._listener = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._port = self._listener.server_port
        threading.Thread(target=self._listener.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Ends open connections, too: from now on the server is gone."""
        self._closing.set()
        self._listener.shutdown()
        self._listener.server_close()
        for connection in list(self._connections):
            with suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add_token(self, token: str, user: str, role: str = "write", orgs: list[str] | tuple[str, ...] = ()) -> None:
        """A token of `user`. With the role "write" it may write to the user's namespace and to those of `orgs`."""
        self.accounts[token] = Account(user, role, tuple(orgs))

    def seed(
        self, kind: str, repo_id: str, files: dict[str, bytes], *, private: bool = False, gated: bool = False
    ) -> str:
        """A commit on main that adds these files, unchecked; makes the repo if need be. Returns the commit's sha."""
        with self._lock:
            repo = self.repos.setdefault((kind, repo_id), Repo(kind, repo_id))
            repo.private, repo.gated = private, gated
            blobs = {path: Blob(data, is_lfs(kind, path, len(data))) for path, data in files.items()}
            head = repo.at("main")
            return repo.commit("main", head.sha, "seed", head.blobs | blobs).sha

    def exists(self, kind: str, repo_id: str) -> bool:
        return (kind, repo_id) in self.repos

    def files(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """All files by path, `.gitattributes` (in every repo) included. `revision`: a branch, refs/pr/N or a sha."""
        return self.repos[kind, repo_id].at(revision).files

    def commits(self, kind: str, repo_id: str, revision: str = "main") -> list[Commit]:
        """The newest first; the last is the repo's "initial commit"."""
        return self.repos[kind, repo_id].history(revision)

    def fault(self, pattern: str, action: Action, times: int | None = 1) -> None:
        """Meets the next `times` requests (None: all) whose "METHOD /path?query" the regex `pattern` is found in."""
        self.faults.append(Fault(re.compile(pattern), action, times))

    def _next_fault(self, request: str) -> Action | None:
        with self._lock:
            for fault in self.faults:
                if fault.left != 0 and fault.pattern.search(request):
                    fault.left = None if fault.left is None else fault.left - 1
                    return fault.action
        return None

    def _account(self, headers: dict[str, str]) -> Account | None:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        return self.accounts.get(token)

    def _answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        account = self._account(headers)
        if account is None and "authorization" in headers:
            return Refused(401, "Invalid credentials in Authorization header").answer
        url = urlsplit(target)
        for allowed, pattern, endpoint in ROUTES:
            if method == allowed and (found := pattern.fullmatch(url.path)):
                parts = {name: unquote(part) for name, part in found.groupdict(default="").items()}
                call = Call(self, target, parse_qs(url.query), headers, body, account, parts)
                try:
                    with self._lock:
                        return endpoint(call)
                except Refused as refused:
                    return refused.answer
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    return Refused(400, f"Malformed request: {error!r}").answer
        return Refused(404, f"No such endpoint: {method} {quote(url.path, safe='/%')}").answer


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, meets them with faults, sends answers."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer's body waits 40 ms for its headers

    def setup(self) -> None:
        super().setup()
        self.hub._connections.add(self.connection)

    def finish(self) -> None:
        self.hub._connections.discard(self.connection)
        super().finish()

    def serve(self) -> None:
        try:
            self._serve(self.hub._next_fault(f"{self.command} {self.path}"))
        except OSError:  # the other side has gone, or the server was stopped
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def _serve(self, fault: Action | None) -> None:
        if isinstance(fault, Delay):
            self.hub._closing.wait(fault.seconds)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._read_body(fault.after_bytes if isinstance(fault, ResetUpload) else None)
        answer = None
        if isinstance(fault, Status):
            answer = Answer(fault.code, fault.body.encode(), dict(fault.headers))
        elif not isinstance(fault, ResetBefore | ResetUpload):
            answer = self.hub._answer(self.command, self.path, headers, body)
        if isinstance(fault, LoseAnswer):
            answer = None
        known = self.hub._account(headers) is not None
        status, answered = (None, 0) if answer is None else (answer.status, len(answer.body))
        seen = Request(self.command, self.path, status, len(body), known, answered)
        self.hub.requests.append(seen)  # before it is answered
        if answer is None:
            self._reset()
        else:
            self._send(answer, fault)

    def _read_body(self, limit: int | None) -> bytes:
        """The request's body, no more than the first `limit` bytes of it."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
                if limit is not None and len(body) >= limit:
                    return body[:limit]
            self.rfile.readline()
            return body
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size if limit is None else min(size, limit))
        if limit is None and len(body) < size:
            raise ConnectionError("the body ended early")
        return body

    def _send(self, answer: Answer, fault: Action | None) -> None:
        body = answer.body
        if isinstance(fault, Truncate):
            body = body[: fault.length]
        elif isinstance(fault, Corrupt) and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        cut = fault.after_bytes if isinstance(fault, ResetDownload | CutDownload) else None
        self.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(body))} | answer.headers).items():
            self.send_header(name, value)
        if isinstance(fault, Truncate):
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if isinstance(fault, ResetDownload):
            self._reset()
        elif isinstance(fault, CutDownload):
            self.close_connection = True

    def _reset(self) -> None:
        """Ends the connection with a RST: unlike a close, it is an error to the other side."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hub._connections.discard(self.connection)
        socket.close(self.connection.detach())  # not `close`, which waits for the files made of the socket

    def log_message(self, *_: object) -> None:
        """stderr is for the tests."""
