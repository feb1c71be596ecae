"""FPGA predictions beside published results: overlays on whole networks, and pipelines that were built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from accelsim.calibration.splits import divides
from accelsim.core.paths import data_folder
from accelsim.core.yamlfile import read_yaml
from accelsim.engine.simulate import simulate
from accelsim.validate.fpga_networks import network
from accelsim.validate.table import Table

if TYPE_CHECKING:
    import pandas as pd

ZOO = "vitis-ai-2.0-zcu104.yaml"
PIPELINES = "pipelines.yaml"
OVERLAY = "zcu104-dpu"
THREADS_BATCH = 8  # images under way with several host threads: four per core

TARGETS_PCT = {"throughput_fps": 3.0, "latency_s": 12.0, "lut": 25.0, "bram36": 15.0, "overlay": 20.0}
"""How close each quantity should be [%]; DSP blocks are reported without a target."""

_VGG10_PCT = 12.0
_SUMMARY = {"throughput_fps": "throughput_per_s", "latency_s": "latency_s"}


def held_out(family: str) -> bool:
    """Whether a family of networks is scored: its name's SHA-256 is even. The others were fitted on."""
    return divides(family, 2)


def table() -> pd.DataFrame:
    """Every published FPGA result that accelsim can predict.

    Returns
    -------
    DataFrame
        ``what quantity hardware published predicted error_pct target_pct split source``; ``split`` is
        ``fitted`` (the device's constants were fitted on this network's single-thread rate), ``held out`` or
        ``other``. ``error_pct`` is signed.
    """
    import pandas as pd

    frame = pd.DataFrame([*_pipelines(), *_overlays()])
    frame["error_pct"] = 100.0 * (frame["predicted"] / frame["published"] - 1.0)
    order = [
        "what",
        "quantity",
        "hardware",
        "published",
        "predicted",
        "error_pct",
        "target_pct",
        "split",
        "source",
    ]
    return frame[order]


def tables() -> Iterator[Table]:
    """The FPGA part of the validation report.

    Yields
    ------
    Table
        Networks of the families that were held out, the medians of both halves, and pipelines that were
        built.
    """
    rows = table()
    shown = ["what", "quantity", "published", "predicted", "error_pct"]
    zoo = rows[rows["hardware"] == OVERLAY]
    yield Table(
        "Overlay: networks that were held out",
        f"Frames per second on {OVERLAY}, end to end. Multi-thread rates are predicted with {THREADS_BATCH} "
        "images under way; no constant was fitted on them. Detectors also decode boxes on the host, which is "
        "not modelled.",
        zoo[zoo["split"] == "held out"][shown],
    )
    yield Table(
        "Overlay: both halves",
        "Median and largest absolute error [%]; the fitted half is shown, not scored.",
        medians(zoo),
    )
    yield Table(
        "Streaming pipelines at their published folding",
        "CNV times are consistency checks: their board and clock were inferred, partly because the formulas "
        "then agree. Resources are totals after implementation; predictions are estimates before synthesis, "
        "without the board's shell.",
        rows[rows["hardware"] != OVERLAY][[*shown, "target_pct"]],
    )


def medians(zoo: pd.DataFrame) -> pd.DataFrame:
    """Median and largest absolute error of the overlay's networks, by quantity and half [%]."""
    groups = zoo.assign(ape=zoo["error_pct"].abs()).groupby(["quantity", "split"])["ape"]
    return groups.agg(networks="count", median_ape_pct="median", max_ape_pct="max").reset_index()


def _overlays() -> Iterator[dict[str, Any]]:
    """Single-thread and multi-thread frame rates of the model zoo; the latter were never fitted on."""
    document = read_yaml(data_folder("validation") / "fpga" / ZOO)
    for row in document["networks"]:
        graph = network(row["builder"], **row["parameters"])
        split = "held out" if held_out(row["family"]) else "fitted"
        for quantity, batch, key in (("single_fps", 1, "single"), ("multi_fps", THREADS_BATCH, "multi")):
            result = simulate(graph, OVERLAY, batch=batch)
            yield {
                "what": row["name"],
                "quantity": quantity,
                "hardware": OVERLAY,
                "published": row[f"{key}_fps"],
                "predicted": result.summary["throughput_per_s"] if result.feasible else float("nan"),
                "target_pct": TARGETS_PCT["overlay"],
                "split": split,
                "source": "Xilinx/Vitis-AI tag v2.0, model_zoo/README.md",
            }


def _pipelines() -> Iterator[dict[str, Any]]:
    document = read_yaml(data_folder("validation") / "fpga" / PIPELINES)
    for design in document["designs"]:
        for row in design["measured"]:
            result = simulate(
                design["workload"], row["hardware"], batch=row.get("batch", 1), folding=design["folding"]
            )
            name = row["quantity"]
            found = result.summary.get(_SUMMARY.get(name, f"resource_{name}"), float("nan"))
            if name == "throughput_fps":  # a batch from start to end, as the notebooks time it
                found = row["batch"] / result.summary["latency_s"]
            yield {
                "what": design["name"],
                "quantity": name,
                "hardware": row["hardware"],
                "published": row["value"],
                "predicted": found,
                "target_pct": _VGG10_PCT if design["workload"] == "finn-vgg10" else TARGETS_PCT.get(name),
                "split": "other",
                "source": row["source"],
            }
