"""How the field's code prepares images: mean and std of each dataset, its flips, and the whitening of MTT's code."""

from dataclasses import dataclass

import torch

from ddtool.data.images import ImageData
from ddtool.data.whitening import ZCA, Whitening, fit
from ddtool.errors import UsageError
from ddtool.sharing.exchange.loose import Space
from ddtool.sources.names import ALIASES
from ddtool.text import dataset_name

EPS = 0.1
"""What kornia's ZCA, as MTT's code calls it, adds to the covariance of images in [0, 1]."""


@dataclass(frozen=True)
class Prepared:
    """Mean and std by channel in the public code of DC, DSA, DM and MTT (`get_dataset`), and whether it flips images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True


FIELD = {
    "mnist": Prepared((0.1307,), (0.3081,), flip=False),
    "fashion_mnist": Prepared((0.2861,), (0.3530,)),
    "svhn": Prepared((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), flip=False),
    "cifar10": Prepared((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Prepared((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tiny-imagenet": Prepared((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""By the short names of `sources.names`."""


def prepared(like: ImageData) -> Prepared | None:
    """What the field's code does with a dataset; None for one that it does not know."""
    repo = like.source.get("id")
    return next((one for name, one in FIELD.items() if ALIASES[name] == repo), None)


def published_space(like: ImageData) -> Space:
    """The space of sets that are normalised as in the field's code; UsageError for a dataset that it does not know."""
    known = prepared(like)
    if known is None:
        name = str(like.source.get("name", ""))
        hint = (
            "Name those that the set was normalised with (--mean and --std); for pixels in [0, 1] give --no-normalised."
        )
        if named_so := FIELD.get(dataset_name(name)):  # a copy on this disk, if its name is true
            mean, std = (",".join(map(str, values)) for values in (named_so.mean, named_so.std))
            hint += f" For {dataset_name(name)} the field's code takes --mean {mean} --std {std}."
        raise UsageError(f"No mean and std of the field's code are known for '{name}'.", hint)
    return Space(known.mean, known.std)


def usual_flip(like: ImageData) -> bool:
    """Whether the field's code flips the images of a dataset; it flips none of digits."""
    known = prepared(like)
    return known is None or known.flip


def mtt_whitening(like: ImageData) -> Whitening:
    """The ZCA that MTT's code (by kornia) fits to the training images in [0, 1]: x → (x − mean) (Σ + 0.1·I)^(−1/2), the
    covariance over n − 1."""
    rows = torch.arange(len(like))
    return fit(lambda part: like.images[part].float() / 255, rows, ZCA, EPS, published=True)
