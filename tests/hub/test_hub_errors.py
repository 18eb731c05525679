"""What the Hub says reaches the user: one clear sentence and a hint for every answer; by the true client over HTTP."""

# ruff: noqa: F811  (fixtures of test_hub)

import errno
import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import tiny
from hub_server import Answer, Delay, HubServer, LoseAnswer, Status
from test_hub import (  # noqa: F401  fixtures among them
    WRITE,
    Made,
    _quick_pauses,
    _surroundings,
    complete,
    made,
    own,
    poison,
    pushed,
    put,
    run,
    scenario,
    tensors,
    writes,
)
from tiny import done, refused

from ddtool import Generator, api, load_set
from ddtool.config import GeneratorConfig
from ddtool.errors import DDToolError, HubError
from ddtool.events import Step
from ddtool.hub import client, errors, upload
from ddtool.hub.names import Ref, repo_name
from ddtool.text import without_secrets

COMMIT = r"^POST .*/commit/"
SAID = "Your storage patterns tripped our internal systems"


def answer(status: int, said: str = SAID) -> Status:
    """A refusal as the Hub words it."""
    return Status(status, {"Content-Type": "application/json", "X-Error-Message": said}, json.dumps({"error": said}))


# ------------------------------------------------------------------------------------------------- the server's sentence


@pytest.mark.parametrize(
    ("status", "hint"), [(400, "Check the name"), (402, "billing"), (409, "same command again"), (413, "--no-pool")]
)
def test_the_servers_own_sentence_is_shown(server: HubServer, run: Path, status: int, hint: str) -> None:
    server.fault(COMMIT, answer(status), times=None)
    stderr = refused(1, "push", run, "ann/c10")
    assert f"The Hub refuses 'ann/c10-ddtool': {SAID}." in stderr
    assert hint in stderr


def test_a_refusal_without_a_sentence(server: HubServer, run: Path) -> None:
    server.fault(COMMIT, Status(418), times=None)
    assert "The Hub refuses 'ann/c10-ddtool': it answered 418." in refused(1, "push", run, "ann/c10")


def test_a_refusal_cannot_write_to_the_terminal(server: HubServer, run: Path) -> None:
    server.fault(
        COMMIT,
        Status(400, {}, json.dumps({"error": "\x1b[31mred https://s3/x?sig=SIGNED hf_abcdefghijkl"})),
        times=None,
    )
    stderr = refused(1, "push", run, "ann/c10")
    assert "red https://s3/x ***" in stderr
    assert not {"\x1b", "SIGNED"} & set(stderr.split())


@pytest.mark.parametrize("where", ["^GET /api/", "^POST .*/paths-info/", COMMIT])
def test_a_disabled_repository(pushed: HubServer, run: Path, where: str) -> None:
    pushed.fault(f"{where}.*", answer(403, "Access to this resource is disabled."), times=None)
    if where != COMMIT:
        assert "The model 'ann/c10' is disabled." in refused(1, "pull", "ann/c10")
    assert "is disabled." in refused(1, "push", run, "ann/c10", "--commit-message", "x", "--no-pool")


# ---------------------------------------------------------------------------------------------------------- the storage


def test_an_expired_upload_address_is_asked_for_again(server: HubServer, run: Path) -> None:
    server.fault(r"^PUT /storage/", answer(403, "Request has expired"))
    done("push", run, "ann/c10")
    assert server.faults[0].left == 0
    assert complete(server)


def test_upload_addresses_that_stay_expired_are_not_the_tokens_fault(server: HubServer, run: Path) -> None:
    server.fault(r"^PUT /storage/", answer(403, "Request has expired"), times=None)
    stderr = refused(1, "push", run, "ann/c10")
    assert "its own address for uploads to 'ann/c10-ddtool': it has expired" in stderr
    assert "token" not in stderr
    assert "?" not in stderr


def test_an_expired_download_address(pushed: HubServer) -> None:
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE, ignore_errors=True)
    pushed.fault(r"^GET /storage/", answer(403, "Request has expired"), times=None)
    assert "its own address for downloads" in refused(1, "pull", "ann/c10")


def refusal(status: int, path: str, said: str = "") -> Exception:
    """What the client raises for an answer to a request of that path."""
    http: Any = huggingface_hub.utils.httpx if hasattr(huggingface_hub.utils, "httpx") else None
    if http is None:
        import httpx as http
    request = http.Request("GET", f"{huggingface_hub.constants.ENDPOINT}{path}")
    headers = {"X-Error-Message": said} if said else {}
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError) as caught:
        huggingface_hub.utils.hf_raise_for_status(http.Response(status, headers=headers, request=request))
    return caught.value


