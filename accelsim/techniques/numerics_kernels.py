"""Loops of `accelsim.techniques.numerics`: casts and block quantisation, one core, branch-free so that they
vectorise.

A small float format is eight integers: mantissa bits, exponent bias, code of the largest finite value, code
of what overflows, code of NaN (with or without its sign flipped), position of the sign, and the bit pattern
of the smallest normal value as float32. Below that value codes are evenly spaced, so they are a rounded
product; above it, rounding to nearest even is integer arithmetic on the bits of the float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

MANTISSA, BIAS, TOP, OVERFLOW, NAN, FLIP, SIGN, MIN_NORMAL = range(8)

# Adding and subtracting 1.5 x 2^23 rounds a float32 below 2^22 to the nearest even integer.
ROUND = np.float32(12582912.0)

SCALE_ONE, SCALE_FLOAT, SCALE_FLOOR, SCALE_CEIL, SCALE_E4M3 = range(5)
"""How a block gets its scale: none; largest / limit; the same as a power of two, OCP's floor of the exponent
or the ceiling that never clips; the same as an e4m3 value times one float32 of the tensor (NVFP4)."""


@intrinsic
def bits_of(_context: Any, _value: Any) -> Any:
    """The bits of a float32."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


@intrinsic
def float_of(_context: Any, _value: Any) -> Any:
    """The float32 with these bits."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@njit(cache=True)
def encode(x: Any, fmt: Any, even: Any, codes: Any) -> None:
    """Codes of `x` in a float format; `even` is 2^mantissa / smallest normal value."""
    mantissa, sign = np.uint32(fmt[MANTISSA]), np.uint32(fmt[SIGN])
    shift = np.uint32(23) - mantissa
    half = np.uint32((1 << (23 - fmt[MANTISSA] - 1)) - 1)
    offset = np.int32((127 - fmt[BIAS]) << fmt[MANTISSA])
    top, overflow, nan = np.int32(fmt[TOP]), np.int32(fmt[OVERFLOW]), np.int32(fmt[NAN])
    flip, normal = np.uint32(fmt[FLIP]), np.uint32(fmt[MIN_NORMAL])
    one, inf, magnitude = np.uint32(1), np.uint32(0x7F800000), np.uint32(0x7FFFFFFF)
    for i in range(x.size):
        bits = bits_of(x[i])
        u = bits & magnitude
        code = np.int32((u + half + ((u >> shift) & one)) >> shift) - offset
        small = float_of(u) if u < normal else np.float32(0.0)
        low = np.int32((small * even + ROUND) - ROUND)
        code = low if u < normal else code
        code = overflow if code > top else code
        negative = bits >> np.uint32(31)
        code = nan if u > inf else code
        negative = negative ^ flip if u > inf else negative
        codes[i] = np.uint32(code) | (negative << sign)


@njit(cache=True)
def encode_e8m0(x: Any, codes: Any) -> None:
    """The nearest power of two, ties up; NaN for what is not positive or too large."""
    half, one = np.uint32(0x400000), np.uint32(1)
    for i in range(x.size):
        bits = bits_of(x[i])
        exponent = (bits >> np.uint32(23)) & np.uint32(0xFF)
        up = bits & np.uint32(0x7FFFFF)
        # 2^-127 is the only value below the normal range of float32: what is larger rounds up to 2^-126.
        edge = half + one if exponent == np.uint32(0) else half
        code = exponent + (one if up >= edge else np.uint32(0))
        bad = bits == np.uint32(0) or bits >= np.uint32(0x7F800000)
        codes[i] = np.uint32(0xFF) if bad else min(code, np.uint32(0xFF))


@njit(cache=True)
def encode_int(x: Any, inverse: Any, zero: Any, low: Any, high: Any, codes: Any) -> None:
    """Integers nearest to x * inverse + zero (ties to even before the zero point), within [low, high]."""
    for i in range(x.size):
        v = x[i] * inverse
        v = min(max(v, low - zero), high - zero)
        codes[i] = np.int32((v + ROUND) - ROUND + zero)


@njit(cache=True)
def decode(codes: Any, table: Any, out: Any) -> None:
    for i in range(codes.size):
        out[i] = table[codes[i]]


@njit(cache=True, inline="always")
def rounded(v: Any, shift: Any, half: Any, normal: Any, even: Any, step: Any, limit: Any) -> Any:
    """A float32 rounded to a float format that saturates at `limit`."""
    bits = bits_of(v)
    u = bits & np.uint32(0x7FFFFFFF)
    up = (u + half + ((u >> shift) & np.uint32(1))) >> shift << shift
    small = float_of(u) if u < normal else np.float32(0.0)
    low = ((small * even + ROUND) - ROUND) * step
    y = min(low if u < normal else float_of(up), limit)
    return float_of(bits_of(y) | (bits & np.uint32(0x80000000)))


@njit(cache=True)
def _e4m3(v: Any) -> Any:
    """A positive float32 rounded to e4m3, saturating."""
    shift, half, normal = np.uint32(20), np.uint32(0x7FFFF), np.uint32(0x3C800000)
    return rounded(v, shift, half, normal, np.float32(512.0), np.float32(1.0 / 512.0), np.float32(448.0))


@njit(cache=True)
def power_of_two(v: Any, up: bool) -> Any:
    """Largest power of two that is at most `v`, or with `up` the smallest that is at least `v`; within
    [2^-126, 2^127]."""
    bits = bits_of(v)
    exponent = np.int32(bits >> np.uint32(23))
    if up and bits & np.uint32(0x7FFFFF):
        exponent += 1
    held = np.uint32(1 if exponent < 1 else 254 if exponent > 254 else exponent)
    return float_of(held << np.uint32(23))


@njit(cache=True)
def block_scale(largest: Any, limit: Any, rule: int, tensor_scale: Any) -> Any:
    """Scale of one block from its largest magnitude; `limit` is the largest value of the format, or for the
    floor rule the power of two below it."""
    if rule == SCALE_ONE:
        return np.float32(1.0)
    if largest == 0.0:
        return np.float32(1.0)
    if rule == SCALE_E4M3:
        scale = _e4m3(largest / limit / tensor_scale) * tensor_scale
        return scale if scale > 0.0 else np.float32(2.0**-9) * tensor_scale
    if rule == SCALE_FLOOR:
        return power_of_two(np.float32(largest / limit), False)
    if rule == SCALE_CEIL:
        return power_of_two(np.float32(largest / limit), True)
    scale = np.float32(largest / limit)
    return scale if scale > 0.0 else np.float32(1.1754944e-38)


@njit(cache=True, inline="always")
def _largest(x: Any, start: int, stop: int) -> Any:
    """Largest magnitude, compared as integers: the order of positive floats is that of their bits."""
    top = np.uint32(0)
    for i in range(start, stop):
        top = max(top, bits_of(x[i]) & np.uint32(0x7FFFFFFF))
    return float_of(top)


@njit(cache=True)
def float_blocks(
    x: Any, block: int, fmt: Any, even: Any, limit: Any, over: Any, rule: int, tensor_scale: Any, out: Any
) -> None:
    """Every block of a (rows, columns) array scaled, rounded to a float format (saturating) and scaled back.

    `over` divides the largest magnitude into the scale; see `block_scale`.
    """
    shift = np.uint32(23 - fmt[MANTISSA])
    half = np.uint32((1 << (23 - fmt[MANTISSA] - 1)) - 1)
    normal, step = np.uint32(fmt[MIN_NORMAL]), np.float32(1.0) / even
    for r in range(x.shape[0]):
        row, made = x[r], out[r]
        for start in range(0, row.size, block):
            stop = min(start + block, row.size)
            scale = np.float32(1.0)
            if rule != SCALE_ONE:
                scale = block_scale(_largest(row, start, stop), over, rule, tensor_scale)
            for i in range(start, stop):
                made[i] = rounded(row[i] / scale, shift, half, normal, even, step, limit) * scale


@njit(cache=True)
def int_blocks(x: Any, block: int, limit: Any, out: Any) -> None:
    """Every block of a (rows, columns) array as symmetric integers in [-limit, limit], scaled back."""
    for r in range(x.shape[0]):
        row, made = x[r], out[r]
        for start in range(0, row.size, block):
            stop = min(start + block, row.size)
            scale = block_scale(_largest(row, start, stop), limit, SCALE_FLOAT, np.float32(1.0))
            for i in range(start, stop):
                v = min(max(row[i] / scale, -limit), limit)
                made[i] = ((v + ROUND) - ROUND) * scale


@njit(cache=True)
def int_affine(x: Any, levels: Any, out: Any) -> None:
    """A whole array as unsigned integers 0 ... levels with a zero point, scaled back; zero stays zero."""
    low, high = np.float32(0.0), np.float32(0.0)
    for i in range(x.size):
        low, high = min(low, x[i]), max(high, x[i])
    scale = (high - low) / levels
    if scale == 0.0:
        scale = np.float32(1.0)
    zero = ((-low / scale) + ROUND) - ROUND
    for i in range(x.size):
        v = min(max(x[i] / scale, -zero), levels - zero)
        out[i] = ((v + ROUND) - ROUND) * scale


@njit(cache=True)
def energies(x: Any, q: Any, edge: Any) -> Any:
    """Sums of squares of the values and of the errors, where magnitudes are at most `edge`."""
    signal, noise = 0.0, 0.0
    for i in range(x.size):
        if abs(x[i]) <= edge:
            signal += np.float64(x[i]) * np.float64(x[i])
            error = np.float64(x[i]) - np.float64(q[i])
            noise += error * error
    return signal, noise
