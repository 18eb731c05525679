"""What a card shows: the facts of a repo, laid out for the templates in `hub_cards/`. Strings are still those of others."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ddtool.evaluation.protocols import EXACT, NOT_WHITENED, Score
from ddtool.events import Phase
from ddtool.hub.names import DATASET, is_repo
from ddtool.runs.facts import Spent
from ddtool.sharing.facts import SETS, LicenceFacts, RepoFacts, SetFacts, Source
from ddtool.sharing.pretraining import (
    Code,
    View,
    counted,
    known_licence,
    number,
    pretraining_view,
    short_name,
    size_of,
    without_revision,
)
from ddtool.text import one_line

SAMPLE_OF, SAMPLE_NAME = "zalando-datasets/fashion_mnist", "Fashion-MNIST (a sample)"
"""The dataset that the bundled sample is drawn from, and what the sample is called on a card."""

STAGES = {
    "full": "whole training set, hard labels",
    "random": "random real images",
    "initial": "initial samples",
    "generated": "generator alone",
}
"""What a stage is called in a table; other stages keep their names."""

OTHERS = {True: "distilled set", False: "chosen images"}
"""What the set of a method without a generator is called in a table, by whether it learns."""

LAST_PROTOCOLS = ("quick", "kernel-ridge")
"""Protocols that are listed below the field's own."""

USUAL_IPCS = (20, 10, 50, 5, 2)
"""Sizes for the example of `ddtool generate`, the first that fits."""

WIDTH = 90
"""Characters a line of a command, if its options allow."""

_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")


def view(facts: RepoFacts) -> View:
    """All that a template may use."""
    sets = [_set_view(ipc, facts.sets[ipc]) for ipc in facts.ipcs]
    per_class, names = _pool_ipc(facts), facts.class_names
    repo, at, _ = (facts.generator or "").partition("@")
    return {
        "kind": facts.kind,
        "method": _method(facts),
        "title": (facts.repo or "").rpartition("/")[2],
        "repo": _reference(facts.repo),
        "dataset_repo": _reference(facts.dataset_repo),
        "model_repo": _reference(facts.model_repo),
        "base_model": Code(repo if at and is_repo(repo) else ""),
        "generator": _reference(facts.generator),
        "source": _source_view(facts),
        "headline": headline(facts),
        "weights": _weights_view(facts.generator_licence),
        "classes": len(names),
        "class_names": _shown(names),
        "size": size_of(facts.shape),
        "parameters": number(facts.parameters, 0),
        "pool": counted(facts.pool or None),
        "per_class": counted(per_class or None),
        "rows": _preview_rows(facts),
        "ddtool": facts.ddtool,
        "sets": sets,
        "first": sets[0] if sets else None,
        "other_ipc": _other_ipc(facts),
        "fits": all(made["fits"] for made in sets),
        "results": list(_results(facts)),
        "held": list(_held(facts)),
        "machines": list(_machines(facts)),
        "commands": list(_commands(facts)),
        "pretraining": pretraining_view(facts),
    }


def _source_view(facts: RepoFacts) -> View:
    """Where the data is from."""
    source = facts.source or Source.model_construct(kind="local", name="")
    return {
        "name": source_name(facts),
        "kind": source.kind,
        "id": Code(hub_id(facts) or ""),
        "version": _reference(source.revision or source.content_hash),
        "config": source.config or "",
        "licence": known_licence(source.licence),
    }


def _weights_view(terms: LicenceFacts | None) -> View | None:
    """The terms of the weights that the adaptation began with."""
    if terms is None:
        return None
    place = f"{'datasets/' if terms.kind == DATASET else ''}{terms.repo}" if terms.repo else ""
    return {
        "what": terms.what,
        "bundled": terms.what == "bundled",
        "licence": known_licence(terms.licence),
        "place": Code(place),
    }


def _set_view(ipc: int, made: SetFacts) -> View:
    """One set of a card: sizes, settings, seconds and hardware."""
    settings, timings, refined = made.settings, made.timings, made.stage == "refined"
    counts = settings.seconds is None  # else the clock decided, whatever steps were set
    scale = settings.label_scale if made.label_scale is None else made.label_scale  # earlier: in the settings alone
    kinds = ("generate", "fit labels", *["refine"] * refined)
    phases = ("adapt", *(str(Phase(kind, ipc)) for kind in kinds))
    taken = [_sum(timings.get(phase) for phase in ("labels", "pool labels")), *map(timings.get, phases)]
    return {
        "ipc": ipc,
        "images": number(made.images, 0),
        "stage": made.stage,
        "labels": made.labels,
        "fits": settings.fit_networks != 0,
        "steps": counted(settings.adapt_steps) if counts else "",
        "refine_steps": counted(settings.refine_steps) if refined and counts else "",
        "label_scale": "" if scale is None else f"{scale:g}",
        "flip": "" if made.facts.flip is None else "yes" if made.facts.flip else "no",
        "train_images": counted(made.facts.train_images or None),
        "seconds": [seconds(value) for value in taken] + ["–"] * (not refined),
        "total": seconds(_sum(taken)),
        "whitening": made.whitening or "",
        "unwhitened": _unwhitened(ipc, made),
        "init": settings.init or "",
        **_spent_view(made.facts.spent),
        "scored": bool(made.scores),
    }