XET = re.compile(r"/ann/(token|store)(\d+)/(?:resolve|xet-(?:read|write)-token)/")


def with_xet(server: HubServer) -> Callable[..., Answer]:
    """What a Hub answers whose large files are in Xet. It refuses a token of it for ann/tokenSTATUS, and Xet the files of
    ann/storeSTATUS."""
    usual = server._answer

    def answer(method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        if target.startswith("/store"):
            return Answer(int(target[6:9]), b"{}")
        found = XET.search(target)
        if not found or "/resolve/" in target:
            given = usual(method, target, headers, body)
            if found and given.status == 302:
                place = f"{server.url}/api/models/ann/{found[1]}{found[2]}/xet-read-token/main"
                given.headers |= {"X-Xet-Hash": "0" * 64, "Link": f'<{place}>; rel="xet-auth"'}
            return given
        if found[1] == "token":
            return Answer(int(found[2]), b"{}", {"X-Error-Message": "No Xet for you."})
        address, ends = f"{server.url}/store{found[2]}", "99999999999"
        told = {"casUrl": address, "accessToken": "x", "exp": int(ends)}
        in_headers = {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": "x", "X-Xet-Token-Expiration": ends}
        return Answer(200, json.dumps(told).encode(), in_headers)

    return answer


def test_xets_refusals_by_the_true_client(
    server: HubServer, made: Made, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hf_xet")
    names = [f"ann/token{status}" for status in (401, 403, 404)] + ["ann/store403"]
    for name in names:
        server.seed("model", name, made.model)
    monkeypatch.setattr(server, "_answer", with_xet(server))
    lines: list[list[object]] = [["pull", name] for name in names]
    lines += [["push", run, name, "--only", "dataset", "--dataset-repo", name] for name in names]
    result = scenario(*lines, HF_HUB_DISABLE_XET="0", HF_HOME=str(tmp_path / "hf"))
    said = re.findall(r"^Error: (.*)\nHint: (.*)$", result.stderr, re.MULTILINE)
    assert re.findall(r"EXIT (\d)", result.stdout) == ["1"] * 8, result.stdout + result.stderr
    for name, (error, hint) in zip(names * 2, said, strict=True):
        assert error.startswith(f"Xet, the storage of large files, refuses '{name}' ({name[-3:]}): "), error
        assert "HF_HUB_DISABLE_XET=1" in hint
        assert "the quota of 'ann'" in hint
    if not huggingface_hub.__version__.startswith("1."):  # which keeps the server's sentence to itself
        assert result.stderr.count("No Xet for you.") == 3
    assert "trying again" not in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("error", [ConnectionError, RuntimeError, PermissionError])
def test_what_xets_own_library_raises(error: type[Exception]) -> None:
    raised = error("HTTP status client error (403 Forbidden) for url (https://cas/x?sig=s)")
    said = errors.explanation(raised, "model", Ref("ann/c10"))
    assert "refuses 'ann/c10' (403)" in said.message
    assert "sig" not in str(said)
    assert not errors.is_passing(raised)
    broken = ConnectionError(111, "refused")
    assert "cannot be reached" in str(errors.explanation(broken, "model", Ref("ann/c10")))
    assert errors.is_passing(broken)


# ------------------------------------------------------------------------------------------------- answers of something else

PAGE = Status(200, {"Content-Type": "text/html"}, "<html>Please sign in to the hotel's network</html>")


@pytest.mark.parametrize(
    "words", [["push", "run", "ann/c10"], ["pull", "ann/c10"], ["generate", "ann/c10", "--ipc", 2]]
)
def test_a_sign_in_page(server: HubServer, run: Path, words: list[object]) -> None:
    server.fault("^(GET|POST) /api/", PAGE, times=None)
    stderr = refused(1, *words)
    assert "is not the Hub: it sends a page" in stderr
    assert "sign-in page" in stderr


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("HEAD .*/resolve/", "is not the Hub: it sends a page"),
        ("GET .*/resolve/", "of 'ann/c10' arrives damaged"),
        ("GET /storage/", "of 'ann/c10' arrives damaged"),
    ],
)
def test_a_sign_in_page_in_place_of_a_file(pushed: HubServer, where: str, said: str) -> None:
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE, ignore_errors=True)
    pushed.fault(f"^{where}", PAGE, times=None)
    assert said in refused(1, "pull", "ann/c10")
    assert tiny.listing(Path()) == []
    pushed.faults.clear()
    done("pull", "ann/c10")


