"""Regenerate the bundled sample dataset from a full copy of Fashion-MNIST.

    python benchmarks/make_sample.py PATH      # PATH: a folder that datasets.load_dataset reads

Takes the first 400 training and 100 test images of every class, in row order, and writes them with their original PNG
bytes and features to ddtool/assets/sample/. The same PATH and pyarrow give the same bytes. Seconds on one core.
"""

import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, load_dataset

SAMPLE = Path(__file__).parents[1] / "ddtool" / "assets" / "sample"
PER_CLASS = {"train": 400, "test": 100}
CARD = """\
---
license: mit
pretty_name: Fashion-MNIST sample of ddtool
task_categories:
- image-classification
size_categories:
- 1K<n<10K
source_datasets:
- zalando-datasets/fashion_mnist
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
---

# Fashion-MNIST, a sample

{train} training and {test} test images of Fashion-MNIST: 28x28 pixels, grey, 10 classes of clothing, as many of each.
It is bundled with ddtool so that every command can be tried offline in seconds. Do not compare accuracies on it with
those on the full dataset.

**How it was drawn.** The first 400 images per class of the training split and the first 100 per class of the test
split, in the row order of a class-stratified copy of the dataset, by `benchmarks/make_sample.py`. The images are
unchanged (lossless PNG).

**Source.** H. Xiao, K. Rasul, R. Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms*, arXiv:1708.07747. Copyright (c) 2017 Zalando SE, https://tech.zalando.com

**Licence.** The MIT License:

> Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
> documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
> rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
> persons to whom the Software is furnished to do so, subject to the following conditions:
>
> The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
> Software.
>
> THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
> WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
> COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
> OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def first_per_class(labels: list[int], count: int) -> list[int]:
    """Rows of the first `count` images of every class, in row order."""
    seen: Counter[int] = Counter()
    rows = []
    for row, label in enumerate(labels):
        seen[label] += 1
        if seen[label] <= count:
            rows.append(row)
    if min(seen.values()) < count:
        sys.exit(f"Error: a class has only {min(seen.values())} images, {count} are needed.")
    return rows


def write_split(source: Dataset, split: str) -> int:
    """One parquet file with the chosen rows; returns how many there are."""
    rows = first_per_class(source["label"][:], PER_CLASS[split])
    raw = source.cast_column("image", Image(decode=False))
    features = Features({"image": Image(), "label": source.features["label"]})
    chosen = {
        "image": [{"bytes": raw[row]["image"]["bytes"], "path": None} for row in rows],
        "label": [raw[row]["label"] for row in rows],
    }
    table = Dataset.from_dict(chosen, features=features).with_format("arrow")[:]
    pq.write_table(table, SAMPLE / "data" / f"{split}-00000-of-00001.parquet", compression="zstd")
    return len(rows)


def main(path: str) -> None:
    (SAMPLE / "data").mkdir(parents=True, exist_ok=True)
    counts = {split: write_split(load_dataset(path, split=split), split) for split in PER_CLASS}
    (SAMPLE / "README.md").write_text(CARD.format(**{k: f"{n:,}" for k, n in counts.items()}), encoding="utf-8")
    print(f"{SAMPLE}: {counts}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