def _spent_view(spent: Spent | None) -> View:
    """What the set of a method without a generator took: its steps, seconds in them and beside them, and the sum."""
    inside, overhead = (spent.step_seconds, spent.overhead_seconds) if spent else (None, None)
    return {
        "spent_steps": number(spent.steps if spent else None, 0),
        "inside": seconds(inside),
        "overhead": seconds(overhead),
        "spent": seconds(_sum((inside, overhead))),
    }


def _method(facts: RepoFacts) -> View:
    """The method that made the sets, and whether it is another than the generator's."""
    maker = facts.method
    return {
        "name": maker.name,
        "title": maker.title or maker.name,
        "learns": maker.learns,
        "other": not maker.has_generator,
    }


def _machines(facts: RepoFacts) -> Iterator[View]:
    """The hardware of the sets, each once with the sizes made on it."""
    by_machine: dict[str, list[int]] = {}
    for ipc in facts.ipcs:
        env = facts.sets[ipc].env
        machine = ", torch ".join(filter(None, [env.device or "not recorded", env.torch]))
        by_machine.setdefault(machine, []).append(ipc)
    for machine, ipcs in by_machine.items():
        yield {"text": machine, "ipcs": enumerated(ipcs)}


def _preview_rows(facts: RepoFacts) -> str:
    """What the rows of preview.png are, from the top: that of the largest set."""
    if not facts.method.has_generator:
        return "real images of the source, " * bool(facts.pool) + f"the {OTHERS[facts.method.learns]}"
    rows = ["real images of the source"] if facts.pool else []
    rows.append("what the generator makes of them" if rows else "what the generator makes")
    refined = facts.sets and facts.sets[facts.ipcs[-1]].stage == "refined"
    return ", ".join([*rows, *(["the refined set"] if refined else [])])


def _shown(names: Sequence[str]) -> list[str]:
    """The first class names, each cut, the last of them with how many more there are."""
    shown = [one_line(name, 40) for name in names[:20]]
    if len(names) > 20:
        shown[-1] += f" and {len(names) - 20} more"
    return shown


def _pool_ipc(facts: RepoFacts) -> int:
    """How many initial samples per class `ddtool generate` has at hand, 0 when that is not known."""
    if facts.pool and facts.class_names:
        return facts.pool // len(facts.class_names)
    return min((made.facts.pool_ipc for made in facts.sets.values() if made.facts.pool_ipc), default=0)


def _held(facts: RepoFacts) -> Iterator[View]:
    """How many images a side each image of a set holds, where it is more than one, and of which sets where not of all."""
    for factor in sorted({made.factor for made in facts.sets.values() if made.factor > 1}):
        ipcs = [ipc for ipc in facts.ipcs if facts.sets[ipc].factor == factor]
        yield {"factor": factor, "of": "" if ipcs == facts.ipcs else f"IPC {enumerated(ipcs)}"}


def _other_ipc(facts: RepoFacts) -> int:
    """An IPC that the source can fill for certain, and that the sets do not have if there is one."""
    each = max((made.factor**2 for made in facts.sets.values()), default=1)
    most = _pool_ipc(facts) // each or max(facts.ipcs, default=1)
    return next((n for n in chain(USUAL_IPCS, range(1, most + 1)) if n <= most and n not in facts.sets), most)


# ------------------------------------------------------------------------------------------------------------- scores


def _results(facts: RepoFacts) -> Iterator[View]:
    """A table for every protocol and network, the guides last; in it every score by IPC, real images first."""
    tables: dict[tuple[int, str, str], list[View]] = {}
    for ipc, score in ranked_scores(facts):
        tables.setdefault(_table(score), []).append(_score_view(ipc, score, facts))
    for key in sorted(tables):
        yield {"protocol": key[1], "arch": key[2], "rows": tables[key]}


def _unwhitened(ipc: int, made: SetFacts) -> str:
    """What a set that is to be whitened is worth without that, beside what it is worth, by one protocol and network."""
    final = [score for score in made.scores if score.stage == made.stage and score.ipc == ipc]
    for without in (score for score in final if score.inputs == NOT_WHITENED):
        alike = [s for s in final if s.key.usual and replace(s.key, inputs=NOT_WHITENED) == without.key]
        if alike:
            return f"{number(without.mean)} % instead of {number(alike[0].mean)} % ({without.protocol_text})"
    return ""


