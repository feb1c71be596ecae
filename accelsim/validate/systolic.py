"""Systolic devices against silicon: published figures, and measured TPU matrix products.

Constants were fitted on rows of role ``calibration`` alone (or on half of the matrix products); rows of role
``outcome`` are shown without a target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.base import Options
from accelsim.architectures.systolic.cost import occupancy, parts_of
from accelsim.architectures.systolic.lower import lower
from accelsim.core.errors import ConfigError
from accelsim.core.paths import data_folder
from accelsim.engine.simulate import simulate
from accelsim.hardware.spec import load_hardware
from accelsim.validate import edge_networks
from accelsim.validate.fpga_networks import network
from accelsim.validate.table import Table
from accelsim.workload.builders.families import BUILDERS
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


_ROLES = {
    "outcome": "What follows from the same runs; shown, no target.",
    "scored": "No constant was fitted on these. Eyeriss's link efficiency was chosen with its latencies in "
    "view, and TPU v1's assumed vector layers were edited once after a first score. SqueezeNet became the "
    "paper's network with the Edge TPU's errors in view, for the reason beside `_EDGE_NETWORKS`.",
    "calibration": "A constant of the device was chosen on these; shown, not scored.",
    "trade-off": "A published comparison of designs, reproduced by changing the array; the order must "
    "agree. Weights in whole tiles came from its source, with this chip's other figures in view.",
    "vendor estimate": "The vendor's own estimates, not silicon.",
}


def _table(name: str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(data_folder("validation") / "systolic" / name)


def silicon() -> pd.DataFrame:
    """Every published figure that the model can be held against.

    Returns
    -------
    DataFrame
        Columns ``device what role published predicted unit error_pct source``; ``predicted`` is NaN where no
        workload or no part of the model answers, and ``note`` says why.
    """
    import pandas as pd

    published = _table("published.csv")
    answers: dict[str, Callable[[], Iterator[tuple[tuple[str, str], float]]]] = {
        "tpu-v1": _tpu_v1,
        "eyeriss": _eyeriss,
        "edge-tpu": lambda: _edge_tpu(published),
        "nvdla-2048": lambda: _frames("nvdla-2048", "ResNet-50"),
        "nvdla-256": lambda: _frames("nvdla-256", "ResNet-50"),
        "tpu-v3": lambda: _frames("tpu-v3", "ResNet-50 Server", batch=64, chips=4),
        "tpu-v5e": _gpt_j,
        "simba": _simba,
    }
    found = {(device, *key): value for device, answer in answers.items() for key, value in answer()}
    rows = []
    for r in published.to_dict("records"):
        if r["role"] in ("input", "bar"):
            continue
        predicted = found.get((r["device"], r["network"], r["metric"]), float("nan"))
        value = float(r["value"])
        rows.append(
            {
                "device": r["device"],
                "what": f"{r['network']} {r['metric']}",
                "role": r["role"],
                "published": value,
                "predicted": predicted,
                "unit": r["unit"],
                "error_pct": 100.0 * (predicted / value - 1.0) if value else float("nan"),
                "source": r["source"],
            }
        )
    return pd.DataFrame(rows)


# -- TPU v1


def tables() -> Iterator[Table]:
    """The systolic part of the validation report.

    Yields
    ------
    Table
        Published silicon, scored; figures that a constant was chosen on, and vendors' own estimates, apart.
    """
    rows = silicon()
    shown = ["device", "what", "published", "predicted", "unit", "error_pct", "source"]
    for role, part in rows.groupby("role", sort=False):
        yield Table(f"Published figures: {role}", _ROLES.get(str(role), ""), part[shown])


def tpu_v1_network(name: str) -> Graph:
    """MLP0, LSTM0 or CNN0 with the layer shapes that `validation/systolic/tpu_v1_layers.csv` assumes."""
    b = GraphBuilder(name, "int8")
    layers = _table("tpu_v1_layers.csv").query("network == @name").to_dict("records")
    first = layers[0]
    x = b.input(
        "x", 1, *((first["inputs"], first["image"], first["image"]) if name == "CNN0" else (first["inputs"],))
    )
    for layer in layers:
        for _ in range(layer["count"]):
            if layer["kind"] == "conv":
                x = b.activation(b.conv(x, layer["outputs"], layer["kernel"], bias=False), "relu")
            elif layer["kind"] == "fc" and layer["outputs"] == layer["inputs"]:
                x = b.activation(b.linear(x, layer["outputs"], bias=False), "relu")
            elif layer["kind"] == "fc":
                # A cell: the gates are combined to as many values as the next cell takes.
                gates = b.activation(b.linear(x, layer["outputs"], bias=False), "sigmoid")
                x = b.elementwise("mul", *b.views(gates, layer["outputs"] // layer["inputs"]))
            else:
                x = b.elementwise("add", x, x)
    return b.build(item="item")


def _tpu_v1() -> Iterator[tuple[tuple[str, str], float]]:
    device = load_hardware("tpu-v1")
    for name, batch in (("MLP0", 200), ("LSTM0", 64), ("CNN0", 8)):
        result: Any = simulate(tpu_v1_network(name), device, batch=batch, precision="int8")
        yield (name, "achieved"), result.summary["flops"] / result.summary["latency_s"] / 1e12
        program = lower(tpu_v1_network(name).with_batch(batch), device, Options())
        cycles = occupancy(program)
        times = np.array([kernel.repeat for kernel in program.kernels])
        each = {part: float((value * times).sum()) for part, value in cycles.items()}
        total = sum(each.values())
        yield (name, "array_active"), 100.0 * each["active"] / total
        yield (name, "weight_shift"), 100.0 * each["shift"] / total
        yield (name, "weight_stall"), 100.0 * each["stall"] / total
        yield (name, "non_matrix"), 100.0 * (each["drain"] + each["other"]) / total
        # Waiting for the results of the layer before shows as the drain of its pipeline.
        yield (name, "RAW_stall"), 100.0 * each["drain"] / total
    for size in (256, 512):
        larger = device.replace(**{"array.rows": size, "array.cols": size})
        yield ("LSTM1 product 600x600", f"time on a {size}x{size} array"), 1e6 * _tile_study(larger)


def _tile_study(device: Any) -> float:
    """Time of one 600 x 600 product in a chain of them, activations on chip [s]."""
    b = GraphBuilder("LSTM1 products", "int8")
    x = b.input("x", 1, 600)
    for _ in range(3):
        x = b.linear(x, 600, bias=False)
    result: Any = simulate(b.build(), device, batch=96, precision="int8")
    return float(result.ops["latency_s"].iloc[1])


# -- Eyeriss


def _eyeriss() -> Iterator[tuple[tuple[str, str], float]]:
    total_ms = 0.0
    for layer in _table("alexnet_layers.csv").to_dict("records"):
        b = GraphBuilder(layer["layer"], "int16")
        x = b.input("x", 1, layer["channels"], layer["image"], layer["image"])
        b.conv(
            x, layer["filters"], layer["kernel"], stride=layer["stride"], padding=layer["padding"],
            groups=layer["groups"], bias=False,
        )  # fmt: skip
        density = {True: 1 - layer["zeros_in_pct"] / 100, False: 1 - layer["zeros_out_pct"] / 100}
        graph = b.build().map_tensors(
            lambda t, d=density: replace(t, density=d[t.name == "x"]) if t.role == "activation" else t
        )
        # Every layer was measured on its own.
        result: Any = simulate(graph, "eyeriss", batch=4, precision="int16", cold=True)
        latency_ms = 1e3 * result.summary["latency_s"]
        total_ms += latency_ms
        yield (layer["layer"], "latency"), latency_ms
        yield (layer["layer"], "DRAM_accesses"), result.summary["dram_bytes"] / 1e6
        macs = result.summary["flops"] / 2
        yield (layer["layer"], "active_PEs"), macs / float(result.ops.cycles_compute.iloc[0])
    yield ("TOTAL", "latency"), total_ms


# -- Edge TPU, NVDLA, TPU v3

_EDGE_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "MobileNet v1 224": ("mobilenet", {"version": 1}),
    "MobileNet v2 224": ("mobilenet", {"version": 2}),
    "DenseNet 224": ("densenet", {}),
    "Inception v1 224": ("inception-v1", {}),
    "ResNet-50 V1 299": ("resnet", {"depth": 50, "image": 299}),
    "ResNet-50 V2 299": ("resnet-v2", {"depth": 50, "image": 299}),
    # The paper's network: the page's own CPU latencies put it between MobileNet v1 and Inception v1 in work,
    # which release 1.1 (0.35 G multiply-accumulates) is not.
    "SqueezeNet 224": ("squeezenet-1.0", {}),
    "EfficientNet-EdgeTpu-S": ("efficientnet-edge", {"image": 224, "depth": 1.0}),
    "EfficientNet-EdgeTpu-M": ("efficientnet-edge", {"image": 240, "depth": 1.1}),
    "Inception-ResNet V2 299": ("inception-resnet-v2", {}),
}


def _edge_tpu(published: pd.DataFrame) -> Iterator[tuple[tuple[str, str], float]]:
    for name in published.loc[published.device == "edge-tpu", "network"]:
        if name in _EDGE_NETWORKS:
            builder, parameters = _EDGE_NETWORKS[name]
            make = edge_networks.network if builder in edge_networks.NETWORKS else network
            result: Any = simulate(make(builder, **parameters), "edge-tpu", precision="int8")
            yield (name, "latency"), 1e3 * result.summary["latency_s"]


def _frames(
    device: str, name: str, *, batch: int = 1, chips: int = 1
) -> Iterator[tuple[tuple[str, str], float]]:
    precision = "bf16" if device.startswith("tpu") else "int8"
    result: Any = simulate(load_workload("resnet50"), device, batch=batch, precision=precision)
    yield (name, "throughput"), chips * result.summary["throughput_per_s"]
    on_chip_j = sum(result.energy_parts[part] for part in ("mac", "vector", "sram"))
    yield (name, "on_chip_power"), 1e3 * on_chip_j / result.summary["latency_s"]


def _simba() -> Iterator[tuple[tuple[str, str], float]]:
    result: Any = simulate(load_workload("resnet50"), "simba", precision="int8")
    yield ("ResNet-50", "latency"), 1e3 * result.summary["latency_s"]


_GPT_J = {
    "architectures": ["GPT2LMHeadModel"], "vocab_size": 50400, "n_embd": 4096, "n_layer": 28, "n_head": 16,
    "n_positions": 2048, "activation_function": "gelu_new",
}  # fmt: skip
"""GPT-J's sizes in the layers of GPT-2: attention and MLP one after the other rather than side by side."""

