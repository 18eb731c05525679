"""The commands that make a set again, and that push a run again."""

import json
import shlex
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from ddtool.config import PRESETS, RunConfig, from_dict, merged, to_dict
from ddtool.data.images import SyntheticSet
from ddtool.methods import default, has_generator
from ddtool.pipeline.plan import owners_of_foreign_settings
from ddtool.runs.facts import Environment
from ddtool.runtime.engine import PRECISIONS


def command(config: RunConfig, made: SyntheticSet, env: Environment, local: bool) -> str:
    """The command that makes a set: every setting that is not of the nearer preset, the precision, a CPU's threads, and whether
    networks are compiled or steps captured: the last bits of a result may depend on each of these."""
    by_preset = {name: list(differences(to_dict(config), name)) for name in PRESETS}
    name = min(by_preset, key=lambda name: len(by_preset[name]))
    words = ["ddtool adapt", shlex.quote(f"./{config.dataset}" if local else config.dataset)]
    words += [f"--ipc {n}" for n in config.ipc] + [f"--seed {config.seed} --preset {name}"]
    words += [f"--method {shlex.quote(config.method)}"] if config.method != default().name else []
    if has_generator(config.method) and config.generator != RunConfig().generator:
        words += ["--generator " + shlex.quote(config.generator)]
    words += [f"--seconds {config.seconds:.12g}"] if config.seconds is not None else []
    unused = owners_of_foreign_settings(config.method)  # a run may have them, its command would be refused
    given = [(key, value) for key, value in by_preset[name] if key.partition(".")[0] not in unused]
    words += [f"--set {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in given]
    precision = [f"--precision {env.precision}"] if env.precision in PRECISIONS else []
    words += precision + ([f"--threads {env.threads}"] if env.threads is not None else [])
    words += ["--compile"] * env.compiled + ["--graphs"] * env.graphs
    if made.stage == "generated" and config.refine.steps > 0:
        words += [f"--out runs/new && ddtool generate runs/new --ipc {made.ipc}", *precision]
        words += ["--labels analytical"] if made.label_method == "analytical" and config.fit.networks else []
    return " ".join(words)


def differences(config: Mapping[str, JsonValue], preset: str) -> Iterator[tuple[str, JsonValue]]:
    """(a.b, value) of every setting that differs from a preset's, but for those with an option of their own."""
    usual = to_dict(from_dict(RunConfig, merged({}, PRESETS[preset])))
    for key, value in config.items():
        if key in ("dataset", "ipc", "seed", "generator", "method", "seconds", "measured"):
            continue
        if isinstance(value, dict):
            below = usual[key]
            inner = below if isinstance(below, dict) else {}
            yield from ((f"{key}.{k}", v) for k, v in value.items() if inner.get(k) != v)
        elif value != usual[key]:
            yield key, value
