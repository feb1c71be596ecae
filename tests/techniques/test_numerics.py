"""Casts against ml_dtypes and gfloat, blocks against slow twins, signal-to-noise against figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.core.errors import RequestError, UnknownNameError
from accelsim.techniques.numerics import (
    FORMATS,
    cast,
    decode,
    fake_quantise,
    inlier_error,
    number_format,
    sqnr_db,
)

COUNT = 1_000_000

# Name here, in ml_dtypes, in gfloat.
FLOATS = [
    ("fp8_e4m3", "float8_e4m3fn", "format_info_ocp_e4m3"),
    ("fp8_e5m2", "float8_e5m2", "format_info_ocp_e5m2"),
    ("fp6_e2m3", "float6_e2m3fn", "format_info_ocp_e2m3"),
    ("fp6_e3m2", "float6_e3m2fn", "format_info_ocp_e3m2"),
    ("fp4", "float4_e2m1fn", "format_info_ocp_e2m1"),
    ("bf16", "bfloat16", "format_info_bfloat16"),
    ("fp16", "float16", "format_info_binary16"),
]


def edges() -> np.ndarray:
    """Every value of every narrow float, the midpoints, their neighbours, and what is not a number."""
    found = [np.array([0.0, np.nan, np.inf, 1e-45, 1e-38, 3.4e38, 464.0, 464.01, 61440.0], np.float32)]
    for name, *_ in FLOATS[:5]:
        values = np.unique(np.abs(decode(np.arange(2 ** FORMATS[name].bits, dtype=np.uint8), name)))
        values = values[np.isfinite(values)]
        middle = (values[1:] + values[:-1]) / 2
        both = np.concatenate([values, middle]).astype(np.float32)
        found += [both, np.nextafter(both, np.float32(np.inf)), np.nextafter(both, np.float32(0))]
    every = np.concatenate(found)
    return np.concatenate([every, -every])


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Gaussian over many magnitudes, any bits at all, and the edges."""
    rng = np.random.default_rng(11)
    wide = rng.standard_normal(COUNT) * np.exp2(rng.uniform(-30, 14, COUNT))
    any_bits = rng.integers(0, 2**32, COUNT, dtype=np.uint32).view(np.float32)
    return np.concatenate([wide.astype(np.float32), any_bits, edges()])


@pytest.mark.parametrize(("name", "theirs", "_"), FLOATS)
def test_casts_equal_ml_dtypes_bit_for_bit(samples, name, theirs, _):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="the extra quant is not installed")
    kind = np.float16 if name == "fp16" else getattr(ml_dtypes, theirs)
    with np.errstate(all="ignore"):
        expected = samples.astype(kind).view(np.uint8 if np.dtype(kind).itemsize == 1 else np.uint16)
    found = cast(samples, name)
    # numpy keeps the payload of a NaN in fp16, which means nothing.
    counted = ~np.isnan(samples) if name == "fp16" else np.ones(samples.size, bool)
    assert np.array_equal(found[counted], expected[counted])
    assert np.isnan(decode(found, name)[~counted]).all()


def test_scales_equal_ml_dtypes_bit_for_bit(samples):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="the extra quant is not installed")
    with np.errstate(all="ignore"):
        expected = samples.astype(ml_dtypes.float8_e8m0fnu)
    assert np.array_equal(cast(samples, "e8m0"), expected.view(np.uint8))
    every = np.arange(256, dtype=np.uint8)
    powers = every.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    assert np.array_equal(decode(every, "e8m0"), powers, equal_nan=True)


@pytest.mark.parametrize(("name", "theirs"), [("int8", "int8"), ("int4", "int4"), ("int2", "int2")])
def test_integers_equal_ml_dtypes_after_rounding_and_clipping(samples, name, theirs):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="the extra quant is not installed")
    kind = np.int8 if theirs == "int8" else getattr(ml_dtypes, theirs)
    x = samples[np.isfinite(samples)]
    scale = np.float32(0.05)
    low, high = -(2 ** (FORMATS[name].bits - 1)), FORMATS[name].limit
    with np.errstate(over="ignore"):
        expected = np.clip(np.rint(x * (np.float32(1) / scale)), low, high).astype(kind).astype(np.int8)
    assert np.array_equal(cast(x, name, scale=0.05), expected)


@pytest.mark.parametrize(("name", "theirs", "other"), FLOATS[:5])
def test_every_code_means_what_ml_dtypes_and_gfloat_say(name, theirs, other):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="the extra quant is not installed")
    gfloat = pytest.importorskip("gfloat", reason="the extra quant is not installed")
    formats = pytest.importorskip("gfloat.formats")
    codes = np.arange(2 ** FORMATS[name].bits, dtype=np.uint8)
    mine = decode(codes, name)
    assert np.array_equal(mine, codes.view(getattr(ml_dtypes, theirs)).astype(np.float32), equal_nan=True)
    info = getattr(formats, other)
    second = np.array([gfloat.decode_float(info, int(c)).fval for c in codes], np.float32)
    assert np.array_equal(mine, second, equal_nan=True)