def _score_view(ipc: int, score: Score, facts: RepoFacts) -> View:
    """One row of a table of results."""
    names = STAGES | {"distilled": OTHERS[facts.method.learns]}
    where = "the set in this repository" if facts.kind == SETS else "the set in the dataset repository"
    remark = f" ({where})" if score.stage == facts.sets[ipc].stage else ""
    remark += ", before rounding to 8 bits" * (score.pixels == EXACT)
    remark += ", used without whitening" * (score.inputs == NOT_WHITENED)
    if not is_tested_here(score, facts):
        remark = f" (tested on {short_name(score.dataset)})"
    return {
        "ipc": ipc,
        "what": names.get(score.stage, score.stage) + remark,
        "accuracy": number(score.mean) + (f" ± {number(score.std)}" if score.seeds > 1 else ""),
        "networks": number(score.seeds, 0),
        "seconds": number(score.seconds, 0),
    }


def headline(facts: RepoFacts) -> str:
    """What the largest set that was scored is worth, in a line: its accuracy by the fullest protocol, beside as many random real
    images and, where that is known, the whole training set. Empty without a score."""
    for ipc in reversed(facts.ipcs):
        made = facts.sets[ipc]
        here = [score for score in made.scores if score.key.usual and is_tested_here(score, facts)]
        ours = [score for score in here if score.stage == made.stage and score.protocol != "kernel-ridge"]
        if ours:
            best = min(ours, key=_table)
            beside = {score.stage: score.mean for score in here if _table(score) == _table(best)}
            images = number(made.images, 0)
            held = f" that hold {number(made.factor**2, 0)} smaller ones each" if made.factor > 1 else ""
            text = f"{number(best.mean)} % test accuracy with {images} images{held}"
            text += f", {number(beside['random'])} % with {images} random real ones" if "random" in beside else ""
            return text + (f", {number(beside['full'])} % with the whole training set" if "full" in beside else "")
    return ""


def ranked_scores(facts: RepoFacts) -> Iterator[tuple[int, Score]]:
    """(IPC of its set, score) of every score: by IPC, protocol, network; real images first."""
    order = [*STAGES, "refined"]

    def rank(score: Score) -> tuple[int, str, str, int]:
        return *_table(score), order.index(score.stage) if score.stage in order else len(order)

    for ipc in facts.ipcs:
        yield from ((ipc, score) for score in sorted(facts.sets[ipc].scores, key=rank))


def _table(score: Score) -> tuple[int, str, str]:
    """Where a score belongs: protocol and network, in the order in which they are shown."""
    late = LAST_PROTOCOLS.index(score.protocol) + 1 if score.protocol in LAST_PROTOCOLS else 0
    return late, score.protocol_text, score.arch


def is_tested_here(score: Score, facts: RepoFacts) -> bool:
    """Whether a score is of the target's own test split, however the dataset was spelled."""
    source, named = facts.source, score.dataset
    if source is None or not named:
        return True
    if source.kind == "local":
        return Path(named).name == source_name(facts)
    name, repo = without_revision(source.name), without_revision(source.id or "")
    return without_revision(named) in (name, repo, repo.rpartition("/")[2])  # an alias is the end of an id


# ----------------------------------------------------------------------------------------------------------- commands


def _commands(facts: RepoFacts) -> Iterator[View]:
    """Each command once, with the sizes it made."""
    by_command: dict[str, list[int]] = {}
    for ipc in facts.ipcs:
        if command := facts.sets[ipc].command:
            by_command.setdefault(command, []).append(ipc)
    for command, ipcs in by_command.items():
        yield {"ipcs": enumerated(ipcs), "lines": [Code(line) for line in broken(command)]}


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


# -------------------------------------------------------------------------------------------------------------- words


def source_name(facts: RepoFacts) -> str:
    """What the target is called: an alias or a Hub id; of local data the folder's name alone."""
    if facts.source is None:
        return "dataset"
    if facts.source.kind == "sample":
        return SAMPLE_NAME
    return facts.source.name if facts.source.kind == "local" else without_revision(facts.source.name)


def hub_id(facts: RepoFacts) -> str | None:
    """The Hub dataset that the facts are about, if there is one."""
    if facts.source is None:
        return None
    return SAMPLE_OF if facts.source.kind == "sample" else facts.source.id if facts.source.kind == "hub" else None


def seconds(value: float | None) -> str:
    """A duration with two significant digits or whole seconds, or a dash."""
    if value is None:
        return "–"
    if value < 0.005:
        return "< 0.01"
    return f"{value:.2g}" if value < 0.95 else number(value, 1 if value < 9.95 else 0)


def enumerated(ipcs: list[int]) -> str:
    """1, 10 and 50"""
    return " and ".join(filter(None, [", ".join(map(str, ipcs[:-1])), *map(str, ipcs[-1:])]))


def _sum(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None when none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _reference(value: str | None) -> Code:
    """A repo id, revision or hash, without anything that could not be in one: it stands in code and in links."""
    return Code(re.sub(r"[^A-Za-z0-9_./@-]", "-", value or "")[:300])
