"""A digest of tensors: safetensors has no checksum of its own, so a flipped byte of a file would be read as another value."""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor


def digest(tensors: Mapping[str, Tensor], said: str = "") -> str:
    """Hash names, types, shapes and values of tensors on the CPU, and the text that is `said` beside them."""
    out = hashlib.blake2b(said.encode(), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        out.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        out.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return out.hexdigest()
