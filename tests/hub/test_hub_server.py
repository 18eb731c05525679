"""The test Hub, spoken to by the true clients: what they push they can pull, and each fault and refusal reaches them."""

import hashlib
import io
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import (
    Action,
    Corrupt,
    CutDownload,
    Delay,
    HubServer,
    LoseAnswer,
    ResetBefore,
    ResetDownload,
    ResetUpload,
    Status,
    Truncate,
)
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from processes import forked

httpx = sys.modules[HfHubHTTPError.__mro__[1].__module__.partition(".")[0]]  # huggingface_hub 2 has httpx2 instead

TOKEN = "hf_writes"
CARD = b"---\nlicense: mit\n---\n# x\n"
WEIGHTS = bytes(range(256)) * 400  # 100 kB: LFS by its name, and more than a socket takes at once
FILES = {"README.md": CARD, "config.json": b"{}", "deep/er/model.safetensors": WEIGHTS}


@pytest.fixture(scope="module")
def started() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def server(started: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """An empty Hub with three accounts, and clients that do not wait before they try again."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    started.reset()
    started.add_token(TOKEN, "ann", orgs=["lab"])
    started.add_token("hf_reads", "ann", role="read")
    started.add_token("hf_bob", "bob")
    return started


@pytest.fixture
def api(server: HubServer) -> HfApi:
    return HfApi(endpoint=server.url, token=TOKEN)


def push(api: HfApi, files: dict[str, bytes], repo_id: str = "ann/x", **options: object) -> CommitInfo:
    added = [CommitOperationAdd(path, data) for path, data in files.items()]
    return api.create_commit(repo_id, added, commit_message="pushed", **options)  # type: ignore[arg-type]


def held(server: HubServer, repo_id: str = "ann/x", revision: str = "main") -> dict[str, bytes]:
    """A model repo's files without the `.gitattributes` that every repo has."""
    files = dict(server.files("model", repo_id, revision))
    assert b"*.safetensors filter=lfs" in files.pop(".gitattributes")
    return files


def asked(server: HubServer) -> list[str]:
    return [f"{request.method} {request.path}" for request in server.requests]


# --- push and pull ----------------------------------------------------------------------------------------------------


def test_whoami(server: HubServer, api: HfApi) -> None:
    me = api.whoami()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("ann", ["lab"])
    assert me["auth"]["accessToken"]["role"] == "write"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami("hf_wrong")
    assert [(request.status, request.authorised) for request in server.requests] == [(200, True), (401, False)]


@pytest.mark.parametrize(("kind", "prefix"), [("model", ""), ("dataset", "datasets/"), ("space", "spaces/")])
def test_create_repo(server: HubServer, api: HfApi, kind: str, prefix: str) -> None:
    sdk = "gradio" if kind == "space" else None
    made = api.create_repo("lab/x", repo_type=kind, private=True, space_sdk=sdk)
    again = api.create_repo("lab/x", repo_type=kind, exist_ok=True, space_sdk=sdk)
    assert made == again == f"{server.url}/{prefix}lab/x"
    assert (again.repo_id, again.repo_type) == ("lab/x", kind)
    assert api.repo_info("lab/x", repo_type=kind).private is True
    assert [commit.title for commit in server.commits(kind, "lab/x")] == ["initial commit"]
    assert server.exists(kind, "lab/x")
    assert not server.exists("dataset" if kind == "model" else "model", "lab/x")
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo("lab/x", repo_type=kind, space_sdk=sdk)
    assert refused.value.response.status_code == 409
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo("bob/x", repo_type=kind, space_sdk=sdk)
    assert refused.value.response.status_code == 403


def test_a_space_is_read_below_its_own_address(server: HubServer, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("ann/x", repo_type="space", space_sdk="gradio")
    api.upload_file(path_or_fileobj=b"1\n", path_in_repo="app.py", repo_id="ann/x", repo_type="space")
    path = api.hf_hub_download("ann/x", "app.py", repo_type="space", cache_dir=tmp_path)
    assert Path(path).read_bytes() == b"1\n"
    assert sorted(server.files("space", "ann/x")) == [".gitattributes", "README.md", "app.py"]
    assert not server.exists("model", "ann/x")


def test_a_push_comes_back_whole(server: HubServer, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("ann/x")
    made = push(api, FILES)
    assert held(server) == FILES
    assert made.oid == api.model_info("ann/x").sha == server.commits("model", "ann/x")[0].sha
    folder = Path(api.snapshot_download("ann/x", cache_dir=tmp_path))
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    storage = [request for request in server.requests if request.path.startswith("/storage/")]
    assert [(request.method, request.size) for request in storage] == [("PUT", len(WEIGHTS)), ("GET", 0)]
    assert not any(request.authorised for request in storage)


def test_large_objects_go_up_in_parts(server: HubServer, api: HfApi) -> None:
    server.part_size = 30_000
    server.seed("model", "ann/x", {})
    push(api, FILES)
    assert held(server) == FILES
    assert [request.size for request in server.requests if "?part=" in request.path] == [30_000] * 3 + [12_400]


def test_an_unchanged_file_is_not_pushed_again(server: HubServer, api: HfApi) -> None:
    sha = server.seed("model", "ann/x", FILES)
    assert push(api, FILES).oid == sha
    assert not [request for request in asked(server) if "/commit/" in request or request.startswith("PUT")]
    push(api, FILES | {"config.json": b"{1}"})
    assert [request.size for request in server.requests if "/commit/" in request.path] == [
        len(
            b'{"key": "header", "value": {"summary": "pushed", "description": ""}}\n'
            b'{"key": "file", "value": {"content": "ezF9", "path": "config.json", "encoding": "base64"}}\n'
        )
    ]
    assert held(server) == FILES | {"config.json": b"{1}"}
    assert [commit.title for commit in server.commits("model", "ann/x")] == ["pushed", "seed", "initial commit"]


def test_deleted_files_and_folders_go(server: HubServer, api: HfApi) -> None:
    server.seed("model", "ann/x", FILES)
    gone = [CommitOperationDelete("config.json"), CommitOperationDelete("deep/")]
    api.create_commit("ann/x", gone, commit_message="less")
    assert held(server) == {"README.md": CARD}
    with pytest.raises(RemoteEntryNotFoundError):
        api.create_commit("ann/x", gone[:1], commit_message="again")


def test_a_commit_needs_the_head_as_its_parent(server: HubServer, api: HfApi) -> None:
    first = server.seed("model", "ann/x", FILES)
    second = server.seed("model", "ann/x", {"config.json": b"1"})
    with pytest.raises(HfHubHTTPError) as refused:
        push(api, {"a.txt": b"1"}, parent_commit=first)
    assert refused.value.response.status_code == 412
    push(api, {"a.txt": b"1"}, parent_commit=second)
    assert server.commits("model", "ann/x")[0].parent == second


def test_a_pull_request_leaves_main_alone(server: HubServer, api: HfApi, tmp_path: Path) -> None:
    server.seed("model", "ann/x", FILES)
    stranger = HfApi(endpoint=server.url, token="hf_bob")
    proposed = push(stranger, {"config.json": b"1", "new.safetensors": b"2"}, create_pr=True)
    assert (proposed.pr_revision, proposed.pr_num) == ("refs/pr/1", 1)
    assert push(api, {"config.json": b"3"}, create_pr=True).pr_num == 2
    assert held(server) == FILES
    assert held(server, revision="refs/pr/1") == FILES | {"config.json": b"1", "new.safetensors": b"2"}
    found = api.hf_hub_download("ann/x", "config.json", revision="refs/pr/2", cache_dir=tmp_path)
    assert Path(found).read_bytes() == b"3"
    refs = api.list_repo_refs("ann/x", include_pull_requests=True)
    assert [ref.name for ref in refs.branches] == ["main"]
    assert [ref.ref for ref in refs.pull_requests or []] == ["refs/pr/1", "refs/pr/2"]


def test_branches(server: HubServer, api: HfApi) -> None:
    sha = server.seed("model", "ann/x", FILES)
    with pytest.raises(RevisionNotFoundError):
        push(api, {"a.txt": b"1"}, revision="next")
    api.create_branch("ann/x", branch="next")
    api.create_branch("ann/x", branch="next", exist_ok=True)
    push(api, {"a.txt": b"1"}, revision="next")
    assert api.model_info("ann/x").sha == sha
    assert [commit.title for commit in api.list_repo_commits("ann/x", revision="next")][:2] == ["pushed", "seed"]


def test_hashes_and_sizes(server: HubServer, api: HfApi) -> None:
    server.seed("model", "ann/x", FILES)
    info = api.model_info("ann/x", files_metadata=True)
    config, weights = (next(f for f in info.siblings or [] if f.rfilename == path) for path in list(FILES)[1:])
    assert (config.size, config.lfs) == (2, None)
    assert config.blob_id == hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert weights.lfs is not None
    assert (weights.size, weights.lfs.sha256) == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    assert info.card_data is not None
    assert info.card_data.license == "mit"
    listed, folder = api.get_paths_info("ann/x", ["deep/er/model.safetensors", "deep", "missing"])
    assert (listed.lfs, folder.path) == (weights.lfs, "deep")  # type: ignore[union-attr]


def test_seeded_files_may_be_as_bad_as_a_test_needs_them(server: HubServer, api: HfApi) -> None:
    files = {"README.md": b"---\na: [1\n---\n\xff", "../up.txt": b"1", "m.safetensors": b""}
    server.seed("model", "ann/x", files)
    assert {entry.rfilename for entry in api.model_info("ann/x").siblings or []} == {".gitattributes", *files}
    assert held(server) == files


def test_a_tree_comes_in_pages(server: HubServer, api: HfApi) -> None:
    server.seed("model", "ann/x", {f"f/{i}.txt": b"" for i in range(5)} | {"g.txt": b""})
    server.page_size = 3
    whole = [entry.path for entry in api.list_repo_tree("ann/x", recursive=True)]
    assert whole == [".gitattributes", "f", *(f"f/{i}.txt" for i in range(5)), "g.txt"]
    assert [entry.path for entry in api.list_repo_tree("ann/x")] == [".gitattributes", "f", "g.txt"]
    assert [entry.path for entry in api.list_repo_tree("ann/x", "f")] == whole[2:7]
    assert len(server.requests) == 3 + 1 + 2
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("ann/x", "missing"))


@pytest.mark.parametrize(
    ("asked_for", "status", "body"),
    [("bytes=2-4", 206, b"234"), ("bytes=7-", 206, b"789"), ("bytes=-2", 206, b"89"), ("bytes=10-", 416, b"")],
)
@pytest.mark.parametrize("path", ["a.txt", "a.bin"])
def test_ranges(server: HubServer, path: str, asked_for: str, status: int, body: bytes) -> None:
    server.seed("model", "ann/x", {path: b"0123456789"})
    request = urllib.request.Request(f"{server.url}/ann/x/resolve/main/{path}", headers={"Range": asked_for})
    try:
        with urllib.request.urlopen(request) as answer:
            got = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        got = error.code, error.read()
    assert got == (status, body)


def test_datasets_loads_a_config(server: HubServer, tmp_path: Path) -> None:
    def parquet(rows: int) -> bytes:
        file = io.BytesIO()
        pq.write_table(pa.table({"image": range(rows), "soft": [[0.5, 0.5]] * rows}), file)
        return file.getvalue()

    card = b"---\nconfigs:\n" + b"".join(
        b"- config_name: %b\n  data_files: [{split: train, path: %b/train.parquet}]\n" % (n, n)
        for n in (b"ipc1", b"ipc10")
    )
    files = {"README.md": card + b"---\n", "ipc1/train.parquet": parquet(1), "ipc10/train.parquet": parquet(10)}
    sha = server.seed("dataset", "ann/d", files | {"ipc10/exact.safetensors": b"not a table"}, private=True)
    code = (
        "import sys; from datasets import load_dataset as load\n"
        "for config, revision in ('ipc10', None), ('ipc1', sys.argv[1]):\n"
        "    print(load('ann/d', config, revision=revision)['train'].num_rows)\n"
        "print(sum(1 for row in load('ann/d', 'ipc10', streaming=True)['train']))"
    )
    settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    done = forked(code, sha, **settings)
    assert done.stdout.split() == ["10", "1", "10"], done.stderr
    assert {request.status for request in server.requests} <= {200, 206, 302, 404}


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("token", "status"), [(False, 401), ("hf_wrong", 401), ("hf_reads", 403), ("hf_bob", 403)])
def test_who_may_not_write(server: HubServer, token: str | bool, status: int) -> None:
    server.seed("model", "ann/x", FILES)
    api = HfApi(endpoint=server.url, token=token)
    for write in (lambda: push(api, {"a.txt": b"1"}), lambda: api.create_repo("ann/y")):
        with pytest.raises(HfHubHTTPError) as refused:
            write()
        assert refused.value.response.status_code == status
        assert not isinstance(refused.value, RepositoryNotFoundError)
    assert held(server) == FILES
    assert not server.exists("model", "ann/y")


@pytest.mark.parametrize(("token", "status"), [(False, 401), ("hf_bob", 404)])
@pytest.mark.parametrize("repo_id", ["ann/secret", "ann/missing"])
def test_a_private_repo_is_as_a_missing_one(server: HubServer, token: str | bool, status: int, repo_id: str) -> None:
    server.seed("model", "ann/secret", FILES, private=True)
    api = HfApi(endpoint=server.url, token=token)
    for read in (lambda: api.model_info(repo_id), lambda: push(api, {"a.txt": b"1"}, repo_id)):
        with pytest.raises(RepositoryNotFoundError) as refused:
            read()
        assert refused.value.response.status_code == status
    assert HfApi(endpoint=server.url, token="hf_reads").model_info("ann/secret").private


@pytest.mark.parametrize(("token", "status"), [(False, 401), ("hf_bob", 403)])
def test_a_gated_repo_shows_its_names_only(
    server: HubServer, api: HfApi, tmp_path: Path, token: str | bool, status: int
) -> None:
    server.seed("model", "ann/x", FILES, gated=True)
    stranger = HfApi(endpoint=server.url, token=token)
    assert stranger.model_info("ann/x").gated == "auto"
    with pytest.raises(GatedRepoError) as refused:
        stranger.hf_hub_download("ann/x", "config.json", cache_dir=tmp_path)
    assert refused.value.response.status_code == status
    assert Path(api.hf_hub_download("ann/x", "config.json", cache_dir=tmp_path)).read_bytes() == b"{}"


def test_missing_revisions_and_files(server: HubServer, api: HfApi, tmp_path: Path) -> None:
    server.seed("model", "ann/x", FILES)
    with pytest.raises(RevisionNotFoundError):
        api.model_info("ann/x", revision="missing")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download("ann/x", "config.json", revision="0" * 40, cache_dir=tmp_path)
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("ann/x", "missing.json", cache_dir=tmp_path)


@pytest.mark.parametrize("card", [b"---\na: [1\n---\n", b"---\n- a\n---\n"])
def test_a_card_must_be_a_yaml_mapping(server: HubServer, api: HfApi, card: bytes) -> None:
    server.seed("model", "ann/x", FILES)
    with pytest.raises(ValueError, match=r"Invalid metadata in README.md.\n- YAML metadata"):
        push(api, {"README.md": card, "m.safetensors": b"1"})
    assert asked(server) == ["POST /api/validate-yaml"]
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        push(api, {"README.md": b"no front matter"})


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("m.safetensors", b'{"key": "lfsFile", "value": {"path": "%b", "oid": "' + b"0" * 64 + b'", "size": 1}}'),
        ("m.safetensors", b'{"key": "file", "value": {"path": "%b", "content": "MQ=="}}'),
        ("../a.txt", b'{"key": "file", "value": {"path": "%b", "content": "MQ=="}}'),
        ("→/..", b'{"key": "deletedFile", "value": {"path": "%b"}}'),
        ("/a.txt", b'{"key": "file", "value": {"path": "%b", "content": "MQ=="}}'),
        ("a.txt", b'{"key": "file", "value": {"path": "%b", "content": "?"}}'),
        ("a.txt", b'{"key": "rename", "value": {"path": "%b"}}'),
        ("a.txt", b'{"key": "file", "value": {"path": "%b"'),
    ],
    ids=["not uploaded", "must be LFS", "climbs", "climbs after all", "absolute", "not base64", "unknown", "cut"],
)
def test_a_bad_line_refuses_the_whole_commit(server: HubServer, path: str, line: bytes) -> None:
    server.seed("model", "ann/x", FILES)
    header = b'{"key": "header", "value": {"summary": "s"}}\n{"key": "deletedFile", "value": {"path": "config.json"}}\n'
    request = urllib.request.Request(
        f"{server.url}/api/models/ann/x/commit/main",
        data=header + line.replace(b"%b", path.encode()),
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)
    assert held(server) == FILES


