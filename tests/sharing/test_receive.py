"""What a repo may not do to those who pull it, and what `generate` does with a run that was pulled."""

import io
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from hub_server import HubServer
from test_hub import (  # noqa: F401  fixtures among them
    EXACT,
    Made,
    _quick_pauses,
    _surroundings,
    changed,
    config_of,
    done,
    made,
    picture,
    poison,
    pool,
    pushed,
    put,
    refused,
    run,
    tensors,
)

from ddtool import api, load_set
from ddtool.errors import DDToolError, RunError, UsageError
from ddtool.hub import generators, names
from ddtool.runs import foreign, formats
from ddtool.runs.run import Run
from ddtool.sharing import files

FACTS = "ddtool.json"
TABLE = "ipc1/train.parquet"
EVIL = "\x1b]0;evil\x07\x1b[31m"


def scored(data: bytes, **changes: Any) -> bytes:
    """ddtool.json with another first score."""
    stated = json.loads(data)
    stated["sets"]["1"]["scores"][0] |= changes
    return json.dumps(stated).encode()


# ----------------------------------------------------------------------------------------------------------- terminal


def test_a_score_sends_nothing_to_the_terminal(pushed: HubServer, made: Made) -> None:  # noqa: F811
    pushed.seed("model", "ann/c10", {FACTS: scored(made.model[FACTS], protocol=f"{EVIL}quick", stage=EVIL)})
    shown = done("info", "ann/c10").stdout
    assert "quick" in shown
    assert "\x1b" not in shown


def test_a_note_sends_nothing_to_the_terminal(pushed: HubServer) -> None:  # noqa: F811
    from ddtool.cli.output import Output
    from ddtool.events import Note

    with pytest.MonkeyPatch.context() as patch:
        shown = io.StringIO()
        patch.setattr("sys.stderr", shown)
        Output(json_=False, quiet=False).listener(Note(f"It is {EVIL}\ud800\x9b red\nnow"))
    assert "red\nnow" in shown.getvalue()
    assert not {"\x1b", "\x07", "\x9b", "\ud800"} & set(shown.getvalue())


@pytest.mark.parametrize("name", [f"ann/c10@main{EVIL}", "ann/c10@a b", "ann/c10@", "ann/c10@v1;x", "ann/c10@a\n"])
def test_what_is_no_revision(name: str) -> None:
    assert names.parse(name) is None


# ---------------------------------------------------------------------------------------------------- facts and config

FACTS_TRICKS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "an escape in a repo": (lambda f: changed(f, dataset_repo=f"ann/c10-ddtool@main{EVIL}"), "'dataset_repo' is not a repo"),
    "a revision of a repo": (lambda f: changed(f, dataset_repo="ann/c10-ddtool@v1"), "'dataset_repo' is not a repo"),
    "a repo that is a list": (lambda f: changed(f, model_repo=["ann/c10"]), "'model_repo' is not a repo"),
    "no shape": (lambda f: changed(f, shape=None), "images of shape None"),
    "an absurd shape": (lambda f: changed(f, shape=[3, 32, 10**9]), "images of shape [3, 32, 1000000000]"),
    "a number of 400 digits": (lambda f: scored(f, mean=10**400), "is not readable"),
    "half a character": (lambda f: changed(f, ddtool="x\ud800"), "is not readable"),
    "an alias of something else": (
        lambda f: changed(f, source=json.loads(f)["source"] | {"id": "eve/huge"}), "names no dataset on the Hub",
    ),
    "too many sets": (
        lambda f: changed(f, sets={str(n): json.loads(f)["sets"]["1"] for n in range(1, 1002)}), "its sets are not",
    ),
    "another source": (
        lambda f: changed(f, source=json.loads(f)["source"] | {"revision": "0" * 40}), "its source is not that of",
    ),
    "config: an escape": (lambda f: config_of(f, dataset=f"uoft-cs/cifar10@x{EVIL}"), "is a path"),
    "config: the folder above": (lambda f: config_of(f, dataset=".."), "dataset '..' is a path"),
    "config: a hidden folder": (lambda f: config_of(f, dataset=".git"), "dataset '.git' is a path"),
    "config: a huge batch": (lambda f: config_of(f, fit={"real_batch": 10**13}), "fit.real_batch is 10,000,000,000,000"),
    "config: endless networks": (lambda f: config_of(f, fit={"networks": 10**9}), "fit.networks is 1,000,000,000"),
    "config: endless steps": (lambda f: config_of(f, refine={"steps": 10**9}), "refine.steps is 1,000,000,000"),
    "config: a huge IPC": (lambda f: config_of(f, ipc=[1, 10**9]), "ipc is 1,000,000,000"),
    "config: another method": (lambda f: config_of(f, method="random"), "its method 'random' adapts no generator"),
    "config: no IPC": (lambda f: config_of(f, ipc=[]), "made no set"),
    "config: a negative seed": (lambda f: config_of(f, data={"seed": -1}), "data.seed is -1"),
    "config: an unknown option": (lambda f: config_of(f, data={"evil": 1}), "Unknown setting 'data.evil'"),
}  # fmt: skip


