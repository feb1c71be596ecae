"""Error bands of all GPUs from measured training rows, and how well they hold on test rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.architectures.base import STALLS, Options
from accelsim.architectures.gpu.collectives import collective_models
from accelsim.architectures.gpu.intervals import LEFT_OUT, LEVEL, MEASURED, combine, factors
from accelsim.calibration.generic import unmeasured
from accelsim.calibration.intervals import cells, common_share, coverage, spreads
from accelsim.calibration.rows import Sample
from accelsim.calibration.splits import FAMILIES, held_out
from accelsim.core.errors import RequestError
from accelsim.hardware.bands import Band
from accelsim.hardware.spec import load_hardware
from accelsim.validate import aiconfigurator, deepbench

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("basis", "device", "cell", "low", "high", "level", "rows", "groups", "shortest_s", "longest_s"),
    *("middle", "spread"),
)
FITTED_ON = 1.05
"""Factor on the logarithms of bands of rows on which constants were fitted: what others err more, by fits on
four fifths of the training rows' groups."""
ONE_FAMILY = 2.0
"""Factor on the logarithms of an operator that one family alone has rows of. All devices take its constants,
so the rows are predicted with them, and what other devices add to the errors is assumed."""


_RECENT = frozenset(name for family in FAMILIES for name in family)


@dataclass(frozen=True)
class Measured:
    """Rows of all devices.

    Attributes
    ----------
    samples : mapping of str to Sample
        By device.
    """

    samples: Mapping[str, Sample]

    def without(self, family: Iterable[str]) -> Measured:
        """The rows of the other devices."""
        gone = set(family)
        return Measured({name: rows for name, rows in self.samples.items() if name not in gone})

    def only(self, op: str) -> Measured:
        """The rows of one operator."""
        held = {n: s.take(s.frame["op"].astype(str).to_numpy() == op) for n, s in self.samples.items()}
        return Measured({name: rows for name, rows in held.items() if len(rows)})

    @property
    def families(self) -> list[tuple[str, ...]]:
        """Families of the devices, siblings together."""
        known = [tuple(d for d in family if d in self.samples) for family in FAMILIES]
        single = [(d,) for d in self.samples if not any(d in family for family in FAMILIES)]
        return [family for family in [*known, *single] if family]


def gathered(
    test: bool,
    rows: int = 1200,
    deepbench_path: Path | None = None,
    devices: Iterable[str] = tuple(aiconfigurator.SYSTEMS),
    seed: int = 0,
) -> Measured:
    """Measured rows of all devices, training rows or test rows.

    Parameters
    ----------
    test : bool
    rows : int
        Of each device and kind of operator, twice as many of products; a seeded sample.
    deepbench_path : Path, optional
        See `accelsim.validate.deepbench.load`.
    devices : iterable of str
    seed : int
    """
    import pandas as pd

    samples = {}
    for device in devices:
        parts = []
        for frame, most in _frames(device, rows):
            frame = frame[held_out(frame) == test]
            parts.append(frame.sample(most, random_state=seed) if len(frame) > most else frame)
        text = ["op", "precision", "device", "dtype"]
        parts = [p.astype({c: object for c in (*text, "backend") if c in p.columns}) for p in parts]
        samples[device] = Sample.of(pd.concat(parts, ignore_index=True))
    if deepbench_path is not None:
        frame = deepbench.load(deepbench_path)
        frame = frame[held_out(frame) == test]
        for device, part in frame.groupby(frame["device"].astype(str)):
            samples[str(device)] = Sample.of(part)
    return Measured(samples)


def _frames(device: str, rows: int) -> Iterable[tuple[pd.DataFrame, int]]:
    """Tables of a device, each with the most rows that are taken."""
    yield aiconfigurator.truth_gemm(device), 2 * rows
    products = aiconfigurator.gemm(device)
    yield products[products["dtype"] != "bfloat16"], 2 * rows
    for load in (
        aiconfigurator.attention_prefill,
        aiconfigurator.attention_decode,
        aiconfigurator.mla,
        aiconfigurator.moe,
    ):
        yield load(device), rows
    yield aiconfigurator.collectives(device), rows


def left_out(measured: Measured) -> dict[str, Any]:
    """Each device with the constants that it would take had its family never been measured.

    Kernels and constants are the other families', see `accelsim.calibration.generic.unmeasured`. Collectives
    take another kind of link.
    """
    devices = {name: load_hardware(name) for name in measured.samples}
    found: dict[str, Any] = {}
    for family in measured.families:
        rest = [f for f in measured.families if f != family]
        # Libraries of one time: what a V100 ran in 2017 says little about others.
        others = [devices[f[0]] for f in rest if f[0] in _RECENT] or [devices[f[0]] for f in rest]
        for name in family:
            found[name] = _without_link(unmeasured(devices[name], others))
    return found


