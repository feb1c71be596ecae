"""Tables as files: CSV and Parquet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.engine.result import Result
    from accelsim.explore.study import Study


def _table(source: Result | Study) -> pd.DataFrame:
    """The kernels of a result, the points of a study."""
    held: Any = source
    return held.ops if hasattr(held, "ops") else held.frame


def csv(source: Result | Study, path: str | Path) -> Path:
    """Write the kernels of a result, or the points of a study, as CSV; the file appears whole or not at all.

    Raises
    ------
    ConfigError
        The folder does not exist or cannot be written.
    """
    from accelsim.core.files import write_whole

    return write_whole(Path(path), _table(source).to_csv(index=False))


def parquet(source: Result | Study, path: str | Path) -> Path:
    """The same as Parquet.

    Raises
    ------
    MissingExtraError
        pyarrow is not installed.
    ConfigError
        The folder does not exist or cannot be written.
    """
    from io import BytesIO

    from accelsim.core.files import write_bytes_whole

    if find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "validation", "writing Parquet")
    table, held = _table(source), BytesIO()
    mixed = [n for n in table.columns if table[n].dtype == object]
    table.astype(dict.fromkeys(mixed, "string")).to_parquet(held, index=False)
    return write_bytes_whole(Path(path), held.getvalue())
