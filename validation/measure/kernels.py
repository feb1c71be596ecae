"""The torch call that each operator is measured with, and its operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from measure.design import Item, Shape

_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3": torch.float8_e4m3fn,
    "int8": torch.int8,
}
# First compute capability whose matrix units multiply in the format; before it torch fails or emulates.
_SINCE = {"tf32": (8, 0), "bf16": (8, 0), "fp8_e4m3": (8, 9), "int8": (7, 5)}

_SDP_BACKENDS = {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}

_HEADS_PROBE: Shape = {"batch": 1, "heads": 4, "kv_heads": 2, "head_dim": 64, "causal": 1, "window": 0}
_CONV_PROBE: Shape = {"batch": 1, "c_in": 8, "c_out": 8, "kernel_h": 3, "kernel_w": 3, "h": 8, "w": 8}
_PROBES: dict[str, Shape] = {
    "gemm": {"m": 32, "n": 64, "k": 64},
    "bmm": {"batch": 2, "m": 32, "n": 64, "k": 64},
    "conv2d": _CONV_PROBE | {"stride": 1, "padding": 1, "groups": 1},
    "attention_prefill": _HEADS_PROBE | {"seq_q": 32, "seq_kv": 32},
    "attention_decode": _HEADS_PROBE | {"seq_q": 1, "seq_kv": 32},
}
_ROWS_PROBE: Shape = {"rows": 4, "cols": 64, "inputs": 1}


@dataclass(slots=True)
class Case:
    """Operands and the call on them.

    Attributes
    ----------
    call : callable
        Takes the operands, returns the result.
    operands : tuple of Tensor
    weights : tuple of int
        Positions of operands that belong to a layer and not to its input.
    kernel, includes, flag : str
        As the columns of the table.
    """

    call: Callable[..., torch.Tensor]
    operands: tuple[torch.Tensor, ...]
    weights: tuple[int, ...] = ()
    kernel: str = ""
    includes: str = ""
    flag: str = ""


def unusable(op: str, precision: str, device: torch.device) -> str:
    """Why the operator cannot be measured in the format on this machine; empty: it can."""
    if device.type == "cpu" and precision == "tf32":
        return "a CPU has no tf32"
    if device.type == "cuda" and torch.version.hip is None:
        have, need = torch.cuda.get_device_capability(device), _SINCE.get(precision, (0, 0))
        if have < need:
            return f"compute capability {have[0]}.{have[1]}, {precision} needs {need[0]}.{need[1]}"
    try:
        case = build(Item(op, precision, _PROBES.get(op, _ROWS_PROBE)), device)
        case.call(*case.operands)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
        return first_line(error)
    return ""


def first_line(error: BaseException) -> str:
    """Type and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def build(item: Item, device: torch.device) -> Case:
    """Operands of random numbers (zeros would save power and raise the clock) and the call."""
    allow_tf32 = item.precision == "tf32"
    torch.set_float32_matmul_precision("high" if allow_tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = allow_tf32
    return _BUILDERS[item.op](item, device)


def _random(device: torch.device, precision: str, *shape: int) -> torch.Tensor:
    dtype = _DTYPES[precision]
    if precision == "int8":
        return torch.randint(-127, 128, shape, dtype=dtype, device=device)
    if precision == "fp8_e4m3":
        return torch.randn(shape, dtype=torch.bfloat16, device=device).to(dtype)
    return torch.randn(shape, dtype=dtype, device=device)


def _gemm(item: Item, device: torch.device) -> Case:
    """Weights lie as (n, k), as in a linear layer."""
    s = item.shape
    a = _random(device, item.precision, s["m"], s["k"])
    w = _random(device, item.precision, s["n"], s["k"])
    if item.precision == "int8":
        return Case(lambda x, y: torch._int_mm(x, y.t()), (a, w), (1,), "_int_mm", "32-bit result")
    if item.precision == "fp8_e4m3":
        one = torch.ones((), device=device)

        def scaled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch._scaled_mm(
                x, y.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
            )

        return Case(scaled, (a, w), (1,), "_scaled_mm, one scale, fast accumulation")
    return Case(lambda x, y: torch.mm(x, y.t()), (a, w), (1,), "mm")


def _bmm(item: Item, device: torch.device) -> Case:
    s = item.shape
    a = _random(device, item.precision, s["batch"], s["m"], s["k"])
    b = _random(device, item.precision, s["batch"], s["k"], s["n"])
    return Case(torch.bmm, (a, b), kernel="bmm")


def _conv2d(item: Item, device: torch.device) -> Case:
    """Channels last for 16-bit operands, which tensor cores take so, channels first for the rest."""
    s = item.shape
    x = _random(device, item.precision, s["batch"], s["c_in"], s["h"], s["w"])
    filters = s["c_out"], s["c_in"] // s["groups"], s["kernel_h"], s["kernel_w"]
    w = _random(device, item.precision, *filters)
    layout = "nchw"
    if item.precision in ("fp16", "bf16"):
        layout = "nhwc"
        x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))

    def call(image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.conv2d(image, weight, None, s["stride"], s["padding"], 1, s["groups"])

    return Case(call, (x, w), (1,), f"conv2d {layout}")


def _attention(item: Item, device: torch.device) -> Case:
    s = item.shape
    q = _random(device, item.precision, s["batch"], s["heads"], s["seq_q"], s["head_dim"])
    keys = s["batch"], s["kv_heads"], s["seq_kv"], s["head_dim"]
    k, v = (_random(device, item.precision, *keys) for _ in "kv")
    # One query sees every key under the schema's mask, which ends at the last key.
    options: dict[str, Any] = {"is_causal": bool(s["causal"]) and s["seq_q"] > 1}
    if s["heads"] != s["kv_heads"]:
        options["enable_gqa"] = True

    def call(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value, **options)

    backend = _SDP_BACKENDS.get(int(torch._fused_sdp_choice(q, k, v, **options)), "other")
    flag = "not fused: writes the scores to memory" if backend == "math" else ""
    return Case(call, (q, k, v), kernel=f"sdpa {backend}", flag=flag)


def _softmax(item: Item, device: torch.device) -> Case:
    x = _random(device, item.precision, item.shape["rows"], item.shape["cols"])
    return Case(lambda t: torch.softmax(t, -1), (x,), kernel="softmax")


def _layernorm(item: Item, device: torch.device) -> Case:
    cols = item.shape["cols"]
    x, gain, shift = (
        _random(device, item.precision, *n) for n in ((item.shape["rows"], cols), (cols,), (cols,))
    )
    return Case(lambda t, g, b: F.layer_norm(t, (cols,), g, b), (x, gain, shift), (1, 2), "layer_norm")


def _rmsnorm(item: Item, device: torch.device) -> Case:
    cols = item.shape["cols"]
    x, gain = (_random(device, item.precision, *n) for n in ((item.shape["rows"], cols), (cols,)))
    fused = hasattr(torch.ops.aten, "_fused_rms_norm")
    flag = "" if fused else "not fused: this torch runs several kernels"
    return Case(lambda t, g: F.rms_norm(t, (cols,), g), (x, gain), (1,), "rms_norm", flag=flag)


def _elementwise(item: Item, device: torch.device) -> Case:
    s = item.shape
    operands = tuple(_random(device, item.precision, s["rows"], s["cols"]) for _ in range(s["inputs"]))
    function: Callable[..., torch.Tensor] = (torch.relu, torch.add, torch.addcmul)[s["inputs"] - 1]
    return Case(function, operands, kernel=("relu", "add", "addcmul")[s["inputs"] - 1])


_BUILDERS: dict[str, Callable[[Item, torch.device], Case]] = {
    "gemm": _gemm,
    "bmm": _bmm,
    "conv2d": _conv2d,
    "attention_prefill": _attention,
    "attention_decode": _attention,
    "softmax": _softmax,
    "layernorm": _layernorm,
    "rmsnorm": _rmsnorm,
    "elementwise": _elementwise,
}