_PROMPT, _ANSWER, _BEAMS = 870, 69, 4
"""Mean tokens of a CNN/DailyMail article and of an answer, and beams, of MLPerf's GPT-J (recalled)."""


def _gpt_j() -> Iterator[tuple[tuple[str, str], float]]:
    """Offline on four chips, each with a copy of the weights in int8; the batch that serves most."""
    formats = {"weight": "int8", "activation": "bf16"}
    parameters = {"config": _GPT_J}
    best = 0.0
    for samples in (1, 2, 4, 8, 16, 32):
        prompt, token = (
            BUILDERS["huggingface"]("gpt-j", parameters, phase, context)
            for phase, context in (("prefill", _PROMPT), ("decode", _PROMPT + _ANSWER // 2))
        )
        first: Any = simulate(prompt, "tpu-v5e", batch=samples, precision=formats)
        step: Any = simulate(token, "tpu-v5e", batch=samples * _BEAMS, precision=formats)
        if first.feasible and step.feasible:
            seconds = first.summary["latency_s"] + _ANSWER * step.summary["latency_s"]
            best = max(best, 4 * samples / seconds)
    yield ("GPT-J Offline", "throughput"), best


# -- measured TPU matrix products, chip not named


def read_tpu_gemm(path: str | Path) -> pd.DataFrame:
    """The table ``gemm_fp16.csv`` of yutation/SCALE-SIM_Validation.

    Returns
    -------
    DataFrame
        Columns ``set m n k latency_s train``; half of the shapes, by the hash of the shape, are for training.

    Raises
    ------
    ConfigError
        The file is missing or lacks a column.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the table ({error})", str(path)) from None
    wanted = {"set": "set", "M": "m", "N": "n", "K": "k", "fusion_us_avg": "latency_s"}
    lacking = sorted(set(wanted) - set(frame.columns))
    if lacking:
        raise ConfigError(f"the table has no column '{lacking[0]}'", str(path))
    frame = frame[list(wanted)].rename(columns=wanted)
    frame["latency_s"] *= 1e-6
    frame["train"] = [_in_training(*shape) for shape in frame[["m", "n", "k"]].itertuples(index=False)]
    return frame


def _in_training(m: int, n: int, k: int) -> bool:
    return int(hashlib.sha256(f"{m}x{n}x{k}".encode()).hexdigest(), 16) % 2 == 0


COUNTS = (1, 2, 4, 8)

_WINDOW = "8 MiB"
"""Half of a core's 16 MiB of VMEM (recalled for v2 to v4), the other half being the next window's."""


def fit_tpu_gemm(frame: pd.DataFrame) -> tuple[Any, pd.DataFrame]:
    """Fit the unknowns of the chip on the training half and score the other half.

    Unknown are the number of 128 x 128 arrays, their clock, the sustained memory bandwidth and the fixed cost
    of a product. For each number of arrays the time is linear in the other three, so they follow from least
    squares of relative errors: XLA runs one product as one kernel, so the first window of operands and the
    results are not hidden, and what streams behind the arrays is never what they wait for.

    Returns
    -------
    device : SystolicDevice
        The fitted chip.
    scores : DataFrame
        Columns ``set rows train_mape_pct test_mape_pct``.
    """
    import pandas as pd

    t = frame.latency_s.to_numpy()
    train = frame.train.to_numpy()
    best: tuple[float, int, npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None
    for count in COUNTS:
        cycles, exposed = _features(frame, count)
        features = np.stack([np.ones_like(t), exposed, cycles], axis=1)
        weights = _relative_fit(features[train], t[train])
        predicted = features @ weights
        loss = float(np.abs(predicted[train] / t[train] - 1).mean())
        if (weights > 0).all() and (best is None or loss < best[0]):
            best = (loss, count, weights, predicted)
    if best is None:
        raise ConfigError("no chip fits these products", "matrix products")
    _, count, weights, predicted = best
    device = _gemm_device(count).replace(
        **{
            "array.clock": f"{float(1 / weights[2])!r} Hz",
            "memory.bandwidth": f"{float(1 / weights[1])!r} B/s",
            "dispatch": f"{float(weights[0])!r} s",
        }
    )
    errors = pd.DataFrame({"set": frame["set"], "train": train, "error": 100 * np.abs(predicted / t - 1)})
    scores = [
        {
            "set": name,
            "rows": len(group),
            "train_mape_pct": float(group.error[group.train].mean()),
            "test_mape_pct": float(group.error[~group.train].mean()),
        }
        for name, group in errors.groupby("set", sort=False)
    ]
    return device, pd.DataFrame(scores)


def _gemm_device(count: int) -> Any:
    return load_hardware("tpu-v4").replace(
        **{
            "array.count": count,
            "array.clock": "1 GHz",
            "memory.latency": "0 s",
            "memory.efficiency": 1.0,
            "dispatch": "0 s",
            "transfers_overlap": False,
            "sram.window": _WINDOW,
        }
    )


def _features(frame: pd.DataFrame, count: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Array cycles, and bytes that no computation hides, of each product."""
    device = _gemm_device(count)
    ops = []
    for i, (m, n, k) in enumerate(frame[["m", "n", "k"]].itertuples(index=False)):
        b = GraphBuilder("products", "bf16")
        b.linear(b.input(f"x{i}", int(m), int(k)), int(n), bias=False, stem=f"p{i}")
        ops.append(b.ops[0])
    parts, _, _ = parts_of(lower(Graph("products", ops), device, Options(cold=True)))
    seconds = parts.ahead / device.array.clock_hz
    return parts.array, seconds * device.memory.bandwidth_bytes_per_s


def _relative_fit(features: npt.NDArray[np.float64], t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weights of least absolute relative error, by reweighted least squares."""
    scaled = features / t[:, None]
    scale = scaled.max(axis=0)
    weight = np.ones(len(t))
    for _ in range(50):
        solution = np.linalg.lstsq(scaled / scale * weight[:, None], weight, rcond=None)[0]
        weight = 1 / np.sqrt(np.maximum(np.abs(scaled / scale @ solution - 1), 1e-4))
    return np.asarray(solution / scale)
