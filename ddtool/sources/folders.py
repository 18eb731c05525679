"""A folder of images → splits and classes, by a few strict rules (docs/datasets.md). Nothing in it vanishes unsaid.

Splits are folders right below the root with the whole name of one. Classes are the folders right below a split, or below the
root where there are no splits. Below the root, and in file names, words like "train" and "test" mean nothing.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from ddtool.errors import DataError
from ddtool.sources.files import Folder, kinds
from ddtool.sources.options import DataOptions
from ddtool.sources.readers import Found, ImageFile, ImageFiles
from ddtool.sources.schema import TEST_NAMES, TRAIN_NAMES, train_split
from ddtool.text import count, is_or_are, listed

_BATCH = re.compile(r"(batch|part|chunk|shard)(es)?[ _.-]?\d*|images?|imgs?|jpe?gs?|pngs?", re.IGNORECASE)
"""Names of folders that divide the images of a class and mean nothing more."""

_PICTURES = {"image", "images", "img", "imgs", "jpegimages", "photos", "pictures", "inputs"}
_MASKS = {
    "mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations", "segmentationclass",
    "gt", "groundtruth", "ground_truth",
}  # fmt: skip
_MASK_NAME = re.compile(r"(.+?)[ _-](mask|seg|segmentation|gt)(_\d+)?", re.IGNORECASE)


def read_folder(root: Folder, options: DataOptions) -> ImageFiles:
    """The images below `root`. Raises DataError, with the tree drawn, when it is not clear which folders are classes."""
    if not root.holds_images:
        left = sum((folder.left_out() for folder in root.walk()), Counter[str]())
        what = f"It holds {kinds(left)}." if left else "It is empty."
        raise DataError(f"There are no images in '{root.path}'. {what}", "See docs/datasets.md for what can be read.")
    found, top = Found(), root
    if not options.no_splits and options.class_level is None:
        top = _only_folder(root, options)
        found.notes += [f"The dataset is in the folder '{top.inside}'."] if top is not root else []
    if options.class_level is None:
        refuse_masks(top)
    splits = split_folders(top, options) or {"train": top}
    reader = ImageFiles(root.path, *_labelled(splits, options, found), found)
    used = Counter(file.inside for files in reader.splits.values() for file in files)
    for folder in root.walk():
        found.skipped += folder.left_out()
        outside = sum(folder.place(name) not in used for name in folder.images)
        found.skipped["image outside any class" if outside == 1 else "images outside any class"] += outside
    found.skipped = +found.skipped
    return reader


def _only_folder(root: Folder, options: DataOptions) -> Folder:
    """The folder that holds the dataset: archives, and those who unpack them, often put one around it."""
    while not root.images and len(inner := [f for f in root.folders if f.holds_images]) == 1:
        (only,) = inner
        deeper = [folder for folder in only.folders if folder.holds_images]
        if not deeper or _named_splits([only], options) or all(_BATCH.fullmatch(folder.name) for folder in deeper):
            break
        root = only
    return root


# --- splits ---------------------------------------------------------------------------------------------------------


def _named_splits(folders: Iterable[Folder], options: DataOptions) -> list[Folder]:
    asked = {name.casefold() for name in (options.train_split, options.test_split) if name}
    known = {*TRAIN_NAMES, *TEST_NAMES, *asked}
    return [folder for folder in folders if folder.name.casefold() in known]


def split_folders(root: Folder, options: DataOptions) -> dict[str, Folder]:
    """The folders that are splits, by name in lower case. Raises DataError when others with images stand beside them."""
    if options.no_splits:
        return {}
    splits = [folder for folder in _named_splits(root.folders, options) if folder.holds_images]
    others = [folder for folder in root.folders if folder.holds_images and folder not in splits]
    if splits and others and options.train_split is None:
        names = ", ".join(f"'{folder.name}'" for folder in splits), ", ".join(f"'{f.name}'" for f in others[:5])
        raise DataError(
            f"'{root.path}' holds folders named like splits ({names[0]}) beside others ({names[1]}):\n{root.tree()}",
            "If all of them are classes, add --no-splits; else name the splits: --train-split NAME --test-split NAME.",
        )
    by_name = {folder.name.lower(): folder for folder in splits}
    if len(by_name) < len(splits):
        raise DataError(
            f"'{root.path}' holds two splits whose names differ in case only:\n{root.tree()}", "Rename one."
        )
    if splits:
        train_split(list(by_name), options.train_split)
    return by_name


# --- classes --------------------------------------------------------------------------------------------------------

_Classes = dict[str, list[str]]  # class → paths of its images


def _labelled(
    splits: dict[str, Folder], options: DataOptions, found: Found
) -> tuple[dict[str, list[ImageFile]], tuple[str, ...]]:
    """(the images of each split with class numbers, the names of the classes)."""
    train = train_split(list(splits), options.train_split)
    by_class = _classes(splits[train], options.class_level, found)
    _check_classes(by_class, splits[train])
    names = tuple(sorted(by_class))
    files = {train: [ImageFile(path, i) for i, name in enumerate(names) for path in by_class[name]]}
    for split, folder in splits.items():
        if split != train:
            files[split] = _other_split(split, folder, names, options, found)
    return files, names


def _other_split(
    split: str, folder: Folder, names: tuple[str, ...], options: DataOptions, found: Found
) -> list[ImageFile]:
    """The images of a split that is not trained on; without labels when it has no folders of the known classes."""
    by_class = _classes(folder, options.class_level, found)
    known = set(names) & set(by_class)
    if not known and len(by_class) > 1:
        raise DataError(
            f"The classes of split '{split}' ({listed(sorted(by_class))}) are none of those to learn ({listed(names)}).",
            "Give the folders of both splits the same names, or leave this split out: --train-split, --test-split.",
        )
    if not known:
        return [ImageFile(path, None) for path in folder.all_images()]
    if missing := [name for name in names if not by_class.get(name)]:
        found.notes.append(
            f"{len(missing)} of {len(names)} classes have no image in split '{split}': {listed(missing)}."
        )
    if unknown := sorted(set(by_class) - known):
        lost = sum(len(by_class[name]) for name in unknown)
        found.notes.append(
            f"{count(lost, 'image')} of split '{split}' {is_or_are(lost)} of classes that are not to learn: {listed(unknown)}."
        )
    return [ImageFile(path, i) for i, name in enumerate(names) for path in by_class.get(name, [])]


def _classes(base: Folder, level: int | None, found: Found) -> _Classes:
    """The images below the folders of each class."""
    if level is None:
        for folder in base.folders:
            _check_depth(folder, base)
    classes: _Classes = {}
    parents: dict[str, set[str]] = {}
    for folder in _at_level(base, level or 1):
        name = unicodedata.normalize("NFC", folder.name)
        classes.setdefault(name, []).extend(folder.all_images())
        parents.setdefault(name, set()).add(folder.inside)
    if several := [name for name, places in parents.items() if len(places) > 1]:
        found.notes.append(
            f"Folders in several places are taken together for {count(len(several), 'class')}: {listed(sorted(several))}."
        )
    return classes


def _at_level(base: Folder, level: int) -> list[Folder]:
    folders = base.folders
    for _ in range(level - 1):
        folders = [inner for folder in folders for inner in folder.folders]
    return folders


def _check_depth(folder: Folder, base: Folder) -> None:
    """Raises DataError when a class holds folders that may be classes themselves."""
    for inner in folder.folders:
        if inner.holds_images and not _BATCH.fullmatch(inner.name):
            raise DataError(
                f"The folder '{inner.inside}' lies deeper than the classes, which are the folders of "
                f"'{base.inside or base.name}':\n{base.tree()}",
                "Say how deep the classes are: --class-level 2 for the inner folders, --class-level 1 for the outer ones.",
            )
        _check_depth(inner, base)


def _check_classes(classes: _Classes, base: Folder) -> None:
    where = f"'{base.inside or base.path}'"
    if not classes:
        hint = "Put the images of each class into a folder of its own, or add a table that names files and labels."
        raise DataError(f"The images in {where} are not in folders by class:\n{base.tree()}", hint)
    if empty := [name for name, images in classes.items() if not images]:
        holding = [folder for folder in base.walk() if unicodedata.normalize("NFC", folder.name) in empty]
        left = sum((inner.left_out() for folder in holding for inner in folder.walk()), Counter[str]())
        what = f" In it: {kinds(left)}." if left else ""
        number = "1 class folder has" if len(empty) == 1 else f"{len(empty)} class folders have"
        hint = "Add images, or remove the folder."
        hint = "Install it: pip install pillow-heif. Or remove the folder." if "pillow-heif" in what else hint
        raise DataError(f"{number} no image in {where}: {listed(sorted(empty))}.{what}", hint)


# --- masks ----------------------------------------------------------------------------------------------------------


def refuse_masks(root: Folder) -> None:
    """Raises DataError where masks lie beside the images: such a dataset is for segmentation, and has no classes."""
    for folder in root.walk():
        inner = {f.name.casefold() for f in folder.folders if f.holds_images or f.files}
        stems = {name.rpartition(".")[0] for name in folder.images}
        masks = [stem for stem in stems if (match := _MASK_NAME.fullmatch(stem)) and match[1] in stems]
        if (inner & _PICTURES and inner & _MASKS) or 3 * len(masks) > len(stems):
            raise DataError(
                f"There are masks or annotations beside the images in '{folder.inside or folder.path}':\n{root.tree()}",
                "Distillation needs one class an image. Move the masks elsewhere; if these are classes, --class-level 1.",
            )
