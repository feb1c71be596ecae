"""Pictures of a validation: predicted against measured, and the error by regime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.core.errors import RequestError
from accelsim.report.plots.measured import error_by_size, predicted_measured
from accelsim.report.plots.style import figure, matplotlib, paper_style, save

if TYPE_CHECKING:
    import pandas as pd


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
    matplotlib()
    return [_picture(pd.read_csv(f, low_memory=False), f.stem, out / f"{f.stem}.pdf") for f in files]


def _picture(frame: pd.DataFrame, title: str, path: Path) -> Path:
    picture = figure("page", 3.2)
    with paper_style():
        left, right = picture.add_subplot(1, 2, 1), picture.add_subplot(1, 2, 2)
        predicted_measured(frame, ax=left)
        error_by_size(frame, ax=right)
        picture.suptitle(title)
    return save(left, path)
