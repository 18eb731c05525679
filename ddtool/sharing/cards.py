"""Cards of Hub repos: Markdown under YAML metadata, a pure function of the facts that a repo keeps in its ddtool.json.

The words are in `hub_cards/*.j2`; `views` lays the facts out for them. Names and free text in the facts come from datasets
and repos of other people: every string passes `harmless` (or `code`) before a template sees it, and metadata is
huggingface_hub's `ModelCardData` and `DatasetCardData`.
"""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import jinja2

from ddtool.hub.names import DATASET, is_repo
from ddtool.sharing.facts import META, SETS, LicenceFacts, RepoFacts
from ddtool.sharing.files import BEGIN, END
from ddtool.sharing.pretraining import pretraining_of, short_name
from ddtool.sharing.views import Code, enumerated, hub_id, is_tested_here, number, ranked_scores, source_name, view
from ddtool.text import one_line, without_secrets
from ddtool.version import ADDRESS

if TYPE_CHECKING:
    from huggingface_hub import CardData, DatasetCardData, EvalResult, ModelCardData, SpaceCardData

    from ddtool.evaluation.protocols import Score

PACKAGE = Path(__file__).parents[1]
TEMPLATES = (PACKAGE / "hub_cards", PACKAGE.parent / "hub_cards")
"""In an installed package; in a checkout."""

GRADIO = "6.31.0"
"""The version that a Space's page was tried with."""

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

_JOINER = "\u2060"
_LINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=[\w.+-])(?=@)", re.IGNORECASE)
"""Where a renderer would see that an address begins; a word joiner there shows nothing and stops it."""


def card(facts: RepoFacts) -> str:
    """The README.md of a repo; the same facts give the same text."""
    if facts.kind == SETS:
        return _render("dataset.md.j2", dataset_metadata(facts), facts)
    return _render("model.md.j2", model_metadata(facts), facts)


def space_card(facts: RepoFacts) -> str:
    """The README.md of a Space beside the repos that `facts` names. It has no marks: whoever changes it has all of it."""
    return _render("space.md.j2", space_metadata(facts), facts, marked=False)


def template(name: str) -> str:
    """A file of `hub_cards/` that is pushed as it is."""
    return next(file for folder in TEMPLATES if (file := folder / name).is_file()).read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------- metadata


def model_metadata(facts: RepoFacts) -> "ModelCardData":
    """The Hub's metadata of a model repo; what is unknown is left out."""
    from huggingface_hub import ModelCardData

    trained_on = {hub_id(facts), *(data.name for data in pretraining_of(facts.pretraining).datasets)}
    results = evaluations(facts)
    return ModelCardData(
        **licence(facts),
        library_name="ddtool",
        pipeline_tag="image-to-image",
        tags=["ddtool", "dataset-distillation", "dataset-condensation", "mgdd"],
        datasets=sorted(name for name in trained_on if name and is_repo(name)) or None,
        base_model=base_model(facts),
        base_model_relation="finetune" if base_model(facts) else None,
        metrics=["accuracy"] if results else None,
        model_name=str(facts.repo).rpartition("/")[2] if results else None,
        eval_results=results or None,
    )


def dataset_metadata(facts: RepoFacts) -> "DatasetCardData":
    """The Hub's metadata of a dataset repo: one configuration for every IPC."""
    from huggingface_hub import DatasetCardData

    images = sum(made.images or 0 for made in facts.sets.values())
    learns = facts.method.learns
    what = "distilled" if learns else facts.method.title or facts.made_by
    return DatasetCardData(
        **licence(facts),
        pretty_name=f"{source_name(facts)}, {what}: {enumerated(facts.ipcs)} per class",
        tags=["ddtool", "dataset-distillation", "dataset-condensation", facts.made_by] + ["synthetic"] * learns,
        task_categories=["image-classification"],
        size_categories=[next((name for bound, name in SIZES.items() if images < bound), "1M<n<10M")],
        source_datasets=[hub_id(facts) or "extended"],
        configs=[_configuration(n, default=n == facts.ipcs[-1]) for n in facts.ipcs],
    )


def space_metadata(facts: RepoFacts) -> "SpaceCardData":
    """The Hub's metadata of a Space: how it is run, and the repos that it shows."""
    from huggingface_hub import SpaceCardData

    what = "distilled" if facts.method.learns else facts.method.title or facts.made_by
    return SpaceCardData(
        title=f"{source_name(facts)}, {what}",
        sdk="gradio",
        sdk_version=GRADIO,
        python_version="3.12",
        app_file="app.py",
        license="mit",  # of the page: it holds no image
        models=[facts.model_repo] if facts.model_repo else None,
        datasets=[facts.dataset_repo] if facts.dataset_repo else None,
        tags=["ddtool", "dataset-distillation", "dataset-condensation"],
    )


def _configuration(ipc: int, default: bool) -> dict[str, object]:
    """A set as `datasets` finds it; the default one needs no name."""
    files = [{"split": "train", "path": f"ipc{ipc}/train.parquet"}]
    return {"config_name": f"ipc{ipc}", **({"default": True} if default else {}), "data_files": files}


class LicenceData(TypedDict, total=False):
    """What the Hub's metadata says of a licence."""

    license: Any  # one name or several: the Hub takes both, the type of ModelCardData says one
    license_name: str
    license_link: str | None


