"""The synthetic sets of a dataset repo, checked before they are used: sizes and headers first, then values."""

from pathlib import Path

import torch
from torch import Tensor

from ddtool.data.images import SyntheticSet
from ddtool.errors import HubError, RunError, UsageError
from ddtool.events import Note, Report, silent
from ddtool.hub.download import DAMAGED, fetch, listing, named
from ddtool.hub.generators import FACTS
from ddtool.hub.names import DATASET, MODEL
from ddtool.runs.formats import read_parquet, read_set
from ddtool.runs.run import STAGES
from ddtool.sharing import files
from ddtool.sharing.facts import SETS, Source
from ddtool.sharing.files import EXACT, LIMITS, PARQUET
from ddtool.sharing.found import Found, find, sets_beside

MOST_LABEL = 1e4
"""The largest number that a soft label may have."""


def load_sets(found: Found, ipc: int | None = None, report: Report = silent) -> list[SyntheticSet]:
    """The sets of a dataset repo (all, or that of one IPC), exact tensors; HubError or RunError for what is refused."""
    if ipc is not None and ipc not in found.ipcs:
        there = ", ".join(map(str, found.ipcs))
        raise RunError(f"'{found.repo.repo}' has no synthetic set of ipc {ipc}.", f"Sets there: {there}.")
    ipcs = found.ipcs if ipc is None else [ipc]
    return checked_sets(found, fetch_sets(found, ipcs, report), ipcs)


def checked_sets(found: Found, folder: Path, ipcs: list[int]) -> list[SyntheticSet]:
    """The sets of a repo whose files are in `folder`, each the same in both of its files."""
    sets = []
    with named(folder, found.repo.repo):
        for n in ipcs:
            sets.append(exact_set(found, folder, n))
            check_table(found, folder, sets[-1])
    return sets


def files_of_sets(ipcs: list[int]) -> list[str]:
    """The names of the files of sets."""
    return [f"ipc{n}/{file}" for n in ipcs for file in (EXACT, PARQUET)]


def fetch_sets(found: Found, ipcs: list[int], report: Report) -> Path:
    """The folder with the files of these sets; HubError, before a download, when they are too much together."""
    names = files_of_sets(ipcs)
    total = sum(file.size for file in listing(found.repo, names).values())
    if total > files.MOST_OF_SETS:
        message = f"The sets of '{found.repo.repo}' are refused: {total:,} bytes are more than {files.MOST_OF_SETS:,}."
        raise HubError(message, "Nothing was downloaded. `ddtool evaluate REPO --ipc N` takes one of the sets.")
    return fetch(found.repo, {name: LIMITS[name.split("/")[1]] for name in names}, report)


def exact_set(found: Found, folder: Path, ipc: int) -> SyntheticSet:
    """One set of a repo whose files are in `folder`; HubError or RunError when it is not what the facts say."""
    name = f"ipc{ipc}/{EXACT}"
    made = read_set(folder / name)
    if fault := set_fault(found, made, ipc):
        raise found.refused(name, fault)
    return made


def set_fault(found: Found, made: SyntheticSet, ipc: int) -> str:
    """In what a set differs from the facts of its repo; empty when in nothing."""
    facts = found.facts
    try:
        Source.of(made.source)
    except ValueError as error:
        return str(error)
    if made.stage not in STAGES:
        return f"its stage is '{made.stage:.40}'"
    if (made.ipc, made.class_names) != (ipc, facts.class_names):
        return f"it has {made.ipc} images per class of {made.num_classes} classes, and {FACTS} says otherwise"
    if made.method != facts.made_by:
        return f"it is of the method '{made.method:.40}', and {FACTS} says otherwise"
    labels = 4 * len(made) * made.num_classes  # bytes, of as many as there are images
    if (made.images.nbytes + labels) * made.factor**2 > files.MOST_OF_SETS:
        return f"its images hold {made.factor} x {made.factor} images each, which is too much"
    if tuple(made.images.shape[1:]) != facts.shape:
        return f"its images are of another size than {FACTS} says"
    return values_fault(made)


