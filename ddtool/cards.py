"""Cards of Hub repos: Markdown under YAML metadata, a pure function of the facts that a repo keeps in its ddtool.json.

The words are in `hub_cards/*.j2`; here facts become what the templates lay out. Names and free text in the facts come from
datasets and repos of other people: every string passes `one_line` (or `code`) before a template sees it, and metadata is
written by a YAML writer.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

Facts = Mapping[str, Any]

PACKAGE = Path(__file__).parent
TEMPLATES = (PACKAGE / "hub_cards", PACKAGE.parent / "hub_cards")
"""In an installed package; in a checkout."""

SAMPLE_OF = "zalando-datasets/fashion_mnist"
"""The dataset that the bundled sample is drawn from."""

STAGES = {"random": "random real images", "initial": "initial samples", "generated": "generator alone"}
"""What a stage is called in a table; other stages keep their names."""

LAST_PROTOCOLS = ("quick", "kernel-ridge")
"""Protocols that are listed below the field's own."""

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

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SECRET = re.compile(r"hf_[A-Za-z0-9]{16,}|(?<=://)[^/@\s]+@")


class Code(str):
    """Text for a code block: kept as it is, but for what would end the line or the block."""


def model_card(facts: Facts) -> str:
    """README.md of a model repo; facts of kind 'adapted-generator' or 'meta-generator'."""
    return _render("model.md.j2", model_metadata(facts), facts)


def dataset_card(facts: Facts) -> str:
    """README.md of a dataset repo; facts of kind 'synthetic-dataset'."""
    return _render("dataset.md.j2", dataset_metadata(facts), facts)


# ----------------------------------------------------------------------------------------------------------- metadata


