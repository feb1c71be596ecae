"""The keyword spotter of Blouw et al. 2019 (arXiv:1812.01739) on Loihi and on ordinary chips, at batch 1.

None of the published figures could be read here: they are recalled, so this is a comparison and no proof.
Nothing is fitted on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.core.paths import data_folder
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.hardware.spec import extended, load_hardware
from accelsim.validate.table import Table
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph

if TYPE_CHECKING:
    import pandas as pd

TARGET_PCT = 25.0
"""How close rate and dynamic energy of Loihi should be [%]."""

SIZES = (390, 256, 256, 29)

_RECALLED = "datasheet, recalled"

# GPUs of the paper that the catalog has not, over the P100 that is closest to them.
_DEVICES: dict[str, dict[str, Any]] = {
    "jetson-tx1": {
        "source": _RECALLED,
        "sm": {
            "count": 2,
            "clock": "998 MHz",
            "tensor_clock": "998 MHz",
            "base_clock": "998 MHz",
            "vector_flop_per_clock": {"fp32": 256, "fp16": 512},
        },
        "memory": {"capacity": "4 GB", "bandwidth": "25.6 GB/s", "type": "LPDDR4"},
        "l2": {"capacity": "256 KiB", "bandwidth": "64 GB/s"},
        "power": {"tdp": "10 W", "idle": "2 W"},
    },
    "quadro-k4000": {
        "source": _RECALLED,
        "sm": {
            "count": 4,
            "clock": "811 MHz",
            "tensor_clock": "811 MHz",
            "base_clock": "811 MHz",
            "vector_flop_per_clock": {"fp32": 384, "fp16": 384},
        },
        "memory": {"capacity": "3 GB", "bandwidth": "134.8 GB/s", "type": "GDDR5"},
        "l2": {"capacity": "384 KiB", "bandwidth": "200 GB/s"},
        "power": {"tdp": "80 W", "idle": "12 W"},
    },
}


def tables() -> Iterator[Table]:
    """The neuromorphic part of the validation report.

    Yields
    ------
    Table
    """
    yield Table(
        "Keyword spotter on Loihi",
        "Network 390-256-256-29 of Blouw et al. 2019, batch 1. Published figures are recalled, none was read "
        f"here; target {TARGET_PCT:.0f} %, no constant was chosen with them in view. The model counts the "
        "neuron cores and the mesh with 64 time steps and a rate of 0.1, as the device's file assumes; the "
        "published run also moves every window through the chip's x86 cores and a host, in 3.4 ms. "
        "They are not modelled, for want of figures; the misses are theirs if the recalled rows are right.",
        accuracy(),
    )
    yield Table(
        "Energy per inference of the keyword spotter",
        "Dynamic energy [mJ] at batch 1, least first by the published figures. GPUs run the network "
        "from a replayed graph, without the framework that the published rates contain; CPUs and vision "
        "processors are not modelled.",
        order(),
    )


def network() -> Graph:
    """The keyword spotter: 390 features, two hidden layers of 256, 29 characters."""
    b = GraphBuilder("keyword-spotter-390", "int8")
    x = b.input("features", 1, SIZES[0])
    for index, width in enumerate(SIZES[1:], 1):
        x = b.linear(x, width, stem=f"fc{index}")
        if index + 1 < len(SIZES):
            x = b.activation(x, "relu")
    return b.build(item="window")


def published() -> pd.DataFrame:
    """The published rows: ``hardware model idle_w running_w inferences_per_s dynamic_mj status source``."""
    import pandas as pd

    return pd.read_csv(data_folder("validation") / "neuromorphic" / "keyword_spotter.csv")


def accuracy() -> pd.DataFrame:
    """Rate and dynamic energy of Loihi beside the published figures."""
    import pandas as pd

    row = next(row for row in published().to_dict("records") if row["model"] == "loihi")
    result = _run("loihi")
    pairs = (
        ("inferences per second", float(row["inferences_per_s"]), result.summary["throughput_per_s"]),
        ("dynamic energy [mJ]", float(row["dynamic_mj"]), _dynamic_mj(result)),
    )
    return pd.DataFrame(
        [
            {
                "what": what,
                "published": seen,
                "status": str(row["status"]),
                "predicted": predicted,
                "error_pct": 100.0 * (predicted / seen - 1.0),
                "within_target": "yes" if abs(predicted / seen - 1.0) <= TARGET_PCT / 100 else "no",
            }
            for what, seen, predicted in pairs
        ]
    )


def order() -> pd.DataFrame:
    """Dynamic energy per inference of all hardware of the paper, NaN where there is no model of it."""
    frame = published().sort_values("dynamic_mj").reset_index(drop=True)
    predicted = [
        _dynamic_mj(_run(name)) if isinstance(name, str) and name else math.nan
        for name in frame["model"].tolist()
    ]
    return frame[["hardware", "dynamic_mj", "inferences_per_s"]].assign(predicted_mj=predicted)


def _run(name: str) -> Result:
    device = load_hardware("p100" if name in _DEVICES else name)
    if name in _DEVICES:
        device = extended(device, _DEVICES[name], name)
    precision = "int8" if device.kind == "neuromorphic" else "fp32"
    found = simulate(network(), device, precision=precision)
    if not isinstance(found, Result):
        raise RequestError(f"the keyword spotter does not run on {name}: {found}")
    return found


def _dynamic_mj(result: Result) -> float:
    """Energy of an inference above idle [mJ]."""
    return 1e3 * math.fsum(value for part, value in result.energy_parts.items() if part != "static")
