"""Every setting with its type, default, bounds and reason beside each other."""

from dataclasses import field
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ddtool.config.checked import (
    AtLeastOne,
    Count,
    Decay,
    Factor,
    ListOfOne,
    MostFromHub,
    NotNegative,
    Number,
    Ridge,
    Seed,
    Share,
    checked,
)
from ddtool.config.layers import Values
from ddtool.errors import UsageError

MOST_PIXELS = 2**24
"""The most values that the stored images of a generator hold together: 192 MiB."""


def range_from(least: int) -> AfterValidator:
    """Two whole numbers, the first at least `least` and at most the second."""

    def check(ends: tuple[int, int]) -> tuple[int, int]:
        if not least <= ends[0] <= ends[1]:
            raise ValueError(f"must be a range from at least {least}")
        return ends

    return AfterValidator(check)


@checked
class GeneratorConfig:
    """The architecture of a generator."""

    slots: Annotated[int, Field(ge=8, le=8192)] = 512
    """Images that the memory holds, of a generator that is made here (`--generator scratch`, `ddtool pretrain`). 8 to 8192."""
    side: Annotated[int, Field(ge=8, le=256, multiple_of=2)] = 32
    """Pixels of their side, an even number (likewise); other sizes are served by interpolation. 8 to 256."""

    @model_validator(mode="after")
    def _fits_in_memory(self) -> Self:
        pixels = self.slots * self.side**2
        if pixels > MOST_PIXELS:
            raise UsageError(
                f"Generator slots times side² must be at most {MOST_PIXELS}, got {pixels}.",
                "Take fewer slots or a smaller side.",
            )
        return self


@checked
class WhiteningConfig:
    """What networks see: standardised images, or whitened ones."""

    kind: Literal["auto", "dct", "zca", "none"] = "auto"
    """auto: dct where a trial on the target says that it helps, else none;  dct: at each frequency of the image the colours are
    made uncorrelated;  zca: all pixel values are, for small images;  none: for those who cannot whiten what they train on."""
    eps: Ridge = 0.1
    """What is added to the covariance of standardised pixel values: frequencies with less than it are left small. From 0.02 to 1
    the result is the same (docs/log.md)."""
    images: Annotated[int, Field(ge=2)] = 20_000
    """At most this many training images, drawn at random, give the statistics."""


@checked
class FeatureConfig:
    """The random networks f_θ* that judge the synthetic set."""

    width: Annotated[AtLeastOne, MostFromHub(4096)] = 128
    """Channels of the last block; earlier blocks have half as many each (32-64-128), as the resolution is higher there.
    Ours: a quarter of the time of 128-128-128; level by a trained network, 1.4 points less by kernel-ridge (docs/log.md)."""
    norm: str = "none"
    """Normalisation layer: none, instance or batch."""


@checked
class LabelConfig:
    """Eq. 3: the analytical labels."""

    width: Annotated[AtLeastOne, MostFromHub(4096)] = 64
    """Width of the fixed network f_θ (the same in every block). Ours: as good as 128, in less than half the time (docs/log.md)."""
    ridge: Ridge = 1e-3
    """λ of the ridge regression on the real images."""
    images: AtLeastOne = 50_000
    """At most this many real images, drawn at random, enter the solve."""


@checked
class FitConfig:
    """Fitted labels: those that suit given images best, in closed form; of the pool before adaptation and of the generator's
    output after it. Ours."""

    networks: Annotated[Count, MostFromHub(1024)] = 32
    """Random networks whose mean loss is minimised; 0 keeps the analytical labels of Eq. 3."""
    real_batch: Annotated[AtLeastOne, MostFromHub(2**14)] = 1000
    """Real images a network, at least (and at least twice the synthetic ones)."""
    ridge: Ridge = 1e-3
    """λ of Eq. 1."""
    shrink: Ridge = 1e-2
    """λ of the regression for the labels. From 1e-3 to 1e-1 the result is the same (docs/log.md)."""
    flip: bool = True
    """Put S flipped left-right beside S in Eq. 1."""
    augmented_copies: Annotated[Count, MostFromHub(256)] | None = None
    """Augmented copies of S beside S in Eq. 1, each by an operation of FRePo's augmentation; null: as many as make up to 160
    images of S, so none where S has more than that. Ours: networks are trained on S with augmentation (docs/log.md)."""


