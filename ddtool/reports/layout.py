"""Pages from templates: one file each, with nothing beside it, in which every value is escaped."""

import base64
from functools import cache
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).parent / "templates"
"""Where the base of all pages is, and the macros that they share."""


def page(template: Path, **values: object) -> str:
    """The page that a template makes of values. Templates beside it and in `TEMPLATES` may be extended and imported."""
    return environment(template.parent).get_template(template.name).render(values)


@cache
def environment(folder: Path) -> jinja2.Environment:
    """The templates of a folder; every value is escaped, and one that is missing is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def in_base64(content: bytes) -> str:
    """Bytes as the text of a data URI."""
    return base64.b64encode(content).decode("ascii")


def data_uri(content: bytes, kind: str) -> str:
    """A file as the address of an image. kind: svg or png."""
    return f"data:image/{'svg+xml' if kind == 'svg' else kind};base64,{in_base64(content)}"
