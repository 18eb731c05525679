"""Settings: JSON in and out, layers on top of each other, files and `--set`."""

import ast
import copy
import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddtool import api
from ddtool.cli.options import given as options_given
from ddtool.cli.options import parse_settings, read_config_file
from ddtool.config import (
    AdaptConfig,
    MetaConfig,
    PretrainConfig,
    RunConfig,
    by_device,
    from_dict,
    merged,
    most_from_hub,
    settings,
    to_dict,
)
from ddtool.config.layers import EARLIER, as_begun, leaves, nested
from ddtool.errors import UsageError
from ddtool.events import Event, Note
from ddtool.methods import METHODS, settings_of
from ddtool.models.generator import GeneratorConfig
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | NUMBERS | st.text()
NAMES = st.text("abcdefgh_", min_size=1, max_size=4)
TREES = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=3), lambda t: st.dictionaries(NAMES, t, max_size=3), max_leaves=8
)
MAPPINGS = st.dictionaries(NAMES, TREES, max_size=4)


RANGES = st.tuples(st.integers(2, 20), st.integers(0, 20)).map(lambda pair: (pair[0], sum(pair)))
IPCS = st.lists(st.integers(1), min_size=1, max_size=4, unique=True).map(tuple)
OWN: dict[Any, Callable[[], st.SearchStrategy]] = {
    GeneratorConfig: lambda: st.builds(
        GeneratorConfig, slots=st.integers(8, 256), side=st.integers(4, 128).map(lambda n: 2 * n)
    )
}
OWN_FIELDS: dict[Any, dict[str, st.SearchStrategy]] = {
    RunConfig: {"ipc": IPCS, "seconds": st.none()},
    MetaConfig: {"ways": RANGES, "ipc": RANGES, "label_images": st.integers(40)},
}
"""Fields that are bounded together with others."""


def bounded(kind: Any, extras: Sequence[Any]) -> st.SearchStrategy:
    """Values of a type within the bounds that its annotation declares."""
    bounds = {k: v for e in extras for part in getattr(e, "metadata", ()) for k, v in vars_of(part).items()}
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if kind is int:
        return st.integers(low, high if "lt" not in bounds else high - 1)
    if kind is float:
        limits = {"exclude_min": "gt" in bounds, "exclude_max": "lt" in bounds}
        return st.floats(low, high, allow_nan=False, allow_infinity=False, **limits)
    return strategy(kind)


def vars_of(part: Any) -> dict[str, Any]:
    """The attributes of a bound, such as {"ge": 0}."""
    return {name: getattr(part, name) for name in ("ge", "gt", "le", "lt") if hasattr(part, name)}


def strategy(hint: Any) -> st.SearchStrategy:
    """Values of a config field's type, configs included."""
    if hint in OWN:
        return OWN[hint]()
    if dataclasses.is_dataclass(hint):
        own = OWN_FIELDS.get(hint, {})
        hints = typing.get_type_hints(hint, include_extras=True)
        return st.builds(hint, **{name: strategy(t) for name, t in hints.items()} | own)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return bounded(args[0], args[1:])
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(st.none() if a is types.NoneType else strategy(a) for a in args))
    if origin is tuple and args[-1] is Ellipsis:
        return st.lists(strategy(args[0]), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*map(strategy, args))
    if origin is dict:
        return st.dictionaries(st.text(), SCALARS, max_size=3)
    return {bool: st.booleans(), int: st.integers(), float: NUMBERS, str: st.text()}[hint]


# -------------------------------------------------------------------------------------------------- to and from JSON


@pytest.mark.parametrize("cls", [RunConfig, MetaConfig, PretrainConfig])
@given(data=st.data())
def test_a_config_survives_json(cls: type, data: st.DataObject) -> None:
    config = data.draw(strategy(cls))
    assert from_dict(cls, json.loads(json.dumps(to_dict(config)))) == config


@given(data=st.data())
def test_a_saved_config_shares_nothing_with_the_one_it_came_from(data: st.DataObject) -> None:
    config = data.draw(strategy(RunConfig))
    to_dict(config)["data"]["added"] = 1
    assert "added" not in config.data


