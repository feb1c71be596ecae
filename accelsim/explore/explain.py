"""What an explanation costs: attribution methods as passes of forward and backward graphs on a device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.outcome import Infeasible
from accelsim.core.precision import PRECISIONS
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.explore.slo import explained_share
from accelsim.workload.autograd import backward, together
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Method:
    """How a method asks for passes.

    Attributes
    ----------
    passes : int or None
        Passes of one explanation where none are asked for; None is counted from the input (occlusion).
    gradient : bool
        A pass is forward and backward; else forward alone.
    together : bool
        The usual tools run all passes of an explanation as one batch; else one pass at a time.
    basis : str
        Where passes and batching come from.
    """

    passes: int | None
    gradient: bool
    together: bool
    basis: str


METHODS = {
    "saliency": Method(1, True, True, "Simonyan et al., arXiv:1312.6034"),
    "integrated_gradients": Method(
        50, True, True, "Sundararajan et al., arXiv:1703.01365; captum runs 50 steps as one batch"
    ),
    "smoothgrad": Method(50, True, True, "Smilkov et al., arXiv:1706.03825, 50 samples; one batch"),
    "grad_cam": Method(1, True, True, "Selvaraju et al., arXiv:1610.02391: back to the last convolution"),
    "occlusion": Method(None, False, False, "Zeiler and Fergus, arXiv:1311.2901; captum runs one window"),
    "lime": Method(1000, False, False, "Ribeiro et al., arXiv:1602.04938; captum runs one sample at a time"),
    "kernel_shap": Method(
        2048, False, True, "Lundberg and Lee, arXiv:1705.07874; shap takes 2 M + 2048 samples, as one batch"
    ),
    "attention_rollout": Method(1, False, True, "Abnar and Zuidema, arXiv:2005.00928"),
}
"""Attribution methods. Defaults of tools are recalled, not read in their code here."""

WINDOW, STRIDE = 15, 8
"""Occluding window and its step in pixels where none are given (assumed)."""

MOST_TOGETHER = 2**14


@dataclass(frozen=True)
class Explanation:
    """Cost of explaining predictions.

    Attributes
    ----------
    method : str
    prediction : Result
        The forward pass that is explained, for the batch.
    rows : tuple of dict
        The batched runs that an explanation is made of: ``part passes batch runs latency_s energy_j flops``;
        latency, energy and FLOPs are of one run.
    one_by_one_s : float
        What the passes would take one at a time [s].
    batch, passes, internal_batch : int
        Predictions that are explained, passes of each, and passes that run together.
    usd_per_hour : float
        Hourly price of the device; NaN where it has none.
    notes : tuple of str
    """

    method: str
    prediction: Result
    rows: tuple[dict[str, Any], ...]
    one_by_one_s: float
    batch: int
    passes: int
    internal_batch: int
    usd_per_hour: float
    notes: tuple[str, ...]

    feasible = True

    @property
    def latency_s(self) -> float:
        """The explanation of the batch, without its prediction [s]."""
        return math.fsum(row["runs"] * row["latency_s"] for row in self.rows)

    @property
    def energy_j(self) -> float:
        """Of the explanation of the batch, without its prediction [J]."""
        return math.fsum(row["runs"] * row["energy_j"] for row in self.rows)

    @property
    def flops(self) -> float:
        return math.fsum(row["runs"] * row["flops"] for row in self.rows)

    @property
    def batching_gain(self) -> float:
        """Time of the passes one at a time over their time as they are batched."""
        return self.one_by_one_s / self.latency_s

    @property
    def summary(self) -> dict[str, Any]:
        """Per explained prediction: prediction and explanation together, and over the prediction alone."""
        s = self.prediction.summary
        latency, energy = self.latency_s + s["latency_s"], self.energy_j + s["energy_j"]
        return {
            "method": self.method,
            "workload": s["workload"],
            "hardware": s["hardware"],
            "batch": self.batch,
            "status": "ok",
            "passes": self.passes,
            "internal_batch": self.internal_batch,
            "latency_s": latency,
            "explanation_s": self.latency_s,
            "prediction_s": s["latency_s"],
            "energy_per_item_j": energy / self.batch,
            "usd_per_million_items": self.usd_per_hour / 3600 * latency / self.batch * 1e6,
            "slowdown": latency / s["latency_s"],
            "energy_ratio": energy / s["energy_j"],
            "batching_gain": self.batching_gain,
            "flops": self.flops,
        }

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The runs as a table."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    def share(self, slo_s: float, rate_per_s: float, *, quantile: float = 0.99) -> float:
        """Share of requests that one device can explain within a limit; see `explained_share`.

        Parameters
        ----------
        slo_s : float
            Limit of an explained answer [s].
        rate_per_s : float
            Batches of requests per second that arrive [1/s].
        quantile : float
            Share of the explained answers that must keep it.
        """
        plain = self.prediction.summary["latency_s"]
        return explained_share(plain, plain + self.latency_s, rate_per_s, slo_s, quantile)


def explain(
    workload: Any,
    hardware: Any,
    method: str = "integrated_gradients",
    *,
    steps: int | None = None,
    batch: int = 1,
    internal_batch: int | None = None,
    window: int = WINDOW,
    stride: int = STRIDE,
    precision: Any = None,
    gradient_precision: Any = None,
    phase: str | None = None,
    context: int | None = None,
    **settings: Any,
) -> Explanation | Infeasible:
    """What it takes to explain predictions of a model on a device.

    Parameters
    ----------
    workload, hardware, precision, phase, context, **settings
        Of `simulate`.
    method : str
        A key of `METHODS`.
    steps : int, optional
        Steps of integrated gradients, samples of SmoothGrad, LIME and Kernel SHAP; by default the method's.
    batch : int
        Predictions that are explained together.
    internal_batch : int, optional
        Passes that run as one batch (captum's ``internal_batch_size`` and ``perturbations_per_eval``). By
        default what the usual tool does; where that does not fit the memory, the largest that does.
    window, stride : int
        Occluding window and its step [pixels].
    gradient_precision : str, optional
        Format of passes with gradients. By default `precision`, or fp16 where that is an integer format.

    Returns
    -------
    Explanation or Infeasible

    Raises
    ------
    RequestError
        An unknown method, no step, or a method that the model has nothing for.
    """
    if method not in METHODS:
        raise RequestError(f"unknown method '{method}'", hint=did_you_mean(method, METHODS))
    graph = load_workload(workload, phase=phase, context=context)
    held = METHODS[method]
    passes = _passes(graph, method, steps, window, stride)
    _positive("internal_batch", internal_batch)
    prediction = simulate(graph, hardware, batch=batch, precision=precision, **settings)
    if isinstance(prediction, Infeasible):
        return prediction
    notes: list[str] = []
    formats = precision
    if held.gradient:
        formats = _gradient_format(prediction, precision, gradient_precision, notes)
    unit = _unit(graph, method)
    most = min(internal_batch or (passes * batch if held.together else batch), passes * batch)
    most = min(most, MOST_TOGETHER)

    def run(size: int) -> Result | Infeasible:
        return simulate(unit, hardware, batch=size, precision=formats, **settings)

    found = _largest(run, most, graph, unit)
    if isinstance(found, Infeasible):
        return found
    size, whole = found
    if size < most:
        notes.append(f"{size} passes run together: more do not fit the memory")
    full, rest = divmod(passes * batch, size)
    rows = [_row("passes", size, full, whole)]
    if rest:
        rows.append(_row("last passes", rest, 1, _sure(run(rest))))
    if method == "attention_rollout":
        extra = simulate(_rollout(graph), hardware, batch=batch, precision=precision, **settings)
        if isinstance(extra, Infeasible):
            return extra
        rows = [_row("attention maps and their product", batch, 1, extra)]
    one = _sure(run(1)).summary["latency_s"] * passes * batch
    if method == "attention_rollout":
        one = rows[0]["latency_s"]
    if method in ("lime", "kernel_shap"):
        notes.append("the regression on the host and the making of masks are not counted")
    notes.append(f"{passes} passes per explanation: {METHODS[method].basis}")
    hourly = _hourly(hardware)
    return Explanation(method, prediction, tuple(rows), one, batch, passes, size, hourly, tuple(notes))


def _passes(graph: Graph, method: str, steps: int | None, window: int, stride: int) -> int:
    _positive("steps", steps)
    _positive("window", window)
    _positive("stride", stride)
    if steps is not None and method in ("saliency", "grad_cam", "attention_rollout", "occlusion"):
        raise RequestError(f"{method} has no steps", hint="leave them out")
    given = METHODS[method].passes
    if given is not None:
        return given if steps is None else steps
    image = next((t for t in graph.inputs if len(t.shape) == 4), None)
    if image is None:
        raise RequestError(f"occlusion slides over an image; {graph.name} has none")
    places = [math.ceil(max(size - window, 0) / stride) + 1 for size in image.shape[2:]]
    return math.prod(places)


def _positive(name: str, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise RequestError(f"{name} {value!r} is not a positive integer")


def _unit(graph: Graph, method: str) -> Graph:
    """The graph of one pass of one item."""
    if not METHODS[method].gradient:
        return graph
    wrt: Any = "inputs"
    if method == "grad_cam":
        last = [op for op in graph if op.kind == "conv"]
        if not last:
            raise RequestError(f"Grad-CAM needs a convolution; {graph.name} has none")
        wrt = (last[-1].outputs[0].name,)
    return together(graph, backward(graph, wrt))


def _rollout(graph: Graph) -> Graph:
    """Attention scores written out, their mean over heads, and the product over layers."""
    layers = [op for op in graph if op.kind == "attention" and op.inputs[0].shape[2] > 1]
    if not layers:
        raise RequestError(f"attention rollout needs attention over tokens; {graph.name} has none")
    b = GraphBuilder(f"{graph.name} attention rollout", layers[0].inputs[0].precision)
    for index, op in enumerate(layers):
        q, k = op.inputs[:2]
        with b.scope(f"layer{index}"), b.repeated(op.repeat):
            heads, kv_heads = q.shape[1], k.shape[1]
            left = b.input(f"q{index}", q.shape[0], kv_heads, heads // kv_heads * q.shape[2], q.shape[3])
            right = b.input(f"k{index}", *k.shape)
            scores = b.softmax(b.matmul(left, right, transpose_b=True))
            whole = b.reshape(scores, q.shape[0], heads, q.shape[2], k.shape[2])
            shape = (q.shape[0], q.shape[2], k.shape[2])
            mean = b.op("reduce", [whole], shape, stem="mean", function="mean", axes=(1,))
            before = b.input(f"rolled{index}", q.shape[0], k.shape[2], k.shape[2])
            b.matmul(mean, before, stem="roll")
    return b.build(item=graph.item)


def _gradient_format(prediction: Result, precision: Any, asked: Any, notes: list[str]) -> Any:
    if asked is not None:
        return asked
    own = str(prediction.summary["precision"])
    if own in PRECISIONS and not PRECISIONS[own].is_integer:
        return precision
    notes.append(f"the prediction runs in {own}, passes with gradients in fp16")
    return "fp16"


def _largest(
    run: Callable[[int], Result | Infeasible], most: int, graph: Graph, unit: Graph
) -> tuple[int, Result] | Infeasible:
    """The largest batch up to `most` that fits, and its run; saved activations of repeated layers count."""
    size = most
    while True:
        found = run(size)
        if isinstance(found, Result) and _holds(found, unit, size):
            return size, found
        if isinstance(found, Infeasible) and found.reason != "memory":
            return found
        if size == 1:
            return found if isinstance(found, Infeasible) else _too_small(found, unit)
        size //= 2


def _saved_bytes(found: Result, unit: Graph, size: int) -> float:
    """Activations that the backward pass reads, with all copies of repeated layers [B]."""
    saved = float(unit.metadata.get("saved_bytes", 0.0)) / unit.batch * size
    wide = next(iter(unit.inputs)).precision.bits
    name = str(found.summary["precision"])
    return saved * (PRECISIONS[name].bits / wide if name in PRECISIONS else 1.0)


def _holds(found: Result, unit: Graph, size: int) -> bool:
    return _saved_bytes(found, unit, size) <= found.summary["memory_capacity_bytes"]


def _too_small(found: Result, unit: Graph) -> Infeasible:
    need, have = _saved_bytes(found, unit, 1), found.summary["memory_capacity_bytes"]
    return Infeasible(
        "memory",
        f"{need / 1e9:.3g} GB of saved activations",
        f"{have / 1e9:.3g} GB per device",
        "use a method without gradients",
        found.request,
    )


def _row(part: str, size: int, runs: int, result: Result) -> dict[str, Any]:
    s = result.summary
    return {
        "part": part,
        "batch": size,
        "runs": runs,
        "latency_s": s["latency_s"],
        "energy_j": s["energy_j"],
        "flops": s["flops"],
        "bound": s["bound"],
    }


def _sure(result: Result | Infeasible) -> Result:
    """A run of fewer items than one that fits."""
    if isinstance(result, Infeasible):
        raise RequestError(f"a smaller batch does not fit: {result}")
    return result


def _hourly(hardware: Any) -> float:
    from accelsim.hardware.spec import load_hardware

    value = load_hardware(hardware).cost.hourly_usd
    return math.nan if value is None else float(value)
