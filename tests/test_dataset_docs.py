"""docs/datasets.md: every row of its tables names a test that exists."""

import re
from pathlib import Path

import pages

TEXT = (pages.DOCS / "datasets.md").read_text(encoding="utf-8")
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py"))


def test_every_row_names_tests_that_exist() -> None:
    rows = [
        line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| layout", "| format"))
    ]
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.rsplit("|", 2)[1])
        assert named, row
        assert all(f"def {name}(" in TESTS for name in named), row
