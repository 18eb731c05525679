"""The files of a repo: their names, and the most bytes that each may have."""

from ddtool.hub.generators import FACTS, GENERATOR_FILES, MOST_FACTS
from ddtool.hub.names import DATASET, MODEL

CARD, PREVIEW = "README.md", "preview.png"
LABELS, POOL, EXACT, PARQUET = "labels.safetensors", "pool/train.parquet", "exact.safetensors", "train.parquet"
BEGIN = "<!-- ddtool writes what follows, up to its end mark; your own words stay above this line or below that one -->"
END = "<!-- end of what ddtool writes -->"

LIMITS = {CARD: 2**20, FACTS: MOST_FACTS, LABELS: 2**30, POOL: 2**30, EXACT: 2**32, PARQUET: 2**32}
"""The most bytes that a file from a repo may have."""

USUAL = {MODEL: [CARD, FACTS, PREVIEW, *GENERATOR_FILES, LABELS, POOL], DATASET: [CARD, FACTS, PREVIEW]}
"""Files that a repo of each kind may have, apart from its sets: whoever asks for one will ask for others."""

MOST_OF_SETS = 2**32
"""The most bytes that all files of one request for sets may have."""
