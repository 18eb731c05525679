"""A dataset that sets of others were made from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import image_folder

from ddtool.config import RunConfig
from ddtool.pipeline.scoring import load_target
from ddtool.sources.load import Target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "clothes")


@pytest.fixture
def target(folder: Path) -> Target:
    return load_target(RunConfig(dataset=str(folder)), lambda event: None)


@pytest.fixture
def colour(target: Target) -> Target:
    """The same target in three channels."""

    def coloured(data: Any) -> Any:
        return replace(data, images=data.images.repeat(1, 3, 1, 1), mean=data.mean * 3, std=data.std * 3)

    return Target("toy", coloured(target.train), target.test_size, lambda: coloured(target.test()))
