"""Fitting a device's kernel constants to measurements: ``accelsim calibrate``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import yaml

from accelsim.architectures.gpu.intervals import LEFT_OUT, LINKS, shipped_bands
from accelsim.calibration import constants as C
from accelsim.calibration.families import FEW, PRIOR_SD, fitted
from accelsim.calibration.intervals import cells
from accelsim.calibration.measurements import read_measurements
from accelsim.calibration.rows import Sample, usable
from accelsim.calibration.splits import held_out
from accelsim.core.catalog import catalog
from accelsim.core.errors import ConfigError, RequestError
from accelsim.core.files import write_whole
from accelsim.hardware.bands import Band
from accelsim.hardware.schema import Device, GpuDevice
from accelsim.hardware.spec import extended, load_hardware

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

SHRINK_ROWS = 10
"""Shape groups that the band of devices left out of fits counts for in a calibrated device's band."""

_MARK = "# Calibrated by accelsim"


@dataclass(frozen=True, repr=False)
class Calibration:
    """What a calibration found.

    Attributes
    ----------
    device : GpuDevice
        With the constants and the band.
    rows, flagged, unable, held_out : int
        Rows in the file; of these left out for their flag, of formats that the device lacks, and kept for the
        errors and the band rather than fitted.
    errors : list of dict
        Per operator, of rows that were held out (of all, where there are too few): ``op rows before_mape_pct
        after_mape_pct before_median_ape_pct after_median_ape_pct``.
    constants : list of dict
        ``parameter before after`` of each that moved, in SI.
    bands : mapping of str to Band
        By cell.
    warnings : tuple of str
    text : str
        The hardware file.
    path : Path or None
        Where it was written.
    """

    device: Any
    rows: int
    flagged: int
    unable: int
    held_out: int
    errors: list[dict[str, Any]]
    constants: list[dict[str, Any]]
    bands: Mapping[str, Band]
    warnings: tuple[str, ...]
    text: str
    path: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "device": self.device.name,
            "file": None if self.path is None else str(self.path),
            **{name: getattr(self, name) for name in ("rows", "flagged", "unable", "held_out")},
            "errors": self.errors,
            "constants": self.constants,
            "bands": {name: band.model_dump() for name, band in self.bands.items()},
            "warnings": list(self.warnings),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), allow_nan=False)

    def __repr__(self) -> str:
        used = self.rows - self.flagged - self.unable
        lines = [
            f"{self.device.name}: {used} of {self.rows} rows, {self.held_out} of them held out"
            + (f", written to {self.path}" if self.path else "")
        ]
        lines += [f"warning: {text}" for text in self.warnings]
        lines.append(f"{'operator':20}{'rows':>7}{'MAPE before':>13}{'after':>8}{'90 % band':>20}")
        for row in self.errors:
            band = self.bands.get(row["op"])
            ends = f"{band.low - 1:+.1%} to {band.high - 1:+.1%}" if band else "-"
            numbers = f"{row['before_mape_pct']:>11.1f} %{row['after_mape_pct']:>6.1f} %"
            lines.append(f"{row['op']:20}{row['rows']:>7}{numbers}{ends:>20}")
        if self.constants:
            lines.append(f"{'constant':44}{'before':>12}{'after':>12}")
            lines += [f"{c['parameter']:44}{c['before']:>12.4g}{c['after']:>12.4g}" for c in self.constants]
        return "\n".join(lines)


