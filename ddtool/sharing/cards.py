"""Cards of Hub repos: Markdown under YAML metadata, a pure function of the facts that a repo keeps in its ddtool.json.

The words are in `hub_cards/*.j2`; here facts become what the templates lay out. Names and free text in the facts come from
datasets and repos of other people: every string passes `one_line` (or `code`) before a template sees it, and metadata is
written by a YAML writer.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import jinja2
import yaml

Facts = Mapping[str, Any]

PACKAGE = Path(__file__).parents[1]
TEMPLATES = (PACKAGE / "hub_cards", PACKAGE.parent / "hub_cards")
"""In an installed package; in a checkout."""

SAMPLE_OF = "zalando-datasets/fashion_mnist"
"""The dataset that the bundled sample is drawn from."""

STAGES = {"random": "random real images", "initial": "initial samples", "generated": "generator alone"}
"""What a stage is called in a table; other stages keep their names."""

OTHERS = {True: "distilled set", False: "chosen images"}
"""What the set of another method than MGDD is called in a table, by whether it learns."""

LAST_PROTOCOLS = ("quick", "kernel-ridge")
"""Protocols that are listed below the field's own."""

USUAL_IPCS = (20, 10, 50, 5, 2)
"""Sizes for the example of `ddtool generate`, the first that fits."""

COUNTS = ("iterations", "weights_of_iteration", "tasks", "seconds")
TOLD = (*COUNTS, "datasets", "dataset", "licence", "hardware", "settings")
"""What of a pre-training has its place in the card; the rest, and a `curve` that is no table, is listed as it is."""

FIGURES = ("loss before", "loss after", "accuracy")
"""Columns of a pre-training's `curve` that the card explains."""

COLUMNS = ("iteration", *FIGURES)
"""Columns of a curve that come first, in this order: JSON with sorted keys has lost the one they were written in."""

WIDTH = 90
"""Characters a line of a command, if its options allow."""

SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M"}
"""Upper bound → the Hub's name for a dataset's size."""

HUB_LICENCES = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1
    lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl
    lgpl-lr unknown
"""
"""The identifiers that the Hub accepts for `license`, apart from `other` and those of single models."""

_METHOD = re.compile("[a-z][a-z0-9-]{0,30}")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")
_JOINER = "\u2060"
_LINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=[\w.+-])(?=@)", re.IGNORECASE)
"""Where a renderer would see that an address begins; a word joiner there shows nothing and stops it."""
_SECRET = re.compile(r"hf_[A-Za-z0-9]{16,}|(?<=://)[^/@\s]+@")


class Code(str):
    """Text for code or a link's target: kept as it is, but for what would end the line or the block."""


def model_card(facts: Facts) -> str:
    """README.md of a model repo; facts of kind 'adapted-generator' or 'meta-generator'."""
    return _render("model.md.j2", model_metadata(facts), facts)


def dataset_card(facts: Facts) -> str:
    """README.md of a dataset repo; facts of kind 'synthetic-dataset'."""
    return _render("dataset.md.j2", dataset_metadata(facts), facts)


# ----------------------------------------------------------------------------------------------------------- metadata


def model_metadata(facts: Facts) -> dict[str, Any]:
    """The Hub's metadata of a model repo; what is unknown is left out."""
    trained_on = [_hub_id(facts), *(data.get("name") for data in _datasets(facts))]
    index = model_index(facts)
    return _known(
        {
            **licence(facts),
            "library_name": "ddtool",
            "tags": ["ddtool", "dataset-distillation", "dataset-condensation", "mgdd"],
            "datasets": sorted({str(name) for name in trained_on if _is_repo(name)}),
            "base_model": base_model(facts),
            "metrics": ["accuracy"] if index else [],
            "model-index": index,
        }
    )