@pytest.mark.parametrize("trick", FACTS_TRICKS)
def test_tricky_facts_are_refused(pushed: HubServer, made: Made, trick: str) -> None:  # noqa: F811
    change, said = FACTS_TRICKS[trick]
    pushed.seed("model", "ann/c10", {FACTS: change(made.model[FACTS])})
    stderr = refused(1, "generate", "ann/c10", "--ipc", 1)
    assert said in stderr.replace("\n", " ")
    assert "\x1b" not in stderr
    assert tiny.listing(Path()) == []


def test_the_dataset_is_that_of_the_source(pushed: HubServer, made: Made) -> None:  # noqa: F811
    pushed.seed("dataset", "eve/huge", {"data.txt": b"huge"})
    facts = config_of(made.model[FACTS], dataset="eve/huge", data={"revision": "1" * 40})
    pushed.seed("model", "ann/c10", {FACTS: facts})
    pushed.requests.clear()
    done("generate", "ann/c10", "--ipc", 2)
    assert not [request.path for request in pushed.requests if "eve" in request.path]
    config, source = Run(Path("runs/c10")).config(), json.loads(made.model[FACTS])["source"]
    assert (config.dataset, config.data) == (source["name"], {"revision": source["revision"]})


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"source": [1]}, "its source is described"),
        ({"sets": {"1": None}}, "'sets.1'"),
        ({"class_names": 7}, "'class_names'"),
        ({"class_names": [], "shape": None}, ""),
    ],
)
def test_a_meta_generator_with_tricky_facts(
    pushed: HubServer,  # noqa: F811
    made: Made,  # noqa: F811
    facts: dict[str, Any],
    said: str,
) -> None:
    stated = {"format": 1, "kind": "meta-generator", "sets": {}} | facts
    files = {name: made.model[name] for name in generators.GENERATOR_FILES} | {FACTS: json.dumps(stated).encode()}
    pushed.seed("model", "eve/meta", files)
    if said:
        assert said in refused(1, "info", "eve/meta")
    else:
        done("info", "eve/meta")


def test_a_score_that_is_no_number_is_left_out(pushed: HubServer, made: Made) -> None:  # noqa: F811
    pushed.seed("dataset", "ann/c10-ddtool", {FACTS: scored(made.sets[FACTS], mean=float("inf"))})
    count = len(json.loads(made.sets[FACTS])["sets"]["1"]["scores"])
    assert len(json.loads(done("info", "ann/c10-ddtool", "--json").stdout)["scores"]) == count - 1


@pytest.mark.parametrize("listed", [7, {"ddtool.json": [1]}, {"ddtool.json": ["1", "x"]}])
def test_a_damaged_memory_is_as_none(
    pushed: HubServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    listed: Any,
) -> None:
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "own"))
    done("pull", "ann/c10")
    for file in (tmp_path / "own" / "hub").iterdir():
        known = json.loads(file.read_text())
        file.write_text(json.dumps(known | {"files": dict.fromkeys(known["files"], listed)}))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "bug" not in refused(1, "pull", "ann/c10", "--out", "offline")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    done("pull", "ann/c10", "--out", "online")


# ------------------------------------------------------------------------------------------------------ files and sets