WHERE = ["whoami", "/api/(models|datasets)/ann/", "/paths-info/", "/refs", "/preupload/", "lfs/objects", "/commit/"]


BODIES = ["{}", "[]", "7", "null", '{"sha": 7}', '{"siblings": 3}', '[{"type": "file"}]']


def lacking(server: HubServer, where: str, body: str, *words: object) -> None:
    """A command fails in a sentence, or does without, where the Hub's answer to such requests is `body`."""
    server.faults.clear()
    server.fault(f"^(GET|POST) .*{where}", Status(200, {"Content-Type": "application/json"}, body), times=None)
    result = tiny.ddtool(*words)
    assert result.exit_code in (0, 1)
    assert "bug" not in result.stderr
    assert "KeyError" not in result.stderr.partition("lacks what it should hold")[0]
    if result.exit_code == 1:
        assert result.stderr.splitlines()[-2].startswith("Error: ")


@pytest.mark.parametrize("where", WHERE)
def test_an_answer_to_a_push_without_a_field(server: HubServer, run: Path, where: str) -> None:
    for body in BODIES:
        server.repos.clear()
        if where in ("/paths-info/", "/refs"):
            server.seed("model", "ann/c10", {})
            server.seed("dataset", "ann/c10-ddtool", {})
        lacking(server, where, body, "push", run, "ann/c10", *["--create-pr"] * (where == "/refs"))


@pytest.mark.parametrize("where", ["/api/(models|datasets)/ann/[^/]*$", "/paths-info/"])
def test_an_answer_to_a_pull_without_a_field(pushed: HubServer, where: str) -> None:
    for body in BODIES:
        for name in ("ann/c10", "ann/c10-ddtool"):
            lacking(pushed, where, body, "pull", name)
            assert tiny.listing(Path()) == []


@pytest.mark.parametrize("where", ["whoami", "/api/datasets/ann/", "/paths-info/"])
def test_the_sentence_for_an_answer_without_a_field(pushed: HubServer, run: Path, where: str) -> None:
    pushed.fault(where, Status(200, {"Content-Type": "application/json"}, "7"), times=None)
    stderr = refused(1, "push", run, "ann/c10")
    assert re.search(r"The Hub's answer for 'ann/\S+' lacks what it should hold \(", stderr)
    assert "sign-in page" in stderr


# ------------------------------------------------------------------------------------------------------- what was typed


