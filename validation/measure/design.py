"""Which shapes are measured: spread evenly over the logarithms of the sizes, and layers of real networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

Shape = dict[str, int]

FORMATS: Mapping[str, tuple[str, ...]] = {
    "gemm": ("bf16", "fp16", "tf32", "fp32", "fp8_e4m3", "int8"),
    "bmm": ("bf16", "fp16", "tf32", "fp32"),
    "conv2d": ("bf16", "fp16", "tf32", "fp32"),
    "attention_prefill": ("bf16", "fp16", "fp32"),
    "attention_decode": ("bf16", "fp16", "fp32"),
    "softmax": ("bf16", "fp16", "fp32"),
    "layernorm": ("bf16", "fp16", "fp32"),
    "rmsnorm": ("bf16", "fp16", "fp32"),
    "elementwise": ("bf16", "fp16", "fp32"),
}
"""Operator to the formats that torch has a kernel for on some device."""

ELEMENT_BYTES: Mapping[str, int] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8_e4m3": 1, "int8": 1}

REPEATED_SHARE = 0.05
"""Share of the items that is measured again at another moment: how well the machine repeats itself."""

# (n, k) of the projections of a decoder layer: q, k and v in one; output; gate and up in one; down.
_PROJECTIONS = (
    *((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)),  # Llama 3 8B
    *((10240, 8192), (8192, 8192), (57344, 8192), (8192, 28672)),  # Llama 3 70B
    *((3072, 1024), (1024, 1024), (4096, 1024), (1024, 4096)),  # BERT large
)

# ResNet-50: c_in, c_out, kernel, input size, stride (He et al. 2016, table 1; stride in the 3x3 layer).
_RESNET_50 = (
    *((3, 64, 7, 224, 2), (64, 64, 1, 56, 1), (64, 64, 3, 56, 1), (64, 256, 1, 56, 1), (256, 64, 1, 56, 1)),
    *((256, 128, 1, 56, 1), (128, 128, 3, 56, 2), (128, 512, 1, 28, 1), (256, 512, 1, 56, 2)),
    *((512, 128, 1, 28, 1), (128, 128, 3, 28, 1), (512, 256, 1, 28, 1), (256, 256, 3, 28, 2)),
    *((256, 1024, 1, 14, 1), (512, 1024, 1, 28, 2), (1024, 256, 1, 14, 1), (256, 256, 3, 14, 1)),
    *((1024, 512, 1, 14, 1), (512, 512, 3, 14, 2), (512, 2048, 1, 7, 1), (1024, 2048, 1, 14, 2)),
    *((2048, 512, 1, 7, 1), (512, 512, 3, 7, 1)),
)
# Channels, size of the input, stride and groups of 3x3 layers: MobileNetV2 (depthwise), ResNeXt-50 32x4d.
_GROUPED = (
    *((32, 112, 1, 32), (96, 112, 2, 96), (144, 56, 1, 144), (192, 28, 1, 192), (384, 14, 1, 384)),
    *(
        (576, 14, 2, 576),
        (960, 7, 1, 960),
        (128, 56, 1, 32),
        (256, 28, 1, 32),
        (512, 14, 1, 32),
        (1024, 7, 1, 32),
    ),
)

# Query heads, key heads and head width of BERT base and large, Llama 2 7B, Llama 3 8B and 70B, Qwen 2.5 32B,
# Llama 3 70B on eight devices, and a wide head.
_HEADS = (
    *((12, 12, 64), (16, 16, 64), (32, 32, 128), (32, 8, 128), (64, 8, 128), (40, 8, 128), (8, 1, 128)),
    (16, 16, 256),
)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to measure.

    Attributes
    ----------
    op, precision : str
    shape : dict of str to int
        Its shape columns.
    """

    op: str
    precision: str
    shape: Shape


