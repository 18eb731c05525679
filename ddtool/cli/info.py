"""`ddtool info`: what is in a run, a set, a comparison, a generator or a dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output, score_table
from ddtool.errors import DDToolError
from ddtool.text import count, printable, shell

if TYPE_CHECKING:
    from ddtool.config import Values
    from ddtool.experiments.folder import Folder
    from ddtool.runs.facts import Spent
    from ddtool.sharing.found import Found
    from ddtool.sources.load import DataOptions, Target


@handled
@o.reads_data
def command(
    name: Annotated[
        str,
        typer.Argument(
            help="A run, a set's folder or exact.safetensors, a folder of sets, that of a comparison, a generator (a folder, or "
            "'bundled'), a Hub repo, or a dataset."
        ),
    ],
    *,
    data: o.Given,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Describe a run, a set, a comparison, a generator, a repo of `ddtool push`, or a dataset.

    Examples:

      ddtool info sample

      ddtool info runs/cifar10/synthetic/ipc10

      ddtool info runs/compare-cifar10

      ddtool info photos/ --resolution 32

      ddtool info bundled

      ddtool info NAMESPACE/NAME
    """
    with Output(json_, quiet) as output:
        describe(name, data, output)


def describe(name: str, data: o.Given, output: Output) -> None:
    """What a name means, and what is in it."""
    from ddtool.experiments.folder import Folder
    from ddtool.runs.files import EXACT, is_pretraining, is_run, set_folders

    path = Path(name).expanduser()
    if is_run(path):
        return describe_run(path, output)
    if Folder(path).is_begun():
        return describe_comparison(Folder(path), output)
    if (path / EXACT).is_file() or (path.is_file() and path.suffix == ".safetensors"):
        return describe_set(path, output)
    if folders := set_folders(path):
        return describe_sets(path, folders, output)
    if name == "bundled" or is_pretraining(path) or (path / "model.safetensors").is_file():
        return describe_generator(name, output)
    if path.exists() or not describe_repo(name, output):
        describe_dataset(name, data, output)


def describe_repo(name: str, output: Output) -> bool:
    """What a repo of ddtool says of itself; False when `name` is no such repo (but a dataset's, say)."""
    from ddtool.errors import NotOnHubError
    from ddtool.hub.names import parse
    from ddtool.sharing.found import NotOursError, find

    if parse(name) is None:
        return False
    try:
        found = find(name)
    except (NotOnHubError, NotOursError):
        return False
    facts = repo_facts(found)
    scores = [score for made in found.facts.sets.values() for score in made.scores]
    tables = [fact_table(facts), *([score_table(scores)] if scores else [])]
    output.result(facts | {"scores": [score.to_dict() for score in scores]}, found.repo.repo, tables)
    output.next_step(o.next_with(found.kind, name))
    return True


def repo_facts(found: "Found") -> dict[str, object]:
    """What is shown of a repo, by the names in the table; what it does not say is left out."""
    stated, repo = found.facts, found.repo
    facts = {"repo": repo.repo, "kind": found.kind, "revision": repo.sha}
    own = {key: getattr(stated, key) for key in ("model_repo", "dataset_repo", "generator", "parameters", "pool")}
    source = stated.source.stated() if stated.source else {}
    return {
        **facts,
        **{key: value for key, value in own.items() if value},
        **({"method": stated.method.title or stated.method.name} if found.ipcs else {}),
        **{f"source {key}": value for key, value in source.items() if value is not None},
        **({"classes": len(stated.class_names), "sets (ipc)": found.ipcs} if found.ipcs else {}),
    }