def values_fault(made: SyntheticSet) -> str:
    """What is wrong with the values of a set, which are finite; empty when nothing is."""
    if made.images.min() < 0 or made.images.max() > 1:
        return f"its pixels are from {made.images.min():.3g} to {made.images.max():.3g}, not in [0, 1]"
    if made.labels.abs().max() > MOST_LABEL:
        return f"its labels go up to {made.labels.abs().max():.3g}"
    classes = torch.arange(made.num_classes).expand(made.ipc, -1)
    if not torch.equal(made.hard.view(made.ipc, -1).sort(1).values, classes):
        return "its images are not in the order of image after image of every class"
    return ""


def check_table(found: Found, folder: Path, exact: SyntheticSet) -> None:
    """HubError or RunError unless a set's parquet file holds the same images, classes and labels as its exact tensors."""
    name = f"ipc{exact.ipc}/{PARQUET}"
    images, labels = read_parquet(folder / name, exact.num_classes)
    if not torch.equal(labels, exact.hard) or not torch.equal(images, exact.pixels()):
        raise found.refused(name, f"it is not the set of {EXACT}")
    stated = exact.labels_by_image()
    if not torch.equal(soft_labels(folder / name, stated), stated):
        raise found.refused(name, f"its soft labels are not those of {EXACT}")


def soft_labels(path: Path, like: Tensor) -> Tensor:
    """The soft labels in a set's parquet file, float32 (m, C) or (m, k, C) as `like`; an empty tensor when they are of another
    shape or type."""
    from pyarrow import ArrowException, compute, parquet

    try:
        values, m = parquet.read_table(path, columns=["soft_label"])["soft_label"].combine_chunks(), len(like)
        for length in like.shape[1:]:
            rows = compute.list_value_length(values)
            if len(rows) != m or rows.null_count or compute.min_max(rows).as_py() != {"min": length, "max": length}:
                return torch.empty(0)
            values, m = values.flatten(), m * length
        if str(values.type) != "float" or values.null_count:
            return torch.empty(0)
        return torch.from_numpy(values.to_numpy().copy()).view(like.shape)
    except (ArrowException, LookupError, TypeError, ValueError):
        return torch.empty(0)


def sets_of(name: str, ipc: int | None = None, stage: str | None = None, report: Report = silent) -> list[SyntheticSet]:
    """The sets that a repo's name means: of a dataset repo, or of the one that a generator's repo names as its own."""
    found = find(name, DATASET)
    if found.repo.kind == MODEL:
        other = found.facts.dataset_repo
        if not other:
            raise HubError(f"'{name}' holds a generator and no sets.", f"Make one: `ddtool generate {name} --ipc 10`.")
        report(Note(f"The sets of {name} are in the dataset repo {other}."))
        found = sets_beside(found)
    if found.kind != SETS:
        raise HubError(f"'{found.repo.repo}' holds no synthetic sets.", DAMAGED)
    sets = load_sets(found, ipc, report)
    if other_stages := {made.stage for made in sets} - {stage or made.stage for made in sets}:
        hint = "Earlier stages are not pushed; leave --stage out."
        raise UsageError(f"The sets of '{found.repo.repo}' are {', '.join(sorted(other_stages))}.", hint)
    return sets


def load_set(name: str, ipc: int | None = None, report: Report = silent) -> SyntheticSet:
    """One set of a dataset repo; `ipc` may be left out when there is only one."""
    found = sets_of(name, ipc, report=report)
    if len(found) != 1:
        there = ", ".join(str(made.ipc) for made in found)
        raise UsageError(
            f"'{name}' holds several sets.", f"Name one of them, ipc={there.partition(',')[0]} say: {there}."
        )
    return found[0]