def test_only_the_announced_object_is_kept(server: HubServer) -> None:
    server.seed("model", "ann/x", FILES)
    announced = hashlib.sha256(b"1234").hexdigest()
    batch = b'{"operation": "upload", "hash_algo": "sha256", "objects": [{"oid": "%b", "size": 4}]}'
    storage = f"{server.storage_url}/storage/models/ann/x/"

    def send(method: str, url: str, data: bytes, token: str = "") -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            return urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)).status
        except urllib.error.HTTPError as error:
            return error.code

    assert send("PUT", storage + announced, b"1234") == 403
    batch_url = f"{server.url}/ann/x.git/info/lfs/objects/batch"
    assert send("POST", batch_url, batch % announced.encode(), "hf_reads") == 403
    assert send("POST", batch_url, batch % announced.encode(), TOKEN) == 200
    assert [send("PUT", storage + announced, data) for data in (b"1235", b"123", b"12345")] == [400] * 3
    assert send("PUT", storage + announced, b"1234", TOKEN) == 400  # a token does not belong there
    verify = f"{server.url}/ann/x.git/info/lfs/objects/verify"
    facts = b'{"oid": "%b", "size": 4}' % announced.encode()
    assert send("POST", verify, facts, TOKEN) == 404
    assert send("PUT", storage + announced, b"1234") == 200
    assert send("POST", verify, facts, TOKEN) == 200


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action", [Status(429, {"Retry-After": "0"}), Status(503, body="busy"), ResetBefore(), ResetUpload(50_000)]
)
@pytest.mark.parametrize("pattern", ["/preupload/", "/objects/batch", "^PUT ", "/verify"])
def test_the_client_repeats_what_comes_before_a_commit(
    server: HubServer, api: HfApi, action: Action, pattern: str
) -> None:
    server.seed("model", "ann/x", {})
    server.fault(pattern, action)
    push(api, FILES)
    assert held(server) == FILES
    failed, *_ = (request for request in server.requests if request.status in (None, 429, 503))
    assert failed.size <= 50_000 or not isinstance(action, ResetUpload)


