"""Read `.safetensors` files: a header in JSON, then the tensors' bytes; one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.core.errors import ModelFileError
from accelsim.techniques.numerics import Floats, decode

_TYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "F8_E4M3": np.uint8,
    "F8_E5M2": np.uint8,
}
_NARROW = {"BF16": "bf16", "F8_E4M3": "fp8_e4m3", "F8_E5M2": "fp8_e5m2"}
_HEADER_BYTES = 100_000_000


def floating_tensors(path: Path) -> Iterator[tuple[str, Floats]]:
    """Name and contents of every floating-point tensor, in the order of the file.

    Raises
    ------
    ModelFileError
        Not a safetensors file, or a truncated one.
    """
    try:
        raw = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError):
        raise ModelFileError("cannot read the file, or it is empty", str(path)) from None
    wrong = ModelFileError("not a safetensors file, or a truncated one", str(path))
    if raw.size < 8:
        raise wrong
    length = int(raw[:8].view("<u8")[0])
    if length > min(_HEADER_BYTES, raw.size - 8):
        raise wrong
    try:
        header = json.loads(bytes(raw[8 : 8 + length]))
        entries = {k: v for k, v in header.items() if k != "__metadata__"}
        places = [(k, v["dtype"], tuple(v["shape"]), *v["data_offsets"]) for k, v in entries.items()]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise wrong from None
    body = raw[8 + length :]
    for name, kind, shape, start, stop in places:
        if kind not in _TYPES:
            continue
        dtype = np.dtype(_TYPES[kind])
        if not 0 <= start <= stop <= body.size or stop - start != prod(shape) * dtype.itemsize:
            raise ModelFileError(f"tensor '{name}' does not fit the file", str(path), "download it again")
        held = np.frombuffer(body[start:stop].tobytes(), dtype).reshape(shape)
        narrow = _NARROW.get(kind)
        yield name, held.astype(np.float32) if narrow is None else decode(held, narrow)
