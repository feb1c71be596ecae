"""Techniques against published figures: what pruning, students and narrow formats gain.

Nothing is fitted on these rows. A row without a target is shown, not scored; one without a published figure
shows the prediction alone. Misses keep their cause beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import MissingExtraError
from accelsim.core.paths import data_folder
from accelsim.core.yamlfile import read_yaml
from accelsim.engine.predict import predict_ops
from accelsim.engine.simulate import simulate
from accelsim.techniques.pruning import prune
from accelsim.validate.mlperf import throughput
from accelsim.validate.table import Table
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload

if TYPE_CHECKING:
    import pandas as pd

TARGET_PCT = 20.0
"""How close a scored row should be [%]."""

_COLUMNS = (
    "what", "device", "published_low", "published_high", "predicted", "error_pct", "scored", "remark",
    "source",
)  # fmt: skip

# Products of one decoder layer, (n, k): queries, keys and values together; output; gate and up; down.
_LAYERS = {
    "Llama-2-7B": ((12288, 4096), (4096, 4096), (22016, 4096), (4096, 11008)),
    "Llama-3.1-8B": ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)),
}
_BF16, _INT4 = "bf16", "weight=int4,activation=bf16"


def tables() -> Iterator[Table]:
    """The techniques part of the validation report.

    Yields
    ------
    Table
    """
    frame = rows()
    yield Table(
        "Ratios of techniques",
        f"Error [%] to the nearer end of the published range, 0 inside it; target {TARGET_PCT:.0f} % where "
        "scored. Measured products of the weight-only rows are TensorRT-LLM's in aiconfigurator-core, "
        "interpolated in n or k where a shape was not measured; the constants of both formats were fitted on "
        "training rows of that table, so these rows check the composition of a layer.",
        frame[[c for c in _COLUMNS if c != "source"]],
    )
    yield Table(
        "Sources of the ratios", "In the order of the table above.", frame[["what", "device", "source"]]
    )


def rows() -> pd.DataFrame:
    """Every published ratio beside the model's.

    Returns
    -------
    DataFrame
        ``what device published_low published_high predicted error_pct scored remark source``. ``error_pct``
        is signed; NaN where nothing was published.
    """
    import pandas as pd

    table = pd.read_csv(data_folder("validation") / "techniques" / "published.csv", keep_default_na=False)
    found = []
    for record in table.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        low, high = (float(row[f"published_{end}"] or math.nan) for end in ("low", "high"))
        answer = _CHECKS[str(row["check"])](row)
        low, high = answer.get("low", low), answer.get("high", high)
        found.append(
            {
                **row,
                "published_low": low,
                "published_high": high,
                "predicted": answer["predicted"],
                "error_pct": error_pct(answer["predicted"], low, high),
                "source": answer.get("source", row["source"]),
            }
        )
    return pd.DataFrame(found)[list(_COLUMNS)]


def error_pct(predicted: float, low: float, high: float) -> float:
    """Signed error to the nearer end of a range [%]; 0 inside it."""
    if low <= predicted <= high:
        return 0.0
    end = high if predicted > high else low
    return 100.0 * (predicted / end - 1.0)


Row = Mapping[str, Any]


def _pair(row: Row) -> tuple[Graph, Graph]:
    """Teacher and student of a row on BERT-base."""
    student = "tinybert-4" if "TinyBERT" in row["what"] else "distilbert"
    return load_workload("bert-base"), load_workload(student)


def _encoder_work(row: Row) -> dict[str, Any]:
    teacher, student = (
        sum(op.flops * op.repeat for op in graph if op.name.startswith("layers")) for graph in _pair(row)
    )
    return {"predicted": student / teacher}


def _parameters(row: Row) -> dict[str, Any]:
    teacher, student = _pair(row)
    return {"predicted": teacher.parameters / student.parameters}


def _pair_latency(row: Row) -> dict[str, Any]:
    teacher, student = (_seconds(graph, row["device"], 1, "fp16") for graph in _pair(row))
    return {"predicted": teacher / student}


def _sparse(row: Row) -> dict[str, Any]:
    bert = row["what"].startswith("BERT")
    graph = load_workload("bert-large", context=384) if bert else load_workload("resnet50")
    batch = 64 if bert else 256
    dense, sparse = (_seconds(g, row["device"], batch, "fp16") for g in (graph, prune(graph, "2:4")))
    return {"predicted": dense / sparse}


def _hawq(row: Row) -> dict[str, Any]:
    graph = load_workload("resnet50" if "ResNet-50" in row["what"] else "resnet18")
    fast = "int4" if "W4A4 over" in row["what"] else "int8"
    slow = "int8" if "over W8A8" in row["what"] else "fp32"
    return {"predicted": _seconds(graph, row["device"], 8, slow) / _seconds(graph, row["device"], 8, fast)}


def _mlperf(row: Row) -> dict[str, Any]:
    fast, slow = (throughput("resnet50", row["device"], fmt)[0] for fmt in ("int8", "fp16"))
    return {"predicted": fast / slow}


def _pipeline(row: Row) -> dict[str, Any]:
    """Ratio of two built pipelines, from their measurements and from their predictions."""
    quantity = row["what"].split(": ")[1]
    measured, predicted, sources = [], [], []
    for design in _designs():
        if not design["name"].startswith("CNV"):
            continue
        (held,) = (m for m in design["measured"] if m["quantity"] == quantity)
        batch = held.get("batch", 1)
        result = simulate(design["workload"], row["device"], batch=batch, folding=design["folding"])
        name = {"throughput_fps": "throughput_per_s"}.get(quantity, quantity)
        predicted.append(float(result.summary.get(name, result.summary.get(f"resource_{name}", math.nan))))
        measured.append(float(held["value"]))
        sources.append(str(held["source"]))
    published = measured[1] / measured[0]
    return {
        "predicted": predicted[1] / predicted[0],
        "low": published,
        "high": published,
        "source": "; ".join(dict.fromkeys(sources)),
    }


def _widths(row: Row) -> dict[str, Any]:
    """Two widths of one network, at one folding or each at its own."""
    folding = next(d["folding"] for d in _designs() if d["workload"] == "finn-cnv")
    given = folding if "same folding" in row["what"] else None
    narrow, wide = (
        simulate(name, row["device"], folding=given).summary.get(row["what"].split(": ")[1], math.nan)
        for name in ("finn-cnv", "finn-cnv-w2a2")
    )
    return {"predicted": narrow / wide}


@lru_cache(maxsize=1)
def _designs() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_yaml(data_folder("validation") / "fpga" / "pipelines.yaml")["designs"]
    return found


def _weight_only(row: Row) -> dict[str, Any]:
    import pandas as pd

    name, batch = row["what"].split(" decode")[0], int(row["what"].split()[-2])
    frame = pd.DataFrame(
        [
            {"op": "gemm", "m": batch, "n": n, "k": k, "precision": fmt}
            for fmt in (_BF16, _INT4)
            for n, k in _LAYERS[name]
        ]
    )
    spent = predict_ops(frame, row["device"], stack="trtllm").groupby("precision")["latency_s"].sum()
    answer: dict[str, Any] = {"predicted": spent[_BF16] / spent[_INT4]}
    try:
        table = _measured_products(row["device"])
    except MissingExtraError as error:
        return {**answer, "source": f"not read: {error.what}"}
    wide, narrow = (
        sum(interpolated(table[table["precision"] == fmt], batch, n, k) for n, k in _LAYERS[name])
        for fmt in (_BF16, _INT4)
    )
    published = wide / narrow
    return {
        **answer,
        "low": published,
        "high": published,
        "source": "aiconfigurator-core 0.12.0, TensorRT-LLM",
    }


@lru_cache(maxsize=2)
def _measured_products(device: str) -> pd.DataFrame:
    from accelsim.validate.aiconfigurator import gemm

    frame = gemm(device)
    return frame[(frame["backend"] == "trtllm") & frame["precision"].isin([_BF16, _INT4])]


def interpolated(table: pd.DataFrame, m: int, n: int, k: int) -> float:
    """Measured time of a product [s]: the row of its shape, or linear in the one size that was not
    measured.
    """
    at = table[table["m"] == m]
    exact = at[(at["n"] == n) & (at["k"] == k)]
    if len(exact):
        return float(exact["latency_s"].median())
    for moving, fixed, size, held in (("n", "k", n, k), ("k", "n", k, n)):
        line = at[at[fixed] == held].groupby(moving)["latency_s"].median()
        below, above = line[line.index < size], line[line.index > size]
        if len(below) and len(above):
            a, b = below.index[-1], above.index[0]
            return float(line[a] + (line[b] - line[a]) * (size - a) / (b - a))
    return math.nan


def _seconds(graph: Graph, device: str, batch: int, precision: str) -> float:
    result = simulate(graph, device, batch=batch, precision=precision, stack="tensorrt")
    return float(result.summary["latency_s"]) if result.feasible else math.nan


_CHECKS: dict[str, Callable[[Row], dict[str, Any]]] = {
    "encoder_work": _encoder_work,
    "parameters": _parameters,
    "pair_latency": _pair_latency,
    "sparse": _sparse,
    "hawq": _hawq,
    "mlperf": _mlperf,
    "pipeline": _pipeline,
    "widths": _widths,
    "weight_only": _weight_only,
}