@pytest.mark.parametrize("action", [Status(503), ResetBefore(), ResetUpload(100), LoseAnswer()])
def test_a_failed_commit_leaves_nothing_unless_its_answer_was_lost(
    server: HubServer, api: HfApi, action: Action
) -> None:
    server.seed("model", "ann/x", {})
    server.fault(r"POST .*/commit/main", action)
    with pytest.raises((HfHubHTTPError, httpx.TransportError)):
        push(api, FILES)
    assert held(server) == (FILES if isinstance(action, LoseAnswer) else {})
    push(api, FILES)
    assert held(server) == FILES


def test_an_upload_that_never_succeeds_makes_no_commit(server: HubServer, api: HfApi) -> None:
    server.seed("model", "ann/x", {})
    server.fault("^PUT ", ResetUpload(1000), times=None)
    with pytest.raises(RuntimeError, match="Error while uploading"):
        push(api, FILES)
    assert held(server) == {}
    assert not any("/commit/" in request for request in asked(server))


def test_a_download_that_is_cut_goes_on_where_it_was(
    server: HubServer, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    server.seed("model", "ann/x", FILES)
    server.fault("GET /storage/", CutDownload(40_000))
    found = api.hf_hub_download("ann/x", "deep/er/model.safetensors", cache_dir=tmp_path)
    assert Path(found).read_bytes() == WEIGHTS
    assert [request.status for request in server.requests] == [302, 200, 206]


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (ResetDownload(40_000), httpx.ReadError),
        (ResetBefore(), httpx.ReadError),
        (Truncate(99_000), OSError),
        (Status(503), HfHubHTTPError),
    ],
)
def test_a_download_that_fails_can_be_repeated(
    server: HubServer, api: HfApi, tmp_path: Path, action: Action, error: type[Exception]
) -> None:
    server.seed("model", "ann/x", FILES)
    server.fault("GET /storage/", action)
    with pytest.raises(error):
        api.hf_hub_download("ann/x", "deep/er/model.safetensors", cache_dir=tmp_path)
    found = api.hf_hub_download("ann/x", "deep/er/model.safetensors", cache_dir=tmp_path)
    assert Path(found).read_bytes() == WEIGHTS