def test_what_is_not_given_keeps_its_default() -> None:
    config = from_dict(RunConfig, {"adapt": {"steps": 7}})
    assert config.adapt.steps == 7
    assert dataclasses.replace(config, adapt=RunConfig().adapt) == RunConfig()


def test_every_setting_is_explained() -> None:
    """A string follows every field of every dataclass."""
    tree = ast.parse(Path(settings.__file__).read_text(encoding="utf-8"))
    pairs = [
        pair
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for pair in zip(node.body, [*node.body[1:], None], strict=True)
    ]
    fields = [(field, after) for field, after in pairs if isinstance(field, ast.AnnAssign)]
    assert len(fields) > 40
    for field, after in fields:
        assert isinstance(getattr(after, "value", None), ast.Constant), ast.unparse(field)


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"stepz": 1}, "Unknown setting 'stepz'", ""),
        ({"adapt": {"stepz": 1}}, "Unknown setting 'adapt.stepz'", "'steps'"),
        ({"refine": {"lr_pixel": 1}}, "'refine.lr_pixel'", "'lr_pixels'"),
        ({"adapt": 3}, "'adapt' must be a mapping", ""),
        ({"adapt": {"steps": 1.5}}, "'adapt.steps' must be of type int", ""),
        ({"adapt": {"steps": True}}, "'adapt.steps' must be of type int", ""),
        ({"adapt": {"lr": "fast"}}, "'adapt.lr' must be a finite number", ""),
        ({"adapt": {"lr": math.nan}}, "'adapt.lr' must be a finite number", ""),
        ({"adapt": {"lr": math.inf}}, "'adapt.lr' must be a finite number", ""),
        ({"adapt": {"lr": 10**400}}, "'adapt.lr' must be a finite number", ""),
        ({"adapt": {"lr": True}}, "'adapt.lr' must be a finite number", ""),
        ({"adapt": {"lr": None}}, "'adapt.lr' must be a finite number", ""),
        ({"adapt": {"betas": [0.9]}}, "'adapt.betas' must be a list of 2", ""),
        ({"adapt": {"betas": 0.9}}, "'adapt.betas' must be a list", ""),
        ({"adapt": {"seen_ipcs": ["ten"]}}, "'adapt.seen_ipcs' must be of type int", ""),
        ({"ipc": [1, None]}, "'ipc' must be of type int", ""),
        ({"flip": "yes"}, "'flip' must be of type bool", ""),
        ({"data": ["a"]}, "'data' must be of type dict", ""),
        ({"architecture": {"side": 13}}, "'architecture.side' must be a multiple of 2", "architecture.side=32"),
        ({"architecture": {"slots": 9999}}, "'architecture.slots' must be at most 8192", "architecture.slots=512"),
        ({3: 4}, "Unknown setting '3'", ""),
        ([1], "must be a mapping", ""),
    ],
)
def test_a_wrong_setting_is_named(values: Any, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_dict(RunConfig, values)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_numbers_are_read_as_people_write_them() -> None:
    """YAML reads 1e-3 as text; a list of one is written as the one; whole numbers are floats too."""
    config = from_dict(RunConfig, {"adapt": {"lr": "1e-3", "min_lr_ratio": 0, "seen_ipcs": 4}, "ipc": 10})
    assert (config.adapt.lr, config.adapt.min_lr_ratio, config.adapt.seen_ipcs, config.ipc) == (1e-3, 0.0, (4,), (10,))


class Whole:
    """A whole number that is none of Python's own."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.mark.parametrize("ipc", [np.array([1, 10]), [np.int64(1), Whole(10)], (np.uint8(1), 10), torch.tensor([1, 10])])
@pytest.mark.parametrize("make", [lambda values: RunConfig(**values), lambda values: from_dict(RunConfig, values)])
def test_whole_numbers_may_be_of_any_kind(make: Callable[[Any], RunConfig], ipc: Any) -> None:
    config = make({"ipc": ipc, "seed": np.int64(3), "data": {"resolution": Whole(32)}, "label_scale": np.float32(0.5)})
    wanted = RunConfig(ipc=(1, 10), seed=3, data={"resolution": 32}, label_scale=0.5)
    assert config == wanted
    assert json.dumps(to_dict(config)) == json.dumps(to_dict(wanted))
    assert make({"ipc": np.int64(5)}).ipc == make({"ipc": Whole(5)}).ipc == (5,)


@pytest.mark.parametrize(
    "value", [np.float64(1.5), np.bool_(True), np.array([1.5]), np.array([[1]]), np.array(1.5), "1", 1.0]
)
@pytest.mark.parametrize("make", [lambda values: RunConfig(**values), lambda values: from_dict(RunConfig, values)])
def test_what_is_no_whole_number_is_refused_as_before(make: Callable[[Any], RunConfig], value: Any) -> None:
    for name in ("seed", "ipc"):
        with pytest.raises(UsageError, match=f"'{name}' must be of type int"):
            make({name: value})


@pytest.mark.parametrize(
    ("cls", "values", "message", "hint"),
    [
        (AdaptConfig, {"steps": -1}, "'steps' must be at least 0, got -1", "steps=1000, its default"),
        (AdaptConfig, {"betas": (0.9, 1.0)}, "'betas' must be less than 1, got 1.0", "betas=[0.9, 0.99], its default"),
        (AdaptConfig, {"stepz": 1}, "Unknown setting 'stepz'", "Did you mean 'steps'?"),
        (AdaptConfig, {"lr": True}, "'lr' must be a finite number", ""),
        (RunConfig, {"ipc": (1, 2), "seconds": 1.0}, "for one set", ""),
        (
            MetaConfig,
            {"outer": "reptil"},
            "'outer' must be 'maml' or 'reptile', got 'reptil'",
            "Did you mean 'reptile'?",
        ),
        (
            MetaConfig,
            {"ways": (1, 3)},
            "'ways' must be a range from at least 2, got (1, 3)",
            "ways=[5, 20], its default",
        ),
        (MetaConfig, {"ipc": (1, 300)}, "'meta.label_images' must be at least the largest IPC", "label_images=300"),
    ],
)
def test_a_config_with_a_wrong_value_cannot_be_made(cls: type, values: dict, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        cls(**values)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_change_is_checked_too() -> None:
    with pytest.raises(UsageError, match="'steps' must be at least 0"):
        dataclasses.replace(AdaptConfig(), steps=-1)


@pytest.mark.parametrize(
    "config",
    [RunConfig(), PretrainConfig(), *(settings_of(name, {}) for name, kind in METHODS.items() if kind.record.settings)],
)
def test_defaults_are_within_their_bounds(config: Any) -> None:
    """pydantic does not check a default."""
    assert from_dict(type(config), to_dict(config)) == config


def test_settings_that_are_no_json_are_refused() -> None:
    circle: dict[str, Any] = {}
    circle["data"] = circle
    for values in (circle, {"dataset": "\ud800"}):
        with pytest.raises(UsageError, match="configuration") as caught:
            from_dict(RunConfig, values)
        assert caught.value.hint


def test_what_takes_memory_declares_the_most_that_a_repo_may_ask_for() -> None:
    most = most_from_hub(RunConfig)
    assert most["features.width"] == most["labels.width"] == 4096
    assert {"fit.networks", "fit.real_batch", "seed"} <= most.keys()


# --------------------------------------------------------------------------------------------------- earlier versions


@pytest.mark.parametrize("old", [name for name, new in EARLIER.items() if new])
def test_an_earlier_name_is_read_with_a_note(old: str) -> None:
    new, notes = EARLIER[old], []
    cls = PretrainConfig if old.startswith("meta.") else RunConfig
    value = "0.5" if old.endswith("lr_floor") else "false"
    config = from_dict(cls, parse_settings([f"{old}={value}"]), note=notes.append)
    assert config == from_dict(cls, parse_settings([f"{new}={value}"]))
    assert config != cls()
    assert notes == [f"Setting '{old}' is now called '{new}'."]


@pytest.mark.parametrize("old", [name for name, new in EARLIER.items() if new is None])
def test_a_setting_that_means_nothing_any_more_is_left_out_with_a_note(old: str) -> None:
    notes: list[str] = []
    assert from_dict(RunConfig, parse_settings([f"{old}=3"]), note=notes.append) == RunConfig()
    assert notes == [f"Setting '{old}' no longer means anything, and is left out."]


def test_an_earlier_name_and_the_present_one_exclude_each_other_in_one_place_only(engine: Engine) -> None:
    old, new = {"adapt": {"lr_floor": 0.5}}, {"adapt": {"min_lr_ratio": 0.25}}
    with pytest.raises(UsageError, match="and both are given"):
        from_dict(RunConfig, merged(old, new))
    events: list[Event] = []
    above = api.resolve(engine, "auto", {"dataset": "sample"}, old, new, report=events.append)
    below = api.resolve(engine, "auto", {"dataset": "sample"}, new, old)
    assert (above.adapt.min_lr_ratio, below.adapt.min_lr_ratio) == (0.25, 0.5)
    assert [event.text for event in events if isinstance(event, Note)] == [
        "Setting 'adapt.lr_floor' is now called 'adapt.min_lr_ratio'."
    ]
    assert old == {"adapt": {"lr_floor": 0.5}}


# ------------------------------------------------------------------------------------------------------------- layers


@given(MAPPINGS, MAPPINGS)
def test_merged_puts_one_on_top_of_the_other(base: dict, over: dict) -> None:
    before = json.dumps([base, over])
    both = merged(base, over)
    assert json.dumps([base, over]) == before
    assert merged(both, over) == both
    assert set(both) == set(base) | set(over)
    assert merged(base, {}) == base
    assert merged({}, over) == over
    for key, value in over.items():
        if not isinstance(value, dict):
            assert both[key] is value
        elif isinstance(base.get(key), dict):
            assert both[key] == merged(base[key], value)


def test_layers_stack_from_defaults_to_flags(engine: Engine) -> None:
    layers = [{"adapt": {"steps": 1, "lr": 0.1}}, {"adapt": {"steps": 2}}, {"adapt": {"steps": 3}, "dataset": "sample"}]
    config = api.resolve(engine, "auto", *layers)
    assert (config.adapt.steps, config.adapt.lr) == (3, 0.1)
    assert config.labels.images == 20_000  # of the preset 'small', with which 'auto' begins
    assert config.refine.lr_pixels == RunConfig().refine.lr_pixels


def test_presets_of_pretraining_follow_the_device() -> None:
    assert by_device("auto", "cuda") == by_device("gpu", "cpu") == {}
    assert by_device("auto", "mps") == by_device("cpu", "cuda") != {}
    with pytest.raises(UsageError, match="Unknown preset 'cpuu'") as caught:
        by_device("cpuu", "cpu")
    assert "'cpu'" in caught.value.hint


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"adapt": {"steps": -1}}, "'adapt.steps' must be at least 0"),
        ({"refine": {"steps": -1}}, "'refine.steps'"),
        ({"refine": {"real_batch": 0}}, "'refine.real_batch' must be at least 1"),
        ({"refine": {"synthetic_batch": 0}}, "'refine.synthetic_batch'"),
        ({"labels": {"width": 0}}, "'labels.width'"),
        ({"labels": {"ridge": 0}}, "'labels.ridge'"),
        ({"adapt": {"betas": [0.9, 1.0]}}, "'adapt.betas'"),
        ({"adapt": {"seen_ipcs": [0]}}, "'adapt.seen_ipcs'"),
        ({"evaluate": {"seeds": 0}}, "'evaluate.seeds'"),
        ({"evaluate": {"protocol": "quik"}}, "'quik'"),
        ({"features": {"norm": "bach"}}, "norm 'bach'"),
        ({"seed": -1}, "'seed'"),
        ({"seed": 2**63}, "'seed'"),
        ({"ipc": [2, 2]}, "twice"),
        ({"dataset": ""}, "No dataset"),
    ],
)
def test_values_that_no_run_can_use_are_refused_before_anything_is_loaded(
    values: dict, named: str, engine: Engine
) -> None:
    with pytest.raises(UsageError, match=r".") as caught:
        api.resolve(engine, "auto", {"dataset": "sample"} | values)
    assert named in caught.value.message
    assert caught.value.hint


# ----------------------------------------------------------------------------------------------- the command line's


def test_leaves_are_full_names_with_their_values() -> None:
    values = {"a": {"b": 1, "c": {"d": None}}, "e": [1], "f": {}}
    assert list(leaves(values)) == [("a.b", 1), ("a.c.d", None), ("e", [1]), ("f", {})]
    assert nested(dict(leaves(values))) == values


@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(".".join), SCALARS, max_size=4))
def test_set_builds_nested_settings(flat: dict[str, Any]) -> None:
    expected: dict[str, Any] = {}
    for key, value in flat.items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        expected = merged(expected, nested)
    assert parse_settings([f"{key}={json.dumps(value)}" for key, value in flat.items()]) == expected


@pytest.mark.parametrize(
    ("pairs", "settings"),
    [
        ([], {}),
        (["a=1", "b.c=[2,4]", "b.d=1e-3"], {"a": 1, "b": {"c": [2, 4], "d": 1e-3}}),
        (["a.b=1", "a.b=2"], {"a": {"b": 2}}),
        (["a.b=true", "a.c=null"], {"a": {"b": True, "c": None}}),
        (["a=text", "b=", "c=x=y"], {"a": "text", "b": "", "c": "x=y"}),
        (["a=" + "1" * 5000], {"a": "1" * 5000}),
    ],
)
def test_set_reads_json_where_it_parses(pairs: list[str], settings: dict) -> None:
    assert parse_settings(pairs) == settings


@pytest.mark.parametrize("pair", ["a", "=1", ""])
def test_set_without_a_name_or_a_value_is_refused(pair: str) -> None:
    with pytest.raises(UsageError, match="NAME=VALUE"):
        parse_settings([pair])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "ipc: [2, 3]\nadapt:\n  lr: 1e-3\n"),
        ("c.yml", "{ipc: [2, 3], adapt: {lr: 1e-3}}"),
        ("c.json", '{"ipc": [2, 3], "adapt": {"lr": 1e-3}}'),
        ("c.toml", "ipc = [2, 3]\n[adapt]\nlr = 1e-3\n"),
    ],
)
def test_a_file_in_three_formats(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    config = from_dict(RunConfig, read_config_file(tmp_path / name))
    assert (config.ipc, config.adapt.lr) == ((2, 3), 1e-3)


def test_no_file_or_an_empty_one_settles_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# nothing yet\n")
    assert read_config_file(None) == read_config_file(tmp_path / "c.yaml") == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.yaml", "a: [1", "not valid YAML"),
        ("c.json", "{", "not valid JSON"),
        ("c.toml", "a = ", "not valid TOML"),
        ("c.conf", "a: [1", "not valid YAML"),
        ("c.json", "[1, 2]", "must hold a mapping"),
        ("c.yaml", "!!python/object/apply:os.system [ls]", "not valid YAML"),
        ("c.json", b"\xff\xfe\x00", "not valid JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_explained(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=message) as caught:
        read_config_file(tmp_path / name)
    assert caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml: No such file"):
        read_config_file(tmp_path / "absent.yaml")


def test_only_options_that_were_given_count() -> None:
    assert options_given(a=None, b=[], c=0, d=False, e="x") == {"c": 0, "d": False, "e": "x"}


def test_a_run_of_an_earlier_version_had_no_augmented_copies() -> None:
    """Its configuration does not name them, and is what it resumes by; one that says null says what is usual today."""
    values: Any = {"adapt": {"steps": 3}, "refine": {"augmented_copies": None}, "meta": {"task": {}}, "seed": 1}
    before = copy.deepcopy(values)
    assert as_begun(values) == {
        "adapt": {"steps": 3, "augmented_copies": 0},
        "refine": {"augmented_copies": None},
        "meta": {"task": {"augmented_copies": 0}},
        "seed": 1,
    }
    assert values == before
    for damaged in ([], None, {"adapt": 3}):
        assert as_begun(damaged) == damaged


def test_a_run_that_was_begun_by_an_earlier_version_goes_on_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    stated: Any = to_dict(RunConfig(dataset="sample"))
    for section in ("adapt", "refine", "fit"):
        del stated[section]["augmented_copies"]
    (folder / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    config = Run(folder).config()
    assert (config.adapt.augmented_copies, config.refine.augmented_copies, config.fit.augmented_copies) == (0, 0, 0)
    assert RunConfig(dataset="sample").refine.augmented_copies is None
