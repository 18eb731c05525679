"""What the tests share: a CPU engine, small image sets whose classes can be learned, a cache and checkpoints of their own."""

import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import browser as chromium
import pytest
import torch
from hub_server import HubServer
from hypothesis import settings
from torch import Tensor
from torch.nn import functional as F

from ddtool.data.images import ImageData
from ddtool.events import Event, Step
from ddtool.experiments import plot
from ddtool.pipeline import target
from ddtool.reports import run_page
from ddtool.reports.canvas import LIGHT, Drawing, Kind, Paper, drawn
from ddtool.runtime.engine import Engine
from ddtool.runtime.loop import Checkpoint
from ddtool.runtime.signals import STOPS

settings.register_profile("ddtool", deadline=None, derandomize=True, database=None, max_examples=30)
settings.load_profile("ddtool")


SHIPPED_TRIAL = {name: getattr(target, name) for name in ("TRIAL_NETWORKS", "TRIAL_WIDTH", "FLIP_WIDTH")}
"""Of what is measured on a target first, as users have it: most of the time of a tiny run, so tests have less (see below)."""

HUB = HubServer()
"""The Hub of this session; nothing else is asked."""


def pytest_configure() -> None:
    """What huggingface_hub reads when it is imported, by this process and by those that tests start."""
    assert not {"huggingface_hub", "datasets"} & sys.modules.keys()
    home = tempfile.mkdtemp(prefix="ddtool-tests-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name in [name for name in os.environ if name.startswith("HF_")]:
        del os.environ[name]
    os.environ |= {"HF_HOME": home, "HF_ENDPOINT": HUB.start().url}
    os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def pytest_unconfigure() -> None:
    HUB.stop()


@pytest.fixture
def server() -> Iterator[HubServer]:
    """An empty Hub."""
    HUB.reset()
    yield HUB
    HUB.reset()


def pytest_sessionstart() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # in processes that tests start, too: the last bit depends on it
    os.fsync = lambda file: None  # a run waits for the disk forty times, and no test takes the power away
    run_page.drawn, plot.drawn = drawn_in(PAGES), drawn_in(PLOTS)
    target.TRIAL_NETWORKS, target.TRIAL_WIDTH, target.FLIP_WIDTH = 1, 16, 16


PAGES = r"tests/reports/.*::test_(a_browser|a_damaged|accuracy|an_adaptation|losses|nothing|of_many)"
"""The tests that look at plots on the pages of runs."""
PLOTS = r"tests/(pipeline/test_curve.py::test_the_command|experiments/test_(plot|report|sweep.py::test_seen|whole.py::test_the_r))"
"""Those that look at plots of accuracy."""


def drawn_in(tests: str) -> Callable[..., bytes]:
    """A plot in those tests, an empty one in all others: a second for each of hundreds of runs is too much."""

    def drawn_where_looked_at(figure: Drawing, kind: Kind = "svg", paper: Paper = LIGHT) -> bytes:
        if re.match(tests, os.environ.get("PYTEST_CURRENT_TEST", "")):
            return drawn(figure, kind, paper)
        return b'<svg xmlns="http://www.w3.org/2000/svg"/>'

    return drawn_where_looked_at


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def engine() -> Engine:
    return Engine(torch.device("cpu"), bf16=False)


def toy_images(per_class: int, seed: int, channels: int = 3, size: int = 16, classes: int = 4) -> ImageData:
    """Each class is a smooth pattern of its own (the same for every seed), each image that pattern in strong noise."""
    rng = torch.Generator().manual_seed(1)
    patterns = F.interpolate(torch.randn(classes, channels, 4, 4, generator=rng), size=size, mode="bilinear")
    rng.manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    labels = labels[torch.randperm(len(labels), generator=rng)]
    noise = torch.randn(len(labels), channels, size, size, generator=rng)
    pixels = (0.5 + 0.04 * patterns[labels] + 0.2 * noise).clamp(0, 1)
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    names = tuple("abcdefghij"[:classes])
    as_bytes = (pixels * 255).round().to(torch.uint8)
    return ImageData(as_bytes, labels, names, tuple(mean.tolist()), tuple(std.tolist()), {"name": "toy"})


@pytest.fixture(scope="session")
def toy() -> ImageData:
    """4 classes x 40 images, 3x16x16."""
    return toy_images(40, seed=2)


@pytest.fixture(scope="session")
def toy_test() -> ImageData:
    """The test split that goes with `toy`: same classes, other noise."""
    return toy_images(50, seed=3)


@pytest.fixture(scope="session")
def grey_toy() -> ImageData:
    """4 classes x 40 images, 1x16x16."""
    return toy_images(40, seed=2, channels=1)


class MemorySaver:
    """Keeps copies of the last checkpoint, as a file would."""

    def __init__(self) -> None:
        self.kept: Checkpoint | None = None
        self.saves = 0

    def load(self) -> Checkpoint | None:
        return None if self.kept is None else {name: t.clone() for name, t in self.kept.items()}

    def save(self, checkpoint: Checkpoint) -> None:
        self.kept, self.saves = {name: t.clone() for name, t in checkpoint.items()}, self.saves + 1


@pytest.fixture
def saver() -> MemorySaver:
    return MemorySaver()


@pytest.fixture
def signals() -> Iterator[None]:
    """A signal that reaches nobody fails this test, not the whole session; who catches one must hand it back."""

    def missed(number: int, _: object) -> None:
        raise AssertionError(f"signal {number} was not caught")

    before = {number: signal.signal(number, missed) for number in STOPS}
    yield
    left = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert set(left.values()) == {missed}, "a signal handler was not restored"


@pytest.fixture
def interrupt_at(signals: None) -> Callable[[int], Callable[[Event], None]]:
    """A listener that presses Ctrl-C when the given step is reported."""

    def listener(step: int) -> Callable[[Event], None]:
        def listen(event: Event) -> None:
            if isinstance(event, Step) and event.step == step:
                os.kill(os.getpid(), signal.SIGINT)

        return listen

    return listener


@pytest.fixture
def untouched_global_rng() -> Iterator[None]:
    """Fails the test when it has drawn from torch's global random state."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before), "torch's global random state was used"


@pytest.fixture
def svd_head() -> Callable[[Tensor, Tensor, float], Tensor]:
    """An independent ridge regression: float64, by singular values, the shift λ times their mean square."""

    def solve(features: Tensor, targets: Tensor, ridge: float) -> Tensor:
        U, s, Vh = torch.linalg.svd(features.double(), full_matrices=False)
        shift = ridge * s.square().mean()
        return Vh.T @ ((s / (s.square() + shift))[:, None] * (U.T @ targets.double()))

    return solve


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this checkout's sdist and wheel."""
    pytest.importorskip("hatchling", reason="hatchling, of the extra [test], builds them")
    folder = tmp_path_factory.mktemp("released")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    root = Path(__file__).parent.parent
    built = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(released: Path) -> Path:
    """The wheel of this checkout."""
    return next(released.glob("*.whl"))


@pytest.fixture(scope="session")
def sdist(released: Path) -> Path:
    """The sdist of this checkout."""
    return next(released.glob("*.tar.gz"))


@pytest.fixture(scope="session")
def browser() -> Iterator[chromium.Browser]:
    """Headless Chromium; the test is skipped where there is none."""
    path = chromium.program()
    if path is None:
        pytest.skip("no Chromium here: apt install chromium")
    with chromium.browser(path) as page:
        yield page