def design(
    ops: tuple[str, ...],
    seed: int,
    most_flop: float = math.inf,
    most_bytes: float = math.inf,
    usable: Callable[[str, str], bool] = lambda op, precision: True,
) -> list[Item]:
    """Items in the order of measuring.

    First one item of each operator, then all the others in random order: slow changes of the machine (heat)
    then look like noise and not like an effect of the shape, and any prefix is a fair sample.

    Parameters
    ----------
    ops : tuple of str
    seed : int
    most_flop, most_bytes : float
        Larger items are left out [FLOP, B].
    usable : callable
        Whether an operator and a format are to be measured.
    """
    rng = np.random.default_rng(seed)
    by_op: dict[str, list[Item]] = {}
    for op in ops:
        items = [
            Item(op, precision, shape)
            for shape in _distinct(_SHAPES[op](rng))
            for precision in FORMATS[op]
            if usable(op, precision) and _fits_kernel(op, precision, shape)
        ]
        by_op[op] = [i for i in items if flop(i) <= most_flop and traffic_bytes(i) <= most_bytes]
    first: list[Item] = []
    rest: list[Item] = []
    for items in by_op.values():
        order = [items[i] for i in rng.permutation(len(items))]
        first += order[:1]
        rest += order[1:] + order[: round(REPEATED_SHARE * len(order))]
    return _shuffled(first, rng) + _shuffled(rest, rng)


def flop(item: Item) -> float:
    """Multiply-accumulate arithmetic, 1 MAC = 2 [FLOP]; one per element where there are no products."""
    s = item.shape
    if item.op in ("gemm", "bmm"):
        return 2.0 * s.get("batch", 1) * s["m"] * s["n"] * s["k"]
    if item.op == "conv2d":
        out_h, out_w = output_size(s)
        taps = s["c_in"] // s["groups"] * s["kernel_h"] * s["kernel_w"]
        return 2.0 * s["batch"] * s["c_out"] * out_h * out_w * taps
    if item.op.startswith("attention"):
        share = 0.5 if s["causal"] and s["seq_q"] > 1 else 1.0
        return 4.0 * s["batch"] * s["heads"] * s["head_dim"] * s["seq_q"] * s["seq_kv"] * share
    return float(s["rows"] * s["cols"])


def traffic_bytes(item: Item) -> float:
    """Bytes of the operands and of a result of 16 bits or more [B]."""
    s, size = item.shape, ELEMENT_BYTES[item.precision]
    wide = max(size, 2)
    if item.op in ("gemm", "bmm"):
        m, n, k = s["m"], s["n"], s["k"]
        return s.get("batch", 1) * float((m * k + k * n) * size + m * n * wide)
    if item.op == "conv2d":
        out_h, out_w = output_size(s)
        filters = s["c_out"] * s["c_in"] // s["groups"] * s["kernel_h"] * s["kernel_w"]
        images = s["batch"] * (s["c_in"] * s["h"] * s["w"] + s["c_out"] * out_h * out_w)
        return float((filters + images) * size)
    if item.op.startswith("attention"):
        tokens = 2 * s["heads"] * s["seq_q"] + 2 * s["kv_heads"] * s["seq_kv"]
        return float(s["batch"] * s["head_dim"] * tokens * size)
    return float(s["rows"] * s["cols"] * (s["inputs"] + 1) * size)


def output_size(shape: Shape) -> tuple[int, int]:
    """Height and width of a convolution's result [pixels]."""
    margin, stride = 2 * shape["padding"], shape["stride"]
    height = (shape["h"] + margin - shape["kernel_h"]) // stride + 1
    return height, (shape["w"] + margin - shape["kernel_w"]) // stride + 1


def _shuffled(items: list[Item], rng: np.random.Generator) -> list[Item]:
    return [items[i] for i in rng.permutation(len(items))]


def _distinct(shapes: Iterator[Shape]) -> list[Shape]:
    return list({tuple(s.items()): s for s in shapes}.values())


def _fits_kernel(op: str, precision: str, s: Shape) -> bool:
    """Whether the library takes the shape: its 8-bit products want aligned rows."""
    if op != "gemm" or precision not in ("fp8_e4m3", "int8"):
        return True
    if precision == "int8":
        return s["m"] > 16 and s["n"] % 8 == 0 and s["k"] % 8 == 0
    return s["n"] % 16 == 0 and s["k"] % 16 == 0


def _spread(rng: np.random.Generator, count: int, *ranges: tuple[int, int]) -> Iterator[list[float]]:
    """Points that fill a box of logarithms evenly.

    Additive recurrence with the generalised golden ratio (Roberts 2018, "The unreasonable effectiveness of
    quasirandom sequences"), shifted at random.
    """
    root = 2.0
    for _ in range(60):  # fixed point of x^(d + 1) = x + 1
        root = (1.0 + root) ** (1.0 / (len(ranges) + 1))
    steps = root ** -np.arange(1.0, len(ranges) + 1)
    shift = rng.random(len(ranges))
    low, high = np.log(np.array(ranges, dtype=np.float64)).T
    for i in range(count):
        yield list(np.exp(low + (high - low) * ((shift + i * steps) % 1.0)))