def _without_link(device: Any) -> Any:
    """Without the constants that its collectives take now: those of another link come next."""
    if device.link is None:
        return device
    used = [model for _, model in collective_models(device)]
    rest = {
        name: models
        for name, models in device.kernels.collective.items()
        if not any(model is u for model in models.values() for u in used)
    }
    kernels = device.kernels.model_copy(update={"collective": rest})
    return device.model_copy(update={"kernels": kernels, "hash": f"{device.hash}+link"})


def residuals(measured: Measured, devices: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Residuals of all devices, as they are shipped or as given; ``device`` and ``family`` say whose."""
    import pandas as pd

    parts = []
    for number, family in enumerate(measured.families):
        for name in family:
            device = load_hardware(name) if devices is None else devices[name]
            part = measured.samples[name].residuals(device)
            parts.append(part.assign(device=name, family=number, group=part["group"] + 1_000_000 * number))
    return pd.concat(parts, ignore_index=True)


def measured_cells(frame: pd.DataFrame) -> dict[str, Band]:
    """Bands of a device from residuals of its own rows."""
    return cells(frame.drop(columns="family"), widen=FITTED_ON)


def left_out_cells(frame: pd.DataFrame) -> dict[str, Band]:
    """Bands of a device that was never measured, from residuals of devices that were left out: of each
    operator, families count alike.
    """
    found: dict[str, Band] = {}
    for _, part in frame.groupby(frame["op"].astype(str), sort=True):
        sizes = part.groupby(["family", "device"])["family"].transform("size")
        brothers = part.groupby("family")["device"].transform("nunique")
        families = part["family"].nunique()
        weight = len(part) / (families * brothers * sizes)
        widen = ONE_FAMILY if families == 1 else 1.0
        found |= cells(part.assign(weight=weight).reset_index(drop=True), widen=widen, others=True)
    return found


def left_out_residuals(measured: Measured, own: pd.DataFrame) -> pd.DataFrame:
    """Residuals of each family with constants of the others; of operators that one family alone has rows of,
    its own.

    Parameters
    ----------
    measured : Measured
    own : DataFrame
        `residuals` of devices as they are shipped, of these or more.
    """
    import pandas as pd

    other = residuals(measured, left_out(measured))
    single = other.groupby(other["op"].astype(str))["family"].nunique()
    alone = list(single.index[single == 1])
    mine = own[own["op"].isin(alone) & own["device"].isin(measured.samples)]
    return pd.concat([mine, other[~other["op"].isin(alone)]], ignore_index=True)


def bands_without(measured: Measured, own: pd.DataFrame, family: Iterable[str]) -> dict[str, Band]:
    """Left-out bands as they would ship had a family never been measured: neither the constants nor the
    residuals behind them have seen a row of it.
    """
    rest = measured.without(family)
    return left_out_cells(left_out_residuals(rest, own))


def with_bands(device: Any, bands: Mapping[str, Band]) -> Any:
    """The device with these error bands, whatever ships for it."""
    kernels = device.kernels.model_copy(update={"band": dict(bands)})
    return device.model_copy(update={"kernels": kernels})


def table(measured: Measured) -> pd.DataFrame:
    """The shipped table, as `accelsim.architectures.gpu.intervals.shipped_bands` reads it."""
    import pandas as pd

    own = residuals(measured)
    other = left_out_residuals(measured, own)
    rows: list[dict[str, str]] = []
    shares: dict[str, list[float]] = {MEASURED: [], LEFT_OUT: []}
    for name in measured.samples:
        mine = own[own["device"] == name].reset_index(drop=True)
        found = measured_cells(mine)
        rows += [_line(MEASURED, name, cell, band, mine) for cell, band in found.items()]
        shares[MEASURED].append(_share(mine, found))
    found = left_out_cells(other)
    rows += [_line(LEFT_OUT, "", cell, band, other) for cell, band in found.items()]
    for number in range(len(measured.families)):
        mine = other[other["family"] == number].reset_index(drop=True)
        shares[LEFT_OUT].append(_share(mine, found))
    for basis, values in shares.items():
        known = [v for v in values if np.isfinite(v)]
        rows.append({"basis": basis, "device": "", "cell": "common", "low": f"{np.mean(known):.3f}"})
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).fillna("")
    return frame.sort_values(["basis", "device", "cell"], ignore_index=True)


def _line(basis: str, device: str, name: str, band: Band, frame: pd.DataFrame) -> dict[str, str]:
    op = name.split("/")[0]
    return {
        "basis": basis,
        "device": device,
        "cell": name,
        "low": f"{band.low:.4f}",
        "high": f"{band.high:.4f}",
        "level": f"{band.level}",
        "rows": str(band.rows),
        "groups": str(frame["group"][frame["op"].astype(str) == op].nunique()),
        "shortest_s": f"{band.shortest_s:.3e}",
        "longest_s": f"{band.longest_s:.3e}",
        "middle": " ".join(f"{v:g}" for v in band.middle),
        "spread": " ".join(f"{v:g}" for v in band.spread),
    }


def _share(frame: pd.DataFrame, found: Mapping[str, Band]) -> float:
    """Common share over products of one token count: kernels that a network could run one after the other."""
    rows = _products(frame)
    if len(rows) < 300:
        return float("nan")
    cluster = rows["device"] + "|" + rows["m"].astype(int).astype(str)
    return common_share(rows, found, cluster)


def _products(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["op"] == "gemm") & (frame["formats"] == "half")].reset_index(drop=True)


def scores(test: Measured, training: Measured) -> pd.DataFrame:
    """Coverage, median half-width and interval score of each device and operator on test rows.

    Parameters
    ----------
    test, training : Measured

    Returns
    -------
    DataFrame
        ``basis device op rows coverage_pct half_width_pct interval_score_pct``. A device that was left out
        takes constants and bands that have seen no row of its family, see `bands_without`.
    """
    import pandas as pd

    found: list[dict[str, Any]] = []
    mine = residuals(training)
    own = {str(name): measured_cells(part) for name, part in mine.groupby("device")}
    without = {number: bands_without(training, mine, family) for number, family in enumerate(test.families)}
    for label, frame in ((MEASURED, residuals(test)), (LEFT_OUT, residuals(test, left_out(training)))):
        for (name, op, formats), part in frame.groupby(
            ["device", frame["op"].astype(str), "formats"], sort=True
        ):
            held = own.get(str(name), {}) if label == MEASURED else without[int(part["family"].iloc[0])]
            if op in held:
                rows = banded(part, with_bands(load_hardware(str(name)), held))
                line = {"basis": label, "device": name, "op": op, "formats": formats}
                found.append(line | coverage(rows))
    return pd.DataFrame(found)


def banded(frame: pd.DataFrame, device: Any) -> pd.DataFrame:
    """Rows of `residuals` with the ends of their bands, ``low_s`` and ``high_s``."""
    import pandas as pd

    parts = []
    stalls = [f"stall_{name}_s" for name in STALLS]
    for (op, formats, stack), part in frame.groupby(["op", "formats", "stack"], observed=True):
        seconds = part["predicted_s"].to_numpy()
        shapes = (seconds, part["bound"], part[stalls])
        low, high = factors(str(op), str(formats), device, Options(stack=str(stack)), *shapes)
        parts.append(part.assign(low_s=low * seconds, high_s=high * seconds))
    return pd.concat(parts)


def inner(measured: Measured, salt: str = "bands") -> tuple[Measured, Measured]:
    """Training rows in two: shape groups to score bands on, and the others."""
    test = {n: held_out(s.frame, salt) for n, s in measured.samples.items()}
    parts = [
        Measured({n: s.take(test[n] == side) for n, s in measured.samples.items() if (test[n] == side).any()})
        for side in (True, False)
    ]
    return parts[0], parts[1]


def sums(
    frame: pd.DataFrame, bands: Mapping[str, Band], share: float, kernels: int = 6, seed: int = 0
) -> dict[str, float]:
    """How bands of sums hold: products of one token count and different weights stand for a network's layers.

    Parameters
    ----------
    frame : DataFrame
        `residuals`.
    bands : mapping of str to Band
    share : float
        See `accelsim.architectures.gpu.intervals.combine`.
    kernels : int
        Products of a sum.
    seed : int

    Returns
    -------
    dict
        As `accelsim.calibration.intervals.coverage`.
    """
    import pandas as pd

    rows = _products(frame)
    middle, sigma = spreads(rows, bands)
    reach = NormalDist().inv_cdf(0.5 + LEVEL / 2.0) * sigma
    low, high = np.exp(middle - reach), np.exp(middle + reach)
    truth = rows["log_ratio"].to_numpy()
    rng = np.random.default_rng(seed)
    found = []
    for at in rows.groupby([rows["device"], rows["m"]]).indices.values():
        for _ in range(len(at) // kernels):
            chosen = rng.choice(np.asarray(at), kernels, replace=False)
            times = rows["predicted_s"].to_numpy()[chosen]
            a, b = combine(times, low[chosen], high[chosen], share)
            total = float(times.sum())
            measured = float((times * np.exp(truth[chosen])).sum())
            found.append((measured, total, a * total, b * total))
    if not found:
        raise RequestError("no sums: too few products of one token count")
    return coverage(pd.DataFrame(found, columns=["latency_s", "predicted_s", "low_s", "high_s"]))