@checked
class AdaptConfig:
    """Adaptation of the generator to the target."""

    steps: Count = 1000
    """T, the number of generator updates."""
    lr: NotNegative = 1e-3
    """α, Adam's learning rate at the start. Ours."""
    min_lr_ratio: NotNegative = 0.05
    """The half cosine ends at this fraction of `lr`."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Adam's moment decays."""
    real_batch: AtLeastOne | None = None
    """Real images a step (rounded to a multiple of the classes); null: two for each channel of `features.width`, at least 256, or
    10 of each class where that is more, up to 2,000."""
    seen_ipcs: Annotated[tuple[AtLeastOne, ...], ListOfOne] = ()
    """The images per class of the batches from Z, in turn (the paper: 10 and 50). Empty: those of the sets that are asked for.
    A set of another size gains little from it, so name the sizes that you want (docs/log.md)."""
    synthetic_batch: AtLeastOne = 1000
    """Upper bound on synthetic images a step; of larger batches a random class-balanced part is taken."""
    ridge: Ridge = 1e-3
    """λ of Eq. 1."""
    flip: bool = True
    """Put S flipped left-right beside S in Eq. 1."""
    augmented_copies: Annotated[Count, MostFromHub(256)] | None = None
    """Augmented copies of S beside S in Eq. 1, each by an operation of FRePo's augmentation; null: as many as make up to 160
    images of S, so none where S has more than that. Ours: networks are trained on S with augmentation (docs/log.md)."""


@checked
class RefineConfig:
    """Refinement: direct steps on pixels and labels, from the generator's output."""

    steps: Count = 1000
    """Steps for each IPC; 0 leaves the stage out."""
    lr_pixels: NotNegative = 3e-2
    """Adam's learning rate on pixels, in units of the normalised image."""
    lr_labels: NotNegative | None = None
    """Adam's learning rate on labels; null: 3e-3, or 3e-2 divided by the number of classes where that is less, since entries of
    centred labels shrink with more classes. Ours: with 100 classes, 3e-3 undoes what many steps win (docs/log.md)."""
    min_lr_ratio: NotNegative = 0.05
    """The half cosine ends at this fraction of both."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Adam's moment decays."""
    real_batch: AtLeastOne | None = None
    """Real images of a random network (rounded to a multiple of the classes); null: two for each channel of `features.width`, at
    least 256, or 10 of each class where that is more, up to 2,000. Ours: with 2 of each of 100 classes, refinement does harm
    (docs/log.md)."""
    synthetic_batch: AtLeastOne = 1000
    """Upper bound on synthetic images a step; larger sets take a random class-balanced part each step."""
    ridge: Ridge = 1e-3
    """λ of Eq. 1."""
    flip: bool = True
    """Put S flipped left-right beside S in Eq. 1."""
    augmented_copies: Annotated[Count, MostFromHub(256)] | None = None
    """Augmented copies of S beside S in Eq. 1, each by an operation of FRePo's augmentation; null: as many as make up to 160
    images of S, so none where S has more than that. Ours: networks are trained on S with augmentation (docs/log.md)."""


