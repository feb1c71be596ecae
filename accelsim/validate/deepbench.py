"""The NVIDIA V100 results of DeepBench (baidu-research/DeepBench), read from a checkout or from the sheet.

Forward times of ``results/train/DeepBench_NV_V100.xlsx``: matrix products, convolutions and recurrent layers
in fp32 and in fp16 with fp32 accumulation, measured in 2019 on a DGX-1 with CUDA 10.1 and cuDNN 7.6.2. The
sheet gives three decimals of a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import MissingExtraError, RequestError

if TYPE_CHECKING:
    import pandas as pd

SHEET = "DeepBench_NV_V100.xlsx"
DEVICE = "v100-sxm"

_PRECISIONS: Mapping[str, str] = MappingProxyType(
    {"Results FP32": "fp32", "Results - FP16 ip, Mixed math": "fp16"}
)
_SECTIONS = {
    "Dense Matrix Multiplication": "gemm",
    "Convolution": "conv2d",
    "Recurrent Layers - Vanilla": "rnn",
    "Recurrent Layers - LSTM": "lstm",
    "Recurrent Layers - GRU": "gru",
    "All-Reduce": "",
}
# A cell of the sheet lost its first letters.
_ALGORITHMS = {"LICIT_PRECOMP_GEMM": "IMPLICIT_PRECOMP_GEMM"}


def load(path: str | Path) -> pd.DataFrame:
    """Forward times in the schema of `accelsim.calibration.measurements`.

    Parameters
    ----------
    path : str or Path
        The sheet, or a checkout of DeepBench that holds it.

    Returns
    -------
    DataFrame
        Rows of ``gemm``, ``conv2d``, ``rnn``, ``lstm`` and ``gru``; ``kernel`` is cuDNN's algorithm of a
        convolution, ``conditions`` the transposition of a product's operands in BLAS order. Recurrent layers
        were run without an input product (``input`` 0), as the sheet's own FLOP count shows. Rows that the
        sheet has twice are one row with the median time.

    Raises
    ------
    RequestError
        There is no such sheet under the path, or it has another layout.
    MissingExtraError
        openpyxl is not installed.
    """
    import pandas as pd

    file = _find(Path(path))
    try:
        openpyxl = import_module("openpyxl")
    except ImportError:
        raise MissingExtraError("openpyxl", "validation", "reading the DeepBench sheet") from None
    book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    missing = [name for name in _PRECISIONS if name not in book.sheetnames]
    if missing:
        raise RequestError(f"no sheet '{missing[0]}'", str(file), f"expected DeepBench's own {SHEET}")
    rows: list[dict[str, Any]] = []
    for sheet, precision in _PRECISIONS.items():
        rows += [{"precision": precision, **row} for row in _rows(book[sheet].iter_rows(values_only=True))]
    book.close()
    frame = pd.DataFrame(rows)
    if not len(frame):
        raise RequestError("no measurements in the sheet", str(file))
    shape = [c for c in frame.columns if c not in ("latency_s", "kernel")]
    grouped = frame.groupby(shape, sort=False, dropna=False)
    out = grouped.agg(latency_s=("latency_s", "median"), kernel=("kernel", "first")).reset_index()
    out["repeats"] = grouped.size().to_numpy()
    sizes = [c for c in shape if c not in ("op", "precision", "conditions")]
    out[sizes] = out[sizes].astype("Int64")
    text = {"device": DEVICE, "backend": "cuda", "version": "10.1", "includes": "", "flag": ""}
    return out.assign(**text)


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.rglob(SHEET)) if path.is_dir() else []
    if not found:
        raise RequestError(
            f"no {SHEET} here", str(path), "give the sheet or a checkout of baidu-research/DeepBench"
        )
    # A checkout has training and inference results; the training sheet has the forward pass of both.
    return next((f for f in found if f.parent.name == "train"), found[0])


def _rows(cells: Iterator[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    op = ""
    for row in cells:
        if row[0] is not None:
            op = _SECTIONS.get(str(row[0]).strip(), op)
        elif op and _is_size(row[2]) and _is_size(row[3]):
            found = _READERS[op](row)
            if found["latency_s"] is not None:
                yield {"op": op, **found}


def _is_size(cell: Any) -> bool:
    return isinstance(cell, int | float) and cell > 0


def _seconds(cell: Any) -> float | None:
    return float(cell) * 1e-3 if isinstance(cell, int | float) and cell > 0 else None


def _gemm(row: tuple[Any, ...]) -> dict[str, Any]:
    rows, columns, k, left, right = row[2:7]
    # BLAS stores by column: its (M, N) result is the (N, M) result of the row-major product that we describe.
    return {
        "m": columns,
        "n": rows,
        "k": k,
        "conditions": f"{left}{right}",
        "kernel": "",
        "latency_s": _seconds(row[8]),
    }


def _conv(row: tuple[Any, ...]) -> dict[str, Any]:
    w, h, c, n, k, kernel_w, kernel_h, pad_w, pad_h, stride_w, stride_h = row[2:13]
    if pad_w != pad_h or stride_w != stride_h:
        raise RequestError(f"a convolution with uneven stride or padding: {row[2:13]}", SHEET)
    algorithm = str(row[23]).strip()
    return {
        "batch": n,
        "c_in": c,
        "c_out": k,
        "kernel_h": kernel_h,
        "kernel_w": kernel_w,
        "h": h,
        "w": w,
        "stride": stride_h,
        "padding": pad_h,
        "conditions": "",
        "kernel": _ALGORITHMS.get(algorithm, algorithm),
        "latency_s": _seconds(row[13]),
    }


def _recurrent(row: tuple[Any, ...]) -> dict[str, Any]:
    hidden, batch, steps = row[2:5]
    return {
        "hidden": hidden,
        "batch": batch,
        "steps": steps,
        "input": 0,
        "conditions": "",
        "kernel": "",
        "latency_s": _seconds(row[6]),
    }


_READERS = {"gemm": _gemm, "conv2d": _conv, "rnn": _recurrent, "lstm": _recurrent, "gru": _recurrent}
