"""Convolutions as rows of the numba kernel: implicit GEMM, Winograd, and depthwise ones as streams.

An implicit GEMM unrolls windows of the input on the fly: pixels x (kernel positions, channels) times filters.
Winograd's minimal filtering (Lavin and Gray, arXiv:1509.09308) multiplies transformed tiles instead. Where a
library has both, both are costed and the faster is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.rates import product_rate, vector_rate, wider
from accelsim.architectures.gpu.tiles import STEP_BYTES, TILES
from accelsim.architectures.opwork import touched
from accelsim.core.precision import PrecisionPlan
from accelsim.hardware.kernels import ConvModel

Array = npt.NDArray[np.float64]

VECTOR_BYTES = 16
"""Width of one load of a tensor-core kernel: channels of a pixel are padded to it."""

TILE_COLUMNS = 128.0
"""Filters that share one gathered window."""

POINTS = 6
"""Points of a Winograd tile in each direction: 4 outputs of a 3-wide filter, 2 of a 5-wide one."""

FUSED_POINTS = 4
"""The same of the kernel that transforms on the fly: 2 outputs of a 3-wide filter."""

INTEGER_LANES = 64.0
"""Address operations per SM and clock, whatever the format of the data: the 32-bit integer lanes of Volta and
its successors (CUDA programming guide, arithmetic throughput).
"""

FEW_BLOCKS = 0.25
"""Blocks per SM below which a library leaves its own tiles (assumed: the smallest measured grid has 0.4)."""

OWN, NARROW, PRODUCT = 0.0, 1.0, 2.0
"""A convolution's tile tables, one after the other: of its own kernels for many filters, for few, and of
plain products."""

TABLES = 3.0
"""Tile tables of a convolution on one kind of unit."""

NARROW_FILTERS = 32.0
"""Filters up to which a library's own kernels take tiles narrower than 64 columns."""

LANE_STEP_BYTES = 32
"""Bytes of one operand row that a step of a kernel on the vector units loads."""

TENSOR_STEP_BYTES = 64
"""The same on the tensor cores, where the library's own tiles are listed."""

TableKey = tuple[float, float, float, tuple[tuple[int, int], ...], bool]
"""Arguments of `tiles.tile_table`."""

IMPLICIT, WINOGRAD, FUSED, DEPTHWISE, LANES = range(5)
ALGORITHMS = ("implicit GEMM", "Winograd", "fused Winograd", "depthwise", "implicit GEMM in fp32")