@pytest.mark.parametrize("token", ["hf_töken", "hf_a b", "hf_a\nb", "hf_a\u2028b"])
def test_a_token_that_is_none(server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    for words in (["push", run, "ann/c10"], ["pull", "ann/c10"]):
        stderr = refused(1, *words)
        assert "letters, spaces or line breaks that no token has" in stderr
        assert token not in stderr
    generator = Generator.build(GeneratorConfig(slots=8, side=16), seed=0)
    monkeypatch.setenv("HF_TOKEN", WRITE)
    uses: list[Callable[[], object]] = [
        lambda: Generator.from_pretrained("ann/c10", token=token),
        lambda: load_set("ann/c10-ddtool", token=token),
        lambda: api.pull("ann/c10", token=token),
        lambda: api.push(run, "ann/c10", token=token),
        lambda: generator.push_to_hub("ann/c10", token=token),
    ]
    for use in uses:
        assert "line breaks that no token has" in raised(use).message
    assert server.requests == []


def test_a_line_end_after_a_token_is_none_of_it(server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{WRITE}\n")
    done("push", run, "ann/c10", "--only", "generator")


def test_without_a_token_a_bad_one_is_not_looked_at(pushed: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_töken")
    assert Generator.from_pretrained("ann/c10", token=False)


def test_a_derived_name_that_is_too_long(server: HubServer, run: Path) -> None:
    name = "n" * 95
    stderr = refused(2, "push", run, f"ann/{name}")
    assert f"The name 'ann/{name}-ddtool' is longer than the 96 characters" in stderr
    assert "--dataset-repo" in stderr
    assert server.requests == []
    done("push", run, f"ann/{name}", "--dataset-repo", "ann/short")


def test_a_pull_request_on_nothing(server: HubServer, run: Path) -> None:
    stderr = refused(1, "push", run, "bob/c10", "--create-pr")
    assert "There is no dataset 'bob/c10-ddtool' to propose a change of." in stderr
    assert writes(server) == []


def test_the_next_step_keeps_the_branch(server: HubServer, run: Path) -> None:
    assert "Next: ddtool pull ann/c10@v2" in done("push", run, "ann/c10", "--revision", "v2").stderr
    assert "Next: ddtool generate ann/c10@v2 " in done("info", "ann/c10@v2").stderr


# ------------------------------------------------------------------------------------------------- refused files, by name


def test_refused_files_name_the_repo(pushed: HubServer, made: Made) -> None:
    pushed.seed("model", "ann/c10", {"model.safetensors": tensors(made.model["model.safetensors"], poison("values"))})
    exact = tensors(made.sets["ipc1/exact.safetensors"], put("label_method", "magic"))
    pushed.seed("dataset", "ann/c10-ddtool", {"ipc1/exact.safetensors": exact})
    uses: dict[str, Callable[[], object]] = {
        "ann/c10": lambda: Generator.from_pretrained("ann/c10"),
        "ann/c10-ddtool": lambda: load_set("ann/c10-ddtool"),
    }
    for name, use in uses.items():
        with pytest.raises(DDToolError) as refusal:
            use()
        assert f"'{name}'/" in refusal.value.message
        assert huggingface_hub.constants.HF_HUB_CACHE not in str(refusal.value)
        assert "Take another repo" in refusal.value.hint


# ------------------------------------------------------------------------------------------------------- waits and bars


@pytest.mark.parametrize("words", [["push", "run", "ann/c10"], ["pull", "ann/c10"]])
def test_no_wait_is_endless(pushed: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, words: list[object]) -> None:
    monkeypatch.setenv("DDTOOL_HUB_TIMEOUT", "0.2")
    pushed.fault("^(GET|POST) /api/", Delay(20), times=None)
    started = time.monotonic()
    stderr = refused(1, *words)
    assert time.monotonic() - started < 15
    assert "has not answered for 0 seconds" in stderr
    assert "DDTOOL_HUB_TIMEOUT" in stderr


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("PUT /storage/", ["push", "run", "ann/new"]),
        ("GET /storage/", ["pull", "ann/c10"]),
        ("HEAD ", ["pull", "ann/c10"]),
    ],
)
def test_no_transfer_is_endless(
    pushed: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, where: str, words: list[object]
) -> None:
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE, ignore_errors=True)
    monkeypatch.setenv("DDTOOL_HUB_TIMEOUT", "0.7")
    pushed.fault(f"^{where}", Delay(20), times=None)
    started = time.monotonic()
    assert "The Hub has not answered for 1 seconds" in refused(1, *words)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("words", [["push", "run", "ann/new"], ["pull", "ann/c10"]])
def test_the_limit_is_of_all_tries_together(
    pushed: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, words: list[object]
) -> None:
    """A Hub that asks for a pause that is longer than what is left is not asked again."""
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE, ignore_errors=True)
    where = COMMIT if "push" in words else r"^GET /api/models/ann/c10"
    pushed.fault(where, Status(429, {"Retry-After": "60"}), times=None)
    asked = re.compile(where)
    for limit, times in (("30", 1), ("3600", client.TRIES)):
        monkeypatch.setenv("DDTOOL_HUB_TIMEOUT", limit)
        pushed.requests.clear()
        assert "too many requests" in refused(1, *words)
        assert sum(bool(asked.search(f"{r.method} {r.path}")) for r in pushed.requests) == times


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_a_limit_is_a_number(pushed: HubServer, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DDTOOL_HUB_TIMEOUT", value)
    assert "DDTOOL_HUB_TIMEOUT is" in refused(2, "pull", "ann/c10")


def test_an_upload_says_how_far_it_is(server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "GROUP", 1)
    steps: list[Step] = []
    server.fault(COMMIT, LoseAnswer())
    api.push(
        run, "ann/c10", only="dataset", report=lambda event: steps.append(event) if isinstance(event, Step) else None
    )
    told = [step for step in steps if step.phase.startswith("upload")]
    assert [(step.step, step.total) for step in told] == [(n, 5) for n in range(1, 6)]
    sent = sum(map(len, own(server, "dataset", "ann/c10-ddtool").values())) / 2**20
    assert told[-1].values["MiB"] == told[-1].values["of MiB"] == pytest.approx(sent)
    shown = done("push", run, "ann/d10", "--only", "generator").stderr
    assert re.search(r"^Sending 7 files, 0\.\d MiB, to ann/d10\.$", shown, re.MULTILINE)
    assert re.search(r"^Uploading ann/d10  1/7    MiB 0\.\d+  of MiB 0\.\d+$", shown, re.MULTILINE)


def test_an_answer_in_time_is_taken() -> None:
    assert client.in_time(lambda: 7, 5) == 7
    with pytest.raises(ValueError, match="mine"):
        client.in_time(lambda: (_ for _ in ()).throw(ValueError("mine")), 5)
    with pytest.raises(TimeoutError):
        client.in_time(lambda: (_ for _ in ()).throw(TimeoutError), 5)
    with pytest.raises(HubError, match="has not answered"):
        client.in_time(lambda: threading.Event().wait(10), 0.01)


def test_addresses_lose_what_signs_them() -> None:
    text = "PUT https://s3.example/a/b?X-Amz-Signature=abc&x=1 failed (see 'http://x/y?z') what?"
    assert without_secrets(text) == "PUT https://s3.example/a/b failed (see 'http://x/y') what?"
    assert WRITE not in without_secrets(f"Bearer {WRITE}")


# ------------------------------------------------------------------------------------------------ the table of the manual


def raised(act: Callable[[], object]) -> DDToolError:
    with pytest.raises(DDToolError) as caught:
        act()
    return caught.value


def through(error: Exception) -> Callable[[], object]:
    """What becomes of an error of the client."""

    def act() -> None:
        with errors.explained("model", Ref("ann/c10", "v9"), "config.json"):
            raise error

    return act


def with_code(status: int, code: str) -> Exception:
    """What the client raises for an answer with that code."""
    http: Any = huggingface_hub.utils.httpx if hasattr(huggingface_hub.utils, "httpx") else None
    if http is None:
        import httpx as http
    request = http.Request("GET", f"{huggingface_hub.constants.ENDPOINT}/api/models/ann/c10")
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError) as caught:
        huggingface_hub.utils.hf_raise_for_status(
            http.Response(status, headers={"X-Error-Code": code}, request=request)
        )
    return caught.value


