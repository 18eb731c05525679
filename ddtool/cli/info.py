"""`ddtool info`: what is in a run, a generator or a dataset."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output, score_table
from ddtool.errors import DDToolError
from ddtool.text import printable

if TYPE_CHECKING:
    from ddtool.sources.load import DataOptions


@handled
@o.reads_data
def command(
    name: Annotated[str, typer.Argument(help="A run, a generator (a folder, or 'bundled'), a Hub repo, or a dataset.")],
    *,
    data: dict[str, Any],
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Describe a run, a generator, a repo of `ddtool push`, or a dataset.

    Examples:

      ddtool info sample

      ddtool info photos/ --resolution 32

      ddtool info bundled

      ddtool info NAMESPACE/NAME
    """
    from ddtool.runs.files import is_pretraining, is_run

    with Output(json_, quiet) as output:
        path = Path(name).expanduser()
        if is_run(path):
            describe_run(path, output)
        elif name == "bundled" or is_pretraining(path) or (path / "model.safetensors").is_file():
            describe_generator(name, output)
        elif path.exists() or not describe_repo(name, output):
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
    stated, repo = found.facts, found.repo
    values = {key: getattr(stated, key) for key in ("model_repo", "dataset_repo", "generator", "parameters", "pool")}
    facts: dict[str, Any] = {"repo": repo.repo, "kind": found.kind, "revision": repo.sha}
    facts |= {key: value for key, value in values.items() if value}
    facts |= {"method": stated.method.title or stated.method.name} if stated.method else {}
    facts |= {f"source {k}": v for k, v in (stated.source.stated() if stated.source else {}).items() if v is not None}
    facts |= {"classes": len(stated.class_names), "sets (ipc)": found.ipcs} if found.ipcs else {}
    scores = [score.to_dict() for made in stated.sets.values() for score in made.scores]
    tables = [score_table(scores)] if scores else []
    output.result(facts | {"scores": scores}, repo.repo, [fact_table(facts), *tables])
    output.next_step(o.next_with(found.kind, name))
    return True


def describe_run(path: Path, output: Output) -> None:
    """What a run was made of, what it has come to, and the next command."""
    from ddtool.methods import has_generator
    from ddtool.runs.run import Run

    run = Run.open(path)
    config, results = run.config(), run.results()
    adapts = has_generator(config.method)
    facts: dict[str, Any] = {
        "run": str(path),
        "dataset": config.dataset,
        **({"generator": config.generator} if adapts else {"method": config.method}),
        "sets (ipc)": run.ipcs(),
    }
    facts |= {"seed": config.seed, **results["facts"]}
    scores = [score_table(results["scores"])] if results["scores"] else []
    output.result({**facts, **results}, str(path), [fact_table(readable(facts)), *scores])
    if not adapts and run.noted().facts.finished:
        output.next_step(o.shell("ddtool evaluate", path, "--protocol frepo-mse --eval-seeds 3"))
    elif all(ipc in run.ipcs() for ipc in config.ipc):
        output.next_step(o.shell("ddtool generate", path, f"--ipc {2 * max(run.ipcs())}"))
    else:
        output.next_step(o.shell("ddtool adapt --resume", path))


def describe_generator(name: str, output: Output) -> None:
    from ddtool.hub.generators import generator_folder
    from ddtool.models.generator import Generator

    folder = generator_folder(name)
    generator = Generator.load(folder)
    count = sum(p.numel() for p in generator.parameters())
    facts = {"generator": name, "folder": str(folder), "parameters": count, **asdict(generator.config)}
    output.result(facts, str(folder), [fact_table(facts)])
    output.next_step(o.shell("ddtool adapt sample --generator", name))


def describe_dataset(name: str, data: dict[str, Any], output: Output) -> None:
    from ddtool.config import from_dict
    from ddtool.sources import load as sources
    from ddtool.sources.decode import SizesError

    options = from_dict(sources.DataOptions, data)
    try:
        target = sources.load(name, options, report=output.listener)
    except SizesError as error:
        describe_sizes(name, data, options, error, output)
        return
    train, test = target.train, target.test()
    counts = train.class_counts()
    facts: dict[str, Any] = {
        "dataset": name,
        "train images": len(train),
        "test images": len(test),
        "files skipped": target.skipped,
        "broken images set aside": len(target.broken),
        "image": "x".join(map(str, train.shape)),
        "classes": train.num_classes,
        "images per class": f"{int(counts.min())} to {int(counts.max())}",
        "class names": ", ".join(f"{short:.60}" for short in train.class_names[:12])
        + (" …" if train.num_classes > 12 else ""),
        "mean": list(train.mean),
        "std": list(train.std),
        **{f"source {k}": v for k, v in train.source.items() if v is not None},
    }
    output.result(facts, name, [fact_table(facts | {"files skipped": by_kind(target.skipped)})])
    output.next_step(o.shell("ddtool adapt", name, f"{o.as_typed(data)} --ipc {min(10, int(counts.min()))}".strip()))


def describe_sizes(
    name: str, data: dict[str, Any], options: "DataOptions", problem: DDToolError, output: Output
) -> None:
    """A dataset whose images have to be resized first: what was found, and the sizes that its images have."""
    from ddtool.sources import load as sources

    look = sources.inspect(name, options, sizes=True)
    facts: dict[str, Any] = {
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
    output.next_step(o.shell("ddtool info", name, f"{o.as_typed(data)} --resolution 32".strip()))


def by_kind(skipped: dict[str, int]) -> str:
    """How many files of each kind were skipped."""
    return ", ".join(f"{number} {kind}" for kind, number in skipped.items()) or "none"


def readable(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a run for people: what each set took as a sentence, without what is kept to compare with."""
    shown: dict[str, Any] = {}
    for name, value in facts.items():
        if name == "spent":
            shown |= {f"spent on {ipc}": spent_text(spent) for ipc, spent in value.items()}
        elif isinstance(value, dict) and name != "target":
            shown[name] = [f"{key} {inner}" for key, inner in value.items()]
        elif name != "target":
            shown[name] = value
    return shown


def spent_text(spent: dict[str, Any]) -> str:
    """What a set took."""
    inside, overhead = spent["step_seconds"], spent["overhead_seconds"]
    return f"{spent['steps']} steps in {inside:.1f} s, {overhead:.1f} s of overhead"


def fact_table(facts: dict[str, Any]) -> Table:
    """Two columns: name, value."""
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        table.add_row(escape(name), escape(printable(text)))
    return table
