"""`ddtool cache`: what is kept, since when, and what goes."""

import json
import os
import time
from pathlib import Path

import pytest
import tiny
from tiny import done, refused

from ddtool.sources import load as sources

DAY = 86400


def filled(tmp_path: Path) -> Path:
    """A cache with two datasets, experts, memory of the Hub, a leftover, and a file of somebody else."""
    for name, old in (("old", 40), ("new", 1)):
        sources.load(str(tiny.image_folder(tmp_path / name, side=16 if old == 40 else 24)))
        for path in (tmp_path / "cache").rglob("*"):
            if path.is_file() and path.stat().st_mtime > time.time() - 100:
                os.utime(path, (time.time() - old * DAY, time.time() - old * DAY))
    cache = tmp_path / "cache"
    for place in ("methods/0123456789abcdef", "hub", ".tmp-gone"):
        (cache / place).mkdir(parents=True)
        (cache / place / "file.json").write_text("{}" * 100)
        os.utime(cache / place / "file.json", (time.time() - 10 * DAY,) * 2)
    (cache / "notes").mkdir()
    (cache / "notes" / "mine.txt").write_text("keep")
    return cache


def test_what_is_cached_is_listed_with_size_and_last_use(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    said = json.loads(done("cache", "--json").stdout)
    assert said["cache"] == str(cache)
    names = {(entry["kind"], entry["name"]) for entry in said["entries"]}
    assert names == {
        ("dataset", "old: 24 images 1x16x16, 3 classes"), ("dataset", "new: 24 images 1x24x24, 3 classes"),
        ("experts", "0123456789abcdef"), ("hub", "hub"), ("leftover", ".tmp-gone"),
    }  # fmt: skip
    for entry in said["entries"]:
        assert entry["bytes"] == sum(f.stat().st_size for f in Path(entry["path"]).rglob("*") if f.is_file())
    assert said["bytes"] == sum(entry["bytes"] for entry in said["entries"])
    ages = {
        e["name"][:3]: time.time() - time.mktime(time.strptime(e["used"], "%Y-%m-%dT%H:%M:%S")) for e in said["entries"]
    }
    assert round(ages["old"] / DAY) == 40
    assert round(ages["new"] / DAY) == 1
    assert "old: 24 images" in " ".join(done("cache").stdout.split())


def test_what_was_not_used_is_removed_and_nothing_else(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    said = json.loads(done("cache", "--prune", "--json").stdout)
    assert [entry["name"][:3] for entry in said["removed"]] == ["old"]
    assert not Path(said["removed"][0]["path"]).exists()
    assert len(said["entries"]) == 4
    done("cache", "--prune", "--days", 0)
    assert tiny.listing(cache) == ["notes/mine.txt"]
    sources.load(str(tmp_path / "old"))
    assert "dataset" in done("cache").stdout


def test_an_empty_cache_is_no_error() -> None:
    assert json.loads(done("cache", "--json").stdout)["entries"] == []


def test_days_are_for_what_is_removed(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    before = tiny.listing(cache)
    assert "Hint: ddtool cache --prune --days 0.5" in refused(2, "cache", "--days", 0.5)
    assert tiny.listing(cache) == before


def test_what_cannot_be_removed_is_not_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    monkeypatch.setattr(
        "ddtool.runtime.cache.shutil.rmtree", lambda path, ignore_errors: None
    )  # as on a read-only disk
    said = json.loads(done("cache", "--prune", "--days", 0, "--json").stdout)
    assert (len(said["removed"]), len(said["entries"])) == (0, 5)