def model_metadata(facts: Facts) -> dict[str, Any]:
    """The Hub's metadata of a model repo; what is unknown is left out."""
    trained_on = [_hub_id(facts), *_listed(_mapping(facts.get("pretraining")), ("datasets", "dataset"))]
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
    return _known(
        {
            **licence(facts),
            "pretty_name": f"{source_name(facts)}, distilled",
            "tags": ["ddtool", "dataset-distillation", "dataset-condensation", "mgdd", "synthetic"],
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
    stated = _text(_mapping(facts.get("source") or facts.get("pretraining")).get("licence"))
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
    ipcs, shape = [made["ipc"] for made in sets], [int(n) for n in _list(facts.get("shape")) if _is_number(n)]
    scores = [_score_view(score, facts) for score in _scores(facts)]
    return {
        "kind": str(facts.get("kind")),
        "repo": _reference(facts.get("repo")),
        "dataset_repo": _reference(facts.get("dataset_repo")),
        "model_repo": _reference(facts.get("model_repo")),
        "base_model": base_model(facts) or "",
        "generator": _reference(facts.get("generator")),
        "source": {
            "name": source_name(facts),
            "kind": _text(source.get("kind")),
            "id": _hub_id(facts) or "",
            "version": _reference(source.get("revision") or source.get("content_hash")),
            "config": _text(source.get("config")),
            "licence": _text(source.get("licence")),
        },
        "classes": len(names),
        "class_names": ", ".join(map(str, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else ""),
        "shape": " x ".join(map(str, shape)),
        "example_shape": ", ".join(map(str, shape or (3, 32, 32))),
        "parameters": number(facts.get("parameters"), 0),
        "pool": number(facts["pool"], 0) if facts.get("pool") else "",
        "ddtool": _text(facts.get("ddtool")),
        "sets": sets,
        "first": sets[0] if sets else None,
        "unseen": 20 if 20 not in ipcs else max(ipcs) + 10,
        "scores": scores,
        "protocols": sorted({score["protocol"] for score in scores}),
        "commands": list(_commands(facts)),
        "pretraining": list(_pretraining(facts)),
        "curves": list(_curves(facts)),
    }


def _set_view(ipc: int, made: Facts) -> dict[str, Any]:
    """One set of a card: sizes, settings, seconds and hardware."""
    config, env, timings = (_mapping(made.get(key)) for key in ("config", "env", "timings"))
    found, refined = _mapping(made.get("facts")), made.get("stage") == "refined"
    phases = ("labels", "adapt", f"generate ipc{ipc}", f"refine ipc{ipc}")
    return {
        "ipc": ipc,
        "images": number(made.get("images"), 0),
        "stage": _text(made.get("stage")),
        "seed": number(config.get("seed"), 0),
        "steps": number(_mapping(config.get("adapt")).get("steps"), 0),
        "refine_steps": number(_mapping(config.get("refine")).get("steps") if refined else None, 0),
        "label_scale": f"{config['label_scale']:g}" if _is_number(config.get("label_scale")) else "",
        "mirror": ("yes" if found["mirror"] else "no") if "mirror" in found else "",
        "train_images": number(found["train_images"], 0) if found.get("train_images") else "",
        "seconds": [number(timings.get(phase)) for phase in phases],
        "device": _text(env.get("device")) or "not recorded",
        "torch": _text(env.get("torch")),
        "scored": bool(made.get("scores")),
    }


def _score_view(score: Facts, facts: Facts) -> dict[str, Any]:
    """One row of the results table."""
    several = _is_number(score.get("seeds")) and score["seeds"] > 1
    stage = str(score.get("stage"))
    elsewhere = "" if _tested_here(score, facts) else f" (tested on {_short(score.get('dataset'))})"
    return {
        "ipc": score.get("ipc"),
        "images": number(score["ipc"] * len(_list(facts.get("class_names"))), 0),
        "what": STAGES.get(stage, stage) + elsewhere,
        "published": stage == score["published"] and not elsewhere,
        "protocol": str(score.get("protocol")),
        "arch": str(score.get("arch")),
        "accuracy": number(score.get("mean")) + (f" ± {number(score.get('std'))}" if several else ""),
        "seeds": number(score.get("seeds"), 0),
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
        protocol, stage = str(score.get("protocol")), score.get("stage")
        late = LAST_PROTOCOLS.index(protocol) + 1 if protocol in LAST_PROTOCOLS else 0
        return late, protocol, str(score.get("arch")), order.index(stage) if stage in order else len(order)

    for ipc, made in _sets(facts):
        scores = [_mapping(s) for s in _list(made.get("scores"))]
        yield from ({**score, "ipc": ipc, "published": made.get("stage")} for score in sorted(scores, key=rank))


def _commands(facts: Facts) -> Iterator[dict[str, Any]]:
    """Each command once, with the sizes it made."""
    by_command: dict[str, list[int]] = {}
    for ipc, made in _sets(facts):
        if command := _text(made.get("command")):
            by_command.setdefault(command, []).append(ipc)
    for command, ipcs in by_command.items():
        yield {"ipcs": ", ".join(map(str, ipcs)), "text": Code(command)}


def _pretraining(facts: Facts) -> Iterator[dict[str, str]]:
    """The free-form facts of a meta generator that fit on a line each."""
    for key, value in _mapping(facts.get("pretraining")).items():
        if value is not None and not _columns(value):
            yield {"key": str(key).replace("_", " "), "value": _inline(value)}


def _curves(facts: Facts) -> Iterator[dict[str, Any]]:
    """Its tables: lists of equal length by name, or a list of records that have the same keys."""
    for key, value in _mapping(facts.get("pretraining")).items():
        if columns := _columns(value):
            rows = [[_inline(cell) for cell in row] for row in zip(*columns.values(), strict=True)]
            yield {"title": str(key).replace("_", " "), "header": [str(c) for c in columns], "rows": rows[:100]}


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
    return Path(name).name if source.get("kind") == "local" else name.partition("@")[0]


def number(value: Any, digits: int = 1) -> str:
    """A finite number with so many decimals, or a dash."""
    return f"{value:,.{digits}f}" if _is_number(value) else "–"


def _hub_id(facts: Facts) -> str | None:
    """The Hub dataset that the facts are about, if there is one."""
    source = _mapping(facts.get("source"))
    if source.get("kind") == "sample":
        return SAMPLE_OF
    return str(source["id"]) if source.get("kind") == "hub" and _is_repo(source.get("id")) else None


def _tested_here(score: Facts, facts: Facts) -> bool:
    """Whether a score is of the target's own test split."""
    source = _mapping(facts.get("source"))
    named = _text(score.get("dataset"))
    same_folder = source.get("kind") == "local" and Path(named).name == source_name(facts)
    return not named or named in (source.get("name"), source.get("id"), source_name(facts)) or same_folder


def _short(name: Any) -> str:
    """A dataset's name; of a path only the end."""
    bare = str(name).partition("@")[0]
    return bare if _is_repo(bare) else Path(bare).name


def _is_repo(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= 193 and ".." not in name and bool(_REPO.fullmatch(name))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _reference(value: Any) -> str:
    """A repo id, revision or hash, without anything that could not be in one: it stands in code and in links."""
    return re.sub(r"[^A-Za-z0-9_./@-]", "-", _text(value))[:300]


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
    line = _plain(text, limit).replace("|", "/").replace("`", "'")
    line = re.sub(r"([\\*\[\]])", r"\\\1", line)
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