@checked
class MetaConfig:
    """Pre-training of the meta generator: first-order MAML over tasks drawn from large datasets."""

    iterations: AtLeastOne = 10_000
    """Outer updates."""
    meta_batch: AtLeastOne = 4
    """Tasks an outer update, over all processes together."""
    inner_steps: Count = 20
    """τ, the inner updates on each task. Ours: with 2 plain gradient steps nothing is learned in 200 iterations."""
    meta_test: AtLeastOne = 1
    """Losses whose gradients at ω' are averaged for the outer update."""
    outer: Literal["maml", "reptile"] = "maml"
    """The outer gradient: 'maml' (first order, at ω', the paper's) or 'reptile' (ω − ω')."""
    outer_lr: NotNegative = 5e-4
    """β, Adam's learning rate of the outer update."""
    outer_betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Adam's moment decays of the outer update."""
    min_lr_ratio: NotNegative = 0.1
    """The half cosine ends at this fraction of `outer_lr`."""
    ways: Annotated[tuple[int, int], range_from(2)] = (5, 20)
    """Fewest and most classes a task; each task draws its own number."""
    ipc: Annotated[tuple[int, int], range_from(1)] = (1, 20)
    """Fewest and most initial samples per class of a task, so that the generator meets small sets and larger ones."""
    label_images: Annotated[int, Field(ge=2)] = 200
    """Real images per class of a task (fewer where its smallest class holds fewer): its labels are solved on them, its
    batches drawn from them."""
    grey: Share = 0.2
    """Share of tasks turned grey (one channel), so that targets like MNIST are served too. Ours."""
    flip: bool = True
    """Flip every second task as a whole: twice the classes for nothing. Ours."""
    jitter: Share = 0.3
    """Brightness, contrast, saturation and the gain of each channel vary by up to this share from task to task; 0: not."""
    whitening: Literal["dct", "none"] = "dct"
    """dct: the images of every task are whitened by a matrix of its own, as `ddtool adapt` does for a target that gains by it;
    none: they are not."""
    fit: FitConfig = field(default_factory=lambda: FitConfig(networks=4, real_batch=500))
    """How a task's labels are fitted to its images, as `ddtool adapt` does; with 0 networks those of Eq. 3
    stay. Ours: with Eq. 3 the generator learns to make up for the labels, by contrast and colour, and fitted labels then
    leave nothing of it (docs/log.md)."""
    task: AdaptConfig = field(default_factory=AdaptConfig)
    """The inner loop's settings (its `steps`, `min_lr_ratio` and `seen_ipcs` are not used)."""

    @model_validator(mode="after")
    def _labels_are_solved_on_enough(self) -> Self:
        if self.ipc[1] > self.label_images:
            hint = f"For example --set meta.label_images={self.ipc[1]}."
            raise UsageError("Setting 'meta.label_images' must be at least the largest IPC of 'meta.ipc'.", hint)
        return self


@checked
class PretrainConfig:
    """One run of `ddtool pretrain`, resolved: enough to repeat it."""

    datasets: Annotated[tuple[str, ...], ListOfOne] = ()
    """Alias, Hub id or path of each large dataset; a task is of one of them, drawn in proportion to its classes."""
    seed: Seed = 0
    """Every random draw follows from it."""
    data: Values = field(default_factory=dict)
    """Options of the data source that were given (columns, splits, resolution, revision), for all datasets."""
    held_out: Annotated[int, Field(ge=2)] = 20
    """Classes of each dataset that no task sees; validation is on them."""
    architecture: GeneratorConfig = field(default_factory=GeneratorConfig)
    """The generator's own settings."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    """The random networks that judge, and that solve the tasks' labels."""
    meta: MetaConfig = field(default_factory=MetaConfig)
    """The tasks and the two loops over them."""
    validate_every: AtLeastOne = 100
    """Iterations from one validation to the next; there is one before the first and one after the last as well."""
    validate_tasks: AtLeastOne = 2
    """Tasks of held-out classes, always the same ones, whose figures are averaged. Two show a trend, not a last digit."""
    validate_steps: AtLeastOne = 100
    """Adaptation steps before the kernel-ridge accuracy of a validation is taken: the claim is about few steps."""