def calibrate(
    device: str | Path | Device,
    measurements: str | Path | pd.DataFrame,
    *,
    out: str | Path | None = None,
    seed: int = 0,
) -> Calibration:
    """Fit a GPU's kernel constants to measured operators and find its error band.

    Parameters
    ----------
    device : str or Path or Device
        The GPU as its datasheet has it: a catalog name or a file. Its constants are the prior.
    measurements : str or Path or DataFrame
        A table in the schema of `accelsim.calibration.measurements`, such as `validation/measure_gpu.py`
        writes. Rows with a ``flag`` are left out.
    out : str or Path, optional
        Hardware file to write, ``.yaml``. By default, a device given as a file gets
        ``NAME-calibrated.yaml`` beside it, and one from the catalog is only returned.
    seed : int
        Chooses rows where there are more than a fit needs.

    Returns
    -------
    Calibration

    Raises
    ------
    RequestError
        The device is not a GPU, no row can be used, or the table is not in the schema (milliseconds in a
        column of seconds included).
    """
    known: Any = load_hardware(device)
    if not isinstance(known, GpuDevice):
        raise RequestError(f"'{known.name}' is not a GPU", hint="constants of GPUs alone are fitted")
    frame, label = _read(measurements, known)
    path, head = _target(device, known, out)
    kept = frame[usable(frame)]
    sample = Sample.of(kept)
    able = np.isfinite(sample.log_ratio(known)) if len(kept) else np.zeros(0, dtype=bool)
    if not able.any():
        raise RequestError(
            f"none of the {len(frame)} rows can be used: {len(frame) - len(kept)} are flagged, the others "
            f"have formats that {known.name} lacks",
            label,
        )
    sample = sample.take(able)
    test = held_out(sample.frame)
    warnings = []
    few = len(sample) < FEW
    if few:
        warnings.append(
            f"only {len(sample)} usable rows: constants stay near those of {known.name} and the band is "
            f"wide; measure {FEW} or more"
        )
    if not test.any() or test.all() or few:
        warnings.append("too few shape groups to hold some out: errors and band are of the rows fitted on")
        fit_rows, test_rows = sample, sample
        test = np.zeros(len(sample), dtype=bool)
    else:
        fit_rows, test_rows = sample.take(~test), sample.take(test)
    prior_sd = PRIOR_SD * min(1.0, len(fit_rows) / FEW)
    changes = fitted(known, fit_rows, seed, prior_sd)
    better = C.with_constants(known, changes)
    before, after = test_rows.residuals(known), test_rows.residuals(better)
    unfitted = sorted(set(sample.frame["op"].astype(str)) & LINKS)
    if unfitted:
        warnings.append(f"{', '.join(unfitted)}: a band only, their constants are not fitted")
    errors = _errors(before, after)
    worse = [r["op"] for r in errors if r["after_median_ape_pct"] > r["before_median_ape_pct"] + 1.0]
    if worse:
        warnings.append(f"{', '.join(worse)}: held-out rows are further off than before")
    bands = _bands(after, few)
    today = date.today().isoformat()
    source = f"fitted on {len(fit_rows)} rows of {label}, {today}; {int(test.sum())} more rows held out"
    basis = f"{len(test_rows)} rows of {label}, {today}, " + (
        "held out by the sha256 of their shape group" if test.any() else "on which constants were fitted"
    )
    name = path.stem if path is not None else f"{known.name}-calibrated"
    document = _document(known, changes, bands, source, basis)
    body = yaml.safe_dump({**head, **document}, sort_keys=False, allow_unicode=True, width=110)
    text = f"{_MARK}\n{body}"
    if path is not None:
        write_whole(path, text)
    return Calibration(
        extended(known, document, name),
        len(frame),
        len(frame) - len(kept),
        int((~able).sum()),
        int(test.sum()),
        errors,
        _moved(known, changes),
        bands,
        tuple(warnings),
        text,
        path,
    )


def _read(measurements: Any, device: GpuDevice) -> tuple[pd.DataFrame, str]:
    from accelsim.calibration.measurements import check_measurements

    if isinstance(measurements, str | Path):
        return read_measurements(measurements, device), Path(measurements).name
    check_measurements(measurements, device)
    return measurements, "a table in memory"


