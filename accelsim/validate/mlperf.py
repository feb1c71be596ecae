"""Published MLPerf Inference results of whole networks on one GPU, against the tensorrt-like stack.

Nothing is fitted on these rows. The batch is the one that serves most items per second, as submitters of the
offline scenario choose it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from accelsim.core.paths import data_folder
from accelsim.engine.simulate import simulate
from accelsim.validate.score import error_pct
from accelsim.workload.load import load_workload

if TYPE_CHECKING:
    import pandas as pd

BATCHES = (16, 64, 256, 1024)
"""Batches that are tried."""

MEAN_TOKENS = 177.0
"""Mean length of a SQuAD 1.1 question with its paragraph, at most 384 tokens (recalled, not verified)."""

LENGTHS = tuple(round(MEAN_TOKENS * q) for q in (0.55, 0.75, 0.93, 1.15, 1.62))
"""Fifths of the lengths: a skewed spread with that mean (assumed). Padding is removed, so a batch costs what
its sequences cost.
"""


def networks() -> pd.DataFrame:
    """Every published result beside the model's.

    Returns
    -------
    DataFrame
        ``what device precision published predicted unit error_pct batch source``.
    """
    import pandas as pd

    table = pd.read_csv(data_folder("validation") / "gpu" / "mlperf.csv")
    keys = zip(table["network"], table["device"], table["precision"])
    answers = [throughput(str(network), str(device), str(fmt)) for network, device, fmt in keys]
    table["predicted"] = [rate for rate, _ in answers]
    table["batch"] = [batch for _, batch in answers]
    table["error_pct"] = error_pct(table["predicted"], table["published"])
    columns = [
        "what",
        "device",
        "precision",
        "published",
        "predicted",
        "unit",
        "error_pct",
        "batch",
        "source",
    ]
    return table.rename(columns={"network": "what"})[columns]


def throughput(network: str, device: str, precision: str) -> tuple[float, int]:
    """Items per second of the best batch, and that batch."""
    lengths: tuple[int | None, ...] = LENGTHS if network.startswith("bert") else (None,)
    best = (0.0, 0)
    for batch in BATCHES:
        spent = 0.0
        for length in lengths:
            graph = load_workload(network, context=length)
            result = simulate(graph, device, batch=batch, precision=precision, stack="tensorrt")
            spent += result.summary["latency_s"] / batch if result.feasible else np.inf
        best = max(best, (len(lengths) / spent, batch))
    return best
