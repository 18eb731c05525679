"""Which sets a path means."""

from dataclasses import replace
from pathlib import Path

import torch
from conftest import toy_images

from ddtool.data.images import real_images
from ddtool.pipeline.scoring import find_sets
from ddtool.runs.formats import write_set_folder


def test_folders_of_several_sets_come_by_their_numbers(tmp_path: Path) -> None:
    made = real_images(toy_images(2, seed=1), torch.arange(8), flip=True)
    for name, scale in {"set10": 10, "set2": 2, "set1": 1, "setb": 12, "seta": 11}.items():
        write_set_folder(tmp_path / name / "ipc2", replace(made, label_scale=float(scale)))
    assert [found.label_scale for found in find_sets(tmp_path, None, None).sets] == [1, 2, 10, 11, 12]