def test_the_client_does_not_see_flipped_bits(server: HubServer, api: HfApi, tmp_path: Path) -> None:
    server.seed("model", "ann/x", FILES)
    server.fault("GET /storage/", Corrupt())
    found = Path(api.hf_hub_download("ann/x", "deep/er/model.safetensors", cache_dir=tmp_path)).read_bytes()
    assert [i for i in range(len(WEIGHTS)) if found[i] != WEIGHTS[i]] == [len(WEIGHTS) // 2]
    assert len(found) == len(WEIGHTS)


def test_a_fault_meets_its_requests_and_no_others(server: HubServer, api: HfApi) -> None:
    server.seed("model", "ann/x", FILES)
    server.fault(r"^GET /api/models/ann/x\?blobs=true$", Status(500, body="twice"), times=2)
    server.fault("blobs", Status(418))
    api.model_info("ann/x")
    for status in (500, 500, 418):
        with pytest.raises(HfHubHTTPError) as refused:
            api.model_info("ann/x", files_metadata=True)
        assert refused.value.response.status_code == status
    api.model_info("ann/x", files_metadata=True)
    server.fault("models", Delay(0.01))
    api.model_info("ann/x")
    assert [request.status for request in server.requests] == [200, 500, 500, 418, 200, 200]


def test_a_server_that_is_gone_may_come_back(server: HubServer, api: HfApi, tmp_path: Path) -> None:
    sha = server.seed("model", "ann/x", FILES)
    assert api.model_info("ann/x").sha == sha  # leaves a connection open
    server.stop()
    try:
        with pytest.raises(httpx.TransportError):
            api.model_info("ann/x")
        with pytest.raises(LocalEntryNotFoundError):
            api.hf_hub_download("ann/x", "config.json", cache_dir=tmp_path)
    finally:
        server.start()
    assert api.model_info("ann/x").sha == sha


def test_reset_forgets_everything(server: HubServer) -> None:
    server.seed("model", "ann/x", FILES)
    server.fault(".*", Status(500))
    server.page_size = server.part_size = 1
    server.reset()
    assert (server.repos, server.accounts, server.faults, server.requests) == ({}, {}, [], [])
    assert min(server.page_size, server.part_size) > 1
