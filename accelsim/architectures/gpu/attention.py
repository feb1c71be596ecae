"""Fused attention: which constants a kernel takes, and many kernels at once from their shapes.

The kernel model is in `attention_kernel`; products of graphs and rows of tables both end there. Dao,
arXiv:2307.08691; Shah et al., arXiv:2407.08608.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.gpu import attention_rows as A
from accelsim.architectures.gpu.finish import Timed, of_device, timed
from accelsim.architectures.gpu.rates import product_rate, wider
from accelsim.architectures.opwork import output_bytes
from accelsim.core.precision import PrecisionPlan
from accelsim.hardware.kernels import AttentionModel

Array = npt.NDArray[np.float64]

DEFAULT_STACK = "vllm"
"""Whose constants stacks without a section take: its kernels are those of the FlashAttention library."""

MANY_HEADS = 32
"""Query heads per key head that kernels for shared heads take at most."""

MANY_ABOVE = {"sglang": 16}
"""The same of stacks whose kernels for shared heads have fewer rows: FlashInfer goes from tiles of 16 query
rows to 64."""

SINGLE_BELOW = {"sglang": 4.0}
"""Query heads per key head from which on a stack's kernels for shared heads take over; else two. FlashInfer
keeps fewer than four on its kernel without tensor cores."""

FEW_SHARE = 0.25
"""Thread blocks per SM below which a stack's kernels for grouped heads give way to those that take each query
head for itself: XQA in TensorRT-LLM, which counts `FEW_KEYS` keys of a key head as a block."""
FEW_KEYS = 128.0

PROMPT_KERNELS = frozenset({"trtllm", "sglang"})
"""Stacks that run a prompt of one token on their prefill kernel; others decode it."""

FORMS = ("", "expanded", "latent")
"""Of attention: plain; latent attention with keys and values of each head, which differ in width; latent
attention whose keys and values are the latents."""

LATENT_HEADS = (128, 64)
"""Query heads from which on stacks may read latents with another kernel, most first: TensorRT-LLM has one for
128 heads on parts with little shared memory, and on Blackwell one whose products hold 64 heads as rows."""

_GROUPS = (1.5, 3.5, 16.5, MANY_HEADS + 0.5)
_GROUP = (1.0, 2.0, 8.0, MANY_HEADS, inf)
_LATENT_GROUP = (1.0, 2.0, 8.0, *sorted(LATENT_HEADS))


def attention_model(
    device: Any,
    stack: str,
    *,
    decode: bool,
    format_bits: tuple[float, float],
    group: float,
    width: int,
    window: bool,
    few: bool = False,
    form: str = "",
) -> AttentionModel:
    """Constants of the kernel that a stack launches.

    Parameters
    ----------
    device : GpuDevice
    stack : str
        Software stack; one without measurements takes those of `DEFAULT_STACK`.
    decode : bool
        One new token per sequence.
    format_bits : (float, float)
        Bits of the queries and of the cache.
    group : float
        Query heads per key head; all heads where they read the same latents.
    width : int
        Width of a head.
    window : bool
        A sliding window is on.
    few : bool
        The grid is small, see `is_few`.
    form : str
        Of latent attention: one of `FORMS`.
    """
    models = device.kernels.attention
    kernels: Mapping[str, AttentionModel] = models.get(stack, models[DEFAULT_STACK])
    phase = "decode" if decode else "prefill"
    narrow = "-fp8" if format_bits[0] <= 8 else "-kv8" if format_bits[1] <= 8 else ""
    if form:
        own = ["-single"] if group < 2.0 else [f"-{n}" for n in LATENT_HEADS if group >= n]
        for name in (f"{phase}{bits}-{form}{heads}" for bits in (narrow, "") for heads in (*own, "")):
            if name in kernels:
                return kernels[name]
    if group < SINGLE_BELOW.get(stack, 2.0):
        heads = "-single"
    else:
        heads = "-many" if group > MANY_ABOVE.get(stack, MANY_HEADS) else "-few" if few else ""
    mask = "-window" if window else "-full"
    widths = (f"-{width}{mask}", f"-{width}", heads or mask, mask, "")
    for name in (phase + narrow + suffix for suffix in widths):
        if name in kernels:
            return kernels[name]
    for name in (phase + suffix for suffix in widths):
        if name in kernels:
            return kernels[name]
    raise KeyError(phase)  # the generic file of the kind has both


def is_few(units: Any, keys: Any, sms: float) -> Any:
    """Whether a decoding grid of so many sequences and key heads is too small for kernels of grouped heads,
    see `FEW_SHARE`.
    """
    return units * np.maximum(1.0, np.floor(keys / FEW_KEYS)) < FEW_SHARE * sms


def attention_device(device: Any) -> Array:
    """The numbers of a device that the numba kernel reads, in its order."""
    memory, l2, sm = device.memory, device.l2, device.sm
    values = [sm.count, memory.bandwidth_bytes_per_s, l2.bandwidth_bytes_per_s, l2.capacity_bytes]
    return np.array([*values, sm.exp_per_clock], dtype=np.float64)


def run_kernel(rows: Array, models: Sequence[AttentionModel], device: Any) -> Array:
    """Rows costed by the numba kernel, shape (rows, `attention_rows.OUT_WIDTH`); MODEL counts in `models`."""
    from accelsim.architectures.gpu.attention_kernel import cost_attention

    out = np.zeros((len(rows), A.OUT_WIDTH))
    if len(rows):
        constants = np.stack([model.array for model in models])
        cost_attention(rows, attention_device(device), constants, out)
    return out


def attention_rows(
    shapes: Mapping[str, Array],
    formats: PrecisionPlan,
    device: Any,
    stack: str,
    cold: bool = False,
    decode: bool | None = None,
) -> Timed:
    """Latency and traffic of many attention operators, each launched on its own.

    Parameters
    ----------
    shapes : mapping of str to ndarray
        Columns of ``attention_prefill`` and ``attention_decode`` in the operator schema: batch, heads,
        kv_heads, head_dim, seq_q, seq_kv, causal, window (0: none); or of ``mla_prefill`` and ``mla_decode``.
    formats : PrecisionPlan
        Activations are queries and results; weights do not matter.
    device : GpuDevice
    stack : str
    cold : bool
        Nothing is in the caches.
    decode : bool, optional
        Whether the rows are decode steps; by default those with one new token are.

    Raises
    ------
    InfeasibleError
        The device has no arithmetic in the format.
    """
    form: Array = np.zeros(len(shapes["heads"]))
    if "latent" in shapes:
        absorbed = shapes.get("absorbed", np.ones(len(form))) > 0.0
        form = np.where(absorbed, 2.0, 1.0).astype(np.float64)
        rows = _latent_rows(shapes, formats, device, cold, absorbed)
    else:
        rows = _rows_of(shapes, formats, device, cold)
    models = _choose(rows, formats, device, stack, decode, form)
    out = run_kernel(rows, models, device)
    return timed(out, *of_device(device, stack))


def _rows_of(shapes: Mapping[str, Array], formats: PrecisionPlan, device: Any, cold: bool) -> Array:
    """Input of the kernel. Table rows run back to back on the same data, as they were measured."""
    names = ("batch", "heads", "kv_heads", "head_dim", "seq_q", "seq_kv", "causal", "window")
    batch, heads, shared, width, queries, keys, causal, window = (shapes[name] for name in names)
    rate, clock, _ = product_rate(device, wider(formats.activation, formats.kv).name)
    element, kept = formats.activation.bytes_per_element, formats.kv.bytes_per_element
    result = output_bytes(formats.activation)
    side = np.where(causal > 0, window - 1.0, window // 2)
    read = np.where(window > 0, np.minimum(keys, queries + side), keys)
    each = batch * width
    rows = np.zeros((len(batch), A.WIDTH))
    rows[:, A.BATCH], rows[:, A.KV_HEADS], rows[:, A.GROUP] = batch, shared, heads / shared
    rows[:, A.QUERIES], rows[:, A.KEYS] = queries, keys
    rows[:, A.SCORE_WIDTH] = rows[:, A.VALUE_WIDTH] = width
    rows[:, A.CAUSAL], rows[:, A.WINDOW], rows[:, A.KEY_BYTES] = causal, window, 2.0 * width * kept
    rows[:, A.RATE], rows[:, A.CLOCK] = rate, clock
    rows[:, A.Q_BYTES] = rows[:, A.FRESH_Q_BYTES] = each * heads * queries * element
    rows[:, A.FRESH_KV_BYTES] = 2.0 * each * shared * queries * result
    rows[:, A.KV_BYTES] = 2.0 * each * shared * read * kept
    rows[:, A.OUT_BYTES] = each * heads * queries * result
    _set_distances(rows, cold)
    return rows


def _latent_rows(
    shapes: Mapping[str, Array],
    formats: PrecisionPlan,
    device: Any,
    cold: bool,
    absorbed: npt.NDArray[np.bool_],
) -> Array:
    """`_rows_of` for latent attention. Absorbed, all heads read the cached latents as keys and values; else
    each head has its own, in the format of the products. The latents are appended to the cache.
    """
    batch, heads, queries, keys = (shapes[name] for name in ("batch", "heads", "seq_q", "seq_kv"))
    element, kept = formats.activation.bytes_per_element, formats.kv.bytes_per_element
    result = output_bytes(formats.activation)
    cached = shapes["latent"] + shapes["rope"]
    score = np.where(absorbed, cached, shapes.get("head_dim", cached))
    value = np.where(absorbed, shapes["latent"], shapes.get("value_dim", cached))
    rate, clock, _ = product_rate(device, wider(formats.activation, formats.kv).name)
    rows = np.zeros((len(batch), A.WIDTH))
    rows[:, A.BATCH], rows[:, A.QUERIES], rows[:, A.KEYS] = batch, queries, keys
    rows[:, A.KV_HEADS] = np.where(absorbed, 1.0, heads)
    rows[:, A.GROUP] = np.where(absorbed, heads, 1.0)
    rows[:, A.SCORE_WIDTH], rows[:, A.VALUE_WIDTH] = score, value
    rows[:, A.CAUSAL] = shapes["causal"]
    rows[:, A.KEY_BYTES] = np.where(absorbed, cached * kept, (score + value) * element)
    rows[:, A.RATE], rows[:, A.CLOCK] = rate, clock
    rows[:, A.Q_BYTES] = rows[:, A.FRESH_Q_BYTES] = batch * heads * queries * score * element
    rows[:, A.FRESH_KV_BYTES] = batch * queries * cached * result
    rows[:, A.KV_BYTES] = batch * rows[:, A.KV_HEADS] * keys * rows[:, A.KEY_BYTES]
    rows[:, A.OUT_BYTES] = batch * heads * queries * value * result
    _set_distances(rows, cold)
    return rows


def _set_distances(rows: Array, cold: bool) -> None:
    touched = rows[:, A.Q_BYTES] + rows[:, A.KV_BYTES] + rows[:, A.OUT_BYTES]
    for column in (A.Q_DISTANCE, A.KV_DISTANCE, A.OUT_DISTANCE):
        rows[:, column] = inf if cold else touched


def _choose(
    rows: Array,
    formats: PrecisionPlan,
    device: Any,
    stack: str,
    decode: bool | None,
    form: Array,
) -> list[AttentionModel]:
    """Constants of the kernels in the rows, whose MODEL column is set to the position in the list."""
    single = rows[:, A.QUERIES] == 1
    if decode or (decode is False and stack in PROMPT_KERNELS):
        single = np.full(len(rows), decode)
    group = np.digitize(rows[:, A.GROUP], _GROUPS)
    latents = np.digitize(rows[:, A.GROUP], (1.5, 3.5, *sorted(LATENT_HEADS)))
    group = np.where(form == 2.0, latents, group)
    few = is_few(rows[:, A.BATCH] * rows[:, A.KV_HEADS], rows[:, A.KEYS], device.sm.count) & single
    few &= form == 0.0
    kind = form * 64 + few * 32 + group * 4 + single * 2 + (rows[:, A.WINDOW] > 0)
    code = (rows[:, A.SCORE_WIDTH] * 256 + kind).astype(np.int64)
    found, rows[:, A.MODEL] = np.unique(code, return_inverse=True)
    bits = (float(formats.activation.bits), float(formats.kv.bits))
    return [
        attention_model(
            device,
            stack,
            decode=bool(kind & 2),
            format_bits=bits,
            group=(_LATENT_GROUP if kind >= 128 else _GROUP)[kind % 32 // 4],
            width=width,
            window=bool(kind & 1),
            few=bool(kind & 32),
            form=FORMS[kind // 64],
        )
        for width, kind in (divmod(c, 256) for c in found.tolist())
    ]
