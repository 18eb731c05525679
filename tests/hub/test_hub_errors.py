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
    tensors,
    writes,
)
from tiny import done, refused

from ddtool import Generator, api, load_set
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


def test_a_disabled_repository(pushed: HubServer) -> None:
    pushed.fault(r"^GET /api/models/ann/c10", answer(403, "Access to this resource is disabled."), times=None)
    assert "The model 'ann/c10' is disabled." in refused(1, "pull", "ann/c10")


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


@pytest.mark.parametrize("status", [401, 403, 404])
def test_xets_refusals_are_rights_or_quota(status: int) -> None:
    error = refusal(status, f"/api/models/ann/c10/xet-write-token/main?x={status}")
    said = errors.explanation(error, "model", Ref("ann/c10"), writing=True)
    assert said.message.startswith(f"Xet, the storage of large files, refuses 'ann/c10' ({status}): ")
    assert "HF_HUB_DISABLE_XET=1" in said.hint
    assert "quota of 'ann'" in said.hint


@pytest.mark.parametrize("status", [401, 403, 404])
def test_xets_refusals_by_the_true_client(pushed: HubServer, status: int, tmp_path: Path) -> None:
    """A file that the Hub says is in Xet, and a client that has not switched it off."""
    pytest.importorskip("hf_xet")
    answered = pushed._answer

    def with_xet(method: str, target: str, headers: dict[str, str], body: bytes) -> Any:
        if "/xet-read-token/" in target:
            return Answer(status, b"{}", {"X-Error-Message": "No Xet for you."})
        given = answered(method, target, headers, body)
        if "/resolve/" in target and given.status == 302:
            given.headers["X-Xet-Hash"] = "0" * 64
            given.headers["Link"] = f'<{pushed.url}/api/models/ann/c10/xet-read-token/main>; rel="xet-auth"'
        return given

    pushed._answer = with_xet  # type: ignore[method-assign]
    try:
        code = "import sys; from ddtool.__main__ import main; sys.argv[1:] = ['pull', 'ann/c10']; main()"
        result = tiny.python(code, HF_HUB_DISABLE_XET="0", HF_HOME=str(tmp_path / "hf"))
    finally:
        del pushed._answer
    assert result.returncode == 1, result.stderr
    assert f"refuses 'ann/c10' ({status})" in result.stderr, result.stderr
    assert "HF_HUB_DISABLE_XET=1" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("error", [ConnectionError, RuntimeError, PermissionError])
def test_what_xets_own_library_raises(error: type[Exception]) -> None:
    raised = error("HTTP status client error (403 Forbidden) for url (https://cas/x?sig=s)")
    said = errors.explanation(raised, "model", Ref("ann/c10"))
    assert "refuses 'ann/c10' (403)" in said.message
    assert "sig" not in str(said)
    assert "cannot be reached" in str(errors.explanation(ConnectionError(111, "refused"), "model", Ref("ann/c10")))


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


WHERE = ["whoami", "/api/(models|datasets)/ann/", "/paths-info/", "/refs", "/preupload/", "lfs/objects", "/commit/"]


@pytest.mark.parametrize("body", ["{}", "[]", "7", "null", '{"sha": 7}', '{"siblings": 3}'])
@pytest.mark.parametrize("where", WHERE)
def test_an_answer_without_a_field(server: HubServer, run: Path, where: str, body: str) -> None:
    if where == "/paths-info/":
        server.seed("model", "ann/c10", {})
        server.seed("dataset", "ann/c10-ddtool", {})
    server.fault(f"^(GET|POST) .*{where}", Status(200, {"Content-Type": "application/json"}, body), times=None)
    words = ["--create-pr"] if where == "/refs" else []
    if where == "/refs":
        server.seed("model", "ann/c10", {})
        server.seed("dataset", "ann/c10-ddtool", {})
    result = tiny.ddtool("push", run, "ann/c10", *words)
    assert result.exit_code in (0, 1)
    assert "bug" not in result.stderr
    assert "KeyError" not in result.stderr.partition("lacks what it should hold")[0]


# ------------------------------------------------------------------------------------------------------- what was typed


@pytest.mark.parametrize("token", ["hf_töken", "hf_a b", "hf_a\nb", "hf_a\u2028b"])
def test_a_token_that_is_none(server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    for words in (["push", run, "ann/c10"], ["pull", "ann/c10"]):
        stderr = refused(1, *words)
        assert "letters, spaces or line breaks that no token has" in stderr
        assert token not in stderr
    assert server.requests == []


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
    return [*found, raised(lambda: repo_name("ann/" + "n" * 97))]


def test_the_manual_has_every_fault_with_its_sentence_and_exit_code() -> None:
    page = (tiny.ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| .* \| \d \|$", line)]
    told = [(sentence, int(row[-1].rstrip(" |"))) for row in rows for sentence in re.findall(r"“(.+?)”", row[2])]
    patterns = [(re.compile(".+".join(map(re.escape, text.split("…")))), code) for text, code in told]
    seen = [(error.message, error.exit_code) for error in faults()]
    for message, code in seen:
        assert any(pattern.fullmatch(message) and code == said for pattern, said in patterns), (message, code)
    for pattern, said in patterns:
        if "expired" not in pattern.pattern and "letters" not in pattern.pattern:  # tried above, over HTTP
            assert any(pattern.fullmatch(message) and code == said for message, code in seen), pattern.pattern