def _whole(value: float, index: int) -> int:
    """Every third size a multiple of 64, every third a multiple of 8, every third as it falls."""
    grain = (64, 8, 1)[index % 3]
    return max(1, round(value)) if value < grain else grain * round(value / grain)


def _gemm(rng: np.random.Generator) -> Iterator[Shape]:
    for i, (m, n, k) in enumerate(_spread(rng, 420, (1, 32768), (32, 32768), (32, 32768))):
        yield {"m": _whole(m, i), "n": _whole(n, i // 3), "k": _whole(k, i // 3)}
    for n, k in _PROJECTIONS:
        yield from ({"m": m, "n": n, "k": k} for m in (1, 8, 32, 128, 512, 2048, 8192))


def _bmm(rng: np.random.Generator) -> Iterator[Shape]:
    for i, (b, m, n, k) in enumerate(_spread(rng, 200, (1, 512), (1, 4096), (16, 4096), (16, 4096))):
        yield {"batch": round(b), "m": _whole(m, i), "n": _whole(n, i // 3), "k": _whole(k, i // 3)}


def _conv2d(rng: np.random.Generator) -> Iterator[Shape]:
    for batch in (1, 8, 32, 128):
        for c_in, c_out, kernel, size, stride in _RESNET_50:
            yield _conv_shape(batch, c_in, c_out, kernel, size, stride, kernel // 2, 1)
        for channels, size, stride, groups in _GROUPED:
            yield _conv_shape(batch, channels, channels, 3, size, stride, 1, groups)
    for i, (b, c_in, c_out, size) in enumerate(_spread(rng, 160, (1, 128), (3, 1024), (8, 1024), (7, 224))):
        kernel = (1, 3, 3, 5, 7)[i % 5]
        padding = 0 if i % 4 == 3 else kernel // 2
        channels = _whole(c_in, i), _whole(c_out, i // 3)
        yield _conv_shape(round(b), *channels, kernel, round(size), 1 + (i // 5) % 2, padding, 1)


def _conv_shape(
    batch: int, c_in: int, c_out: int, kernel: int, size: int, stride: int, padding: int, groups: int
) -> Shape:
    image = {"batch": batch, "c_in": c_in, "c_out": c_out, "kernel_h": kernel, "kernel_w": kernel}
    return image | {"h": size, "w": size, "stride": stride, "padding": padding, "groups": groups}


def _heads(index: int) -> Shape:
    heads, kv_heads, width = _HEADS[index % len(_HEADS)]
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": width}


def _attention_prefill(rng: np.random.Generator) -> Iterator[Shape]:
    for i, (batch, length, more) in enumerate(_spread(rng, 200, (1, 64), (16, 16384), (1, 16))):
        tokens = _whole(length, i)
        # torch aligns its causal mask with the first key, the schema with the last: equal lengths are both.
        causal = int(i % 4 != 3)
        keys = tokens if causal else round(tokens * more)
        yield {
            "batch": round(batch),
            **_heads(i),
            "seq_q": tokens,
            "seq_kv": keys,
            "causal": causal,
            "window": 0,
        }


def _attention_decode(rng: np.random.Generator) -> Iterator[Shape]:
    for i, (batch, length) in enumerate(_spread(rng, 200, (1, 256), (64, 131072))):
        keys = _whole(length, i)
        yield {"batch": round(batch), **_heads(i), "seq_q": 1, "seq_kv": keys, "causal": 1, "window": 0}


def _rows(rng: np.random.Generator, most_inputs: int = 1) -> Iterator[Shape]:
    for i, (rows, cols) in enumerate(_spread(rng, 120, (1, 131072), (32, 131072))):
        yield {"rows": _whole(rows, i), "cols": _whole(cols, i // 3), "inputs": 1 + i % most_inputs}


_SHAPES: Mapping[str, Callable[[np.random.Generator], Iterator[Shape]]] = {
    "gemm": _gemm,
    "bmm": _bmm,
    "conv2d": _conv2d,
    "attention_prefill": _attention_prefill,
    "attention_decode": _attention_decode,
    "softmax": _rows,
    "layernorm": _rows,
    "rmsnorm": _rows,
    "elementwise": lambda rng: _rows(rng, 3),
}
