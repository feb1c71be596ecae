"""SCALE-Sim 3.0.0 in closed form: cycles and SRAM accesses of one layer on one array with unbounded
bandwidth.

The forms reproduce what the tool prints, its conventions included: folds at the edge are as long as full
ones, folds never overlap, batch is one, and a depthwise layer is a convolution with one filter. A. Samajdar
et al., "A systematic methodology for characterizing scalability of DNN accelerators using SCALE-Sim", ISPASS
2020, doi:10.1109/ISPASS48437.2020.00016. The output-stationary form of release 3.0.0 is R + C + K - 2, not
the paper's 2R + C + K - 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from accelsim.core.errors import RequestError, did_you_mean

DATAFLOWS = ("ws", "os", "is")


@dataclass(frozen=True, slots=True)
class ScaleSimLayer:
    """What SCALE-Sim reports for a layer.

    Attributes
    ----------
    total_cycles : int
        Its column "Total Cycles": the index of the last cycle, counted from zero [cycle].
    folds : int
        Times that the array is filled.
    ifmap_reads, filter_reads, ofmap_writes : int
        SRAM accesses [element].
    mapping_efficiency_pct : float
        Mean share of processing elements that a fold uses [%].
    overall_utilisation_pct : float
        Multiply-accumulates over those that the array could do in the cycles [%]; NaN where the tool counts
        no cycle (one product on one element).
    """

    total_cycles: int
    folds: int
    ifmap_reads: int
    filter_reads: int
    ofmap_writes: int
    mapping_efficiency_pct: float
    overall_utilisation_pct: float


def conv_as_gemm(
    h: int, w: int, kernel_h: int, kernel_w: int, channels: int, filters: int, stride: int
) -> tuple[int, int, int]:
    """Matrix product (m, n, k) of a convolution layer; a partial last window counts, as in SCALE-Sim."""
    out_h = -(-(h - kernel_h + stride) // stride)
    out_w = -(-(w - kernel_w + stride) // stride)
    return out_h * out_w, filters, kernel_h * kernel_w * channels


def layer(m: int, n: int, k: int, rows: int, cols: int, dataflow: str) -> ScaleSimLayer:
    """Cycles and accesses of an m x n x k product on a rows x cols array.

    Parameters
    ----------
    m, n, k : int
        Output pixels, filters and products per output.
    rows, cols : int
        Processing elements.
    dataflow : {"ws", "os", "is"}
        Which operand stays in the array: weights, outputs or inputs.

    Notes
    -----
    ==  ==============================  =============================
    df  cycles of a fold                folds
    ==  ==============================  =============================
    os  R + C + k - 2                   ceil(m / R) ceil(n / C)
    ws  2 R + C + m - 2                 ceil(k / R) ceil(n / C)
    is  2 R + C + n - 2                 ceil(k / R) ceil(m / C)
    ==  ==============================  =============================
    """
    if dataflow == "os":
        down, across, cycles = m, n, rows + cols + k - 2
    elif dataflow == "ws":
        down, across, cycles = k, n, 2 * rows + cols + m - 2
    elif dataflow == "is":
        down, across, cycles = k, m, 2 * rows + cols + n - 2
    else:
        raise RequestError(f"SCALE-Sim has no dataflow '{dataflow}'", hint=did_you_mean(dataflow, DATAFLOWS))
    fold_rows, fold_cols = -(-down // rows), -(-across // cols)
    folds = fold_rows * fold_cols
    ifmap, weights, ofmap = m * k, k * n, m * n
    if dataflow == "os":
        # The tool adds R + C writes per fold: its output demand is padded by a sum where a product was meant.
        ifmap, weights, ofmap = ifmap * fold_cols, weights * fold_rows, ofmap + (rows + cols) * folds
    elif dataflow == "ws":
        ifmap, ofmap = ifmap * fold_cols, ofmap * fold_rows
    else:
        weights, ofmap = weights * fold_cols, ofmap * fold_rows
    total = cycles * folds - 1
    return ScaleSimLayer(
        total,
        folds,
        ifmap,
        weights,
        ofmap,
        100.0 * down * across / (folds * rows * cols),
        100.0 * m * n * k / (total * rows * cols) if total else nan,
    )
