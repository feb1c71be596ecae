"""Real quantisation of arrays: casts to narrow formats, block scales, and what they cost in signal.

Casts round to nearest even and equal those of `ml_dtypes` bit for bit. Two traps of the formats are kept as
they are in casts and closed in quantisation, which saturates: e4m3 turns what is above 464 into NaN, and the
4- and 6-bit floats, which have no NaN, turn NaN into a zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import log10
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.core.errors import RequestError, UnknownNameError, did_you_mean

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FloatCode:
    """A float format in sign, exponent and mantissa.

    Attributes
    ----------
    mantissa, bias : int
        Bits of the fraction, and of the exponent's offset.
    bits : int
    top : int
        Code of the largest finite value.
    overflow : int
        Code of what rounds to more: NaN (e4m3), infinity (e5m2, fp16), the largest value (4 and 6 bits).
    nan : int
        Code of NaN; a format without one has zero.
    flip : bool
        NaN changes its sign (formats without NaN: +NaN is -0).
    """

    mantissa: int
    bias: int
    bits: int
    top: int
    overflow: int
    nan: int
    flip: bool = False

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def largest(self) -> float:
        """Largest finite value."""
        exponent, fraction = divmod(self.top, 1 << self.mantissa)
        return float((1 + fraction / (1 << self.mantissa)) * 2.0 ** (exponent - self.bias))

    @property
    def largest_power(self) -> float:
        """Largest power of two."""
        return float(2.0 ** ((self.top >> self.mantissa) - self.bias))

    @property
    def even(self) -> float:
        """One over the step of values below the normal range; 0 where float32 has the same range."""
        return 0.0 if self.bias == 127 else float((1 << self.mantissa) / self.smallest_normal)

    @property
    def row(self) -> npt.NDArray[np.int64]:
        """The format as its numba kernels read it."""
        normal = 0 if self.bias == 127 else int(np.float32(self.smallest_normal).view(np.uint32))
        fields = (self.mantissa, self.bias, self.top, self.overflow, self.nan, int(self.flip), self.bits - 1)
        return np.array((*fields, normal), dtype=np.int64)


E4M3 = FloatCode(3, 7, 8, 0x7E, 0x7F, 0x7F)
E5M2 = FloatCode(2, 15, 8, 0x7B, 0x7C, 0x7E)
E2M3 = FloatCode(3, 1, 6, 0x1F, 0x1F, 0, flip=True)
E3M2 = FloatCode(2, 3, 6, 0x1F, 0x1F, 0, flip=True)
E2M1 = FloatCode(1, 1, 4, 0x7, 0x7, 0, flip=True)
BF16 = FloatCode(7, 127, 16, 0x7F7F, 0x7F80, 0x7FC0)
FP16 = FloatCode(10, 15, 16, 0x7BFF, 0x7C00, 0x7E00)


@dataclass(frozen=True)
class NumberFormat:
    """How real numbers are stored.

    Attributes
    ----------
    name : str
    bits : int
        Of one element, scales not counted.
    code : FloatCode or None
        None for integers and fp32.
    scale : {"", "float", "e8m0", "e4m3"}
        Format of scales: none, one float32 per tensor, channel or block, a power of two per block
        (OCP Microscaling v1.0), or e4m3 per block under one float32 per tensor (NVFP4).
    block : int
        Elements that share a scale where the format fixes it.
    """

    name: str
    bits: int
    code: FloatCode | None = None
    scale: str = ""
    block: int = 0

    @property
    def integer(self) -> bool:
        return self.code is None and self.scale == "float"

    @property
    def limit(self) -> float:
        """Largest magnitude before scaling; integers are symmetric (int8: 127)."""
        return self.code.largest if self.code is not None else float(2 ** (self.bits - 1) - 1)


FORMATS: dict[str, NumberFormat] = {
    f.name: f
    for f in (
        NumberFormat("fp32", 32),
        NumberFormat("bf16", 16, BF16),
        NumberFormat("fp16", 16, FP16),
        NumberFormat("fp8_e4m3", 8, E4M3, "float"),
        NumberFormat("fp8_e5m2", 8, E5M2, "float"),
        NumberFormat("fp6_e2m3", 6, E2M3, "float"),
        NumberFormat("fp6_e3m2", 6, E3M2, "float"),
        NumberFormat("fp4", 4, E2M1, "float"),
        NumberFormat("mxfp8", 8, E4M3, "e8m0", 32),
        NumberFormat("mxfp8_e5m2", 8, E5M2, "e8m0", 32),
        NumberFormat("mxfp6", 6, E2M3, "e8m0", 32),
        NumberFormat("mxfp6_e3m2", 6, E3M2, "e8m0", 32),
        NumberFormat("mxfp4", 4, E2M1, "e8m0", 32),
        NumberFormat("nvfp4", 4, E2M1, "e4m3", 16),
        NumberFormat("int16", 16, None, "float"),
        NumberFormat("int8", 8, None, "float"),
        NumberFormat("int4", 4, None, "float"),
        NumberFormat("int2", 2, None, "float"),
    )
}

_ALIASES = {"fp8": "fp8_e4m3", "fp6": "fp6_e2m3", "fp4_e2m1": "fp4", "float32": "fp32", "float16": "fp16"}
_ALIASES |= {"half": "fp16", "bfloat16": "bf16"}


def number_format(name: str | NumberFormat) -> NumberFormat:
    """Look a format up by name (``fp8`` is e4m3, ``fp6`` is e2m3).

    Raises
    ------
    UnknownNameError
        With the nearest names.
    """
    if isinstance(name, NumberFormat):
        return name
    key = _ALIASES.get(str(name).lower(), str(name).lower())
    if key not in FORMATS:
        raise UnknownNameError(
            f"no numerics are known for the format '{name}'", hint=did_you_mean(key, FORMATS)
        )
    return FORMATS[key]


# -- casts ---------------------------------------------------------------------------------------------------


def cast(values: Any, to: str | NumberFormat, *, scale: float = 1.0, saturate: bool = False) -> Any:
    """Codes of values, without any scale of their own.

    Parameters
    ----------
    values : array
        Read as contiguous float32.
    to : str
        A float format, ``e8m0`` (scales: the nearest power of two) or an integer format.
    scale : float
        Values are divided by it, by a product with its float32 inverse.
    saturate : bool
        Floats that overflow become the largest value instead of infinity or NaN; integers always saturate.

    Returns
    -------
    array
        uint8 (up to 8 bits), uint16, or int8 and int16 for integers; the shape of `values`.
    """
    from accelsim.techniques import numerics_kernels as kernels

    x = np.ascontiguousarray(values, dtype=np.float32)
    flat = x.reshape(-1)
    if to == "e8m0":
        codes = np.empty(flat.size, np.uint8)
        kernels.encode_e8m0(flat, codes)
        return codes.reshape(x.shape)
    fmt = number_format(to)
    if fmt.integer:
        whole = np.empty(flat.size, np.int16 if fmt.bits > 8 else np.int8)
        low, high = np.float32(-(2 ** (fmt.bits - 1))), np.float32(fmt.limit)
        kernels.encode_int(flat, np.float32(1.0 / scale), np.float32(0), low, high, whole)
        return whole.reshape(x.shape)
    if fmt.code is None:
        return x.copy()
    if scale != 1.0:
        flat = flat * np.float32(1.0 / scale)
    row = fmt.code.row
    if saturate:
        row[kernels.OVERFLOW] = fmt.code.top
    found = np.empty(flat.size, np.uint16 if fmt.bits > 8 else np.uint8)
    kernels.encode(flat, row, np.float32(fmt.code.even), found)
    return found.reshape(x.shape)


@lru_cache(maxsize=32)
def values_of(code: FloatCode) -> Floats:
    """Value of every code of a float format."""
    codes = np.arange(1 << code.bits, dtype=np.int64)
    magnitude, negative = codes & ((1 << (code.bits - 1)) - 1), codes >> (code.bits - 1)
    exponent, fraction = magnitude >> code.mantissa, magnitude & ((1 << code.mantissa) - 1)
    lead = np.where(exponent > 0, 1.0, 0.0) + fraction / (1 << code.mantissa)
    value = lead * 2.0 ** (np.maximum(exponent, 1) - code.bias).astype(np.float64)
    value = np.where(magnitude > code.top, np.nan, value)
    if code.overflow != code.nan and code.overflow > code.top:
        value = np.where(magnitude == code.overflow, np.inf, value)
    return np.where(negative == 1, -value, value).astype(np.float32)


def decode(codes: Any, fmt: str | NumberFormat, *, scale: float = 1.0) -> Floats:
    """Values of the codes that `cast` made [the unit of the values]."""
    from accelsim.techniques import numerics_kernels as kernels

    held = np.ascontiguousarray(codes)
    if fmt == "e8m0":
        powers = np.append(np.exp2(np.arange(-127.0, 128.0)), np.nan).astype(np.float32)
        return np.asarray(powers[held], dtype=np.float32)
    found = number_format(fmt)
    if found.code is None:
        return held.astype(np.float32) * np.float32(scale)
    out = np.empty(held.size, np.float32)
    kernels.decode(held.reshape(-1), values_of(found.code) * np.float32(scale), out)
    return out.reshape(held.shape)


# -- quantisation --------------------------------------------------------------------------------------------

SCALE_RULES = ("floor", "ceil")


def fake_quantise(
    values: Any,
    to: str | NumberFormat,
    *,
    axis: int | None = None,
    block: int | None = None,
    symmetric: bool = True,
    scale_rule: str = "floor",
    name: str = "the array",
) -> Floats:
    """What an array is worth after quantisation: scaled, rounded, saturated and scaled back.

    Parameters
    ----------
    values : array
        Read as float32.
    to : str
        See `FORMATS`. fp16 and bf16 are cast without a scale; mxfp and nvfp formats have the blocks and
        scales of their definition.
    axis : int, optional
        Channel axis: one scale per index. Without `axis` and `block`, one per tensor.
    block : int, optional
        Elements that share a scale: runs of the other axes in order, channel by channel when `axis` is given,
        along the last axis otherwise. The last run of a channel may be shorter.
    symmetric : bool
        Integers without a zero point, in [-127, 127] for int8. Otherwise the range from the least value (or
        zero) to the greatest maps to all codes; per tensor only.
    scale_rule : {"floor", "ceil"}
        Power-of-two scales: OCP Microscaling v1.0 section 6.3 takes floor(log2 largest) less the exponent of
        the format's largest power, which clips; ``ceil`` takes the smallest that does not clip.
    name : str
        Of the array, for errors.

    Returns
    -------
    array of float32

    Raises
    ------
    RequestError
        The array holds NaN or infinity, or the arguments do not fit the format.
    UnknownNameError
        The format is unknown.
    """
    from accelsim.techniques import numerics_kernels as kernels

    fmt = number_format(to)
    x = np.ascontiguousarray(values, dtype=np.float32)
    check_finite(x, name)
    if scale_rule not in SCALE_RULES:
        raise RequestError(f"unknown scale rule '{scale_rule}'", hint=did_you_mean(scale_rule, SCALE_RULES))
    if block is not None and (isinstance(block, bool) or not isinstance(block, int) or block < 1):
        raise RequestError(f"block {block!r} is not a positive number of elements")
    if (not fmt.scale and fmt.code is None) or not x.size:
        return x.copy()
    if not symmetric:
        if not fmt.integer or axis is not None or block is not None:
            raise RequestError("a zero point is for integers with one scale per tensor")
        out = np.empty(x.size, np.float32)
        kernels.int_affine(x.reshape(-1), np.float32(2**fmt.bits - 1), out)
        return out.reshape(x.shape)
    wanted = fmt.block or block
    rows, undo = _rows(x, axis, wanted)
    out = np.empty_like(rows)
    run = wanted or max(rows.shape[1], 1)
    if fmt.code is None:
        kernels.int_blocks(rows, run, np.float32(fmt.limit), out)
    else:
        rule, over, whole = _scale_rule(fmt, scale_rule, rows)
        limit, even = np.float32(fmt.code.largest), np.float32(fmt.code.even or 1.0)
        kernels.float_blocks(rows, run, fmt.code.row, even, limit, np.float32(over), rule, whole, out)
    return undo(out)


def _scale_rule(fmt: NumberFormat, scale_rule: str, rows: Floats) -> tuple[int, float, np.float32]:
    """Kernel rule, what divides a block's largest magnitude, and the scale of the whole tensor."""
    from accelsim.techniques import numerics_kernels as kernels

    code, one = fmt.code or E4M3, np.float32(1.0)
    if fmt.scale == "e8m0":
        floor = scale_rule == "floor"
        return (
            (kernels.SCALE_FLOOR, code.largest_power, one)
            if floor
            else (
                kernels.SCALE_CEIL,
                code.largest,
                one,
            )
        )
    if fmt.scale == "e4m3":
        largest = float(max(rows.max(), -rows.min()))
        whole = np.float32(largest / (code.largest * E4M3.largest)) if largest else one
        return kernels.SCALE_E4M3, code.largest, max(whole, np.float32(1.1754944e-38))
    return (kernels.SCALE_FLOAT if fmt.scale else kernels.SCALE_ONE), code.largest, one


