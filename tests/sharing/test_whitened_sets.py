"""A set that is to be whitened, on the Hub and back: its card, and its snippet run as it stands, without ddtool."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import HUB
from test_hub import SCRATCH, _quick_pauses, _surroundings, own  # noqa: F401  fixtures among them
from tiny import ENGINE, done

from ddtool import api, load_set
from ddtool.data.batches import with_flips
from ddtool.data.images import accuracy
from ddtool.evaluation import measure
from ddtool.events import silent
from ddtool.models.convnet import RandomFeatures, depth_for, doubling_widths
from ddtool.models.ridge import ridge_head
from ddtool.pipeline.scoring import load_target
from ddtool.runs.run import Run

REPO = "ann/c10-ddtool"


@pytest.fixture(params=["dct", "zca"])
def pushed(request: pytest.FixtureRequest) -> Run:
    """A whitened run of the Hub's cifar10, pushed; at 16x16, since ZCA's matrix at 32x32 takes longer than all the rest."""
    done("adapt", "cifar10", "--ipc", 2, "--resolution", 16, "--whiten", request.param, "--out", "run", *SCRATCH)
    done("push", "run", "ann/c10")
    return Run(Path("run"))


def snippet(card: str) -> str:
    """The card's last block of Python: the exact tensors without ddtool."""
    return next(b for b in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "hf_hub_download" in b)


def score_of(inputs: Any, run: Run, see: Any) -> float:
    """Kernel-ridge accuracy, as `ddtool evaluate` measures it, on inputs and a map from pixels that somebody else made."""
    small, test = run.load_set(2), load_target(run.config(), silent).test()
    rng = ENGINE.rng(0, "kernel-ridge")
    f = RandomFeatures(test.shape, doubling_widths(measure.GUIDE_WIDTH, depth_for(test.shape)), "none", ENGINE, rng)
    X, Y = with_flips(inputs, small.labels, small.flip)
    found = []
    for _ in range(3):
        with torch.no_grad():
            W = ridge_head(f.draw(rng)(X), Y, 1e-3)
            found.append(accuracy(f(see(test.images / 255)) @ W, test.labels))
    return statistics.fmean(found)


def test_the_snippet_of_the_card_reaches_the_accuracy_that_the_card_states(pushed: Run) -> None:
    card = own(HUB, "dataset", REPO)["README.md"].decode()
    found: dict[str, Any] = {}
    exec(snippet(card), found)
    assert "ddtool" not in [
        name.partition(".")[0] for name in re.findall(r"^(?:from|import) (\S+)", snippet(card), re.MULTILINE)
    ]
    small = load_set(REPO, 2)
    assert small.whitening is not None
    assert torch.allclose(found["inputs"], small.inputs, atol=1e-3)
    exact = next(
        s for s in pushed.results()["scores"]
        if (s["stage"], s["protocol"], s["pixels"]) == ("refined", "kernel-ridge", "exact")
    )  # fmt: skip
    assert score_of(found["inputs"], pushed, found["see"]) == pytest.approx(exact["mean"], abs=3)
    plain = (found["images"] - found["mean"]) / found["std"]
    assert (plain - found["inputs"]).abs().mean() > 0.1


def test_the_card_says_what_the_set_is_worth_without(pushed: Run) -> None:
    files = own(HUB, "dataset", REPO)
    card, facts = files["README.md"].decode(), json.loads(files["ddtool.json"])
    kind = pushed.load_set(2).whitening.kind  # type: ignore[union-attr]
    assert facts["sets"]["2"]["whitening"] == kind
    scores = {
        (s["pixels"], s["inputs"]): s["mean"]
        for s in pushed.results()["scores"]
        if (s["stage"], s["protocol"]) == ("refined", "quick")
    }
    without, usual = scores["8-bit", "not whitened"], scores["8-bit", "as stated"]
    assert f"Without it a network reaches {without:.1f} % instead of {usual:.1f} % (quick)." in card
    assert "used without whitening" in card
    assert "before rounding to 8 bits" in card


def test_a_pulled_run_goes_on_in_the_whitened_space(pushed: Run) -> None:
    done("pull", "ann/c10", "--out", "again")
    here, there = (api.generate(path, 3, labels="analytical", engine=ENGINE) for path in ("run", "again"))
    assert torch.equal(here.images, there.images)
    assert there.whitening is not None
    assert torch.equal(here.whitening.matrix, there.whitening.matrix)  # type: ignore[union-attr]


def test_a_plain_set_has_no_word_of_whitening_on_its_card() -> None:
    done("adapt", "cifar10", "--ipc", 2, "--whiten", "none", "--out", "run", *SCRATCH)
    done("push", "run", "ann/c10")
    files = own(HUB, "dataset", REPO)
    card = files["README.md"].decode()
    assert not [
        word for word in ("Whiten the images", "used without whitening", "the whitening and hard") if word in card
    ]
    assert "whitening" not in json.loads(files["ddtool.json"])["sets"]["2"]
    found: dict[str, Any] = {}
    exec(snippet(files["README.md"].decode()), found)
    assert torch.allclose(found["inputs"], load_set(REPO, 2).inputs, atol=1e-5)