@dataclass(frozen=True)
class Layers:
    """Convolutions, one array element each.

    Attributes
    ----------
    groups, pixels, filters, channels, window, stride : ndarray
        Channel groups; output pixels of the batch; filters and input channels of one group; kernel positions;
        widest stride.
    a_bytes, b_bytes, c_bytes, extra_bytes : ndarray
        Input, weights, result, and what fused operators add [B].
    a_distance, b_distance, c_distance, extra_distance : ndarray
        Bytes that pass between two uses; infinite when cold.
    width_a, width_b : ndarray
        Bytes per element of input and weights.
    rate, clock, tensor, integer : ndarray
        FLOP per SM and clock, clock [Hz], 1.0 where tensor cores do it, 1.0 where the operands are integers.
    vector_ops, vector_rate : ndarray
        Fused elementwise operations; operations per SM and clock.
    table : ndarray
        Index of the first of its tile tables.
    tiles, fused_tiles : ndarray
        Winograd tiles of the batch (6 x 6 and 4 x 4 points); 0 where the library has no such kernel.
    lane_rate, lane_clock : ndarray
        FLOP per SM and clock in fp32 on the vector units, and their clock [Hz]; 0 where a convolution may not
        run there.
    """

    groups: Array
    pixels: Array
    filters: Array
    channels: Array
    window: Array
    stride: Array
    a_bytes: Array
    b_bytes: Array
    c_bytes: Array
    extra_bytes: Array
    a_distance: Array
    b_distance: Array
    c_distance: Array
    extra_distance: Array
    width_a: Array
    width_b: Array
    rate: Array
    clock: Array
    tensor: Array
    integer: Array
    vector_ops: Array
    vector_rate: Array
    table: Array
    tiles: Array
    fused_tiles: Array
    lane_rate: Array
    lane_clock: Array

    @classmethod
    def of(cls, records: list[tuple[float, ...]]) -> Layers:
        """From one tuple per convolution, in the order of the fields."""
        return cls(*np.array(records, dtype=np.float64).T)

    def where(self, chosen: npt.NDArray[Any]) -> Layers:
        """The convolutions that an index array or mask picks."""
        return Layers(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def on_lanes(self) -> Layers:
        """The same on the vector units."""
        lanes = self.lane_rate > 0
        return replace(
            self,
            rate=np.where(lanes, self.lane_rate, self.rate),
            clock=np.where(lanes, self.lane_clock, self.clock),
            table=np.where(lanes & (self.tensor > 0), self.table + TABLES, self.table),
            tensor=np.where(lanes, 0.0, self.tensor),
        )

    @property
    def flops(self) -> Array:
        """MAC arithmetic of the direct algorithm [FLOP]."""
        return 2.0 * self.groups * self.pixels * self.filters * self.channels * self.window


@dataclass(frozen=True)
class Kernels:
    """Rows of the numba kernel for some convolutions.

    Attributes
    ----------
    rows : ndarray, shape (kernels, WIDTH)
    owner : ndarray
        Convolution that a row belongs to.
    algorithm : ndarray
        Index in `ALGORITHMS`; a convolution's time is the least over its algorithms.
    launches : ndarray
        Launches of the row.
    """

    rows: Array
    owner: npt.NDArray[np.intp]
    algorithm: npt.NDArray[np.intp]
    launches: Array


def winograd_tiles(
    kernel: tuple[Any, Any], size: tuple[Any, Any], batch: Any, plain: Any
) -> tuple[Array, Array]:
    """Winograd tiles of layers of stride one.

    Parameters
    ----------
    kernel, size : pair of ndarray
        Height and width of the filter and of the output.
    batch : ndarray
    plain : ndarray of bool
        Stride and dilation one, one group, on the vector units in fp32.

    Returns
    -------
    tuple of ndarray
        Tiles of 6 x 6 points (filters 3 or 5 wide) and of 4 x 4 points (filters 3 wide); 0: not available.
    """
    wide = np.asarray(kernel[0], dtype=np.float64)
    square = np.asarray(plain, dtype=bool) & (wide == kernel[1])
    large, small = square & np.isin(wide, (3.0, 5.0)), square & (wide == 3.0)

    def count(points: int, usable: Any) -> Array:
        side = np.maximum(1.0, points + 1.0 - wide)
        tiles = batch * np.ceil(size[0] / side) * np.ceil(size[1] / side)
        return np.where(usable, tiles, 0.0)

    return count(POINTS, large), count(FUSED_POINTS, small)


@lru_cache(maxsize=4096)
def winograd_tiles_of(kernel: tuple[int, int], size: tuple[int, int], batch: int) -> tuple[float, float]:
    """The same of one layer that allows them; graphs ask for few layers many times."""
    large, small = winograd_tiles(kernel, size, float(batch), True)
    return float(large), float(small)


def aligned(channels: Array, width: Array, tensor: Array, least: float) -> Array:
    """Channels after padding for the tensor cores: to `least` for a first layer, else to whole loads."""
    step = VECTOR_BYTES / width
    padded = np.where(channels <= least, least, np.ceil(channels / step) * step)
    return np.where(tensor > 0, padded, channels)


def conv_model(device: Any, stack: str) -> ConvModel:
    """Convolution constants of a software stack, or the device's default."""
    models = device.kernels.conv
    found: ConvModel = models.get(stack, models["default"])
    return found


def lanes_of(device: Any, name: str) -> tuple[float, float]:
    """FLOP per SM and clock, and clock [Hz], at which the vector units may run a convolution of a format.

    They run fp32, and tf32 too: it allows tensor cores and does not ask for them. 0 for other formats.
    """
    sm = device.sm
    if name not in ("fp32", "tf32") or (name == "fp32" and "fp32" in sm.tensor_flop_per_clock):
        return 0.0, 0.0
    return float(sm.vector_flop_per_clock.get("fp32", 0.0)), float(sm.clock_hz)


def table_keys(
    model: ConvModel, width_a: float, width_b: float, tensor: bool, lanes: bool = False
) -> tuple[TableKey, ...]:
    """Tile tables of a convolution: `OWN`, `NARROW`, `PRODUCT`, and again for the vector units where tensor
    cores and `lanes` can run it.
    """
    if tensor and lanes:
        return table_keys(model, width_a, width_b, True) + table_keys(model, width_a, width_b, False)
    tiles = model.tensor_tiles if tensor else model.lane_tiles
    step = float(TENSOR_STEP_BYTES if tensor else LANE_STEP_BYTES)
    product = (width_a, width_b, float(STEP_BYTES), TILES, True)
    if not tiles:
        free = (*product[:4], False)
        return free, free, product
    wide = tuple(t for t in tiles if t[1] > NARROW_FILTERS)
    return (width_a, width_b, step, wide or tiles, False), (width_a, width_b, step, tiles, False), product


def least_flops(layers: Layers) -> Array:
    """Arithmetic of the algorithm that needs the least [FLOP]; the analytic bound of every other."""
    products = 2.0 * layers.channels * layers.filters
    best = layers.flops
    slower = layers.rate * layers.clock / np.maximum(1.0, layers.lane_rate * layers.lane_clock)
    for points, tiles in ((POINTS, layers.tiles), (FUSED_POINTS, layers.fused_tiles)):
        lanes = products * points**2 * tiles * slower
        best = np.where(tiles > 0, np.minimum(best, lanes), best)
    return best


def is_depthwise(layers: Layers) -> npt.NDArray[np.bool_]:
    """With fewer input channels per group than a load is wide, a convolution runs on the vector lanes."""
    found: npt.NDArray[np.bool_] = (layers.groups > 1) & (layers.channels * layers.width_a < VECTOR_BYTES)
    return found


def kernels_of(layers: Layers, model: ConvModel, sms: float, *, planar: bool = False) -> Kernels:
    """Rows of every algorithm that a library would consider.

    Parameters
    ----------
    layers : Layers
    model : ConvModel
        Constants of the software stack.
    sms : float
        Streaming multiprocessors of the device.
    planar : bool
        Activations lie channel by channel (NCHW); tensor-core kernels transpose them and their result.
    """
    depthwise = is_depthwise(layers)
    direct, light = np.flatnonzero(~depthwise), np.flatnonzero(depthwise)
    large, small = np.flatnonzero(layers.tiles > 0), np.flatnonzero(layers.fused_tiles > 0)
    either = np.flatnonzero(~depthwise & (layers.tensor > 0) & (layers.lane_rate > 0))
    lanes = layers.on_lanes()
    parts = [
        _implicit(layers.where(direct), direct, model, sms),
        replace(_implicit(lanes.where(either), either, model, sms), algorithm=np.full(len(either), LANES)),
        _depthwise(lanes.where(light), light),
        *_winograd(lanes.where(large), large, model),
        *_fused_winograd(lanes.where(small), small, model),
    ]
    if planar:
        dense = np.flatnonzero(~depthwise & (layers.tensor > 0))
        parts += _transposes(layers.where(dense), dense)
    return Kernels(
        np.concatenate([p.rows for p in parts]),
        np.concatenate([p.owner for p in parts]),
        np.concatenate([p.algorithm for p in parts]),
        np.concatenate([p.launches for p in parts]),
    )


def _base(layers: Layers, owner: npt.NDArray[np.intp], algorithm: int) -> Kernels:
    rows = np.zeros((len(owner), R.WIDTH))
    rows[:, R.CLOCK], rows[:, R.TABLE], rows[:, R.SHARE] = layers.clock, layers.table, 1.0
    rows[:, R.BYTES_A], rows[:, R.BYTES_B] = layers.width_a, layers.width_b
    rows[:, R.VECTOR_RATE], rows[:, R.RATE] = layers.vector_rate, layers.rate
    rows[:, R.INTEGER] = layers.integer
    return Kernels(rows, owner, np.full(len(owner), algorithm), np.ones(len(owner)))


def _external(rows: Array, layers: Layers, *, reads: bool = True, weights: bool = True) -> None:
    """Fill the traffic of a kernel that reads the input and writes the result."""
    if reads:
        rows[:, R.A_BYTES], rows[:, R.A_DISTANCE] = layers.a_bytes, layers.a_distance
    if weights:
        rows[:, R.B_BYTES], rows[:, R.B_DISTANCE] = layers.b_bytes, layers.b_distance


def _result(rows: Array, layers: Layers) -> None:
    rows[:, R.C_BYTES], rows[:, R.C_DISTANCE] = layers.c_bytes, layers.c_distance
    rows[:, R.EXTRA_BYTES], rows[:, R.EXTRA_DISTANCE] = layers.extra_bytes, layers.extra_distance
    rows[:, R.VECTOR_OPS] += layers.vector_ops


def _matrix(rows: Array, batch: Any, m: Array, n: Array, k: Array) -> None:
    rows[:, R.KIND] = R.MATRIX
    rows[:, R.BATCH], rows[:, R.M], rows[:, R.N], rows[:, R.K] = batch, m, n, k
    rows[:, R.TABLE] += PRODUCT


def gathering(layers: Layers, model: ConvModel) -> tuple[Array, Array]:
    """Elementwise operations that take as long as one gathered window, and windows of an implicit GEMM."""
    each = np.where(layers.tensor > 0, model.gather_ops, model.lane_gather_ops)
    windows = layers.groups * layers.pixels * layers.window * np.ceil(layers.filters / TILE_COLUMNS)
    return each * layers.vector_rate / INTEGER_LANES, windows


def _implicit(layers: Layers, owner: npt.NDArray[np.intp], model: ConvModel, sms: float) -> Kernels:
    """One product; gathering a window costs address arithmetic on the lanes, once per column of tiles."""
    made = _base(layers, owner, IMPLICIT)
    channels = aligned(layers.channels, layers.width_a, layers.tensor, float(model.least_channels))
    step = VECTOR_BYTES / layers.width_b
    filters = np.where(layers.tensor > 0, np.ceil(layers.filters / step) * step, layers.filters)
    _matrix(made.rows, layers.groups, layers.pixels, filters, layers.window * channels)
    on_tensor = layers.tensor > 0
    table = np.where(layers.filters <= NARROW_FILTERS, NARROW, OWN)
    may_split = np.zeros(len(owner), dtype=bool)
    for here, tiles, rule in (
        (on_tensor, model.tensor_tiles, model.tensor_split),
        (~on_tensor, model.lane_tiles, model.lane_split),
    ):
        may_split |= here & ((rule == "always") | ((rule == "unit_stride") & (layers.stride == 1.0)))
        if tiles:  # results much smaller than every tile, and grids that leave the device idle, take those of
            # plain products
            tall, wide = min(m for m, _ in tiles), min(n for _, n in tiles)
            small = (tall >= 4.0 * np.maximum(layers.pixels, 16.0)) | (
                wide >= 4.0 * np.maximum(filters, 16.0)
            )
            columns = min([n for _, n in tiles if n > NARROW_FILTERS], default=wide)
            blocks = layers.groups * np.ceil(layers.pixels / tall) * np.ceil(layers.filters / columns)
            few = here & (blocks < FEW_BLOCKS * sms)
            may_split |= few
            table = np.where(here & (small | few), PRODUCT, table)
    made.rows[:, R.TABLE] = layers.table + table
    made.rows[:, R.KIND] = np.where(may_split, R.MATRIX, R.UNSPLIT)
    _external(made.rows, layers)
    outputs = layers.groups * layers.pixels * filters
    made.rows[:, R.BYTES_C] = layers.c_bytes / np.maximum(1.0, outputs)
    each, gathers = gathering(layers, model)
    made.rows[:, R.VECTOR_OPS] = each * gathers
    made.rows[:, R.RATE] *= np.where(layers.tensor > 0, model.tensor_efficiency, model.lane_efficiency)
    _result(made.rows, layers)
    made.launches[:] = model.launches
    return made


def _transposes(layers: Layers, owner: npt.NDArray[np.intp]) -> list[Kernels]:
    """Copies of input and result into the layout of the kernel and back."""
    before, after = _base(layers, owner, IMPLICIT), _base(layers, owner, IMPLICIT)
    _external(before.rows, layers, weights=False)
    before.rows[:, R.C_BYTES], before.rows[:, R.C_DISTANCE] = layers.a_bytes, layers.a_distance
    after.rows[:, R.A_BYTES], after.rows[:, R.A_DISTANCE] = layers.c_bytes, layers.c_bytes
    after.rows[:, R.C_BYTES], after.rows[:, R.C_DISTANCE] = layers.c_bytes, layers.c_distance
    return [before, after]


def _depthwise(layers: Layers, owner: npt.NDArray[np.intp]) -> Kernels:
    """A stream with one fused multiply-add per tap."""
    made = _base(layers, owner, DEPTHWISE)
    _external(made.rows, layers)
    _result(made.rows, layers)
    made.rows[:, R.VECTOR_OPS] += layers.flops / 2.0
    return made


def _winograd(layers: Layers, owner: npt.NDArray[np.intp], model: ConvModel) -> tuple[Kernels, ...]:
    """Four kernels: transforms of input and filters, 36 products, transform of the sums."""
    size = 4.0 * POINTS**2
    inputs = size * layers.tiles * layers.channels
    filters = size * layers.channels * layers.filters
    sums = size * layers.tiles * layers.filters
    read, weigh, multiply, write = (_base(layers, owner, WINOGRAD) for _ in range(4))
    _external(read.rows, layers, weights=False)
    read.rows[:, R.C_BYTES], read.rows[:, R.C_DISTANCE] = inputs, inputs + filters
    _external(weigh.rows, layers, reads=False)
    weigh.rows[:, R.C_BYTES], weigh.rows[:, R.C_DISTANCE] = filters, inputs + filters
    _matrix(multiply.rows, POINTS**2, layers.tiles, layers.filters, layers.channels)
    multiply.rows[:, R.BYTES_C] = 4.0
    multiply.rows[:, R.RATE] *= model.winograd_efficiency
    for column, size_b, gap in (
        (R.A_BYTES, inputs, inputs + filters),
        (R.B_BYTES, filters, inputs + filters),
        (R.C_BYTES, sums, inputs + filters + sums),
    ):
        multiply.rows[:, column], multiply.rows[:, column + R.A_DISTANCE - R.A_BYTES] = size_b, gap
    write.rows[:, R.A_BYTES], write.rows[:, R.A_DISTANCE] = sums, sums
    _result(write.rows, layers)
    return read, weigh, multiply, write


def _fused_winograd(layers: Layers, owner: npt.NDArray[np.intp], model: ConvModel) -> tuple[Kernels, ...]:
    """Two kernels: transform of the filters, and 16 products that transform their tiles on the fly."""
    filters = 4.0 * FUSED_POINTS**2 * layers.channels * layers.filters
    weigh, multiply = _base(layers, owner, FUSED), _base(layers, owner, FUSED)
    _external(weigh.rows, layers, reads=False)
    weigh.rows[:, R.C_BYTES], weigh.rows[:, R.C_DISTANCE] = filters, filters
    _matrix(multiply.rows, FUSED_POINTS**2, layers.fused_tiles, layers.filters, layers.channels)
    _external(multiply.rows, layers, weights=False)
    multiply.rows[:, R.B_BYTES], multiply.rows[:, R.B_DISTANCE] = filters, filters
    multiply.rows[:, R.BYTES_C] = layers.c_bytes / (FUSED_POINTS**2 * layers.fused_tiles * layers.filters)
    multiply.rows[:, R.RATE] *= model.fused_winograd_efficiency
    _result(multiply.rows, layers)
    return weigh, multiply


def layers_of(
    shapes: Mapping[str, Array], formats: PrecisionPlan, device: Any, cold: bool, copies: int
) -> Layers:
    """Convolutions of the operator table, each run back to back as one of `copies` identical layers in turn.

    Raises
    ------
    InfeasibleError
        The device lacks the precision.
    """
    s = shapes
    ones = np.ones_like(s["c_in"])
    product = wider(formats.activation, formats.weight)
    rate, clock, tensor = product_rate(device, product.name)
    lanes = vector_rate(device, formats.activation.name)
    width_a, width_b = formats.activation.bytes_per_element, formats.weight.bytes_per_element
    side_h, side_w, stride = s["kernel_h"], s["kernel_w"], s["stride"]
    out_h = (s["h"] + 2.0 * s["padding"] - side_h) // stride + 1.0
    out_w = (s["w"] + 2.0 * s["padding"] - side_w) // stride + 1.0
    channels, filters = s["c_in"] / s["groups"], s["c_out"] / s["groups"]
    pixels, window = s["batch"] * out_h * out_w, side_h * side_w
    pad = s["padding"]
    read = touched(s["h"], side_h, stride, pad, out_h) * touched(s["w"], side_w, stride, pad, out_w)
    a, b = s["batch"] * s["c_in"] * read * width_a, s["c_out"] * channels * window * width_b
    c = pixels * s["c_out"] * width_a
    own = np.full_like(a, np.inf) if cold else a + b + c
    lane_rate, lane_clock = lanes_of(device, product.name)
    plain = (stride == 1.0) & (s["groups"] == 1.0) & (lane_rate > 0.0)
    tiles = winograd_tiles((side_h, side_w), (out_h, out_w), s["batch"], plain)
    return Layers(
        s["groups"], pixels, filters, channels, window, stride, a, b, c, 0.0 * ones,
        own, own + (copies - 1) * b, own, own,
        width_a * ones, width_b * ones, rate * ones, clock * ones, float(tensor) * ones,
        float(product.is_integer) * ones, 0.0 * ones, lanes * ones, 0.0 * ones, *tiles,
        lane_rate * ones, lane_clock * ones,
    )  # fmt: skip