@checked
class EvalConfig:
    """How a synthetic set is scored."""

    enabled: bool = True
    """Whether a run scores its sets at its end; false leaves it to `ddtool evaluate`."""
    protocol: str = "quick"
    """quick (a short training, for a first look), frepo-mse or dsa-ce (the field's, full length); several with commas."""
    arch: str = "convnet"
    """The network: convnet, convnet-wide, alexnet, vgg11, resnet18, mlp, lenet or vit, or one with another norm (vgg11-batch)."""
    seeds: AtLeastOne = 1
    """Fresh networks; mean and standard deviation are over them."""
    baseline: bool = True
    """Score as many random real images beside it."""
    without_whitening: bool = True
    """Where a set is whitened, score it without as well: what it is worth to those who overlook that."""
    kernel_ridge: bool = True
    """The cheap guide beside the protocol: a linear head on random features."""


@checked
class RunConfig:
    """One run of `ddtool adapt`, resolved: enough to repeat it."""

    dataset: str = ""
    """Alias, Hub id, path, or 'sample'."""
    method: str = "mgdd"
    """mgdd, or a method of the field (`ddtool/methods/`), which takes its settings from `baseline`."""
    ipc: Annotated[tuple[AtLeastOne, ...], ListOfOne] = (10,)
    """Images per class of the synthetic sets to make."""
    generator: str = "bundled"
    """bundled, scratch, a folder, or a Hub repo[@revision]."""
    factor: Factor = 1
    """Each image of a set holds factor x factor images of lower resolution, each with a soft label of its own. Ours, after IDC (Kim
    et al., 2022). It has to divide both sides of the images."""
    seed: Seed = 0
    """Every random draw follows from it."""
    flip: bool | None = None
    """Whether images flipped left-right keep their class; null: measured on the target."""
    allow_repeat: bool = False
    """Whether an IPC may be more than a class holds: its images then begin several synthetic ones each."""
    seconds: Annotated[Number, Field(gt=0, lt=1e9)] | None = None
    """Wall clock of the work on one set, in place of counted steps; null: steps count. Data and scores are not in it."""
    label_scale: Annotated[Number, Field(gt=0, lt=1e6)] | None = None
    """Factor on the labels of the finished sets; null: 4, or 0.4 a class where that is more. Ours, after RFAD (Loo et al.,
    2022): CIFAR-10 47.9 against 46.9 % with 1, CIFAR-100 20.1 against 16.7 % with 4 (docs/log.md)."""
    data: Values = field(default_factory=dict)
    """Options of the data source that were given (columns, splits, resolution, revision)."""
    architecture: GeneratorConfig = field(default_factory=GeneratorConfig)
    """The settings of a generator from scratch."""
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
    adapt_share: Share = 0.2
    """With a budget in `seconds`: how much of what the labels leave goes to adaptation; the rest is refinement's."""
    animation: bool = False
    """Whether to leave a short animation of the refinement, of the largest set: animation.png."""
    curve: bool = False
    """Whether to keep what the set is at steps 0, 1, 2, 4, 8, ... and the last of each phase, for `ddtool curve` to score."""
    baseline: Values = field(default_factory=dict)
    """Settings of a `method` other than mgdd (the sections above are mgdd's)."""
    evaluate: EvalConfig = field(default_factory=EvalConfig)
    """The scores at the end."""
    measured: tuple[str, ...] = ()
    """Which of the settings the speed of the machine chose, since neither they nor a preset were given. ddtool's own note, kept on
    resume; what is given here is overwritten."""

    def samples(self, ipc: int) -> int:
        """The images of each class that networks see of a set of that IPC: factor² times as many."""
        return ipc * self.factor**2

    @model_validator(mode="after")
    def _sets_are_few_enough(self) -> Self:
        if self.seconds is not None and len(self.ipc) > 1:
            raise UsageError("A budget in seconds is for one set.", "Name one --ipc, or count steps instead.")
        if len(set(self.ipc)) != len(self.ipc):
            raise UsageError("The same IPC was asked for twice.", "Name each --ipc once.")
        return self