def _rows(x: Floats, axis: int | None, block: int | None) -> tuple[Floats, Any]:
    """The array as (rows, columns) whose rows hold whole scales, and the way back."""
    if axis is not None:
        if not -x.ndim <= axis < x.ndim:
            raise RequestError(f"axis {axis} is not one of an array of shape {x.shape}")
        moved = np.moveaxis(x, axis, 0)
        rows = np.ascontiguousarray(moved).reshape(x.shape[axis], -1)
        return rows, lambda y: np.ascontiguousarray(np.moveaxis(y.reshape(moved.shape), 0, axis))
    rows = x.reshape(-1, x.shape[-1]) if block and x.ndim else x.reshape(1, -1)
    return rows, lambda y: y.reshape(x.shape)


def check_finite(values: Any, name: str) -> None:
    """Refuse NaN and infinity.

    Raises
    ------
    RequestError
        Names the array and how many there are.
    """
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        kind = "NaN" if np.isnan(values).any() else "infinite"
        raise RequestError(
            f"{bad} of {values.size} values are {'NaN or infinite' if kind == 'NaN' else kind}",
            name,
            "a quantisation error would mean nothing: repair the weights first",
        )


# -- what it costs -------------------------------------------------------------------------------------------


def sqnr_db(values: Any, quantised: Any) -> float:
    """Signal to quantisation noise, 10 log10(sum x^2 / sum (x - q)^2) [dB]; infinite without an error."""
    signal, noise = _energies(values, quantised, np.inf)
    if noise == 0.0:
        return float("inf")
    return 10 * log10(signal / noise) if signal else float("-inf")


def _energies(values: Any, quantised: Any, edge: float) -> tuple[float, float]:
    """Sums of squares of values and of their errors, over magnitudes up to an edge."""
    from accelsim.techniques import numerics_kernels as kernels

    x = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    q = np.ascontiguousarray(quantised, dtype=np.float32).reshape(-1)
    if x.size != q.size:
        raise RequestError(f"{x.size} values cannot be compared with {q.size}")
    signal, noise = kernels.energies(x, q, np.float32(edge))
    return float(signal), float(noise)


INLIERS = 0.999
"""Share of values that count as inliers: outliers of activations are about one in a thousand."""


def inlier_error(values: Any, quantised: Any, share: float = INLIERS) -> float:
    """Relative root-mean-square error of the smallest magnitudes, |x - q| / |x| over `share` of the values.

    Outliers carry most of a tensor's energy, so they hide in the SQNR what a coarse scale does to the rest.
    """
    size = np.abs(np.asarray(values, dtype=np.float32).reshape(-1))
    if not size.size:
        return 0.0
    place = min(int(share * size.size), size.size - 1)
    signal, noise = _energies(values, quantised, float(np.partition(size, place)[place]))
    return (noise / signal) ** 0.5 if signal else (0.0 if noise == 0.0 else float("inf"))