def dataset_metadata(facts: Facts) -> dict[str, Any]:
    """The Hub's metadata of a dataset repo: one configuration for every IPC."""
    ipcs = [ipc for ipc, _ in _sets(facts)]
    images = sum(made["images"] for _, made in _sets(facts) if _is_number(made.get("images")))
    method = _method(facts)
    what = "distilled" if method["learns"] else method["title"]
    return _known(
        {
            **licence(facts),
            "pretty_name": f"{source_name(facts)}, {what}" + (f": {_enumerated(ipcs)} per class" if ipcs else ""),
            "tags": ["ddtool", "dataset-distillation", "dataset-condensation", method["name"]]
            + ["synthetic"] * method["learns"],
            "task_categories": ["image-classification"],
            "size_categories": [next((name for bound, name in SIZES.items() if images < bound), "1M<n<10M")],
            "source_datasets": [_hub_id(facts) or "extended"],
            "configs": [
                {"config_name": f"ipc{n}", "data_files": [{"split": "train", "path": f"ipc{n}/train.parquet"}]}
                for n in ipcs
            ],
        }
    )


def licence(facts: Facts) -> dict[str, Any]:
    """The source's licence where the Hub knows it, else `other` with a name and, for a Hub dataset, where to read it."""
    stated = _stated_licence(facts)
    names = [name.strip().lower() for name in stated.split(",") if name.strip()]
    if names and set(names) <= set(HUB_LICENCES.split()):
        return {"license": names[0] if len(names) == 1 else names}
    slug = re.sub(r"[^a-z0-9.]+", "-", " ".join(names)).strip("-.")[:60]
    repo = _hub_id(facts)
    link = f"https://huggingface.co/datasets/{repo}" if repo else None
    if slug in ("", "other"):
        slug = "terms-of-the-training-data" if facts.get("kind") == "meta-generator" else "terms-of-the-source-dataset"
    return _known({"license": "other", "license_name": slug, "license_link": link})


def base_model(facts: Facts) -> str | None:
    """The Hub repo of the meta generator, when it came from one ("namespace/name@revision")."""
    repo, at, _ = _text(facts.get("generator")).partition("@")
    return repo if at and _is_repo(repo) else None


def model_index(facts: Facts) -> list[dict[str, Any]]:
    """Scores on the target's test split, the generator's own and those of refined sets, each named as what it is.

    Left out: real images, initial samples, other test sets, and kernel-ridge, which is a guide and not a result.
    """
    source, metrics = _mapping(facts.get("source")), []
    for score in _scores(facts):
        counted = score.get("stage") in ("generated", "refined") and score.get("protocol") != "kernel-ridge"
        if counted and _tested_here(score, facts) and _is_number(score.get("mean")):
            metrics.append({"type": "accuracy", "value": round(score["mean"], 2), "name": metric_name(score)})
    if not metrics:
        return []
    split = _text(source.get("test_split"))
    kind, name = _text(source.get("kind")) or "local", source_name(facts)
    dataset = {
        "type": (_hub_id(facts) if kind == "hub" else None) or kind,
        "name": name if kind == "hub" else f"{name} ({kind} data)",
        "config": _text(source.get("config")),
        "split": split if re.fullmatch(r"\w+(\.\w+)*", split) else None,
        "revision": _text(source.get("revision")),
    }
    task = {"type": "image-classification", "name": "Image classification, trained on the synthetic images alone"}
    model = str(facts["repo"]).rpartition("/")[2]
    return [{"name": model, "results": [{"task": task, "dataset": _known(dataset), "metrics": metrics}]}]


def metric_name(score: Facts) -> str:
    """A sentence that keeps the generator's own score apart from a refined set's."""
    what = "generator alone" if score["stage"] == "generated" else "refined set"
    spread = f"mean of {score.get('seeds')} networks, std {number(score.get('std'))}"
    networks = spread if _is_number(score.get("seeds")) and score["seeds"] > 1 else "1 network"
    protocol, arch = score.get("protocol"), score.get("arch")
    return f"Test accuracy in %, {what}, {score.get('ipc')} per class ({protocol}, {arch}, {networks})"