@pytest.mark.parametrize(("name", "_", "other"), FLOATS)
def test_gfloat_rounds_to_the_same_values(name, _, other):
    gfloat = pytest.importorskip("gfloat", reason="the extra quant is not installed")
    formats = pytest.importorskip("gfloat.formats")
    rng = np.random.default_rng(5)
    x = (rng.standard_normal(4000) * np.exp2(rng.uniform(-16, 10, 4000))).astype(np.float32)
    info = getattr(formats, other)
    expected = gfloat.round_ndarray(info, x.astype(np.float64), sat=True)
    assert np.array_equal(decode(cast(x, name, saturate=True), name), expected.astype(np.float32))


def test_traps_stay_in_casts_and_are_closed_in_quantisation():
    x = np.array([447.0, 464.0, 465.0, 1e6, -1e6], np.float32)
    assert np.isnan(decode(cast(x, "fp8"), "fp8")).tolist() == [False, False, True, True, True]
    assert decode(cast(x, "fp8", saturate=True), "fp8").tolist() == [448.0, 448.0, 448.0, 448.0, -448.0]
    assert np.isfinite(fake_quantise(x, "fp8")).all()
    nothing = np.array([np.nan], np.float32)
    assert cast(nothing, "fp4").tolist() == [8], "NaN becomes -0 where a format has none"
    with pytest.raises(RequestError, match=r"conv1: 1 of 1 values are NaN"):
        fake_quantise(nothing, "fp4", name="conv1")


def slow_blocks(x: np.ndarray, name: str, block: int, rule: str) -> np.ndarray:
    """Block quantisation as the formats define it, in float64, one block after the other."""
    fmt = FORMATS[name]
    flat, out = x.reshape(-1), np.empty(x.size, np.float32)
    code = fmt.code
    whole = np.float32(np.abs(flat).max() / (code.largest * 448.0)) if fmt.scale == "e4m3" else None
    for start in range(0, x.size, block):
        part = flat[start : start + block]
        largest = float(np.abs(part).max())
        if largest == 0:
            scale = np.float32(1)
        elif fmt.scale == "e8m0":
            exponent = (
                math.floor(math.log2(largest)) - math.floor(math.log2(code.largest))
                if rule == "floor"
                else math.ceil(math.log2(largest / code.largest))
            )
            scale = np.float32(2.0**exponent)
        elif fmt.scale == "e4m3":
            held = decode(cast(np.float32(largest) / np.float32(code.largest) / whole, "fp8"), "fp8")
            scale = np.float32(held) * whole
        else:
            scale = np.float32(np.float32(largest) / np.float32(fmt.limit))
        ratio = part / scale
        if code is None:
            out[start : start + block] = np.clip(np.rint(ratio), -fmt.limit, fmt.limit) * scale
        else:
            out[start : start + block] = decode(cast(ratio, name, saturate=True), name) * scale
    return out.reshape(x.shape)


@pytest.mark.parametrize("rule", ["floor", "ceil"])
@pytest.mark.parametrize("name", ["mxfp8", "mxfp8_e5m2", "mxfp6", "mxfp6_e3m2", "mxfp4", "nvfp4"])
def test_block_formats_equal_their_slow_twin(name, rule):
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((6, 96)) * np.exp2(rng.uniform(-12, 12, (6, 96)))).astype(np.float32)
    assert np.array_equal(
        fake_quantise(x, name, scale_rule=rule), slow_blocks(x, name, FORMATS[name].block, rule)
    )


@settings(deadline=None)
@given(
    st.sampled_from(["int8", "int4", "int2", "fp8_e4m3", "fp8_e5m2", "fp6_e2m3", "fp4"]),
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(0, 2**31),
)
def test_channels_and_blocks_equal_their_slow_twin(name, rows, columns, seed):
    x = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    by_channel = np.stack([slow_blocks(row, name, columns, "floor") for row in x])
    assert np.array_equal(fake_quantise(x, name, axis=0), by_channel)
    assert np.array_equal(fake_quantise(x.T, name, axis=1), by_channel.T)
    by_block = np.stack([slow_blocks(row, name, 7, "floor") for row in x])
    assert np.array_equal(fake_quantise(x, name, block=7), by_block)
    assert np.array_equal(fake_quantise(x, name), slow_blocks(x, name, x.size, "floor"))


