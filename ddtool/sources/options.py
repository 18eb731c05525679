"""How a dataset is read: the options that every command which opens data shares."""

from dataclasses import fields

from ddtool.config import Number, Values, checked
from ddtool.errors import UsageError, did_you_mean

BACKGROUNDS = {"black": 0, "grey": 128, "white": 255}
"""What transparency can be laid on, with its value in [0, 255]."""

MULTI_LABEL = ("first", "drop")
"""What can be done with an image that has several labels."""


@checked
class DataOptions:
    """How to read a dataset; None means: find out."""

    config: str | None = None
    """Configuration (subset) of the dataset."""

    image_column: str | None = None
    """Column that holds the images."""

    label_column: str | None = None
    """Column that holds the classes."""

    train_split: str | None = None
    """Split to distil."""

    test_split: str | None = None
    """Split to score on."""

    revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""

    resolution: int | None = None
    """Side of the square images, in pixels: the shorter side is resized, the centre cropped. None: native size."""

    test_fraction: Number = 0.1
    """Share of every class held out of the training split when there is no labelled test split."""

    seed: int = 0
    """Seed of that held-out choice."""

    no_splits: bool = False
    """In a folder of images: `train`, `test` and the like are classes, not splits."""

    class_level: int | None = None
    """In a folder of images: how many folders below the split the classes are; what lies deeper belongs to them. None: one,
    and anything deeper is an error."""

    multi_label: str | None = None
    """What becomes of an image with several labels: `first` keeps the first label, `drop` leaves the image out. None: an
    error."""

    skip_broken: Number = 0.0
    """How many broken images are set aside before it is an error: a number, or below 1 a share of all images."""

    background: str | None = None
    """What transparency is laid on: black, grey or white. None: black, unless an image then becomes all of one colour;
    then white for the whole dataset."""

    max_megapixels: Number = 256.0
    """Images of more million pixels than this are refused; JPEGs count at the size they are read at."""

    max_per_class: int | None = None
    """At most this many images of every class of the training split are read, drawn at random by `seed`. None: all."""

    streaming: bool = False
    """A dataset of the Hub is read where it is, and its files are not kept: of them only the decoded images stay."""

    strict: bool = False
    """Whether images that are in both the training and the test split are an error, not a note."""

    def __post_init__(self) -> None:
        if self.resolution is not None and not 8 <= self.resolution <= 1024:
            raise UsageError(f"resolution must be between 8 and 1024 pixels, got {self.resolution}.", "Try 32.")
        if not 0 < self.test_fraction < 1:
            raise UsageError(f"test_fraction must lie between 0 and 1, got {self.test_fraction}.", "Try 0.1.")
        if self.class_level is not None and not 1 <= self.class_level <= 16:
            raise UsageError(f"class_level must be between 1 and 16, got {self.class_level}.", "Try 2.")
        if self.max_per_class is not None and self.max_per_class < 1:
            raise UsageError(f"max_per_class must be at least 1, got {self.max_per_class}.", "Try 1000.")
        if self.skip_broken < 0:
            raise UsageError(f"skip_broken must not be negative, got {self.skip_broken:g}.", "Try 10, or 0.01.")
        if self.max_megapixels <= 0:
            raise UsageError(f"max_megapixels must be positive, got {self.max_megapixels:g}.", "Try 256.")
        for name, known in (("multi_label", MULTI_LABEL), ("background", BACKGROUNDS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise UsageError(f"{name} has no choice '{value}'.", did_you_mean(value, known))

    def key(self) -> Values:
        """The options that change what is read, for a cache key: all but those that say where, and those that only refuse."""
        elsewhere = ("config", "revision", "strict", "streaming")  # the first two are part of a dataset's identity
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in elsewhere}

    def chosen(self) -> Values:
        """The options that are not as usual on how files become pictures, labels and splits, to read the data again."""
        again = [
            "no_splits",
            "class_level",
            "multi_label",
            "skip_broken",
            "background",
            "max_megapixels",
            "max_per_class",
            "test_fraction",
            "seed",
        ]
        return {name: getattr(self, name) for name in again if getattr(self, name) != getattr(type(self), name)}

    def broken_allowed(self, images: int) -> int:
        """How many of that many images may be broken."""
        return int(self.skip_broken * images if self.skip_broken < 1 else self.skip_broken)


DEFAULTS = DataOptions()
