"""Write safetensors files one tensor at a time, for weights of gigabytes.

The bytes are those of the safetensors library, which needs all tensors in memory at once.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NAMES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.bool: "BOOL",
}
"""Names of dtypes in the format, in their order within a file."""
ORDER = {name: place for place, name in enumerate(NAMES.values())}
ALIGNMENT = 8


def write_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    convert: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> str:
    """Write a safetensors file whole or not at all, and return its sha256.

    `convert` is applied to one tensor after another, so that never all are copied at once; it may
    change the dtype of a tensor, not its shape.

    Raises
    ------
    TypeError
        If a tensor has a dtype that is not in `NAMES`.
    """
    types = {name: NAMES.get(convert(t.new_empty(0)).dtype) for name, t in tensors.items()}
    unknown = [name for name, kind in types.items() if kind is None]
    if unknown:
        raise TypeError(f"{unknown[0]}: no weights have type {tensors[unknown[0]].dtype}")
    order = sorted(tensors, key=lambda name: (ORDER[str(types[name])], name))
    header: dict[str, object] = {}
    start = 0
    for name in order:
        tensor = tensors[name]
        end = start + tensor.numel() * convert(tensor.new_empty(0)).element_size()
        header[name] = {
            "dtype": types[name],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    digest = hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            for part in (len(text).to_bytes(8, "little"), text):
                file.write(part)
                digest.update(part)
            for name in order:
                data = _bytes_of(convert(tensors[name]))
                file.write(data)
                digest.update(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> Any:
    """Return a tensor's bytes, without a copy if it is contiguous on the host."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
