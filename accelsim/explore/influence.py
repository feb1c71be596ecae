"""What an answer hangs on: each parameter of a study, each number behind a device."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import ConfigError, RequestError, did_you_mean
from accelsim.engine.simulate import simulate
from accelsim.explore.study import Study
from accelsim.hardware.spec import load_hardware

if TYPE_CHECKING:
    import pandas as pd

_LEADING = re.compile(r"\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)")


def main_effects(study: Study, metric: str, where: str | None = None) -> pd.DataFrame:
    """Share of a metric's spread that each varied parameter explains alone.

    The variance, over the values of a parameter, of the mean logarithm of the metric, over its whole
    variance: the first-order Sobol index of a full grid (Saltelli et al. 2010,
    doi:10.1016/j.cpc.2009.09.018). Shares add to less than one where parameters act together.

    Parameters
    ----------
    study : Study
    metric : str
        A column of positive numbers.
    where : str, optional
        Points to consider.

    Returns
    -------
    DataFrame
        ``parameter share best_value factor``, the largest share first; ``factor`` is the ratio of the largest
        to the smallest geometric mean over the parameter's values.
    """
    import numpy as np
    import pandas as pd

    frame = study.where(where)
    if metric not in frame.columns:
        raise RequestError(f"no column '{metric}'", hint=did_you_mean(metric, frame.columns))
    frame = frame[frame[metric] > 0]
    logs = np.log(frame[metric].to_numpy(float))
    total = float(logs.var()) if len(logs) else 0.0
    rows = []
    for axis in study.axes:
        if axis not in frame.columns or frame[axis].nunique() < 2:
            continue
        groups = pd.Series(logs, index=frame.index).groupby(frame[axis])
        means, weights = groups.mean(), groups.size() / len(logs)
        spread = float((weights * (means - logs.mean()) ** 2).sum())
        rows.append(
            {
                "parameter": axis,
                "share": spread / total if total else 0.0,
                "best_value": means.idxmin(),
                "factor": math.exp(float(means.max() - means.min())),
            }
        )
    table = pd.DataFrame(rows, columns=["parameter", "share", "best_value", "factor"])
    return table.sort_values("share", ascending=False, ignore_index=True)


def elasticities(
    workload: Any,
    hardware: Any,
    *,
    metric: str = "latency_s",
    change: float = 0.05,
    parameters: Sequence[str] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Relative change of an answer per relative change of each number behind the device.

    ``d ln(metric) / d ln(parameter)`` by a central difference: 1 means proportional, 0 that the number does
    not matter here. Calibration constants and prices are numbers of the device too.

    Parameters
    ----------
    workload, hardware, **settings
        See `simulate`.
    metric : str
        A name of the summary.
    change : float
        Relative step.
    parameters : sequence of str, optional
        Dotted paths; by default every number of the device.

    Returns
    -------
    DataFrame
        ``parameter value elasticity status source``, the most influential first; NaN where a changed number
        leaves nothing to compare (a whole number that cannot take the step, an infeasible run).
    """
    import pandas as pd

    device = load_hardware(hardware)
    if not 0.0 < change < 1.0:
        raise RequestError(f"change {change} is not between 0 and 1")
    named = parameters if parameters is not None else list(device.quantities)
    rows = []
    for path in named:
        if path not in device.quantities:
            raise RequestError(f"no number '{path}'", device.name, did_you_mean(path, device.quantities))
        quantity = device.quantities[path]
        rows.append(
            {
                "parameter": path,
                "value": quantity.value,
                "elasticity": _elasticity(workload, device, path, metric, change, settings),
                "status": quantity.status,
                "source": quantity.source,
            }
        )
    table = pd.DataFrame(rows)
    order = table["elasticity"].abs().sort_values(ascending=False, na_position="last").index
    return table.loc[order].reset_index(drop=True)


def _elasticity(
    workload: Any, device: Any, path: str, metric: str, change: float, settings: dict[str, Any]
) -> float:
    value = device.quantities[path].value
    logs, steps = [], []
    for factor in (1.0 - change, 1.0 + change):
        scaled, reached = _scaled(value, factor)
        if reached <= 0.0:
            return math.nan
        try:
            outcome = simulate(workload, device.replace(**{path: scaled}), **settings)
        except ConfigError:  # the step leaves the range that the parameter may take
            return math.nan
        found = outcome.summary.get(metric) if outcome.feasible else None
        if not isinstance(found, int | float) or not found > 0:
            return math.nan
        logs.append(math.log(found))
        steps.append(math.log(reached))
    return (logs[1] - logs[0]) / (steps[1] - steps[0])


def _scaled(value: Any, factor: float) -> tuple[Any, float]:
    """A number of a hardware file (``132``, ``3.35 TB/s``) times a factor, and the factor that it reached.

    Whole numbers stay whole, and move at least by one.
    """
    if isinstance(value, str):
        found = _LEADING.match(value)
        if found is None or float(found[1]) == 0.0:
            return value, 0.0
        return f"{float(found[1]) * factor!r}{value[found.end() :]}", factor
    if isinstance(value, int):
        scaled = math.floor(value * factor) if factor < 1.0 else math.ceil(value * factor)
        return scaled, scaled / value if value else 0.0
    return value * factor, factor if value else 0.0