def licence(facts: RepoFacts) -> LicenceData:
    """The licence of all that the files were made with, where it is one and the Hub knows it; else `other`, with the names of all
    and where to read the first that is not usual."""
    terms = terms_of(facts)
    stated = [
        sorted({name.strip().lower() for name in (term.licence or "").split(",") if name.strip()}) for term in terms
    ]
    usual = [bool(names) and set(names) <= set(HUB_LICENCES.split()) for names in stated]
    if stated and all(usual) and all(names == stated[0] for names in stated):
        return {"license": stated[0][0] if len(stated[0]) == 1 else stated[0]}
    named = [slug_of(names, term, facts) for names, term in zip(stated, terms, strict=True)]
    links = [link_of(term) for term in terms if term.repo]
    unusual = [link_of(term) for term, known in zip(terms, usual, strict=True) if term.repo and not known]
    name = "-and-".join(dict.fromkeys(named)) or "terms-of-the-training-data"
    return {"license": "other", "license_name": name, "license_link": next(iter(unusual + links), None)}


def slug_of(names: list[str], term: LicenceFacts, facts: RepoFacts) -> str:
    """A licence as the Hub's metadata can name it."""
    slug = re.sub(r"[^a-z0-9.]+", "-", " ".join(names)).strip("-.")[:60]
    if slug not in ("", "other"):
        return slug
    weights = facts.kind == META or term == facts.generator_licence
    return "terms-of-the-training-data" if weights else "terms-of-the-source-dataset"


def terms_of(facts: RepoFacts) -> list[LicenceFacts]:
    """The terms of all that the files were made with: the source, the weights that an adaptation began with, or what a
    pre-training has seen."""
    if facts.source:
        repo = hub_id(facts)
        source = LicenceFacts(what=source_name(facts), licence=facts.source.licence, repo=repo, kind=DATASET)
        return [source, *([facts.generator_licence] if facts.generator_licence else [])]
    told = pretraining_of(facts.pretraining)
    if told.licence:
        return [LicenceFacts(what="the training data", licence=told.licence)]
    seen = [(short_name(data.name or "dataset"), data.licence) for data in told.datasets]
    return [
        LicenceFacts(what=name, licence=stated, repo=name if is_repo(name) else None, kind=DATASET)
        for name, stated in seen
    ]


def link_of(term: LicenceFacts) -> str:
    """Where terms can be read."""
    return f"https://huggingface.co/{'datasets/' if term.kind == DATASET else ''}{term.repo}"


def base_model(facts: RepoFacts) -> str | None:
    """The Hub repo of the meta generator, when it came from one ("namespace/name@revision")."""
    repo, at, _ = (facts.generator or "").partition("@")
    return repo if at and is_repo(repo) else None


def evaluations(facts: RepoFacts) -> "list[EvalResult]":
    """Scores on the target's test split, the generator's own and those of refined sets, each named as what it is.

    Left out: real images, initial samples, other test sets, and kernel-ridge, which is a guide and not a result.
    """
    from huggingface_hub import EvalResult

    if (source := facts.source) is None:
        return []
    name, split = source_name(facts), source.test_split or ""
    return [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification, trained on the synthetic images alone",
            dataset_type=(hub_id(facts) if source.kind == "hub" else None) or source.kind,
            dataset_name=name if source.kind == "hub" else f"{name} ({source.kind} data)",
            dataset_config=source.config,
            dataset_split=split if re.fullmatch(r"\w+(\.\w+)*", split) else None,
            dataset_revision=source.revision,
            metric_type="accuracy",
            metric_value=round(score.mean, 2),
            metric_name=metric_name(score, ipc),
        )
        for ipc, score in ranked_scores(facts)
        if score.stage in ("generated", "refined") and score.protocol != "kernel-ridge" and is_tested_here(score, facts)
    ]


def metric_name(score: "Score", ipc: int) -> str:
    """A sentence that keeps the generator's own score apart from a refined set's."""
    what = "generator alone" if score.stage == "generated" else "refined set"
    networks = f"mean of {score.seeds} networks, std {number(score.std)}" if score.seeds > 1 else "1 network"
    return f"Test accuracy in %, {what}, {ipc} per class ({score.protocol_text}, {score.arch}, {networks})"


# ----------------------------------------------------------------------------------------------------------- rendering


def harmless(text: str, limit: int = 300) -> str:
    """Text of others as one harmless line of Markdown: no line break, pipe, backtick, tag, link or secret."""
    line = _LINK.sub(_JOINER, plain(text, limit)).replace("|", "/").replace("`", "'")
    line = re.sub(r"([\\*~\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", line)  # an _ within a word is harmless
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str, limit: int = 2000) -> str:
    """Text of others as one line of a fenced block."""
    return plain(text, limit).replace("`", "'")


def plain(text: str, limit: int = 300) -> str:
    """Printable characters on one line, secrets blacked out, at most `limit` characters."""
    return one_line(without_secrets(one_line(text, 10 * limit)), limit)


def _safe(value: object) -> object:
    """The same value with every string in it made harmless."""
    if isinstance(value, Code):
        return code(value)
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, dict):
        return {key: _safe(item) for key, item in value.items()}
    return [_safe(item) for item in value] if isinstance(value, list) else value


def _plain_values(value: object) -> object:
    """The same metadata with every string on one line: the YAML writer does the quoting."""
    if isinstance(value, str):
        return plain(value)
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


def _render(template: str, metadata: "CardData", facts: RepoFacts, *, marked: bool = True) -> str:
    """A template filled in; the same facts give the same text. marked: between the marks of ddtool's part."""
    front = front_matter(metadata)
    body = _environment().get_template(template).render(_safe(view(facts) | {"address": Code(ADDRESS)}))
    part = re.sub(r"\n{3,}", "\n\n", body).strip()
    whole = f"{BEGIN}\n\n{part}\n\n{END}" if marked else part
    return f"---\n{front}---\n\n{whole}\n"


def front_matter(metadata: "CardData") -> str:
    """Metadata as YAML, every value on one line."""
    from huggingface_hub.utils import yaml_dump

    return yaml_dump(_plain_values(metadata.to_dict()), sort_keys=False, width=10**6)
