"""The numba kernel against a slow twin written from docs/models.md, and the laws that it must obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.cost import device_array
from accelsim.architectures.gpu.sm import clock_scale, cost_rows, joined, resident
from accelsim.architectures.gpu.tiles import (
    ALWAYS_SPLIT,
    SPLITS,
    THRESHOLD,
    TILES,
    port_scale,
    shared_loads,
    switched_j,
    tile_table,
    voltage,
)
from accelsim.hardware.spec import load_hardware

SPLIT_ARRAY = np.array(SPLITS, dtype=float)
MEASURED = ("h100-sxm", "a100-sxm", "b200", "l40s", "rtx-pro-6000")
CONSTANTS = {name: load_hardware(name).kernels.product for name in ("t4", *MEASURED)}
GENERIC = CONSTANTS["t4"]


def row(
    m,
    n,
    k,
    *,
    batch=1,
    width=2.0,
    rate=2000.0,
    clock=1e9,
    distances=(math.inf,) * 4,
    vector_ops=0.0,
    extra=0.0,
    share=1.0,
    integer=0.0,
    steady=0.0,
):
    a, b, c = batch * m * k * width, batch * n * k * width, batch * m * n * width
    sizes, widths, moved = (batch, m, n, k), (width,) * 3, (a, b, c, extra)
    return [
        R.MATRIX,
        *sizes,
        *widths,
        rate,
        clock,
        *moved,
        *distances,
        vector_ops,
        128.0,
        0.0,
        share,
        integer,
        steady,
    ]


def run_rows(rows, device, constants=GENERIC, governor=False, width=2.0):
    out = np.zeros((len(rows), R.OUT_WIDTH))
    tables = np.stack([tile_table(device, width, width)])
    cost_rows(
        np.array(rows, dtype=float), tables, SPLIT_ARRAY, device_array(device), constants.array, governor, out
    )
    return out


def seconds(out):
    return out[:, R.OUT_BODY] + out[:, R.OUT_FIXED]


def resident_share(capacity, distance):
    """Share of a tensor still in the L2 after `distance` bytes."""
    if distance <= 0.0:
        return 1.0
    return min(1.0, max(0.0, (capacity / distance - 0.8333) / 0.4167))


def twin(r, device, c):
    """The product model in plain Python: every tile and split is costed, the best is kept."""
    d, m = device, device.memory
    batch, rows_m, cols_n, depth = r[R.BATCH], r[R.M], r[R.N], r[R.K]
    capacity = d.l2.capacity_bytes * c.l2_share
    miss = [
        1 - resident_share(capacity, r[i])
        for i in (R.A_DISTANCE, R.B_DISTANCE, R.C_DISTANCE, R.EXTRA_DISTANCE)
    ]
    sizes = [r[i] for i in (R.A_BYTES, R.B_BYTES, R.C_BYTES, R.EXTRA_BYTES)]
    first = sum(s * x for s, x in zip(sizes, miss))
    latency = d.l2.latency_s + (m.latency_s - d.l2.latency_s) * max(miss[:2])
    reuse_a = min(1, sizes[0] / (batch * rows_m * depth * r[R.BYTES_A]))
    reuse_b = min(1, sizes[1] / (batch * cols_n * depth * r[R.BYTES_B]))
    from_l2 = 1 - c.unrolled_hits * (1 - reuse_a)
    best = None
    port = c.l2_bytes_per_clock * port_scale(d)
    dram_rate = m.bandwidth_bytes_per_s * min(m.efficiency, c.dram_efficiency)
    vector = r[R.VECTOR_OPS] / (r[R.VECTOR_RATE] * c.vector_efficiency * d.sm.count * r[R.CLOCK])
    if min(rows_m, cols_n) == 1 and reuse_a > 0.999:
        main = sum(sizes[:3]) / (d.l2.bandwidth_bytes_per_s * c.l2_efficiency)
        chain = c.vector_latencies + max(0, depth * r[R.BYTES_A] / c.vector_bytes - 1)
        total = joined(main, first / dram_rate, c.overlap) + latency * chain + vector
        best = total, first, None, 1
    for cost, (tm, tn), (_, _, step_k, stages, fit, _) in zip(
        c.tile_costs, TILES, tile_table(d, r[R.BYTES_A], r[R.BYTES_B])
    ):
        if (
            stages < 1
            or tm >= 4 * max(rows_m, 16)
            or tm < min(c.least_rows, 2 ** math.ceil(math.log2(rows_m)))
        ):
            continue
        if tn < c.least_columns or (tn >= 4 * max(cols_n, 16) and tn >= 2 * c.least_columns):
            continue
        load = (tm * r[R.BYTES_A] * from_l2 + tn * r[R.BYTES_B]) * step_k
        shared = (
            step_k
            * tm
            * tn
            * (r[R.BYTES_A] / min(tn, 128) + r[R.BYTES_B] / min(tm, 64))
            / c.shared_bytes_per_clock
        )
        issue = 2 * tm * tn * step_k / (r[R.RATE] * c.tensor_efficiency)
        step = max(issue, shared, load / port) * cost + c.step_overhead
        wait = max(c.step_cycles, c.step_latencies * latency * r[R.CLOCK] / stages) * cost
        epilogue = tm * tn * (c.epilogue_cycles / 16384 + r[R.BYTES_C] / port)
        grid = math.ceil(rows_m / tm), math.ceil(cols_n / tn)
        tiles = batch * grid[0] * grid[1]
        steps = math.ceil(2 * depth / step_k) / 2
        for split in SPLITS:
            if split > 1 and (steps < 2 * split or tiles > 2 * d.sm.count):
                continue
            if split > 1 and batch * rows_m * cols_n * depth < c.split_work and depth <= ALWAYS_SPLIT:
                continue
            blocks = tiles * split
            queue = math.ceil(blocks / d.sm.count)
            together = min(fit, queue)
            rounds, own = math.ceil(queue / together), math.ceil(2 * steps / split) / 2
            traffic = blocks * own * load * r[R.SHARE] / shared_loads(d)
            main = max(
                queue * own * step * r[R.SHARE] / r[R.CLOCK],
                rounds * own * wait * r[R.SHARE] / r[R.CLOCK],
                (traffic + sizes[2]) / (d.l2.bandwidth_bytes_per_s * c.l2_efficiency),
                vector,
            )
            main += (rounds - 1) * epilogue / r[R.CLOCK]
            patch = max(1, min(tiles, d.sm.count * together / split))
            high = patch / min(grid[1], c.swizzle) if c.swizzle else math.sqrt(patch * tn / tm)
            wide_m = min(grid[0], max(1, high))
            wide_n = min(grid[1], max(1, patch / wide_m))
            wide_m = min(grid[0], max(1, patch / wide_n))
            side_m, side_n = (
                wide_m * tm * depth * r[R.BYTES_A] * reuse_a,
                wide_n * tn * depth * r[R.BYTES_B] * reuse_b,
            )
            again_a, again_b = sizes[0] * (grid[1] / wide_n - 1), sizes[1] * (grid[0] / wide_m - 1)
            near = 1 - resident_share(capacity, side_m + side_n)
            along_n = again_a * near + again_b * (1 - resident_share(capacity, sizes[1] + side_m))
            along_m = again_b * near + again_a * (1 - resident_share(capacity, sizes[0] + side_n))
            dram = first + (along_m if c.swizzle else min(along_n, along_m))
            dram_s = dram / dram_rate
            high, low = max(main, dram_s), min(main, dram_s)
            body = high * (1 + (low / high) ** c.overlap) ** (1 / c.overlap)
            merge = 0.0
            if split > 1:
                merge = c.split_k_cycles / r[R.CLOCK] + split * batch * rows_m * cols_n * 8 / (
                    d.l2.bandwidth_bytes_per_s * c.split_k_share
                )
            total = (
                body
                + merge
                + (c.prologue_latencies * latency * r[R.CLOCK] + epilogue) / r[R.CLOCK]
                + vector / rounds
            )
            if best is None or total < best[0]:
                best = total, dram, (tm, tn), split
    return best


SHAPES = st.tuples(
    st.sampled_from([1, 4]),
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(1, 20000),
    st.sampled_from([math.inf, 1e6, 3e7, 4e7]),
)


@settings(max_examples=60, deadline=None)
@given(shapes=st.lists(SHAPES, min_size=1, max_size=4), family=st.sampled_from(sorted(CONSTANTS)))
def test_equals_the_slow_twin(toy, shapes, family):
    constants = CONSTANTS[family]
    rows = [
        row(m, n, k, batch=b, distances=(d, 2 * d, d, d), vector_ops=m * n, extra=1e4)
        for b, m, n, k, d in shapes
    ]
    for convolution in rows[1::2]:
        convolution[R.A_BYTES] /= 9  # an unrolled 3 x 3 window repeats its input
    out = run_rows(rows, toy, constants)
    for r, line, total in zip(rows, out, seconds(out)):
        expected, dram, tile, split = twin(r, toy, constants)
        assert total == pytest.approx(expected, rel=1e-9)
        at = int(line[R.OUT_TILE])
        if (TILES[at] if at >= 0 else None, line[R.OUT_SPLIT]) == (
            tile,
            split,
        ):  # two mappings may tie in rounding
            assert line[R.OUT_DRAM_BYTES] == pytest.approx(dram, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, family=st.sampled_from(sorted(CONSTANTS)))
def test_never_beats_the_roofline(toy, shape, family):
    batch, m, n, k, _ = shape
    out = run_rows([row(m, n, k, batch=batch)], toy, CONSTANTS[family])
    compulsory = batch * (m * k + n * k + m * n) * 2
    assert seconds(out)[0] >= max(2 * batch * m * n * k / toy.peak_flop_per_s("fp16"), compulsory / 1e12)
    assert out[0, R.OUT_DRAM_BYTES] >= compulsory * (1 - 1e-12)


@pytest.mark.parametrize("path", ["memory.bandwidth", "l2.bandwidth", "l2.capacity", "sm.tensor_clock"])
@settings(max_examples=30, deadline=None)
@given(shape=SHAPES, factor=st.sampled_from([1.05, 1.5, 3.0]))
def test_more_of_a_resource_is_never_slower(toy, path, shape, factor):
    batch, m, n, k, distance = shape
    base = {"memory.bandwidth": 1e12, "l2.bandwidth": 4e12, "l2.capacity": 40e6, "sm.tensor_clock": 1e9}[path]
    unit = {"memory.bandwidth": "B/s", "l2.bandwidth": "B/s", "l2.capacity": "B", "sm.tensor_clock": "Hz"}[
        path
    ]
    better = toy.replace(**{path: f"{base * factor} {unit}"})
    faster = factor if path == "sm.tensor_clock" else 1.0
    before = seconds(run_rows([row(m, n, k, batch=batch, distances=(distance,) * 4)], toy))[0]
    after = seconds(
        run_rows([row(m, n, k, batch=batch, distances=(distance,) * 4, clock=1e9 * faster)], better)
    )[0]
    assert after <= before * (1 + 1e-12)


def test_one_full_wave_in_closed_form(toy):
    """A full wave of 128 x 128 blocks with a long reduction runs at the tensor rate: 2 m n k / peak."""
    perfect = dict.fromkeys(("tensor_efficiency", "dram_efficiency"), 1.0)
    free = dict.fromkeys(("l2_efficiency", "l2_bytes_per_clock", "shared_bytes_per_clock"), 1e9)
    names = ("epilogue_cycles", "prologue_latencies", "step_latencies", "step_cycles")
    ideal = GENERIC.model_copy(
        update={
            **perfect,
            **free,
            **dict.fromkeys(names, 0.0),
            "overlap": 100.0,
            "split_k_cycles": 1e9,
            "step_overhead": 0.0,
            "tile_costs": (1.0,) * len(TILES),
        }
    )
    m, n, k = 1280, 1280, 4096
    out = run_rows([row(m, n, k, distances=(0.0, 0.0, 0.0, 0.0))], toy, ideal)
    assert seconds(out)[0] == pytest.approx(2 * m * n * k / toy.peak_flop_per_s("fp16"), rel=1e-3)
    assert out[0, R.OUT_DRAM_BYTES] == 0


def test_a_streamed_vector_runs_at_dram_speed(toy):
    """One row times a large matrix reads the weights: bytes over sustained bandwidth, within the overlap and
    the fixed part.
    """
    n = k = 16384
    out = run_rows([row(1, n, k)], toy)
    ideal = 2 * (n * k + n + k) / (1e12 * GENERIC.dram_efficiency)
    assert out[0, R.OUT_DRAM_S] == pytest.approx(ideal, rel=1e-9)
    assert ideal <= seconds(out)[0] <= 1.1 * ideal + 5e-6
    assert out[0, R.STALL_DRAM] > 0.5 * seconds(out)[0]


def test_split_k_fills_the_machine_for_deep_narrow_products(toy):
    out = run_rows([row(64, 64, 65536, distances=(0.0,) * 4)], toy)
    assert out[0, R.OUT_SPLIT] > 1
    assert run_rows([row(4096, 4096, 4096)], toy)[0, R.OUT_SPLIT] == 1


def test_large_products_that_spill_the_l2_read_operands_again(toy):
    small, large = 2048, 16384
    out = run_rows([row(small, small, small), row(large, large, large)], toy)
    assert out[0, R.OUT_DRAM_BYTES] == pytest.approx(3 * small * small * 2)  # 16 MB of operands stay in 40 MB
    assert out[1, R.OUT_DRAM_BYTES] > 3 * large * large * 2


def test_the_governor_slows_only_what_exceeds_the_cap(toy):
    hot = GENERIC.model_copy(
        update={"switched_macs": 4e-12 / switched_j(toy)}
    )  # 200 TFLOP/s x 4 pJ = 800 W against 350 W of headroom
    rows = [row(8192, 8192, 8192), row(1, 16384, 16384)]
    free, capped = (run_rows(rows, toy, hot, governor=g) for g in (False, True))
    assert capped[0, R.OUT_SCALE] < 0.9
    assert seconds(capped)[0] > 1.1 * seconds(free)[0]
    assert capped[1, R.OUT_SCALE] == 1
    assert seconds(capped)[1] == seconds(free)[1]


def test_a_lone_kernel_runs_above_the_cap_while_it_is_short(toy):
    """The cap holds an average over the lag: a kernel much shorter runs as if there was none, a much longer
    one, and each of a run that goes on, as if there was no lag.
    """
    hot = {"switched_macs": 8e-12 / switched_j(toy), "power_lag_s": 0.0}
    now = GENERIC.model_copy(update=hot)
    for size in (2048, 8192):
        alone, going = row(size, size, size), row(size, size, size, steady=1.0)
        free = seconds(run_rows([alone], toy, now))[0]
        held = seconds(run_rows([alone], toy, now, governor=True))[0]
        assert held > 1.1 * free
        before = held
        for lag in (1e-6 * free, 0.1 * free, free, 10 * free, 1e6 * free):
            late = now.model_copy(update={"power_lag_s": lag})
            taken, steady = seconds(run_rows([alone, going], toy, late, governor=True))
            assert free * (1 - 1e-12) <= taken <= before * (1 + 1e-12)
            assert steady == held
            before = taken
        assert taken == pytest.approx(free, rel=1e-5)


def test_tiles_of_a_library_that_goes_by_tokens_alone(toy):
    """With tiles of at least 128 x 64, up to 64 columns cost the same, and 16 tokens less than 128."""
    fixed = GENERIC.model_copy(update={"least_rows": 128.0, "least_columns": 64.0})
    narrow, wide, few = run_rows([row(128, 8, 4096), row(128, 64, 4096), row(16, 64, 4096)], toy, fixed)
    for line in (narrow, wide):
        assert TILES[int(line[R.OUT_TILE])][0] >= 128
        assert TILES[int(line[R.OUT_TILE])][1] >= 64
    assert TILES[int(few[R.OUT_TILE])][0] >= 16
    assert few[R.OUT_COMPUTE] <= wide[R.OUT_COMPUTE]
    free = run_rows([row(128, 8, 4096)], toy)
    assert seconds(free)[0] <= seconds(narrow[None])[0]


def test_small_products_are_not_split_where_the_library_does_not(toy):
    sized = GENERIC.model_copy(update={"split_work": float(2**21)})
    below, above, long = run_rows([row(16, 32, 4032), row(16, 32, 4096), row(2, 32, 16384)], toy, sized)
    assert below[R.OUT_SPLIT] == 1.0
    assert above[R.OUT_SPLIT] > 1.0
    assert long[R.OUT_SPLIT] > 1.0
    assert run_rows([row(16, 32, 4032)], toy)[0, R.OUT_SPLIT] > 1.0


def test_integers_draw_less_and_so_throttle_less(toy):
    """Time goes with power at the threshold voltage, and with about its square root at higher voltages;
    without a cap nothing changes.
    """
    hot = GENERIC.model_copy(update={"switched_macs": 20e-12 / switched_j(toy), "integer_power": 0.5})
    sizes = [row(8192, 8192, 8192, integer=flag) for flag in (0.0, 1.0)]
    floats, integers = run_rows(sizes, toy, hot, governor=True)
    assert 2**0.5 < integers[R.OUT_SCALE] / floats[R.OUT_SCALE] < 2
    free = run_rows(sizes, toy, hot)
    assert (free[0] == free[1]).all()


def test_siblings_at_one_absolute_clock_take_the_same_power(toy):
    """A card that boosts to three quarters of its sibling's clock ends up, under a cap, at the clock where
    the sibling would: one voltage curve over absolute clock.
    """
    slow = toy.model_copy(
        update={
            "sm": toy.sm.model_copy(
                update={
                    "tensor_clock_hz": 0.75 * toy.sm.tensor_clock_hz,
                    "voltage_clock_hz": toy.sm.tensor_clock_hz,
                }
            )
        }
    )
    volts, threshold = voltage(slow)
    assert voltage(toy) == (1.0, THRESHOLD)
    assert volts == pytest.approx(0.4 + 0.6 * 0.75)
    for power in (3.0, 5.0):  # of the sibling at its own clock, over the cap
        scale = clock_scale(power * 0.75 * volts**2, threshold)
        assert 0.75 * scale == pytest.approx(clock_scale(power, THRESHOLD), rel=1e-9)
    assert switched_j(slow) == pytest.approx(switched_j(toy) * volts**2)


def test_clock_scale_is_continuous_and_falls():
    powers = np.linspace(0.5, 6, 200)
    scales = np.array([clock_scale(p, THRESHOLD) for p in powers])
    assert (np.diff(scales) <= 0).all()
    assert np.abs(np.diff(scales)).max() < 0.02
    assert clock_scale(1.0, THRESHOLD) == 1
    volts = THRESHOLD + (1 - THRESHOLD) * scales
    assert (scales * volts**2)[powers > 1] == pytest.approx(1 / powers[powers > 1], rel=1e-9)


@given(capacity=st.floats(1e3, 1e9), distance=st.floats(0, 1e10))
def test_residency_twins_agree(capacity, distance):
    assert resident(capacity, distance) == pytest.approx(resident_share(capacity, distance), abs=1e-12)
    assert 0 <= resident(capacity, distance) <= 1


@given(a=st.floats(0, 1e3), b=st.floats(0, 1e3), p=st.floats(1, 20))
def test_joined_lies_between_the_longer_and_the_sum(a, b, p):
    assert max(a, b) <= joined(a, b, p) * (1 + 1e-12)
    assert joined(a, b, p) <= (a + b) * (1 + 1e-9)


def test_measured_families_have_constants_of_their_own():
    assert len({tuple(c.array) for c in CONSTANTS.values()}) == len(CONSTANTS)
    for name in MEASURED:
        assert load_hardware(name).quantities["kernels.product.launch_cycles"].status == "measured"
    assert load_hardware("t4").quantities["kernels.product.launch_cycles"].status == "assumed"


def test_a_kernel_that_walks_down_columns_reads_its_left_operand_once_per_column(toy):
    """With more rows of tiles than a wave holds, a wave is one column; the left operand, larger than the L2,
    returns for each. As square a patch as the grid allows reads less, and small operands are read once.
    """
    columns = GENERIC.model_copy(update={"swizzle": 1.0})
    big, small = row(65536, 2048, 4096), row(64, 2048, 256)
    walked, square = (run_rows([big, small], toy, c) for c in (columns, GENERIC))
    tile_m, tile_n = TILES[int(walked[0, R.OUT_TILE])]
    assert 65536 / tile_m > 2 * toy.sm.count
    left = 65536 * 4096 * 2.0
    assert left > toy.l2.capacity_bytes
    assert walked[0, R.OUT_DRAM_BYTES] >= left * 2048 / tile_n
    assert square[0, R.OUT_DRAM_BYTES] < 0.7 * walked[0, R.OUT_DRAM_BYTES]
    assert walked[1, R.OUT_DRAM_BYTES] == square[1, R.OUT_DRAM_BYTES]
