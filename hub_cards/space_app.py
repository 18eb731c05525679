"""The page of a Space: a synthetic set by class, sets of other sizes, and a small network that learns from them.

Written by `ddtool push --space`. It is yours to change: a later push leaves a changed file alone. What is computed is in
`ddtool.space`, and which repositories are shown is in ddtool.json beside this file.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

try:
    from ddtool import DDToolError, space
except ImportError:
    DDToolError, space = Exception, None  # the page says so

FACTS = json.loads(Path(__file__).with_name("ddtool.json").read_text(encoding="utf-8"))
ALL = "all classes"
MISSING = """# ddtool is missing

This Space cannot show anything yet: add to `requirements.txt` a line by which pip finds ddtool, then restart the Space."""
FONTS = {"font": "system-ui", "font_mono": "monospace"}  # of the visitor's machine: nothing is fetched elsewhere


@cache
def exhibit() -> Any:
    """The repositories, pulled once."""
    return space.Exhibit(FACTS["dataset_repo"], FACTS.get("model_repo"))


def explained(act: Callable) -> Callable:
    """The same steps; what ddtool refuses is shown with what to try."""

    @wraps(act)
    def call(*values: Any) -> Iterator[Any]:
        try:
            yield from act(*values)
        except DDToolError as error:
            raise gr.Error(f"{error.message} {error.hint}".strip(), print_exception=False) from error

    return call


@explained
def show(name: str, label: str) -> Iterator[Any]:
    """The images of a set: of one class, or some of each."""
    made = exhibit().named(name)
    yield space.pictures(made, made.class_names.index(label) if label in made.class_names else None)


@explained
def generate(ipc: float) -> Iterator[Any]:
    """A set of another size, which can then be looked at and trained on."""
    name = exhibit().generate(int(ipc))
    choices = gr.update(choices=exhibit().names)
    yield space.pictures(exhibit().named(name)), choices, choices


@explained
def train(name: str, steps: float, tested: str) -> Iterator[Any]:
    """The accuracy of a network while it learns."""
    points = []
    for point in exhibit().train(name, int(steps), tested):
        points.append({"step": point.step, "accuracy, %": point.accuracy})
        said = f"Step {point.step} of {int(steps)}: {point.accuracy:.1f} % of {point.tested:,} images right."
        yield pd.DataFrame(points), said


def introduction() -> str:
    """What the page is about, with links."""
    model = FACTS.get("model_repo")
    places = [("sets", f"datasets/{FACTS['dataset_repo']}"), *([("generator", model)] if model else [])]
    links = ", ".join(f"[{what}](https://huggingface.co/{place})" for what, place in places)
    return f"# {exhibit().source}: a small set to train on\n\nMade with ddtool. On the Hub: {links}."


def about_sizes() -> str:
    """What can be generated, or why nothing can."""
    if most := exhibit().largest:
        return (
            f"The adapted generator makes up to {most:,} images per class here, on the CPU, in one pass. Their labels are those "
            "of Eq. 3 of the paper; nothing is optimised in steps, so refined sets of that size are better."
        )
    missing = "initial samples" if FACTS.get("model_repo") else "generator"
    return f"The repositories hold no {missing}, so that no set of another size can be made here."


def about_training() -> str:
    """What is trained, and for how long at most."""
    return (
        f"A narrow ConvNet learns from the set alone, for at most {space.MOST_STEPS:,} steps or {space.MOST_SECONDS:.0f} "
        "seconds. Held-out images of the set are synthetic and few: an accuracy on them is no result. Real test images, "
        f"{space.MOST_TESTED:,} at most, take the dataset, which is downloaded once."
    )


def build() -> gr.Blocks:
    """The page."""
    shown = exhibit()
    usual = shown.names[-1]  # the largest
    first = shown.named(usual)
    with gr.Blocks(title="A small set to train on", analytics_enabled=False) as page:
        gr.Markdown(introduction())
        with gr.Tab("The set"):
            with gr.Row():
                looked_at = gr.Dropdown(shown.names, value=usual, label="Set")
                label = gr.Dropdown([ALL, *first.class_names], value=ALL, label="Class")
            images = gallery(space.pictures(first))
            gr.on([looked_at.change, label.change], show, [looked_at, label], images, api_name="show")
        with gr.Tab("Another size"):
            gr.Markdown(about_sizes())
            with gr.Column(visible=shown.largest > 0):
                ipc = gr.Slider(1, max(2, shown.largest), value=1, step=1, label="Images per class")
                make = gr.Button("Generate", variant="primary")
                made = gallery()
        with gr.Tab("Train a network"):
            gr.Markdown(about_training())
            with gr.Row():
                taught = gr.Dropdown(shown.names, value=usual, label="Set")
                steps = gr.Slider(20, space.MOST_STEPS, value=200, step=20, label="Steps")
                tested = gr.Radio(shown.tests, value=shown.tests[0], label="Accuracy on")
            with gr.Row():
                begin, stop = gr.Button("Train", variant="primary"), gr.Button("Stop")
            said = gr.Markdown()
            curve = gr.LinePlot(x="step", y="accuracy, %", y_lim=[0, 100])
        make.click(generate, ipc, [made, looked_at, taught], api_name="generate", concurrency_limit=1)
        running = begin.click(train, [taught, steps, tested], [curve, said], api_name="train", concurrency_limit=1)
        stop.click(None, cancels=[running])
    return page


def gallery(images: list[Any] | None = None) -> gr.Gallery:
    """Pictures with captions below them."""
    return gr.Gallery(
        images, columns=5, object_fit="contain", format="png", label="Images and what their soft labels say", height=640
    )


def only(text: str) -> gr.Blocks:
    """A page of words."""
    with gr.Blocks(title="A small set to train on", analytics_enabled=False) as page:
        gr.Markdown(text)
    return page


def start() -> gr.Blocks:
    """The page, or what is in its way."""
    if space is None:
        return only(MISSING)
    try:
        return build()
    except DDToolError as error:
        return only(f"# Nothing can be shown\n\n{error.message} {error.hint}")


if __name__ == "__main__":
    start().queue(max_size=20).launch(theme=gr.themes.Default(**FONTS))