def describe_run(path: Path, output: Output) -> None:
    """What a run was made of, what it has come to, and the next command."""
    from ddtool.methods import has_generator
    from ddtool.runs.run import Run

    run = Run.open(path)
    config, results, noted = run.config(), run.results(), run.noted()
    adapts = has_generator(config.method)
    facts = {
        "run": str(path),
        "dataset": config.dataset,
        **({"generator": config.generator} if adapts else {"method": config.method}),
        "sets (ipc)": run.ipcs(),
        "seed": config.seed,
    }
    tables = [fact_table(facts | readable(results["facts"], noted.facts.spent))]
    tables += [score_table(noted.scores)] if noted.scores else []
    output.result({**facts, **results["facts"], **results}, str(path), tables)
    if not (noted.facts.finished or noted.facts.pulled):
        output.next_step(shell("ddtool adapt --resume", path))
        return
    kept, another = noted.facts.pool_ipc, 2 * max(run.ipcs(), default=5)
    another = min(another, kept // config.samples(1)) if kept else another
    if adapts and another > max(run.ipcs(), default=0):
        output.next_step(shell("ddtool generate", path, f"--ipc {another}"))
    else:
        output.next_step(shell("ddtool evaluate", path, "--protocol frepo-mse --eval-seeds 3"))


def describe_set(path: Path, output: Output) -> None:
    """What one synthetic set holds, by its folder or its file."""
    facts = set_facts(path)
    output.result(facts, str(path), [set_table(facts)])
    output.next_step(shell("ddtool evaluate", path, "--protocol frepo-mse --eval-seeds 3"))


def describe_sets(path: Path, folders: Sequence[Path], output: Output) -> None:
    """What each set holds of a folder of sets, as `ddtool import` and `ddtool pull` leave it."""
    facts = [set_facts(folder) for folder in folders]
    output.result({"sets": facts}, str(path), [set_table(one) for one in facts])
    output.next_step(shell("ddtool evaluate", path, "--protocol frepo-mse --eval-seeds 3"))


def set_facts(path: Path) -> "Values":
    """What is shown of a set, by the names in the table."""
    from ddtool.pipeline.scoring import one_set

    made = one_set(path, None, None)
    return {
        "set": str(path),
        "method": made.method,
        "stage": made.stage,
        "ipc": made.ipc,
        "images": len(made),
        "classes": made.num_classes,
        "image": "x".join(map(str, made.shape)),
        "labels": made.label_method,
        "whitening": made.whitening.kind if made.whitening else "none",
        "factor": made.factor,
        "bytes": made.stored_bytes,
    }


def set_table(facts: "Values") -> Table:
    """The facts of a set as a table."""
    shown = {name: value for name, value in facts.items() if (name, value) != ("factor", 1)}
    return fact_table(readable(shown, {}))


def describe_comparison(folder: "Folder", output: Output) -> None:
    """What a comparison was asked for, how far it is, and the next command."""
    grid = folder.read()
    states = [folder.outcome(job, grid.request).state for job in grid.jobs]
    facts = {
        "comparison": str(folder.path),
        "dataset": grid.request.dataset,
        "protocols": grid.request.protocol.split(","),
        "methods": list(dict.fromkeys(job.method for job in grid.jobs)),
        "sets (ipc)": sorted({job.ipc for job in grid.jobs}),
        "budgets": list(dict.fromkeys(str(job.budget) for job in grid.jobs if job.budget)),
        "seeds": sorted({job.seed for job in grid.jobs}),
        "jobs": len(states),
        "finished": states.count("finished"),
        "failed": states.count("failed"),
    }
    shown = {name: value for name, value in facts.items() if value != []}  # selections of real images have no budget
    output.result(facts, str(folder.path), [fact_table(shown)])
    if facts["finished"] == len(states):
        output.next_step(shell("ddtool report", folder.path))
    else:
        output.next_step(f"the same `ddtool compare` again, into {folder.path}: finished jobs stay")


def describe_generator(name: str, output: Output) -> None:
    """The size and the shape of a generator."""
    from ddtool.hub.generators import generator_folder
    from ddtool.models.generator import Generator

    folder = generator_folder(name)
    generator = Generator.load(folder)
    count = sum(p.numel() for p in generator.parameters())
    facts = {"generator": name, "folder": str(folder), "parameters": count, **asdict(generator.config)}
    output.result(facts, str(folder), [fact_table(facts)])
    output.next_step(shell("ddtool adapt sample --generator", name))


def describe_dataset(name: str, data: o.Given, output: Output) -> None:
    """What is in a dataset, decoded if it has to be."""
    from ddtool.config import from_dict
    from ddtool.sources import load as sources
    from ddtool.sources.decode import SizesError

    options = from_dict(sources.DataOptions, data)
    try:
        target = sources.load(name, options, report=output.listener)
    except SizesError as error:
        describe_sizes(name, data, options, error, output)
        return
    counts = target.train.class_counts()
    facts = dataset_facts(target)
    names = [f"{name:.60}" for name in target.train.class_names[:12]]
    listed = ", ".join(names) + (" …" if target.train.num_classes > 12 else "")
    shown = {"files skipped": by_kind(target.skipped), "class names": listed}
    output.result(facts, name, [fact_table(facts | shown)])
    output.next_step(shell("ddtool adapt", name, f"{o.as_typed(data)} --ipc {min(10, int(counts.min()))}".strip()))


def dataset_facts(target: "Target") -> dict[str, object]:
    """What is shown of a dataset, by the names in the table."""
    train, test = target.train, target.test()
    counts = train.class_counts()
    return {
        "dataset": target.name,
        "train images": len(train),
        "test images": len(test),
        "files skipped": target.skipped,
        "broken images set aside": len(target.broken),
        "image": "x".join(map(str, train.shape)),
        "classes": train.num_classes,
        "images per class": f"{int(counts.min())} to {int(counts.max())}",
        "class names": list(train.class_names),
        "mean": list(train.mean),
        "std": list(train.std),
        **{f"source {key}": value for key, value in train.source.items() if value is not None},
    }


def describe_sizes(name: str, data: o.Given, options: "DataOptions", problem: DDToolError, output: Output) -> None:
    """A dataset whose images have to be resized first: what was found, and the sizes that its images have."""
    from ddtool.sources import load as sources

    look = sources.inspect(name, options, sizes=True)
    facts = {
        "dataset": name,
        "images": look.images,
        "of them to train on": look.train,
        "classes": look.classes,
        "files skipped": look.skipped,
        "sizes": {f"{w}x{h}": number for (w, h), number in look.sizes.items()},
    }
    shown = [f"{number} of {w}x{h}" for (w, h), number in list(look.sizes.items())[:8]]
    sizes = ", ".join(shown) + (f", and {len(look.sizes) - 8} sizes more" if len(look.sizes) > 8 else "")
    output.result(facts, name, [fact_table(facts | {"files skipped": by_kind(look.skipped), "sizes": sizes})])
    output.say(problem.message)
    output.next_step(shell("ddtool info", name, f"{o.as_typed(data)} --resolution 32".strip()))


def by_kind(skipped: dict[str, int]) -> str:
    """How many files of each kind were skipped."""
    return ", ".join(f"{number} {kind}" for kind, number in skipped.items()) or "none"


def readable(facts: "Values", spent: "dict[str, Spent]") -> dict[str, object]:
    """The facts of a run for people: names in words, what each set took as a sentence, without what is kept to compare with."""
    from ddtool.runs import words

    shown: dict[str, object] = {}
    for name, value in facts.items():
        if name == "spent":
            shown |= {f"spent on IPC {ipc.removeprefix('ipc')}": spent_text(took) for ipc, took in spent.items()}
        elif name != "target":
            shown[words.fact(name)] = f"{value}x{value}" if name == "factor" else value_text(value)
    return shown


def value_text(value: object) -> object:
    """The value of a fact for people."""
    from ddtool.runs import words

    if isinstance(value, dict):
        return [f"{words.fact(key)} {inner}" for key, inner in value.items()]
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def spent_text(spent: "Spent") -> str:
    """What a set took."""
    return f"{count(spent.steps, 'step')} in {spent.step_seconds:.1f} s, {spent.overhead_seconds:.1f} s of overhead"


def fact_table(facts: Mapping[str, object]) -> Table:
    """Two columns: name, value."""
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        table.add_row(escape(name), escape(printable(text)))
    return table