def padded(size: int) -> bytes:
    """A small picture with `size` bytes in a chunk that no decoder looks at."""
    png, chunk = picture(32), b"prVt" + os.urandom(size)
    return png[:33] + size.to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[33:]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda: pool([padded(2**16)] * 300, [0, 1, 2] * 100, use_dictionary=True), "packed by"),
        (lambda: pool([padded(2**18)] * 3, [0, 1, 2]), "bytes for a picture of 32x32"),
        (lambda: pool([picture(32)] * 3, ["0", "1", "2"]), "labels are of another type"),  # type: ignore[list-item]
        (lambda: pool([picture(32)] * 3, [0, None, 2]), "labels outside"),  # type: ignore[list-item]
        (lambda: pool([], []), "damaged"),
    ],
    ids=["dictionary", "cell", "text", "no label", "empty"],
)
def test_a_parquet_file_that_holds_very_much(tmp_path: Path, data: Callable[[], bytes], said: str) -> None:
    path = tmp_path / "train.parquet"
    path.write_bytes(data())
    with pytest.raises(RunError, match=said):
        formats.read_parquet(path, 3)


def test_prefixes_do_not_unpack_either(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    cells = pa.array([{"bytes": padded(2**16)}] * 30, pa.struct([("bytes", pa.binary())]))
    encodings = {"image.bytes": "DELTA_BYTE_ARRAY"}
    table = pa.table({"image": cells, "label": [0, 1, 2] * 10})
    pq.write_table(table, path, use_dictionary=False, column_encoding=encodings)
    with pytest.raises(RunError, match="DELTA_BYTE_ARRAY"):
        formats.read_parquet(path, 3)


def test_our_own_files_have_no_dictionary(made: Made) -> None:  # noqa: F811
    for name in ("pool/train.parquet", "synthetic/ipc1/train.parquet"):
        group = pq.read_metadata(made.run / name).row_group(0)
        assert not any(group.column(i).has_dictionary_page for i in range(group.num_columns))


def table(data: bytes, change: Callable[[list], list | None], kind: Any = None) -> bytes:
    """A set's parquet file with other soft labels, or (None) without."""
    found = pq.read_table(io.BytesIO(data))
    labels = change(found["soft_label"].to_pylist())
    found = found.drop_columns("soft_label")
    if labels is not None:
        found = found.append_column("soft_label", pa.array(labels, pa.list_(kind or pa.float32())))
    out = io.BytesIO()
    pq.write_table(found.replace_schema_metadata(), out, use_dictionary=False)
    return out.getvalue()


SET_TRICKS: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "table: garbage": (lambda f: {TABLE: b"garbage"}, "damaged"),
    "table: too few": (lambda f: {TABLE: pool([picture(32)] * 2, [0, 1])}, "is not the set"),
    "table: other classes": (lambda f: {TABLE: pool([picture(32)] * 3, [0, 2, 1])}, "is not the set"),
    "table: other images": (lambda f: {TABLE: pool([picture(32)] * 3, [0, 1, 2])}, "is not the set"),
    "table: another size": (lambda f: {TABLE: pool([picture(16)] * 3, [0, 1, 2])}, "is not the set"),
    "table: other labels": (
        lambda f: {TABLE: table(f[TABLE], lambda rows: [[v + 1 for v in row] for row in rows])},
        "soft labels",
    ),
    "table: few labels": (lambda f: {TABLE: table(f[TABLE], lambda rows: [row[:2] for row in rows])}, "soft labels"),
    "table: uneven labels": (
        lambda f: {TABLE: table(f[TABLE], lambda rows: [rows[0] + rows[1][:1], rows[1][1:], rows[2]])},
        "soft labels",
    ),
    "table: an empty label": (lambda f: {TABLE: table(f[TABLE], lambda rows: [None, *rows[1:]])}, "soft labels"),
    "table: exact labels": (lambda f: {TABLE: table(f[TABLE], list, pa.float64())}, "soft labels"),
    "table: no labels": (lambda f: {TABLE: table(f[TABLE], lambda rows: None)}, "soft labels"),
    "bright": (lambda f: {EXACT: tensors(f[EXACT], poison("images", 1.5))}, r"not in \[0, 1\]"),
    "dark": (lambda f: {EXACT: tensors(f[EXACT], poison("images", -0.1))}, r"not in \[0, 1\]"),
    "huge labels": (lambda f: {EXACT: tensors(f[EXACT], poison("labels", -1e5))}, "its labels go up to"),
    "not image-major": (
        lambda f: {EXACT: tensors(f[EXACT], put("hard", torch.tensor([0, 0, 1])))},
        "image after image",
    ),
    "convention": (lambda f: {EXACT: tensors(f[EXACT], put("label_convention", "probabilities"))}, "'probabilities'"),
    "method": (lambda f: {EXACT: tensors(f[EXACT], put("label_method", "magic"))}, "'magic'"),
    "no method": (lambda f: {EXACT: tensors(f[EXACT], put("label_method", {"x": 1}))}, "'label_method' is"),
    "another shape": (lambda f: {FACTS: changed(f[FACTS], shape=[3, 16, 16])}, "of another size"),
}


