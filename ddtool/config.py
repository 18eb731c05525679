"""Every setting, its default and its reason; frozen dataclasses, plain JSON in and out."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar

from ddtool.errors import UsageError, did_you_mean

T = TypeVar("T")
SEE_SETTINGS = "`ddtool adapt sample --dry-run` shows all settings as JSON."


MOST_PIXELS = 2**24
"""Of all images that a memory holds: 192 MiB of values."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The architecture of a generator."""

    slots: int = 512
    """Images that the memory holds, of a generator that is made here (`--generator scratch`, `ddtool pretrain`). 8 to 8192."""
    side: int = 32
    """Pixels of their side, an even number (likewise); other sizes are served by interpolation. 8 to 256."""

    def __post_init__(self) -> None:
        for name, low, high in (("slots", 8, 8192), ("side", 8, 256)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise UsageError(f"Generator {name} must be a whole number from {low} to {high}, got {value!r}.")
        if self.side % 2:
            raise UsageError(f"Generator side must be even, got {self.side}.")
        if self.slots * self.side**2 > MOST_PIXELS:
            raise UsageError(
                f"Generator slots times side² must be at most {MOST_PIXELS}, got {self.slots * self.side**2}."
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GeneratorConfig":
        """From untrusted JSON values; an unknown key or a value out of range is a UsageError."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise UsageError(f"Unknown generator setting '{key}'.", did_you_mean(key, known))
        return cls(**values)


@dataclass(frozen=True)
class WhiteningConfig:
    """What networks see: standardised images, or whitened ones."""

    kind: str = "auto"
    """auto: dct where it is measured to help on this target, else none;  dct: at each frequency of the image the colours are made
    uncorrelated;  zca: all pixel values are, for small images;  none: for those who cannot whiten what they train on."""
    eps: float = 0.1
    """What is added to the covariance of standardised pixel values: frequencies with less than it are left small. From 0.02 to 1
    the result is the same (docs/log.md)."""
    images: int = 20_000
    """At most this many training images, drawn at random, give the statistics."""


@dataclass(frozen=True)
class FeatureConfig:
    """The random networks f_θ* that judge the synthetic set."""

    width: int = 128
    """Channels of the last block; earlier blocks have half as many each (32-64-128), as the resolution is higher there.
    Ours: a third of the time of 128-128-128 for the same result (docs/log.md)."""
    norm: str = "none"
    """Normalisation layer: none, instance or batch."""


@dataclass(frozen=True)
class LabelConfig:
    """Eq. 3: the analytical labels."""

    width: int = 128
    """Width of the fixed network f_θ (width 128 in every block)."""
    ridge: float = 1e-3
    """λ of the ridge regression on the real images."""
    images: int = 50_000
    """At most this many real images, drawn at random, enter the solve."""


@dataclass(frozen=True)
class FitConfig:
    """Fitted labels: those that suit given images best, in closed form; of the pool before adaptation and of the generator's
    output after it. Ours."""

    networks: int = 32
    """Random networks whose mean loss is minimised; 0 keeps the analytical labels of Eq. 3."""
    real_batch: int = 1000
    """Real images a network, at least (and at least twice the synthetic ones)."""
    ridge: float = 1e-3
    """λ of Eq. 1."""
    shrink: float = 1e-2
    """λ of the regression for the labels. From 1e-3 to 1e-1 the result is the same (docs/log.md)."""
    mirror: bool = True
    """Put mirror images of S beside S in Eq. 1."""


@dataclass(frozen=True)
class AdaptConfig:
    """Adaptation of the generator to the target."""

    steps: int = 1000
    """T, the number of generator updates."""
    lr: float = 1e-3
    """α, Adam's learning rate at the start. Ours."""
    lr_floor: float = 0.05
    """The half cosine ends at this fraction of `lr`."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's moment decays."""
    real_batch: int | None = None
    """Real images a step (rounded to a multiple of the classes); null: 256, or 10 of each class where that is more, up
    to 2,000."""
    seen_ipcs: tuple[int, ...] = ()
    """The images per class of the batches from Z, in turn (the paper: 10 and 50). Empty: those of the sets that are asked for.
    A set of another size gains little from it, so name the sizes that you want (docs/log.md)."""
    synthetic_batch: int = 1000
    """Upper bound on synthetic images a step; of larger batches a random class-balanced part is taken."""
    ridge: float = 1e-3
    """λ of Eq. 1."""
    mirror: bool = True
    """Put mirror images of S beside S in Eq. 1."""


@dataclass(frozen=True)
class RefineConfig:
    """Refinement: direct steps on pixels and labels, from the generator's output."""

    steps: int = 1000
    """Steps for each IPC; 0 leaves the stage out."""
    lr_pixels: float = 3e-2
    """Adam's learning rate on pixels, in units of the normalised image."""
    lr_labels: float = 3e-3
    """Adam's learning rate on labels."""
    lr_floor: float = 0.05
    """The half cosine ends at this fraction of both."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's moment decays."""
    real_batch: int | None = None
    """Real images of a random network (rounded to a multiple of the classes); null: 256, or 10 of each class where that is
    more, up to 2,000. Ours: with 2 of each of 100 classes, refinement does harm (docs/log.md)."""
    synthetic_batch: int = 1000
    """Upper bound on synthetic images a step; larger sets take a random class-balanced part each step."""
    ridge: float = 1e-3
    """λ of Eq. 1."""
    mirror: bool = True
    """Put mirror images of S beside S in Eq. 1."""


@dataclass(frozen=True)
class MetaConfig:
    """Pre-training of the meta generator: first-order MAML over tasks drawn from large datasets."""

    iterations: int = 10_000
    """Outer updates."""
    meta_batch: int = 4
    """Tasks an outer update, over all processes together."""
    inner_steps: int = 20
    """τ, the inner updates on each task. Ours: with 2 plain gradient steps nothing is learned in 200 iterations."""
    meta_test: int = 1
    """Losses whose gradients at ω' are averaged for the outer update."""
    outer: str = "maml"
    """The outer gradient: 'maml' (first order, at ω', the paper's) or 'reptile' (ω − ω')."""
    outer_lr: float = 5e-4
    """β, Adam's learning rate of the outer update."""
    outer_betas: tuple[float, float] = (0.9, 0.99)
    """Adam's moment decays of the outer update."""
    lr_floor: float = 0.1
    """The half cosine ends at this fraction of `outer_lr`."""
    ways: tuple[int, int] = (5, 20)
    """Fewest and most classes a task; each task draws its own number."""
    ipc: tuple[int, int] = (1, 20)
    """Fewest and most initial samples per class of a task, so that the generator meets small sets and larger ones."""
    label_images: int = 200
    """Real images per class of a task (fewer where its smallest class holds fewer): its labels are solved on them, its
    batches drawn from them."""
    grey: float = 0.2
    """Share of tasks turned grey (one channel), so that targets like MNIST are served too. Ours."""
    flip: bool = True
    """Mirror every second task as a whole: twice the classes for nothing. Ours."""
    jitter: float = 0.3
    """Brightness, contrast, saturation and the gain of each channel vary by up to this share from task to task; 0: not."""
    whitening: str = "dct"
    """dct: the images of every task are whitened by a matrix of its own, as `ddtool adapt` does for a target that gains by it;
    none: they are not."""
    fit: FitConfig = field(default_factory=lambda: FitConfig(networks=4, real_batch=500))
    """How a task's labels are fitted to its images, as `ddtool adapt` does; with 0 networks those of Eq. 3
    stay. Ours: with Eq. 3 the generator learns to make up for the labels, by contrast and colour, and fitted labels then
    leave nothing of it (docs/log.md)."""
    task: AdaptConfig = field(default_factory=AdaptConfig)
    """The inner loop's settings (its `steps`, `lr_floor` and `seen_ipcs` are not used)."""


@dataclass(frozen=True)
class PretrainConfig:
    """One run of `ddtool pretrain`, resolved: enough to repeat it."""

    datasets: tuple[str, ...] = ()
    """Alias, Hub id or path of each large dataset; a task is of one of them, drawn in proportion to its classes."""
    seed: int = 0
    """Every random draw follows from it."""
    data: dict[str, Any] = field(default_factory=dict)
    """Options of the data source that were given (columns, splits, resolution, revision), for all datasets."""
    held_out: int = 20
    """Classes of each dataset that no task sees; validation is on them."""
    architecture: GeneratorConfig = field(default_factory=GeneratorConfig)
    """Of the generator."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    """The random networks that judge, and that solve the tasks' labels."""
    meta: MetaConfig = field(default_factory=MetaConfig)
    """The tasks and the two loops over them."""
    validate_every: int = 100
    """Iterations from one validation to the next; there is one before the first and one after the last as well."""
    validate_tasks: int = 2
    """Tasks of held-out classes, always the same ones, whose figures are averaged. Two show a trend, not a last digit."""
    validate_steps: int = 100
    """Adaptation steps before the kernel-ridge accuracy of a validation is taken: the claim is about few steps."""


@dataclass(frozen=True)
class EvalConfig:
    """How a synthetic set is scored."""

    protocol: str = "quick"
    """quick (a short training, for a first look), frepo-mse or dsa-ce (the field's, full length)."""
    seeds: int = 1
    """Fresh networks; mean and standard deviation are over them."""
    baseline: bool = True
    """Score as many random real images beside it."""
    without_whitening: bool = True
    """Where a set is whitened, score it without as well: what it is worth to those who overlook that."""
    kernel_ridge: bool = True
    """The cheap guide beside the protocol: a linear head on random features."""


@dataclass(frozen=True)
class RunConfig:
    """One run of `ddtool adapt`, resolved: enough to repeat it."""

    dataset: str = ""
    """Alias, Hub id, path, or 'sample'."""
    method: str = "mgdd"
    """mgdd, or a method of the field (`ddtool/methods/`), which takes its settings from `baseline`."""
    ipc: tuple[int, ...] = (10,)
    """Images per class of the synthetic sets to make."""
    generator: str = "bundled"
    """bundled, scratch, a folder, or a Hub repo[@revision]."""
    seed: int = 0
    """Every random draw follows from it."""
    mirror: bool | None = None
    """Whether classes survive a left-right mirror; null: measured on the target."""
    seconds: float | None = None
    """Wall clock of the work on one set, in place of counted steps; null: steps count. Data and scores are not in it."""
    label_scale: float | None = None
    """Factor on the labels of the finished sets; null: 4, or 0.4 a class where that is more. Ours, after RFAD (Loo et al.,
    2022): CIFAR-10 47.9 against 46.9 % with 1, CIFAR-100 20.1 against 16.7 % with 4 (docs/log.md)."""
    data: dict[str, Any] = field(default_factory=dict)
    """Options of the data source that were given (columns, splits, resolution, revision)."""
    architecture: GeneratorConfig = field(default_factory=GeneratorConfig)
    """Of a generator from scratch."""
    whitening: WhiteningConfig = field(default_factory=WhiteningConfig)
    """What networks see of an image."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    """The random networks that judge."""
    labels: LabelConfig = field(default_factory=LabelConfig)
    """The analytical labels."""
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    """The adaptation stage."""
    fit: FitConfig = field(default_factory=FitConfig)
    """The fitted labels of the pool and of the generator's output."""
    refine: RefineConfig = field(default_factory=RefineConfig)
    """The refinement stage."""
    adapt_share: float = 0.2
    """With a budget in `seconds`: how much of what the labels leave goes to adaptation; the rest is refinement's."""
    baseline: dict[str, Any] = field(default_factory=dict)
    """Settings of a `method` other than mgdd (the sections above are mgdd's)."""
    evaluate: EvalConfig = field(default_factory=EvalConfig)
    """The scores at the end."""


MGDD_SETTINGS = ("generator", "architecture", "features", "labels", "adapt", "fit", "refine", "adapt_share")
"""What the other methods do not use."""
PRESETS: dict[str, dict[str, Any]] = {
    "gpu": {},
    "cpu": {
        "labels": {"images": 20_000},
        "adapt": {"steps": 300, "synthetic_batch": 200},
        "refine": {"steps": 2000, "synthetic_batch": 500},
    },
}
"""What differs from the defaults above by device. 'auto' takes 'gpu' on cuda and 'cpu' elsewhere.

cpu: `ddtool adapt cifar10 --ipc 10` writes its set in 115 s on 2 cores of an AMD EPYC, Zen 5 (docs/results.md).
gpu: the defaults as they stand; not measured yet.
"""

PRETRAIN_PRESETS: dict[str, dict[str, Any]] = {
    "gpu": {},
    "cpu": {
        "meta": {"iterations": 400, "meta_batch": 2, "task": {"synthetic_batch": 100, "real_batch": 128}},
        "validate_every": 50,
    },
}
"""The same for `ddtool pretrain`."""


LEAST = {
    "seed": 0, "whitening.images": 2, "features.width": 1, "labels.width": 1, "labels.images": 1, "evaluate.seeds": 1,
    "adapt.steps": 0, "adapt.lr": 0, "adapt.lr_floor": 0, "adapt.real_batch": 1, "adapt.synthetic_batch": 1,
    "refine.steps": 0, "refine.lr_pixels": 0, "refine.lr_labels": 0, "refine.lr_floor": 0, "refine.real_batch": 1,
    "refine.synthetic_batch": 1, "fit.networks": 0, "fit.real_batch": 1,
}  # fmt: skip
"""The smallest values that a run can use."""

PRETRAIN_LEAST = {
    "seed": 0, "held_out": 2, "features.width": 1, "validate_every": 1, "validate_tasks": 1, "validate_steps": 1,
    "meta.iterations": 1, "meta.meta_batch": 1, "meta.inner_steps": 0, "meta.meta_test": 1, "meta.outer_lr": 0,
    "meta.lr_floor": 0, "meta.label_images": 2, "meta.fit.networks": 0, "meta.fit.real_batch": 1,
    "meta.grey": 0, "meta.jitter": 0, "meta.task.lr": 0,
    "meta.task.real_batch": 1, "meta.task.synthetic_batch": 1,
}  # fmt: skip
"""The smallest values that a pre-training can use."""

PRETRAIN_FEWEST = {"ways": 2, "ipc": 1}
OUTER = ("maml", "reptile")
WHITENINGS = ("auto", "dct", "zca", "none")


def check_values(config: RunConfig) -> None:
    """UsageError for values that no run can use, before anything is loaded."""
    check_least(config, LEAST)
    if config.whitening.kind not in WHITENINGS:
        hint = did_you_mean(config.whitening.kind, WHITENINGS)
        raise UsageError(f"Unknown whitening '{config.whitening.kind}'.", hint)
    if not 0 < config.whitening.eps < 1e6:
        raise UsageError(
            f"Setting 'whitening.eps' must be positive, got {config.whitening.eps}.", "Its default is 0.1."
        )
    if min(config.adapt.seen_ipcs, default=1) < 1:
        hint = "For example [10, 50]; [] for those of the sets."
        raise UsageError("Setting 'adapt.seen_ipcs' must list IPCs of at least 1.", hint)
    ridges = ("labels.ridge", "adapt.ridge", "fit.ridge", "fit.shrink", "refine.ridge")
    check_ridge_and_betas(config, ridges, ("adapt.betas", "refine.betas"))
    if config.label_scale is not None and not 0 < config.label_scale < 1e6:
        message = f"Setting 'label_scale' must be positive, got {config.label_scale}."
        raise UsageError(message, "Or leave it out: 4, or 0.4 a class where that is more.")
    if config.seconds is not None and not 0 < config.seconds < 1e9:
        raise UsageError(
            f"Setting 'seconds' must be positive, got {config.seconds}.", "Or leave it out, to count steps."
        )
    if config.seconds is not None and len(config.ipc) > 1:
        raise UsageError("A budget in seconds is for one set.", "Name one --ipc, or count steps instead.")
    if len(set(config.ipc)) != len(config.ipc):
        raise UsageError("The same IPC was asked for twice.", "Name each --ipc once.")


def check_least(config: Any, least: Mapping[str, float], where: str = "") -> None:
    """UsageError for a setting below its smallest usable value, or a seed that no random stream takes."""
    for name, bound in least.items():
        value = attrgetter(name)(config)
        if value is not None and value < bound:
            hint = f"For example --set {where}{name}={json.dumps(attrgetter(name)(type(config)()))}, its default."
            raise UsageError(f"Setting '{where}{name}' must be at least {bound}, got {value}.", hint)
    if "seed" in least and config.seed >= 2**63:
        raise UsageError(f"Setting 'seed' must be less than 2^63, got {config.seed}.", "Any smaller number will do.")


def check_ridge_and_betas(config: Any, ridges: tuple[str, ...], betas: tuple[str, ...]) -> None:
    """UsageError for a λ that is not positive or a moment decay outside [0, 1)."""
    for name in ridges:
        if not 0 < attrgetter(name)(config) < 1e6:
            got, usual = attrgetter(name)(config), attrgetter(name)(type(config)())
            raise UsageError(f"Setting '{name}' must be positive, got {got}.", f"Its default is {usual:g}.")
    for name in betas:
        if not all(0 <= beta < 1 for beta in attrgetter(name)(config)):
            raise UsageError(f"Setting '{name}' must lie in [0, 1).", "Its default is [0.9, 0.99].")


def check_pretraining(config: PretrainConfig) -> None:
    """UsageError for values that no pre-training can use, before anything is loaded."""
    check_least(config, PRETRAIN_LEAST)
    for name in ("ways", "ipc"):
        low, high = getattr(config.meta, name)
        if low > high or low < PRETRAIN_FEWEST[name]:
            hint = f"For example --set meta.{name}={list(getattr(MetaConfig(), name))}, its default."
            raise UsageError(f"Setting 'meta.{name}' must be a range from at least {PRETRAIN_FEWEST[name]}.", hint)
    if config.meta.ipc[1] > config.meta.label_images:
        hint = f"For example --set meta.label_images={config.meta.ipc[1]}."
        raise UsageError("Setting 'meta.label_images' must be at least the largest IPC of 'meta.ipc'.", hint)
    for name in ("meta.grey", "meta.jitter"):
        if attrgetter(name)(config) > 1:
            raise UsageError(
                f"Setting '{name}' must lie in [0, 1], got {attrgetter(name)(config)}.", "0 leaves it out."
            )
    if config.meta.whitening not in ("dct", "none"):
        hint = did_you_mean(config.meta.whitening, ("dct", "none"))
        raise UsageError(f"Unknown whitening of tasks '{config.meta.whitening}'.", hint)
    if config.meta.outer not in OUTER:
        raise UsageError(f"Unknown outer gradient '{config.meta.outer}'.", did_you_mean(config.meta.outer, OUTER))
    check_ridge_and_betas(
        config, ("meta.task.ridge", "meta.fit.ridge", "meta.fit.shrink"), ("meta.task.betas", "meta.outer_betas")
    )


def preset(name: str, device_type: str, presets: Mapping[str, dict[str, Any]] = PRESETS) -> dict[str, Any]:
    """The settings of a preset; UsageError for an unknown one."""
    if name == "auto":
        name = "gpu" if device_type == "cuda" else "cpu"
    if name not in presets:
        raise UsageError(f"Unknown preset '{name}'.", did_you_mean(name, ["auto", *presets]))
    return presets[name]


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """A config from JSON values on top of the defaults.

    Raises UsageError, naming the key, for an unknown key or a value of the wrong type. A number may stand for a list of
    one, and a float may be text (YAML reads 1e-3 as text).
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"A configuration must be a mapping of settings, got {values!r:.80}.", SEE_SETTINGS)
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    chosen = {}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"Unknown setting '{where}{key}' in the configuration.", did_you_mean(str(key), known))
        chosen[key] = _typed(hints[key], value, f"{where}{key}")
    return cls(**chosen)


FORGOTTEN = {"architecture": ("width", "blocks"), "refine": ("uses",)}
"""Settings of earlier versions, by section, that no longer mean anything."""


def without_forgotten(values: Any) -> Any:
    """The configuration of an earlier version's run without the settings that are forgotten, so that its sets can be read."""
    if not isinstance(values, Mapping):
        return values
    kept = dict(values)
    for section, names in FORGOTTEN.items():
        if isinstance(found := values.get(section), Mapping):
            kept[section] = {name: value for name, value in found.items() if name not in names}
    return kept


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, key by key through nested mappings."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else value
    return out


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, dict) else value


def _typed(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UsageError(f"Setting '{where}' must be a mapping, got {value!r:.80}.", SEE_SETTINGS)
        return from_dict(typing.cast(type, hint), value, where + ".")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        if value is None:
            return None
        hint = next(a for a in args if a is not type(None))
    if origin is tuple:
        return _typed_tuple(args, value, where)
    if hint is float:
        return _finite(value, where)
    plain = dict if origin is dict else hint
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        kind = getattr(plain, "__name__", plain)
        raise UsageError(f"Setting '{where}' must be of type {kind}, got {value!r:.80}.", SEE_SETTINGS)
    return value


def _finite(value: Any, where: str) -> float:
    """A number, or text that spells one, as a float."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"Setting '{where}' must be a finite number, got {value!r:.80}.", SEE_SETTINGS)
    return number


def _typed_tuple(args: tuple, value: Any, where: str) -> tuple:
    if args[-1] is Ellipsis and not isinstance(value, list | tuple):
        value = [value]
    if not isinstance(value, list | tuple):
        raise UsageError(f"Setting '{where}' must be a list, got {value!r:.80}.", SEE_SETTINGS)
    if args[-1] is Ellipsis:
        return tuple(_typed(args[0], v, where) for v in value)
    if len(args) != len(value):
        raise UsageError(f"Setting '{where}' must be a list of {len(args)}, got {value!r:.80}.", SEE_SETTINGS)
    return tuple(_typed(a, v, where) for a, v in zip(args, value, strict=True))