def faults() -> list[DDToolError]:
    """An error of every kind that the Hub, the way to it, or a name can cause."""
    api_path = "/api/models/ann/c10"
    answers = [refusal(status, api_path, SAID) for status in (400, 401, 402, 403, 409, 412, 413, 429, 503)]
    codes = [(404, "RepoNotFound"), (404, "RevisionNotFound"), (403, "GatedRepo")]
    found = [raised(through(error)) for error in answers + [with_code(*code) for code in codes]]
    disabled = refusal(403, api_path, "Access to this resource is disabled.")
    others = [
        disabled,
        refusal(404, f"{api_path}/xet-read-token/main"),
        json.JSONDecodeError("x", "<html>", 0),
        KeyError("sha"),
        OSError(errno.ENOSPC, "No space left on device"),
        ConnectionError(111, "refused"),
        PermissionError(13, "denied"),
        errors.CorruptedError(),
        huggingface_hub.errors.LocalTokenNotFoundError("none"),
    ]
    found += [raised(through(error)) for error in others]
    found.append(raised(lambda: client.in_time(lambda: threading.Event().wait(0.3), 0.01)))
    found.append(raised(lambda: upload.commit("dataset", "ann/c10", None, {}, message="m", create_pr=True)))
    return [*found, raised(lambda: repo_name("ann/" + "n" * 97))]


def table() -> list[list[str]]:
    """The rows of docs/hub.md: what happens, what ddtool does, what one reads, the exit code, the tests."""
    page = (tiny.ROOT / "docs" / "hub.md").read_text(encoding="utf-8")
    return [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| .* \| \d \| .* \|$", line)]


def test_the_manual_has_every_fault_with_its_sentence_and_exit_code() -> None:
    told = [(sentence, int(code)) for _, _, said, code, _ in table() for sentence in re.findall(r"“(.+?)”", said)]
    patterns = [(re.compile(".+".join(map(re.escape, text.split("…")))), code) for text, code in told]
    seen = [(error.message, error.exit_code) for error in faults()]
    for message, code in seen:
        assert any(pattern.fullmatch(message) and code == said for pattern, said in patterns), (message, code)
    above = ("expired", "letters", "changed", "holds")  # tried above, or in the tests of pushes
    for pattern, said in patterns:
        if not any(word in pattern.pattern for word in above):
            assert any(pattern.fullmatch(message) and code == said for message, code in seen), pattern.pattern


def test_the_manual_names_a_test_for_every_fault() -> None:
    files = [file for wing in ("hub", "sharing") for file in (tiny.ROOT / "tests" / wing).glob("test_*.py")]
    known = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)}
    assert len(table()) > 20
    for row in table():
        named = re.findall(r"`(test_\w+)`", row[-1])
        assert named, row[0]
        assert set(named) <= known, row[0]
