"""GPU predictions against measurements: the tables of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.calibration.splits import held_out
from accelsim.engine.predict import predict_ops
from accelsim.validate import aiconfigurator, bands, deepbench, mlperf, power, score
from accelsim.validate.table import Table

if TYPE_CHECKING:
    import pandas as pd

DEVICES = ("h100-sxm", "h200-sxm", "a100-sxm", "b200", "l40s", "rtx-pro-6000")
LEVEL = 0.9
LEFT_OUT_ROWS = 600
"""Training rows of each device and operator in a fit that leaves a family out."""
ROWS = 40_000
"""Rows of a device and operator that are scored; a seeded sample where there are more."""


def tables(deepbench_path: Path | None = None, rows_to: Path | None = None) -> Iterator[Table]:
    """Score everything that can be read here, on held-out rows only.

    Parameters
    ----------
    deepbench_path : Path, optional
        A checkout of DeepBench, or its V100 sheet.
    rows_to : Path, optional
        Folder for one CSV per table with every row, measured and predicted.

    Yields
    ------
    Table
    """
    yield from _products(rows_to)
    yield from _left_out()
    for title, load, by in (
        ("Products in other formats, per backend", _other_products, ["device", "backend", "dtype"]),
        ("Attention, prefill, per backend", aiconfigurator.attention_prefill, ["device", "backend"]),
        ("Attention, decode, per backend", aiconfigurator.attention_decode, ["device", "backend"]),
        ("Latent attention (MLA), per backend", aiconfigurator.mla, ["device", "backend", "op"]),
        ("Mixture of experts, per backend", aiconfigurator.moe, ["device", "backend"]),
        ("Collectives", aiconfigurator.collectives, ["device", "op"]),
    ):
        frame = _gathered(load)
        yield Table(
            title, "Held-out shape groups of the newest version of each backend.", score.errors(frame, by)
        )
        yield Table(f"{title}: bands", f"Level {LEVEL:.0%}.", score.intervals(frame, LEVEL, ["device"]))
        _keep(frame, rows_to, title)
    yield _flagged()
    note = (
        "No constant was fitted on these; the assumed L2 bandwidth of A2 and L4 was rescaled, by memory "
        "channels, while their misses were studied."
    )
    yield Table("Whole networks: MLPerf offline", note, mlperf.networks())
    yield from power.tables()
    if deepbench_path is not None:
        yield from _deepbench(deepbench_path, rows_to)


def _products(rows_to: Path | None) -> Iterator[Table]:
    import pandas as pd

    parts = []
    for device in DEVICES:
        frame = aiconfigurator.truth_gemm(device).assign(device=device)
        part = predicted(_sampled(frame[held_out(frame)]), device, "graph")
        parts.append(part.assign(regime=score.regime(part, device)))
    frame = pd.concat(parts, ignore_index=True)
    note = "Truth: median over backends. Held-out (n, k) groups; constants fitted on the others."
    yield Table("bf16 products", note, score.errors(frame, ["device"]))
    yield Table("bf16 products by regime", "Small: below 20 us.", score.errors(frame, ["device", "regime"]))
    yield Table("bf16 products: bands", f"Level {LEVEL:.0%}.", score.intervals(frame, LEVEL, ["device"]))
    _keep(frame, rows_to, "bf16 products")


def _left_out() -> Iterator[Table]:
    """Products on devices whose family was left out of every fit: what an unmeasured device can expect."""
    import pandas as pd

    training = bands.gathered(False, LEFT_OUT_ROWS, devices=DEVICES)
    strange, products = bands.left_out(training), training.only("gemm")
    own = bands.residuals(products)
    parts = []
    for family in training.families:
        unseen = bands.bands_without(products, own, family)
        for name in family:
            frame = aiconfigurator.truth_gemm(name).assign(device=name)
            device = bands.with_bands(strange[name], unseen)
            parts.append(predicted(_sampled(frame[held_out(frame)]), device, "graph"))
    frame = pd.concat(parts, ignore_index=True)
    note = "Kernel constants and bands from the training rows of the other families only."
    yield Table("bf16 products, family left out", note, score.errors(frame, ["device"]))
    note = (
        f"Level {LEVEL:.0%}. A device's band comes from residuals of the other families, each with constants "
        "of the rest: neither it nor its siblings are in it."
    )
    held = score.intervals(frame, LEVEL, ["device"])
    yield Table("bf16 products, family left out: bands", note, held)


def _flagged() -> Table:
    """Rows that are neither fitted nor scored, with the reason."""
    import pandas as pd

    loads = (
        *(aiconfigurator.gemm, aiconfigurator.attention_prefill, aiconfigurator.attention_decode),
        *(aiconfigurator.mla, aiconfigurator.moe, aiconfigurator.collectives),
    )
    parts = []
    for device in DEVICES:
        for load in loads:
            frame = load(device, flagged=True)
            by = frame.assign(reason=frame["flag"].astype(str)).groupby(
                ["op", "backend", "device"], observed=True
            )
            counts = by["reason"].value_counts().reset_index(name="rows")
            parts.append(
                counts.assign(of=counts.groupby(["op", "backend"], observed=True)["rows"].transform("sum"))
            )
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["reason"] != ""].sort_values(["op", "backend", "device"], ignore_index=True)
    return Table("Rows left out", "Of the newest version of each backend, training rows included.", frame)


def _other_products(device: str) -> pd.DataFrame:
    frame = aiconfigurator.gemm(device)
    return frame[frame["dtype"] != "bfloat16"]


def _gathered(load: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """Held-out rows of all devices, predicted with the stack that measured them."""
    import pandas as pd

    parts = []
    for device in DEVICES:
        frame = load(device)
        frame = _sampled(frame[held_out(frame)])
        for backend, rows in frame.groupby("backend", sort=True):
            parts.append(predicted(rows, device, str(backend)))
    return pd.concat(parts, ignore_index=True)


def predicted(frame: pd.DataFrame, device: Any, stack: str) -> pd.DataFrame:
    """The rows with ``predicted_s``, ``low_s`` and ``high_s`` beside the measured ``latency_s``."""
    answers = predict_ops(frame.drop(columns=["latency_s"]), device, stack=stack)
    return frame.assign(
        predicted_s=answers["latency_s"],
        low_s=answers["low_s"],
        high_s=answers["high_s"],
        bound=answers["bound"],
    )


def _sampled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame if len(frame) <= ROWS else frame.sample(ROWS, random_state=0)


def _deepbench(path: Path, rows_to: Path | None) -> Iterator[Table]:
    frame = deepbench.load(path)
    frame = frame[held_out(frame)]
    frame = predicted(frame, "v100-pcie" if "pcie" in str(frame["device"].iloc[0]) else "v100-sxm", "graph")
    note = "DeepBench V100 sheet, the held-out half of the layers."
    yield Table("DeepBench on V100", note, score.errors(frame, ["op", "precision"]))
    yield Table("DeepBench on V100: bands", f"Level {LEVEL:.0%}.", score.intervals(frame, LEVEL, ["op"]))
    _keep(frame, rows_to, "deepbench")


def _keep(frame: pd.DataFrame, folder: Path | None, title: str) -> None:
    if folder is not None:
        name = "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
        frame.to_csv(folder / f"gpu-{name}.csv", index=False)