def _target(given: Any, device: Any, out: Any) -> tuple[Path | None, dict[str, Any]]:
    """File to write, and its head: what it extends."""
    names = catalog("hardware").files()
    is_file = not isinstance(given, Device) and str(given) not in names
    own = Path(given).expanduser().resolve() if is_file else None
    parent = device.name if own is None else own.stem
    head = {"extends": parent, "title": f"{device.title}, calibrated"}
    if out is None:
        if own is None:
            return None, head
        out = own.with_name(f"{own.stem}-calibrated.yaml")
    path = Path(out).expanduser().resolve()
    if path.suffix != ".yaml":
        raise ConfigError("a device's file ends in .yaml", str(path))
    if path == own:
        raise ConfigError("this is the device's own file", str(path), "write to another one")
    if path.stem == parent:
        raise ConfigError(f"a file cannot extend its own name '{parent}'", str(path))
    if path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(_MARK):
        raise ConfigError("the file exists already and is not a calibration", str(path))
    if own is None and parent not in names:
        raise RequestError(f"'{parent}' has no file to extend", hint="calibrate a device from a file")
    if own is not None and (own.parent != path.parent or own.suffix != ".yaml"):
        raise ConfigError(f"a file that extends {own.name} must lie beside it", str(path))
    return path, head


def _errors(before: pd.DataFrame, after: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean and median absolute error of each operator, in percent of the measurement."""
    found = []
    for op in sorted(set(after["op"].astype(str))):
        row: dict[str, Any] = {"op": op, "rows": int((after["op"] == op).sum())}
        for label, frame in (("before", before), ("after", after)):
            ape = 100.0 * np.abs(np.expm1(-frame["log_ratio"][frame["op"] == op].to_numpy()))
            row[f"{label}_mape_pct"] = float(ape.mean())
            row[f"{label}_median_ape_pct"] = float(np.median(ape))
        found.append(row)
    return found


def _bands(residuals: pd.DataFrame, few: bool) -> dict[str, Band]:
    """Bands by cell; with few shape groups they stay near the band of devices left out of fits, and where no
    row was held out they are not narrower than it is for a tenth of its rows.
    """
    wide = shipped_bands()[1].get((LEFT_OUT, ""), {})
    found = {}
    for name, band in cells(residuals).items():
        op = name.split("/")[0]
        prior = wide.get(op)
        n = residuals["group"][residuals["op"] == op].nunique()
        share = n / (n + SHRINK_ROWS)
        low, high = np.log(band.low), np.log(band.high)
        if prior is not None:
            low = share * low + (1.0 - share) * min(np.log(prior.low), low)
            high = share * high + (1.0 - share) * max(np.log(prior.high), high)
        else:
            low, high = low / share, high / share
        found[name] = band.model_copy(
            update={"low": float(np.exp(min(low, 0.0))), "high": float(np.exp(max(high, 0.0)))}
        )
    return found


def _document(
    device: Any, changes: Mapping[C.Path, float], bands: Mapping[str, Band], source: str, basis: str
) -> dict[str, Any]:
    """The ``kernels`` section of the calibrated device."""
    kernels: dict[str, Any] = {}
    for path, value in C.whole(device, changes).items():
        node = kernels
        *parents, last = C.alias(device, path)
        for name in parents:
            node = node.setdefault(name, {})
        node.setdefault("status", "measured")
        node.setdefault("source", source)
        node[last] = C.written(path, value)
    kernels["band"] = {"status": "measured", "source": basis} | {
        name: {
            "low": round(b.low, 4),
            "high": round(b.high, 4),
            "level": b.level,
            "rows": b.rows,
            "shortest": f"{b.shortest_s * 1e6:.4g} us",
            "longest": f"{b.longest_s * 1e6:.4g} us",
        }
        | ({"middle": list(b.middle), "spread": list(b.spread)} if b.spread else {})
        for name, b in bands.items()
    }
    return {"kernels": kernels}


def _moved(device: Any, changes: Mapping[C.Path, float]) -> list[dict[str, Any]]:
    moved = []
    for path, after in changes.items():
        before = C.value(device, path)
        if abs(after - before) > 0.005 * min(after, before):
            name = f"kernels.{'.'.join(C.alias(device, path))}"
            moved.append({"parameter": name, "before": before, "after": after})
    return moved
