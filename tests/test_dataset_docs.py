"""docs/datasets.md: every row of its tables names a test that exists."""

import re
from pathlib import Path

import pages

TEXT = (pages.DOCS / "datasets.md").read_text(encoding="utf-8")
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (Path(__file__).parent / "sources").glob("test_*.py"))


def test_every_row_names_a_test() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| layout")]
    named = [re.search(r"`(test_\w+)` \|$", row) for row in rows if not row.startswith("| in the file")]
    assert len(named) > 20
    for row, name in zip(rows, named, strict=False):
        assert name, row
        assert f"def {name[1]}(" in TESTS, name[1]
