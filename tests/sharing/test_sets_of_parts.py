"""A set whose images hold several each, with labels of their own: its card's snippet, the Hub and back, other people's forms."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from conftest import HUB
from PIL import Image
from pyarrow import parquet
from test_hub import SCRATCH, _quick_pauses, _surroundings, own  # noqa: F401  fixtures among them
from test_snippets import follow
from test_whitened_sets import score_of, snippet
from tiny import done, refused

from ddtool import load_set
from ddtool.errors import UsageError
from ddtool.runs.formats import read_set
from ddtool.runs.run import Run
from ddtool.sharing.sets import soft_labels
from ddtool.space import Exhibit

REPO = "ann/c10-ddtool"
FACTOR = ("--factor", 2, "--ipc", 2, "--resolution", 16)


@pytest.fixture
def pushed() -> Run:
    done("adapt", "cifar10", *FACTOR, "--whiten", "dct", "--out", "run", *SCRATCH)
    done("push", "run", "ann/c10")
    return Run(Path("run"))


def test_the_snippet_of_the_card_reaches_the_accuracy_that_the_card_states(pushed: Run) -> None:
    card = own(HUB, "dataset", REPO)["README.md"].decode()
    assert (
        "**Each image holds 2x2 images** of lower resolution side by side, each with a soft label of its own." in card
    )
    found: dict[str, Any] = {}
    exec(snippet(card), found)
    small = load_set(REPO, 2)
    assert (small.factor, small.labels.shape) == (2, (8 * small.num_classes, small.num_classes))
    assert torch.allclose(found["inputs"], small.inputs, atol=1e-3)
    assert torch.equal(found["labels"], small.decoded().labels)
    exact = next(
        s for s in pushed.results()["scores"]
        if (s["stage"], s["protocol"], s["pixels"]) == ("refined", "kernel-ridge", "exact")
    )  # fmt: skip

    class Whole:
        """The run, its set decoded: `score_of` takes a label for each input."""

        config = pushed.config

        def load_set(self, ipc: int) -> Any:
            return pushed.load_set(ipc).decoded()

    assert score_of(found["inputs"], Whole(), found["see"]) == pytest.approx(exact["mean"], abs=3)  # type: ignore[arg-type]


def test_labels_of_parts_in_the_table_are_compared(pushed: Run) -> None:
    path = pushed.folder / "synthetic" / "ipc2" / "train.parquet"
    stated = pushed.load_set(2).labels_by_image()
    assert torch.equal(soft_labels(path, stated), stated)
    rows = stated.tolist()
    changed = {
        "flat": stated.flatten(1).tolist(),
        "of an image": [row[0] for row in rows],
        "one fewer": [row[:-1] for row in rows[:1]] + rows[1:],
    }
    for name, column in changed.items():
        parquet.write_table(pa.table({"soft_label": column}), f"{name}.parquet")
        assert not torch.equal(soft_labels(Path(f"{name}.parquet"), stated), stated), name


def test_a_pulled_run_makes_the_same_parts(pushed: Run) -> None:
    done("pull", "ann/c10", "--out", "again")
    for path in ("run", "again"):
        done("generate", path, "--ipc", 1, "--labels", "analytical")
    here, there = (Run(Path(path)).load_set(1) for path in ("run", "again"))
    assert torch.equal(here.images, there.images)
    assert torch.equal(here.labels, there.labels)
    assert there.factor == 2


@pytest.mark.parametrize("kind", ["npz", "pt"])
def test_forms_with_every_tensor_bring_it_back(pushed: Run, kind: str) -> None:
    done("export", "run", "--ipc", 2, "--format", kind, "--out", "others")
    done("import", f"others/ipc2.{kind}", "--on", "cifar10", "--out", "back", "--resolution", 16)
    before, after = pushed.load_set(2), read_set(Path("back/ipc2/exact.safetensors"))
    assert torch.equal(before.labels, after.labels)
    assert torch.equal(before.decoded().images, after.decoded().images)


def test_a_form_of_pictures_says_what_it_does_not_hold(pushed: Run) -> None:
    said = done("export", "run", "--ipc", 2, "--format", "webdataset", "--out", "others").stderr
    assert "Each picture holds 2 x 2 smaller images" in said
    said = refused(1, "evaluate", "others/ipc2.tar", "--on", "cifar10", "--resolution", 16)
    assert "do not go with" in said
    assert "4 soft labels for each image" in said


def test_a_space_offers_the_sizes_that_the_pool_is_enough_for(pushed: Run) -> None:
    shown = Exhibit(REPO, "ann/c10")
    assert shown.largest == pushed.load_label_head().pool_ipc // 4 == 2  # type: ignore[operator]
    assert len(shown.named(shown.generate(2)).decoded()) == 24
    with pytest.raises(UsageError, match="Up to 2"):
        shown.generate(3)


@pytest.mark.parametrize("factor", [3, 5])
def test_a_repo_whose_images_cannot_be_cut_is_not_pulled(pushed: Run, factor: int) -> None:
    files = own(HUB, "model", "ann/c10")
    facts = json.loads(files["ddtool.json"])
    facts["sets"]["2"]["config"]["factor"] = factor
    HUB.seed("model", "ann/other", files | {"ddtool.json": json.dumps(facts | {"repo": "ann/other"}).encode()})
    said = refused(1, "generate", "ann/other", "--ipc", 1, "--labels", "analytical")
    assert f"its images cannot be cut {factor} x {factor}" in said
    assert not Path("runs/other").exists()


def test_the_snippets_of_the_generators_card_run_one_after_another(pushed: Run) -> None:
    names = follow(own(HUB, "model", "ann/c10")["README.md"].decode())
    assert names["small"].factor == 1
    assert names["made"].shape == names["real"].images.shape == (12, 3, 16, 16)
    assert Image.open("generator.png").size == (8 * 16, 2 * 16)
