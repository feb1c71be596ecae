"""SCALE-Sim's report files from SCALE-Sim's input files."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.core.errors import ConfigError
from accelsim.core.files import write_whole

if TYPE_CHECKING:
    from accelsim.architectures.systolic.scalesim_run import LayerReport

_COMPUTE = (
    "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %, "
    "Mapping Efficiency %, Compute Util %,"
)
_BANDWIDTH = "LayerID, Avg IFMAP SRAM BW, Avg FILTER SRAM BW, {}Avg OFMAP SRAM BW, "
_DRAM_BANDWIDTH = "Avg IFMAP DRAM BW, Avg FILTER DRAM BW, Avg OFMAP DRAM BW,"
_SPARSE = (
    "LayerID, Sparsity Representation, Original Filter Storage, New Storage (Filter+Metadata), "
    "Filter Metadata Storage, Avg FILTER Metadata SRAM BW, "
)
_DETAIL = "LayerID, " + " ".join(
    f"{memory} {name} Start Cycle, {memory} {name} Stop Cycle, {memory} {name} {action},"
    for memory in ("SRAM", "DRAM")
    for name, action in (("IFMAP", "Reads"), ("Filter", "Reads"), ("OFMAP", "Writes"))
)


def scalesim_run(
    config: str | Path,
    topology: str | Path,
    layout: str | Path | None,
    out: str | Path,
    *,
    gemm: bool | None = None,
) -> dict[str, Path]:
    """Do what a SCALE-Sim 3.0.0 run does, traces apart.

    Parameters
    ----------
    config, topology : str or Path
        The tool's ``.cfg`` and ``.csv`` files.
    layout : str or Path, optional
        Its layout file; custom layouts with bounded bandwidth use its first row.
    out : str or Path
        Folder; reports go into a folder in it that is named after the run.
    gemm : bool, optional
        The topology lists products; by default its header decides.

    Returns
    -------
    dict of str to Path
        Report name to file: ``COMPUTE_REPORT``, ``BANDWIDTH_REPORT``, ``DETAILED_ACCESS_REPORT``, and
        ``SPARSE_REPORT`` with sparsity on.

    Raises
    ------
    AccelsimError
        A file cannot be read, is malformed or asks for what is not modelled.
    """
    from accelsim.architectures.systolic.scalesim_files import layout_of, read_config, read_topology
    from accelsim.architectures.systolic.scalesim_run import run

    settings = read_config(Path(config))
    layers = read_topology(Path(topology), gemm)
    order = layout_of(None if layout is None else Path(layout), settings)
    reports = run(settings, layers, order)
    folder = Path(out) / settings.run_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder ({error.strerror})", str(folder)) from None
    texts = {
        "COMPUTE_REPORT": _compute(reports),
        "BANDWIDTH_REPORT": _bandwidth(reports),
        "DETAILED_ACCESS_REPORT": _detail(reports),
    }
    if settings.sparse:
        texts["SPARSE_REPORT"] = _sparse(reports, settings.sparse)
    return {name: write_whole(folder / f"{name}.csv", text) for name, text in texts.items()}


def _table(header: str, rows: list[str]) -> str:
    return "\n".join([header, *(f"{i}, {row}," for i, row in enumerate(rows))]) + "\n"


def _rate(count: float, cycles: int) -> float:
    return count / cycles if cycles else nan


def _compute(reports: Sequence[LayerReport]) -> str:
    rows = [
        f"{r.total_with_prefetch}, {r.total}, {r.stall}, "
        f"{r.utilisation_pct}, {r.mapping_pct}, {r.compute_pct}"
        for r in reports
    ]
    return _table(_COMPUTE, rows)


def _bandwidth(reports: Sequence[LayerReport]) -> str:
    rows = []
    sparse = False
    for r in reports:
        cells = [_rate(count, r.total) for _, _, count in r.sram]
        if r.sparse is not None:
            sparse = True
            cells.insert(2, _rate(r.sparse[2], r.total))
        cells += [_rate(count, stop - start + 1) for start, stop, count in r.dram]
        rows.append(", ".join(map(str, cells)))
    return _table(
        _BANDWIDTH.format("Avg FILTER Metadata SRAM BW, " if sparse else "") + _DRAM_BANDWIDTH, rows
    )


def _detail(reports: Sequence[LayerReport]) -> str:
    rows = []
    for r in reports:
        (a, b, c), (d, e, f), (g, h, i) = r.sram
        (j, k, l), (m, n, o), (p, q, s) = r.dram  # noqa: E741
        rows.append(
            f"{a}.0, {b}.0, {c}, {d}.0, {e}.0, {f}, {g}.0, {h}.0, {i}, "
            f"{j}.0, {k}.0, {l}, {m}.0, {n}.0, {o}, {p}.0, {q}.0, {s}"
        )
    return _table(_DETAIL, rows)


def _sparse(reports: Sequence[LayerReport], form: str) -> str:
    rows = []
    for r in reports:
        dense, compressed, metadata = r.sparse or (nan, nan, nan)
        rows.append(f"{form}, {dense}, {compressed}, {metadata}, {_rate(metadata, r.total)}")
    return _table(_SPARSE, rows)