@settings(deadline=None)
@given(st.sampled_from(sorted(set(FORMATS) - {"bf16", "fp16"})), st.integers(-20, 20), st.integers(0, 2**31))
def test_powers_of_two_scale_through_and_quantising_twice_changes_little(name, power, seed):
    x = np.random.default_rng(seed).standard_normal((4, 64)).astype(np.float32)
    once = fake_quantise(x, name)
    scaled = fake_quantise(x * np.float32(2.0**power), name)
    if name != "nvfp4":
        assert np.array_equal(scaled, once * np.float32(2.0**power))
    assert np.abs(once).max() <= np.abs(x).max() * (1 + 2**-4)
    assert np.array_equal(np.signbit(once[once != 0]), np.signbit(x[once != 0]))


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["int8", "int4"]))
def test_a_zero_point_keeps_zero_and_halves_the_step_of_one_sided_values(seed, name):
    x = np.abs(np.random.default_rng(seed).standard_normal(2000)).astype(np.float32)
    x[0] = 0.0
    affine = fake_quantise(x, name, symmetric=False)
    assert affine[0] == 0.0
    step = float(x.max()) / (2 ** FORMATS[name].bits - 1)
    assert np.abs(affine - x).max() <= 0.5 * step * 1.001
    assert sqnr_db(x, affine) > sqnr_db(x, fake_quantise(x, name)) + 4


# Reference figures [dB]: Gaussian, and 0.1 % of the values times 50.
SQNR = [
    ("int8", {}, 38.9, 13.7),
    ("int8", {"block": 128}, 43.8, 33.3),
    ("fp8_e4m3", {}, 31.5, 31.4),
    ("mxfp8", {}, 30.6, None),
    ("mxfp8", {"scale_rule": "ceil"}, 31.5, None),
    ("mxfp4", {}, 18.8, 16.7),
    ("nvfp4", {}, 20.4, 22.7),
    ("int4", {"block": 32}, 20.3, 20.6),
]
SEEDS = 6


@pytest.fixture(scope="module")
def draws() -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        plain = rng.standard_normal(COUNT).astype(np.float32)
        spiked = plain.copy()
        spiked[rng.choice(COUNT, COUNT // 1000, replace=False)] *= 50
        found.append((plain, spiked))
    return found


@pytest.mark.parametrize(("name", "how", "plain_db", "spiked_db"), SQNR)
def test_signal_to_noise_is_the_published_figure(draws, name, how, plain_db, spiked_db):
    for index, figure in enumerate((plain_db, spiked_db)):
        if figure is None:
            continue
        found = [sqnr_db(pair[index], fake_quantise(pair[index], name, **how)) for pair in draws]
        blocks = bool(how) or FORMATS[name].block > 0
        allowed = 3 * float(np.std(found, ddof=1))
        assert abs(np.mean(found) - figure) <= (max(allowed, 0.2) if blocks else max(allowed, 0.05))


def test_floor_scales_clip_and_ceil_scales_do_not(draws):
    x = draws[0][0]
    floor, ceil = (fake_quantise(x, "mxfp8", scale_rule=rule) for rule in ("floor", "ceil"))
    blocks = np.abs(x[: COUNT // 32 * 32]).reshape(-1, 32)
    limit = 448 * np.exp2(np.floor(np.log2(blocks.max(axis=1))) - 8)
    clipped = (blocks > limit[:, None]).mean()
    assert clipped == pytest.approx(0.0086, abs=0.0004)
    assert sqnr_db(x, ceil) > sqnr_db(x, floor) + 0.5


def test_closed_form_of_a_uniform_quantiser():
    # Uniform values, step d: noise d^2 / 12, signal 1/3 for [-1, 1].
    x = np.random.default_rng(0).uniform(-1, 1, COUNT).astype(np.float32)
    expected = 10 * math.log10((1 / 3) / ((1 / 127) ** 2 / 12))
    assert sqnr_db(x, fake_quantise(x, "int8")) == pytest.approx(expected, abs=0.02)


def test_inliers_show_what_outliers_hide(draws):
    plain, spiked = draws[0]
    assert inlier_error(plain, fake_quantise(plain, "int8")) == pytest.approx(0.01, rel=0.3)
    coarse, fine = (fake_quantise(spiked, "int8", block=b) for b in (None, 128))
    assert inlier_error(spiked, coarse) > 3 * inlier_error(spiked, fine)
    assert inlier_error(plain, plain) == 0.0


def test_mistakes_are_one_line():
    x = np.ones((4, 4), np.float32)
    with pytest.raises(UnknownNameError, match=r"format 'mxfp5'; did you mean mxfp"):
        fake_quantise(x, "mxfp5")
    with pytest.raises(RequestError, match="scale rule 'flor'"):
        fake_quantise(x, "mxfp8", scale_rule="flor")
    with pytest.raises(RequestError, match="axis 3"):
        fake_quantise(x, "int8", axis=3)
    with pytest.raises(RequestError, match="block 0"):
        fake_quantise(x, "int8", block=0)
    with pytest.raises(RequestError, match="zero point"):
        fake_quantise(x, "fp8", symmetric=False)
    x[0, :2] = np.inf
    with pytest.raises(RequestError, match=r"fc\.weight: 2 of 16 values are infinite"):
        fake_quantise(x, "int8", name="fc.weight")
    assert fake_quantise(np.zeros((3, 5)), "nvfp4").tolist() == np.zeros((3, 5)).tolist()
    assert fake_quantise(np.zeros((0, 5)), "int8").shape == (0, 5)
    assert number_format("fp8") is FORMATS["fp8_e4m3"]