@pytest.mark.parametrize("trick", SET_TRICKS)
def test_a_tricky_set_is_not_pulled(server: HubServer, made: Made, trick: str) -> None:  # noqa: F811
    change, said = SET_TRICKS[trick]
    server.seed("dataset", "ann/c10-ddtool", made.sets | change(made.sets))
    assert re.search(said, refused(1, "pull", "ann/c10-ddtool").replace("\n", " "))
    assert tiny.listing(Path()) == []
    for use in (lambda: load_set("ann/c10-ddtool"), lambda: api.evaluate("ann/c10-ddtool", engine=tiny.ENGINE)):
        with pytest.raises(DDToolError, match=said):
            use()


def test_sets_are_not_too_much_together(
    pushed: HubServer,  # noqa: F811
    made: Made,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = sum(len(made.sets[name]) for name in (EXACT, TABLE))
    monkeypatch.setattr(files, "MOST_OF_SETS", one - 1)
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE, ignore_errors=True)
    pushed.requests.clear()
    assert "are more than" in refused(1, "pull", "ann/c10-ddtool")
    assert not [request for request in pushed.requests if "/resolve/" in request.path and "ipc1" in request.path]
    monkeypatch.setattr(files, "MOST_OF_SETS", one)
    done("pull", "ann/c10-ddtool")


def test_a_prefix_names_the_dataset(pushed: HubServer, made: Made) -> None:  # noqa: F811
    pushed.seed("dataset", "ann/c10", made.sets)
    assert json.loads(done("pull", "hf://datasets/ann/c10", "--json").stdout)["kind"] == "synthetic-dataset"
    assert json.loads(done("pull", "ann/c10", "--json").stdout)["kind"] == "adapted-generator"
    assert "no dataset 'ann/nothing'" in refused(1, "pull", "datasets/ann/nothing")


# ---------------------------------------------------------------------------------------------------------- the folder


