"""Pictures of a validation: predicted against measured, and the error by regime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import MissingExtraError, RequestError

if TYPE_CHECKING:
    import pandas as pd

# Okabe-Ito: distinguishable with colour-vision deficiency.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


def draw(rows: Path, out: Path) -> list[Path]:
    """Draw one PDF per table of rows that ``accelsim validate --rows`` wrote.

    Parameters
    ----------
    rows : Path
        Folder with CSV files that have ``device latency_s predicted_s``.
    out : Path
        Folder for the pictures.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    RequestError
        A folder is missing, or there is nothing to draw.
    """
    import pandas as pd

    if not out.is_dir():
        raise RequestError("no such folder", str(out))
    files = sorted(rows.glob("*.csv"))
    if not files:
        raise RequestError("no table of rows here", str(rows), "write some with: accelsim validate --rows")
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "drawing") from None
    mpl.use("Agg")
    return [_picture(pd.read_csv(f, low_memory=False), f.stem, out / f"{f.stem}.pdf") for f in files]


def _picture(frame: pd.DataFrame, title: str, path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.2), layout="constrained")
    for colour, (device, part) in zip(COLOURS, frame.groupby("device")):
        shown = part if len(part) <= 3000 else part.sample(3000, random_state=0)
        style = {"s": 1, "color": colour, "label": str(device), "rasterized": True}
        left.scatter(shown.latency_s, shown.predicted_s, **style)
        _residuals(right, part, colour)
    ends = [frame.latency_s.min(), frame.latency_s.max()]
    left.plot(ends, ends, color="0.5", linewidth=0.8)
    left.set(xscale="log", yscale="log", xlabel="measured [s]", ylabel="predicted [s]", title=title)
    left.legend(markerscale=5, fontsize="x-small", frameon=False)
    right.axhline(0.0, color="0.5", linewidth=0.8)
    right.set(xscale="log", xlabel="measured [s]", ylabel="error [%]", ylim=(-60, 60), title="10, 50, 90 %")
    figure.savefig(path)
    plt.close(figure)
    return path


def _residuals(axes: Any, part: pd.DataFrame, colour: str) -> None:
    """Quantiles of the error over measured latency."""
    import numpy as np

    measured = part.latency_s.to_numpy()
    error = 100.0 * (part.predicted_s.to_numpy() / measured - 1.0)
    edges = np.quantile(measured, np.linspace(0, 1, 13))
    bins = np.clip(np.searchsorted(edges, measured, side="right") - 1, 0, 11)
    middle = [float(np.median(measured[bins == i])) for i in range(12) if (bins == i).any()]
    for level, width in ((0.1, 0.5), (0.5, 1.2), (0.9, 0.5)):
        line = [float(np.quantile(error[bins == i], level)) for i in range(12) if (bins == i).any()]
        axes.plot(middle, line, color=colour, linewidth=width)
