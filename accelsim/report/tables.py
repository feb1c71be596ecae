"""Plain tables for a terminal, and the rows behind ``--json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from accelsim.core.frames import records
from accelsim.core.units import si

if TYPE_CHECKING:
    from accelsim.core.outcome import Infeasible
    from accelsim.engine.result import Result
    from accelsim.workload.graph import Graph

POINT = ("workload", "hardware", "batch", "precision", "status", "reason", "need", "have", "hint")

EXTRAS = {
    "onnx": "onnx",
    "torch": "torch",
    "quant": "ml_dtypes",
    "fpga": "qonnx",
    "plot": "matplotlib",
    "notebook": "jupyterlab",
    "search": "optuna",
    "cluster": "distributed",
    "validation": "pyarrow",
}


def completed(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary with the columns of every row, in their order; text that does not apply is empty."""
    return {**{name: summary.get(name, "") for name in POINT}, **summary}


def row(outcome: Result | Infeasible) -> dict[str, Any]:
    """The row of a run."""
    return completed(outcome.summary)


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table with a header; numbers are right-aligned."""
    if not rows:
        return "(nothing)"
    names = list(rows[0])
    cells = [[_cell(r[n]) for n in names] for r in rows]
    widths = [max(len(n), *(len(line[i]) for line in cells)) for i, n in enumerate(names)]
    right = [all(isinstance(r[n], int | float) for r in rows) for n in names]

    def line(values: Sequence[str]) -> str:
        return "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right)).rstrip()

    return "\n".join([line(names), line(["-" * w for w in widths]), *map(line, cells)])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "unknown" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def running_down(summary: Mapping[str, Any]) -> str:
    """One row as a table that runs down."""
    return text([{"name": name, "value": _cell(value)} for name, value in summary.items()])


def outcomes(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Runs side by side; an infeasible one says why."""
    rows = []
    for s in summaries:
        point = {name: s[name] for name in ("workload", "hardware", "batch", "precision")}
        if s["status"] == "ok":
            band = f"{si(s['latency_low_s'], 's', 3)} to {si(s['latency_high_s'], 's', 3)}"
            rows.append(
                {
                    **point,
                    "latency": si(s["latency_s"], "s"),
                    "error band": band,
                    "items/s": f"{s['throughput_per_s']:.4g}",
                    "J/item": _cell(s["energy_per_item_j"]),
                    "USD/M items": _cell(s["usd_per_million_items"]),
                    "bound": s["bound"],
                }
            )
        else:
            why = f"infeasible ({s['reason']}): needs {s['need']}, has {s['have']}; {s['hint']}"
            rows.append(
                {
                    **point,
                    "latency": "-",
                    "error band": "-",
                    "items/s": "-",
                    "J/item": "-",
                    "USD/M items": "-",
                    "bound": why,
                }
            )
    return text(rows)


def kernels(result: Result) -> str:
    """Kernels of a result, slowest first."""
    table = result.ops.sort_values("total_s", ascending=False)
    return text(
        [
            {
                "op": r["op"],
                "kind": r["kind"],
                "lane": r["lane"],
                "repeat": r["repeat"],
                "total": si(r["total_s"], "s"),
                "bound": r["bound"],
                "mapping": r["mapping"],
            }
            for r in records(table)
        ]
    )


def devices() -> list[dict[str, Any]]:
    """The catalog of devices."""
    from accelsim.core.catalog import catalog
    from accelsim.hardware.spec import load_hardware

    rows = []
    for name in catalog("hardware"):
        d = load_hardware(name)
        rows.append(
            {
                "name": name,
                "kind": d.kind,
                "title": d.title,
                "memory": si(d.memory.capacity_bytes, "B"),
                "bandwidth": si(d.memory.bandwidth_bytes_per_s, "B/s"),
                "placement": ", ".join(d.placement),
                "assumed": f"{len(d.assumed)} of {len(d.numbers)}",
            }
        )
    return rows


def workloads() -> list[dict[str, Any]]:
    """The catalog of workloads."""
    from accelsim.core.catalog import catalog
    from accelsim.core.yamlfile import read_yaml

    files = catalog("workloads").files()
    documents = {name: read_yaml(path) for name, path in files.items()}
    return [
        {
            "name": name,
            "area": files[name].parent.name,
            "item": d.get("item", ""),
            "title": d.get("title", ""),
        }
        for name, d in documents.items()
    ]


def workload(graph: Graph) -> dict[str, Any]:
    """What a graph computes, with its coverage."""
    coverage = graph.coverage()
    return {
        "name": graph.name,
        "phase": graph.phase,
        "batch": graph.batch,
        "ops": len(graph),
        "macs": graph.macs,
        "parameters": graph.parameters,
        "weight_bytes": graph.weight_bytes,
        "kv_bytes": graph.kv_bytes,
        "peak_activation_bytes": graph.peak_activation_bytes,
        "flops_covered_pct": coverage.flops_covered_pct,
        "bytes_covered_pct": coverage.bytes_covered_pct,
        "coverage": records(coverage.frame),
    }


def installation() -> list[dict[str, Any]]:
    """Versions, data folders and optional packages."""
    import platform
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    from accelsim.core.catalog import catalog
    from accelsim.core.paths import data_folder
    from accelsim.core.version import MODEL_VERSION, VERSION

    rows = [
        {"what": "accelsim", "state": VERSION, "detail": f"model version {MODEL_VERSION}"},
        {"what": "python", "state": platform.python_version(), "detail": platform.platform()},
        {"what": "devices", "state": str(len(catalog("hardware"))), "detail": str(data_folder("hwconfigs"))},
        {
            "what": "workloads",
            "state": str(len(catalog("workloads"))),
            "detail": str(data_folder("workloads")),
        },
    ]
    required = ("numpy", "numba", "simpy", "networkx", "pandas", "pydantic")
    rows += [{"what": package, "state": version(package), "detail": "required"} for package in required]
    for extra, package in EXTRAS.items():
        if find_spec(package):
            try:
                state = version(package)
            except PackageNotFoundError:
                state = "installed"
            rows.append({"what": package, "state": state, "detail": f"extra [{extra}]"})
        else:
            rows.append(
                {"what": package, "state": "missing", "detail": f"pip install 'accelsim-dse[{extra}]'"}
            )
    return rows