def test_pull_into_the_folder_where_one_stands(
    pushed: HubServer,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for options in ([], ["--force"]):
        done("pull", "ann/c10", "--out", ".", *options)
        assert Path.cwd() == tmp_path / "here"
        assert Path("generator/model.safetensors").is_file()
    assert os.listdir(tmp_path / "here") == os.listdir(".")


def test_a_link_stays_a_link(pushed: HubServer, tmp_path: Path) -> None:  # noqa: F811
    done("pull", "ann/c10", "--out", "real")
    Path("link").symlink_to("real")
    Path("real/stages").mkdir()
    done("pull", "ann/c10", "--out", "link", "--force")
    assert Path("link").is_symlink()
    assert not Path("real/stages").exists()
    assert Path("real/generator/model.safetensors").is_file()


@pytest.mark.parametrize("theirs", [".git/HEAD", "notes.txt", "ipc1/notes.txt", "README.md"])
def test_force_removes_nothing_of_others(pushed: HubServer, theirs: str) -> None:  # noqa: F811
    done("pull", "ann/c10-ddtool", "--out", "clone")
    Path("clone", theirs).parent.mkdir(exist_ok=True)
    Path("clone", theirs).write_text("mine")
    before = tiny.listing(Path("clone"))
    assert theirs in refused(1, "pull", "ann/c10-ddtool", "--out", "clone", "--force")
    assert tiny.listing(Path("clone")) == before


def test_force_replaces_a_run_that_was_used(pushed: HubServer, run: Path) -> None:  # noqa: F811
    assert foreign.strangers(run) == []
    done("pull", "ann/c10", "--out", run, "--force")
    assert Run(run).results()["facts"]["pulled"].startswith("ann/c10@")


# ------------------------------------------------------------------------------------------------- from a pulled run


def test_generate_goes_on_after_a_push_of_more_sets(pushed: HubServer) -> None:  # noqa: F811
    done("generate", "ann/c10", "--ipc", 2)
    done("push", "runs/c10", "ann/c10")
    done("generate", "ann/c10", "--ipc", 3)
    assert Run(Path("runs/c10")).ipcs() == [2, 3]


@pytest.mark.parametrize("name", ["model.safetensors", "labels.safetensors", "pool/train.parquet"])
def test_generate_does_not_take_an_older_run_for_it(pushed: HubServer, name: str) -> None:  # noqa: F811
    done("generate", "ann/c10", "--ipc", 2)
    pushed.seed("model", "ann/c10", {name: b"another"})
    assert "is there already and is not ann/c10@" in refused(1, "generate", "ann/c10", "--ipc", 3)


def test_generate_does_not_take_another_repo_for_it(pushed: HubServer, made: Made) -> None:  # noqa: F811
    pushed.seed("model", "lab/c10", made.model)
    done("generate", "ann/c10", "--ipc", 2)
    assert "is there already and is not lab/c10@" in refused(1, "generate", "lab/c10", "--ipc", 3)


def asked_for_data(server: HubServer) -> bool:
    """Whether the dataset was asked for since the requests were cleared."""
    return any("cifar10" in request.path for request in server.requests)


def test_analytical_labels_leave_the_dataset_alone(pushed: HubServer) -> None:  # noqa: F811
    pushed.requests.clear()
    result = done("generate", "ann/c10", "--ipc", 2, "--labels", "analytical")
    assert not asked_for_data(pushed)
    assert "Fetching" not in result.stderr
    assert Run(Path("runs/c10")).load_set(2).label_method == "analytical"
    assert "--labels analytical leaves alone" in refused(1, "generate", "ann/c10", "--ipc", 9, "--labels", "analytical")
    assert not asked_for_data(pushed)


def test_fitted_labels_say_what_they_fetch(pushed: HubServer) -> None:  # noqa: F811
    result = done("generate", "ann/c10", "--ipc", 2)
    assert "Fetching cifar10, if it is not here, to fit labels; --labels analytical" in result.stderr
    done("generate", "ann/c10", "--ipc", 3, "--labels", "fitted")
    assert [Run(Path("runs/c10")).load_set(n).label_method for n in (2, 3)] == ["fitted"] * 2


def test_fitted_labels_need_the_dataset(
    pushed: HubServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "fresh"))
    del pushed.repos["dataset", "uoft-cs/cifar10"]
    stderr = refused(1, "generate", "ann/c10", "--ipc", 2, "--labels", "fitted")
    assert "Fitted labels take the dataset" in stderr
    assert "--labels analytical" in stderr
    assert Run(Path("runs/c10")).ipcs() == []
    assert "Labels are the analytical ones" in done("generate", "ann/c10", "--ipc", 2).stderr
    assert Run(Path("runs/c10")).load_set(2).label_method == "analytical"


def test_labels_of_a_run_of_ones_own(run: Path) -> None:  # noqa: F811
    assert "Fetching" not in done("generate", run, "--ipc", 2).stderr
    again = api.generate(run, 2, labels="analytical", engine=tiny.ENGINE, force=True)
    assert again.label_method == "analytical"
    assert "Did you mean 'fitted'" in refused(2, "generate", run, "--ipc", 3, "--labels", "fited")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"fit": {"networks": 0}}))
    with pytest.raises(UsageError, match="without fitted labels"):
        api.generate(run, 3, labels="fitted", engine=tiny.ENGINE)
