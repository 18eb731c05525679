"""What people read in place of the names in results.json: of facts, and of the phases whose seconds are kept."""

from ddtool.events import Phase

FACTS = {
    "train_images": "training images",
    "flip": "images may be flipped",
    "pool_ipc": "initial samples kept per class",
    "pretraining_seconds": "pre-training, seconds",
    "peak_memory_mib": "peak memory, MiB",
    "factor": "images a side in each image",
    "pulled": "pulled from",
    "nearest_real": "distance to the nearest real image, levels of 255",
}
"""Facts of a run; others are called in words already."""
PHASES = {
    "whitening": "trial of whitening",
    "labels": "analytical labels",
    "pool labels": "labels of the initial samples",
    "adapt": "adaptation",
    "generate": "generation",
    "fit labels": "fitting labels",
    "refine": "refinement",
    "distil": "distillation",
    "adapt command, until the sets were written": "all until the sets were written",
}
"""Kinds of phases; others, of scores, keep their names."""
STAGES = {
    "initial": "random real images (initial samples)",
    "random": "random real images",
    "generated": "generator",
    "refined": "refined",
}
"""The stages of MGDD."""


def fact(name: str) -> str:
    """The name of a fact in words."""
    of = Phase.parse(name)
    words = FACTS.get(of.kind, of.kind.replace("_", " "))
    return words if of.ipc is None else f"{words}, IPC {of.ipc}"


def phase(name: str) -> str:
    """The name of a phase in words."""
    of = Phase.parse(name)
    words = [PHASES.get(of.kind, of.kind), *([f"IPC {of.ipc}"] if of.ipc else []), *([of.part] if of.part else [])]
    return ", ".join(words).replace("net ", "network ")