# --------------------------------------------------------------------------------------------------- what a card shows


def _view(facts: Facts) -> dict[str, Any]:
    """All that a template may use."""
    source, names = _mapping(facts.get("source")), _list(facts.get("class_names"))
    sets = [_set_view(ipc, made) for ipc, made in _sets(facts)]
    per_class = _pool_ipc(facts)
    method = _method(facts)
    return {
        "kind": str(facts.get("kind")),
        "method": method,
        "title": _text(facts.get("repo")).rpartition("/")[2],
        "repo": _reference(facts.get("repo")),
        "dataset_repo": _reference(facts.get("dataset_repo")),
        "model_repo": _reference(facts.get("model_repo")),
        "base_model": Code(base_model(facts) or ""),
        "generator": _reference(facts.get("generator")),
        "source": {
            "name": source_name(facts),
            "kind": _text(source.get("kind")),
            "id": Code(_hub_id(facts) or ""),
            "version": _reference(source.get("revision") or source.get("content_hash")),
            "config": _text(source.get("config")),
            "licence": _licence_name(source),
        },
        "classes": len(names),
        "class_names": ", ".join(map(str, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else ""),
        "size": _size(facts.get("shape")),
        "parameters": number(facts.get("parameters"), 0),
        "pool": number(facts["pool"], 0) if facts.get("pool") else "",
        "per_class": number(per_class, 0) if per_class else "",
        "rows": _preview_rows(facts),
        "ddtool": _text(facts.get("ddtool")),
        "sets": sets,
        "first": sets[0] if sets else None,
        "other_ipc": _other_ipc(facts),
        "fits": all(made["fits"] for made in sets),
        "results": list(_results(facts)),
        "factor": sets[0]["factor"] if sets else 0,
        "machines": list(_machines(sets)),
        "commands": list(_commands(facts)),
        "pretraining": _pretraining(facts),
    }


def _set_view(ipc: int, made: Facts) -> dict[str, Any]:
    """One set of a card: sizes, settings, seconds and hardware."""
    config, env, timings = (_mapping(made.get(key)) for key in ("config", "env", "timings"))
    found, refined = _mapping(made.get("facts")), made.get("stage") == "refined"
    counted = config.get("seconds") is None  # else the clock decided, whatever steps were set
    scale = made.get("label_scale", config.get("label_scale"))  # earlier versions said it in the settings alone
    preparation = _sum(timings.get(phase) for phase in ("labels", "pool labels"))
    phases = ("adapt", f"generate ipc{ipc}", f"fit labels ipc{ipc}", *([f"refine ipc{ipc}"] if refined else []))
    taken = [preparation, *(timings.get(phase) for phase in phases)]
    return {
        "ipc": ipc,
        "images": number(made.get("images"), 0),
        "stage": _text(made.get("stage")),
        "labels": _text(made.get("labels")),
        "fits": _mapping(config.get("fit")).get("networks") != 0,
        "steps": _count(_mapping(config.get("adapt")).get("steps")) if counted else "",
        "refine_steps": _count(_mapping(config.get("refine")).get("steps")) if refined and counted else "",
        "label_scale": f"{scale:g}" if _is_number(scale) else "",
        "mirror": ("yes" if found["mirror"] else "no") if "mirror" in found else "",
        "train_images": number(found["train_images"], 0) if found.get("train_images") else "",
        "seconds": [seconds(value) for value in taken] + ["–"] * (not refined),
        "total": seconds(_sum(taken)),
        "factor": int(made["factor"]) if _is_number(made.get("factor")) and made["factor"] > 1 else 0,
        "init": _text(_mapping(config.get("baseline")).get("init")),
        **_spent_view(_mapping(found.get("spent"))),
        "machine": ", torch ".join(filter(None, [_text(env.get("device")) or "not recorded", _text(env.get("torch"))])),
        "scored": bool(made.get("scores")),
    }


def _sum(values: Iterable[Any]) -> float | None:
    """Of those that are numbers; None when none is."""
    known = [value for value in values if _is_number(value)]
    return sum(known) if known else None


def _spent_view(spent: Facts) -> dict[str, str]:
    """What the set of another method than MGDD took: its steps, seconds in them and beside them, and the sum."""
    parts = [spent.get(key) for key in ("step_seconds", "outside_seconds")]
    return {
        "spent_steps": number(spent.get("steps"), 0),
        "inside": seconds(parts[0]),
        "outside": seconds(parts[1]),
        "spent": seconds(_sum(parts)),
    }


def _method(facts: Facts) -> dict[str, Any]:
    """The method that made the sets: MGDD, where the facts name no other."""
    stated = _mapping(facts.get("method"))
    name = _text(stated.get("name"))
    if not _METHOD.fullmatch(name):
        return {"name": "mgdd", "title": "MGDD", "learns": True, "other": False}
    title, learns = _text(stated.get("title")) or name, stated.get("learns") is not False
    return {"name": name, "title": title, "learns": learns, "other": True}


def _machines(sets: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """The hardware of the sets, each once with the sizes made on it."""
    by_machine: dict[str, list[int]] = {}
    for made in sets:
        by_machine.setdefault(made["machine"], []).append(made["ipc"])
    for machine, ipcs in by_machine.items():
        yield {"text": machine, "ipcs": _enumerated(ipcs)}


def _preview_rows(facts: Facts) -> str:
    """What the rows of preview.png are, from the top: that of the largest set."""
    if (method := _method(facts))["other"]:
        return "real images of the source, " * bool(facts.get("pool")) + f"the {OTHERS[method['learns']]}"
    rows = ["real images of the source"] if facts.get("pool") else []
    rows.append("what the generator makes of them" if rows else "what the generator makes")
    stages = [made.get("stage") for _, made in _sets(facts)]
    return ", ".join([*rows, *(["the refined set"] if stages and stages[-1] == "refined" else [])])


def _pool_ipc(facts: Facts) -> int:
    """How many initial samples per class `ddtool generate` has at hand, 0 when that is not known."""
    pool, classes = facts.get("pool"), len(_list(facts.get("class_names")))
    if _is_number(pool) and pool and classes:
        return int(pool) // classes
    recorded = [_mapping(made.get("facts")).get("pool_ipc") for _, made in _sets(facts)]
    return min((int(n) for n in recorded if n and _is_number(n)), default=0)


def _other_ipc(facts: Facts) -> int:
    """An IPC that the source can fill for certain, and that the sets do not have if there is one."""
    ipcs = [ipc for ipc, _ in _sets(facts)]
    most = _pool_ipc(facts) or max(ipcs, default=1)
    return next((n for n in chain(USUAL_IPCS, range(1, most + 1)) if n <= most and n not in ipcs), most)


def _results(facts: Facts) -> Iterator[dict[str, Any]]:
    """A table for every protocol and network, the guides last; in it every score by IPC, real images first."""
    tables: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for score in _scores(facts):
        tables.setdefault(_table(score), []).append(_score_view(score, facts))
    for key in sorted(tables):
        yield {"protocol": key[1], "arch": key[2], "rows": tables[key]}


def _score_view(score: Facts, facts: Facts) -> dict[str, Any]:
    """One row of a table of results."""
    several = _is_number(score.get("seeds")) and score["seeds"] > 1
    stage, names = str(score.get("stage")), STAGES | {"distilled": OTHERS[_method(facts)["learns"]]}
    remark = " (published)" if stage == score["published"] else ""
    if not _tested_here(score, facts):
        remark = f" (tested on {_short(score.get('dataset'))})"
    return {
        "ipc": score.get("ipc"),
        "what": names.get(stage, stage) + remark,
        "accuracy": number(score.get("mean")) + (f" ± {number(score.get('std'))}" if several else ""),
        "networks": number(score.get("seeds"), 0),
        "seconds": number(score.get("seconds"), 0),
    }


def _sets(facts: Facts) -> list[tuple[int, Facts]]:
    """(IPC, what was recorded), smallest first."""
    sets = _mapping(facts.get("sets"))
    return [(ipc, _mapping(sets[key])) for ipc, key in sorted((int(k), k) for k in sets if str(k).isdecimal())]


def _scores(facts: Facts) -> Iterator[Facts]:
    """Every score with `published`, the stage of its set in the repo: by IPC, protocol, network; real images first."""
    order = [*STAGES, "refined"]

    def rank(score: Facts) -> tuple:
        stage = score.get("stage")
        return *_table(score), order.index(stage) if stage in order else len(order)

    for ipc, made in _sets(facts):
        scores = [_mapping(s) for s in _list(made.get("scores"))]
        yield from ({**score, "ipc": ipc, "published": made.get("stage")} for score in sorted(scores, key=rank))


def _table(score: Facts) -> tuple[int, str, str]:
    """Where a score belongs: protocol and network, in the order in which they are shown."""
    protocol = str(score.get("protocol"))
    late = LAST_PROTOCOLS.index(protocol) + 1 if protocol in LAST_PROTOCOLS else 0
    return late, protocol, str(score.get("arch"))


def _commands(facts: Facts) -> Iterator[dict[str, Any]]:
    """Each command once, with the sizes it made."""
    by_command: dict[str, list[int]] = {}
    for ipc, made in _sets(facts):
        if command := _text(made.get("command")):
            by_command.setdefault(command, []).append(ipc)
    for command, ipcs in by_command.items():
        yield {"ipcs": _enumerated(ipcs), "lines": [Code(line) for line in broken(code(command))]}


def broken(command: str) -> list[str]:
    """A command in lines of about `WIDTH` characters, each but the first beginning with an option or with &&."""
    words = _WORD.findall(command)
    if " ".join(words) != command:  # a quotation that does not end
        return [command]
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "&&" or word.startswith("-"):
            parts.append([])
        parts[-1].append(word)
    lines = [" ".join(parts[0])]
    for part in (" ".join(part) for part in parts[1:]):
        if part.startswith("&&") or len(lines[-1]) + len(part) >= WIDTH:
            lines.append(part)
        else:
            lines[-1] += f" {part}"
    return lines


# ------------------------------------------------------------------------------------------------------- pre-training


def _pretraining(facts: Facts) -> dict[str, Any]:
    """The free-form facts of a meta generator: what the card has words for, and the rest as a list and tables."""
    told = _mapping(facts.get("pretraining"))
    settings, curve = _mapping(told.get("settings")), _columns(told.get("curve"))
    shown = {*TOLD, *(["curve"] if curve else [])}
    rest = {key: value for key, value in told.items() if key not in shown and value is not None}
    return {
        "datasets": [_dataset_view(data) for data in _datasets(facts)],
        "outer": _text(_mapping(settings.get("meta")).get("outer")),
        **{key: _count(told.get(key)) for key in COUNTS},
        "hardware": _text(told.get("hardware")),
        "curve": _curve("", curve) if curve else None,
        "explained": curve.keys() >= set(FIGURES),
        "inner_steps": _count(_mapping(settings.get("meta")).get("inner_steps")),
        "validate_steps": _count(settings.get("validate_steps")),
        "validate_tasks": _count(settings.get("validate_tasks")),
        "settings": list(_flat(settings))[:200],
        "rest": [{"key": _words(key), "value": _inline(value)} for key, value in rest.items() if not _columns(value)],
        "tables": [_curve(_words(key), columns) for key, value in rest.items() if (columns := _columns(value))],
    }


def _datasets(facts: Facts) -> list[Facts]:
    """The datasets of a pre-training, each with a `name`."""
    found = _listed(_mapping(facts.get("pretraining")), ("datasets", "dataset"))
    return [data if isinstance(data, Mapping) else {"name": str(data)} for data in found if data]


def _dataset_view(data: Facts) -> dict[str, str]:
    """What a dataset of a pre-training was."""
    held = _list(data.get("held_out"))
    return {
        "name": _short(data.get("name") or "dataset"),
        "images": _count(data.get("images")),
        "size": _size(data.get("image")),
        "classes": _count(data.get("classes")),
        "held": str(len(held) or ""),
        "held_names": ", ".join(map(str, held[:100])) + (f" and {len(held) - 100} more" if len(held) > 100 else ""),
        "licence": _licence_name(data),
    }


def _curve(title: str, columns: Mapping[str, list]) -> dict[str, Any]:
    """A table: its title, names of columns and rows of text."""
    if COLUMNS[0] in columns:
        columns = {name: columns[name] for name in (*COLUMNS, *columns) if name in columns}
    rows = [
        [_figure(name, cell) for name, cell in zip(columns, row, strict=True)]
        for row in zip(*columns.values(), strict=True)
    ]
    return {"title": title, "header": [str(name) for name in columns], "rows": rows[:100]}


def _figure(name: str, value: Any) -> str:
    """A cell of a table; percent and seconds without digits that mean nothing."""
    digits = {"accuracy": 1, "seconds": 0}.get(name)
    return _inline(value) if digits is None or not _is_number(value) else number(value, digits)


def _flat(settings: Facts, above: str = "") -> Iterator[dict[str, str]]:
    """Every setting as a.b and its value."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield {"key": f"{above}{key}", "value": _inline(value)}


def _columns(value: Any) -> dict[str, list]:
    """A value as columns of a table, empty when it is none."""
    if isinstance(value, list) and value and all(isinstance(v, dict) and v.keys() == value[0].keys() for v in value):
        value = {key: [row[key] for row in value] for key in value[0]}
    if not isinstance(value, dict) or not value or not all(isinstance(v, list) for v in value.values()):
        return {}
    return value if len({len(column) for column in value.values()}) == 1 else {}


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_inline(v)}" for k, v in value.items())
    return ", ".join(map(_inline, value)) if isinstance(value, list) else str(value)


# ------------------------------------------------------------------------------------------------ untrusted facts, read


def source_name(facts: Facts) -> str:
    """What the target is called: an alias or a Hub id; of local data the folder's name alone."""
    source = _mapping(facts.get("source"))
    name = _text(source.get("name")) or _text(source.get("id")) or "dataset"
    return Path(name).name if source.get("kind") == "local" else _bare(name)


def number(value: Any, digits: int = 1) -> str:
    """A finite number with so many decimals, or a dash."""
    return f"{value:,.{digits}f}" if _is_number(value) else "–"


def seconds(value: Any) -> str:
    """A duration with two significant digits or whole seconds, or a dash."""
    if not _is_number(value):
        return "–"
    if value < 0.005:
        return "< 0.01"
    return f"{value:.2g}" if value < 0.95 else number(value, 1 if value < 9.95 else 0)


def _hub_id(facts: Facts) -> str | None:
    """The Hub dataset that the facts are about, if there is one."""
    source = _mapping(facts.get("source"))
    if source.get("kind") == "sample":
        return SAMPLE_OF
    return str(source["id"]) if source.get("kind") == "hub" and _is_repo(source.get("id")) else None


def _stated_licence(facts: Facts) -> str:
    """The licence of the images, as stated; of several datasets of a pre-training all, if all state one."""
    if facts.get("source"):
        return _text(_mapping(facts["source"]).get("licence"))
    stated = [_text(data.get("licence")) for data in _datasets(facts)]
    together = ", ".join(dict.fromkeys(stated)) if all(stated) else ""
    return _text(_mapping(facts.get("pretraining")).get("licence")) or together


def _licence_name(source: Facts) -> str:
    """The licence that a dataset states, empty for none and for words that name none."""
    stated = _text(source.get("licence")).strip()
    return "" if stated.lower() in ("unknown", "other") else stated


def _tested_here(score: Facts, facts: Facts) -> bool:
    """Whether a score is of the target's own test split, however the dataset was spelled."""
    source, named = _mapping(facts.get("source")), _text(score.get("dataset"))
    if source.get("kind") == "local":
        return not named or Path(named).name == source_name(facts)
    name, repo = _bare(_text(source.get("name"))), _bare(_text(source.get("id")))
    return not named or _bare(named) in (name, repo, repo.rpartition("/")[2])  # an alias is the end of an id


def _bare(name: str) -> str:
    """A Hub dataset's name without prefix and revision."""
    return name.removeprefix("hf://datasets/").partition("@")[0]


def _short(name: Any) -> str:
    """A dataset's name; of a path only the end."""
    bare = _bare(str(name))
    return bare if _is_repo(bare) else Path(bare).name


def _is_repo(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= 193 and ".." not in name and bool(_REPO.fullmatch(name))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _reference(value: Any) -> Code:
    """A repo id, revision or hash, without anything that could not be in one: it stands in code and in links."""
    return Code(re.sub(r"[^A-Za-z0-9_./@-]", "-", _text(value))[:300])


def _size(shape: Any) -> str:
    """What images of shape [c, h, w] are, in words; empty for another shape."""
    sides = [int(n) for n in _list(shape) if _is_number(n)]
    if len(sides) != 3:
        return ""
    channels, height, width = sides
    return f"{width} x {height} pixels, " + ({1: "grey", 3: "RGB"}.get(channels) or f"{channels} channels")


def _count(value: Any) -> str:
    return number(value, 0) if _is_number(value) else ""


def _words(key: Any) -> str:
    return str(key).replace("_", " ")


def _enumerated(ipcs: list[int]) -> str:
    """1, 10 and 50"""
    return " and ".join(filter(None, [", ".join(map(str, ipcs[:-1])), *map(str, ipcs[-1:])]))


def _mapping(value: Any) -> Facts:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _listed(values: Facts, keys: tuple[str, ...]) -> list[Any]:
    """The values under some keys, each a value or a list."""
    found = [values[key] for key in keys if values.get(key)]
    return [item for value in found for item in (value if isinstance(value, list) else [value])]


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "", [])}


# ----------------------------------------------------------------------------------------------------------- rendering


def one_line(text: str, limit: int = 300) -> str:
    """Text of others as one harmless line of Markdown: no line break, pipe, backtick, tag, link or secret."""
    line = _LINK.sub(_JOINER, _plain(text, limit)).replace("|", "/").replace("`", "'")
    line = re.sub(r"([\\*~\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", line)  # an _ within a word is harmless
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str, limit: int = 2000) -> str:
    """Text of others as one line of a fenced block."""
    return _plain(text, limit).replace("`", "'")


def _plain(text: str, limit: int) -> str:
    """Printable characters on one line, secrets blacked out, at most `limit` characters."""
    printable = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text[: 10 * limit])
    line = _SECRET.sub("***", " ".join(printable.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _safe(value: Any) -> Any:
    """The same value with every string in it made harmless."""
    if isinstance(value, Code):
        return code(value)
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {key: _safe(item) for key, item in value.items()}
    return [_safe(item) for item in value] if isinstance(value, list) else value


def _plain_values(value: Any) -> Any:
    """The same metadata with every string on one line: the YAML writer does the quoting."""
    if isinstance(value, str):
        return _plain(value, 300)
    if isinstance(value, dict):
        return {key: _plain_values(item) for key, item in value.items()}
    return [_plain_values(item) for item in value] if isinstance(value, list) else value


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown; `_safe` has seen every value
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(template: str, metadata: dict[str, Any], facts: Facts) -> str:
    """A template filled in; the same facts give the same text."""
    front = yaml.safe_dump(_plain_values(metadata), sort_keys=False, allow_unicode=True, width=10**6)
    body = _environment().get_template(template).render(_safe(_view(facts)))
    return f"---\n{front}---\n\n" + re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"
