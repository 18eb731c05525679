"""Train a network of your own on a set, with torch and safetensors alone: nothing of ddtool is imported.

    python examples/train_without_ddtool.py runs/sample/synthetic/ipc10/exact.safetensors test.parquet

The set's file says all that is needed. Images are pixels in [0, 1], standardised by its mean and std; labels are centred and suit
squared error. A set that is whitened, or whose images hold several smaller ones (IDC), needs `SyntheticSet.inputs`, or the lines
on its card.
"""

import io
import json
import sys

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn


def read_set(path: str) -> tuple[dict, Tensor, Tensor]:
    """What the file says, the images ready to train on, and their labels."""
    with safe_open(path, framework="pt") as file:
        info = json.loads(file.metadata()["ddtool"])
        images, labels = file.get_tensor("images"), file.get_tensor("labels")
    if info.get("whitening"):
        sys.exit("This set is whitened: see the lines of torch on its card, or `SyntheticSet.inputs`.")
    if info.get("factor", 1) > 1:
        sys.exit(
            "Each image of this set holds several smaller ones: see the lines of torch on its card, or `SyntheticSet.inputs`."
        )
    return info, standardise(images, info), labels


def standardise(images: Tensor, info: dict) -> Tensor:
    """Pixels in [0, 1] as networks see them."""
    mean, std = (torch.tensor(info[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    return (images - mean) / std


def read_test(path: str, info: dict) -> tuple[Tensor, Tensor]:
    """The images and classes of a parquet file with the columns image and label."""
    table = pq.read_table(path, columns=["image", "label"])
    decoded = [np.array(Image.open(io.BytesIO(cell["bytes"].as_py()))) for cell in table["image"]]
    images = torch.from_numpy(np.stack(decoded)).float() / 255
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return standardise(images, info), torch.tensor(table["label"].to_pylist())


def network(channels: int, side: int, classes: int) -> nn.Module:
    """A small network; put yours here, one of timm for example."""
    body = [nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
    body += [nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(128 * (side // 4) ** 2, classes))


def main(set_file: str, test_file: str, steps: int = 300) -> float:
    """Train on the set, test on the file; prints and returns the accuracy in percent."""
    torch.manual_seed(0)
    info, X, Y = read_set(set_file)
    net = network(X.shape[1], X.shape[2], Y.shape[1])
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        rows = torch.randint(len(X), (min(len(X), 64),))
        optimiser.zero_grad()
        nn.functional.mse_loss(net(X[rows]), Y[rows]).backward()
        optimiser.step()
    images, classes = read_test(test_file, info)
    with torch.no_grad():
        guesses = torch.cat([net(part).argmax(1) for part in images.split(500)])
    accuracy = 100 * float((guesses == classes).double().mean())
    print(f"test accuracy {accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
