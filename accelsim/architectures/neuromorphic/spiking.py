"""Running a converted network on inputs, to measure how often its neurons fire and what its spikes say.

Values are normalised by the largest activation of each layer on the inputs (Diehl et al., IJCNN 2015,
doi:10.1109/IJCNN.2015.7280696); neurons integrate, fire at one and subtract it (Rueckauer et al., Frontiers
in Neuroscience 11:682, 2017, doi:10.3389/fnins.2017.00682).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.neuromorphic.coding import CODES, INPUT
from accelsim.core.errors import RequestError, did_you_mean
from accelsim.workload.graph import Graph, Op

Array = npt.NDArray[np.float64]

THRESHOLD = 1 / 16
"""Change of a normalised value that a sigma-delta neuron sends (assumed)."""


@dataclass(frozen=True, eq=False)
class SpikeRun:
    """A converted network on some inputs.

    Attributes
    ----------
    coding : dict
        For `simulate`: code, steps and measured rates by layer.
    rates : dict of str to float
        Spikes per neuron and step (``ttfs``: share of neurons that fire) by layer, and of the input.
    output, reference : ndarray, shape (items, ...)
        What the spikes say, and what the network without spikes says.
    """

    coding: dict[str, Any]
    rates: dict[str, float]
    output: Array
    reference: Array

    @property
    def agreement(self) -> float:
        """Share of the items with the same largest output."""
        ours, theirs = (a.reshape(len(a), -1).argmax(axis=1) for a in (self.output, self.reference))
        return float(np.mean(ours == theirs))

    @property
    def error(self) -> float:
        """Root-mean-square difference of the outputs over the largest output."""
        scale = float(np.abs(self.reference).max()) or 1.0
        return float(np.sqrt(np.mean((self.output - self.reference) ** 2))) / scale


def spike_rates(
    graph: Graph,
    weights: Mapping[str, Any],
    inputs: Any,
    *,
    code: str = "rate",
    steps: int = 64,
    threshold: float = THRESHOLD,
    leak: float = 0.0,
) -> SpikeRun:
    """Convert a network, run it on inputs and measure its firing rates.

    Parameters
    ----------
    graph : Graph
        Convolutions of two dimensions, products, average pools, sums, reshapes and relu, with batch 1.
    weights : mapping
        Weight of each product by the op's name, or a pair (weight, bias).
    inputs : array, shape (items, ...)
        Items; with ``sigma_delta`` frames that follow one another.
    code : {"rate", "ttfs", "sigma_delta"}
    steps : int
        Time steps of an item.
    threshold : float
        Of sigma-delta, as a share of a layer's largest value.
    leak : float
        Share of its potential that a neuron of the rate code loses in every step; 0 integrates all.

    Returns
    -------
    SpikeRun
        Firing rates by layer, to give to `simulate` as ``coding={"rates": ...}``.

    Raises
    ------
    RequestError
        An op that cannot run here, weights that are missing, or values that make no sense.
    """
    if code not in CODES:
        raise RequestError(f"unknown spike code '{code}'", hint=did_you_mean(code, CODES))
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise RequestError(f"{steps!r} time steps: an inference takes at least one")
    if not threshold > 0:
        raise RequestError(f"threshold {threshold!r} is not positive")
    if not 0 <= leak < 1:
        raise RequestError(f"leak {leak!r} is not in [0, 1)")
    x = np.asarray(inputs, np.float64)
    layers = _layers(graph, weights)
    if x.ndim < 2 or x.shape[1:] != graph.inputs[0].shape[1:] or not np.isfinite(x).all():
        raise RequestError(f"inputs {x.shape} do not fit {graph.inputs[0].shape} of {graph.name}")
    values = _forward(graph, layers, x)
    scale = {name: float(np.abs(v).max()) or 1.0 for name, v in values.items()}
    neurons = [op.name for op in graph if op.name in layers]
    last = neurons[-1]
    reference = values[last]
    if code == "rate":
        counts = _spiking(graph, layers, x, scale, steps, leak)
        rates = {name: float(np.abs(c).mean()) / steps for name, c in counts.items()}
        output = counts[last] / steps * scale[last]
    elif code == "ttfs":
        shares = {name: np.abs(v) / scale[name] for name, v in values.items()}
        rates = {name: float(np.mean(v * steps >= 1)) for name, v in shares.items()}
        output = np.floor(np.abs(reference) / scale[last] * steps) / steps * scale[last] * np.sign(reference)
    else:
        sent = {name: _sigma_delta(v / scale[name], threshold) for name, v in values.items()}
        rates = {name: float(np.mean(fired)) / steps for name, (fired, _) in sent.items()}
        output = sent[last][1] * scale[last]
    named = {INPUT if name == "" else name: rate for name, rate in rates.items()}
    return SpikeRun({"code": code, "steps": steps, "rates": named}, named, output, reference)


Layer = Callable[[list[Array], float], Array]


def _layers(graph: Graph, weights: Mapping[str, Any]) -> dict[str, tuple[Op, Layer, bool]]:
    """Ops with neurons: what they add up (bias scaled by the second argument), and whether a relu follows."""
    found: dict[str, tuple[Op, Layer, bool]] = {}
    for op in graph:
        if op.kind in ("reshape", "activation"):
            if op.kind == "activation" and op.attribute("function") != "relu":
                raise _cannot(op)
            continue
        readers = graph.consumers.get(op.outputs[0].name, ())
        rectified = any(r.kind == "activation" for r in readers)
        if op.kind in ("conv", "matmul"):
            if op.name not in weights:
                raise RequestError(f"no weight for '{op.name}'", hint=did_you_mean(op.name, weights))
            held = weights[op.name]
            w, bias = held if isinstance(held, tuple | list) else (held, None)
            w = np.asarray(w, np.float64)
            if w.shape != op.inputs[1].shape:
                raise RequestError(f"weight {w.shape} of '{op.name}' is not {op.inputs[1].shape}")
            found[op.name] = (op, _product(op, w, None if bias is None else np.asarray(bias)), rectified)
        elif op.kind == "pool" and op.attribute("mode") == "avg" and op.attribute("padding") in ((0, 0), 0):
            found[op.name] = (op, _pool(op), False)
        elif op.kind == "elementwise" and op.attribute("function") == "add":
            found[op.name] = (op, lambda parts, share: sum(parts, np.zeros(1)), rectified)
        else:
            raise _cannot(op)
    if not found:
        raise RequestError(f"{graph.name} has no layer to run")
    return found


def _cannot(op: Op) -> RequestError:
    return RequestError(
        f"'{op.name}' ({op.kind}) cannot run as spikes here",
        hint="give the rates of its layer by hand; batch norms can be folded into the weights",
    )


def _product(op: Op, w: Array, bias: Array | None) -> Layer:
    if op.kind == "matmul":

        def dense(parts: list[Array], share: float) -> Array:
            y: Array = parts[0] @ w
            return y if bias is None else y + share * bias

        return dense
    stride, padding, groups = op.attribute("stride"), op.attribute("padding"), op.attribute("groups", 1)
    if len(w.shape) != 4 or op.attribute("transposed", False) or set(op.attribute("dilation", (1,))) != {1}:
        raise _cannot(op)

    def conv(parts: list[Array], share: float) -> Array:
        around = ((0, 0), (0, 0), *((p, p) for p in padding))
        x = np.pad(parts[0], around)
        windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
        windows = windows[:, :, :: stride[0], :: stride[1]]
        n, c, h, v, r, s = windows.shape
        split = windows.reshape(n, groups, c // groups, h, v, r, s)
        kernels = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
        y: Array = np.einsum("ngchvrs,gkcrs->ngkhv", split, kernels, optimize=True)
        y = y.reshape(n, w.shape[0], h, v)
        return y if bias is None else y + share * bias[:, None, None]

    return conv


def _pool(op: Op) -> Layer:
    kernel, stride = op.attribute("kernel"), op.attribute("stride")

    def pool(parts: list[Array], share: float) -> Array:
        windows = np.lib.stride_tricks.sliding_window_view(parts[0], kernel, axis=(2, 3))
        y: Array = windows[:, :, :: stride[0], :: stride[1]].mean(axis=(-2, -1))
        return y

    return pool


def _walk(
    graph: Graph,
    layers: Mapping[str, tuple[Op, Layer, bool]],
    x: Array,
    neuron: Callable[[str, Array, bool], Array],
    share: Callable[[str], float],
) -> None:
    """Run a graph; `neuron` turns what a layer adds up into what the next one reads."""
    held = {graph.inputs[0].name: x}
    for op in graph:
        if op.name not in layers:
            whole = held[op.inputs[0].name]
            held[op.outputs[0].name] = whole.reshape(len(whole), *op.outputs[0].shape[1:])
            continue
        _, add, rectified = layers[op.name]
        parts = [held[t.name] for t in op.inputs if t.role == "activation"]
        held[op.outputs[0].name] = neuron(op.name, add(parts, share(op.name)), rectified)


def _forward(graph: Graph, layers: Mapping[str, tuple[Op, Layer, bool]], x: Array) -> dict[str, Array]:
    """Values of all layers without spikes; the input's name is empty."""
    values = {"": x}

    def neuron(name: str, total: Array, rectified: bool) -> Array:
        values[name] = np.maximum(total, 0.0) if rectified else total
        return values[name]

    _walk(graph, layers, x, neuron, lambda name: 1.0)
    return values


def _spiking(
    graph: Graph,
    layers: Mapping[str, tuple[Op, Layer, bool]],
    x: Array,
    scale: Mapping[str, float],
    steps: int,
    leak: float,
) -> dict[str, Array]:
    """Signed spikes of every neuron in all steps. A spike of a layer stands for its scale."""
    state: dict[str, Array] = {}
    counts: dict[str, Array] = {}

    def fire(name: str, current: Array, signed: bool) -> Array:
        v = state.get(name)
        v = np.zeros(current.shape) if v is None else v
        spikes = integrate(v, current, signed, leak)
        state[name] = v
        counts[name] = counts.get(name, np.zeros(current.shape)) + spikes
        return spikes * scale[name]

    def neuron(name: str, total: Array, rectified: bool) -> Array:
        return fire(name, total / scale[name], not rectified)

    for _ in range(steps):
        _walk(graph, layers, fire("", x / scale[""], True), neuron, lambda name: 1.0)
    return counts


def integrate(v: Array, current: Array, signed: bool, leak: float = 0.0) -> Array:
    """One step of leaky integrate-and-fire neurons that subtract what they fire; `v` is changed in place.

    A neuron fires once a step when it reaches one; a signed one also fires minus one at minus one.
    """
    v *= 1.0 - leak
    v += current
    spikes: Array = (v >= 1.0).astype(np.float64)
    if signed:
        spikes -= v <= -1.0
    v -= spikes
    return spikes


def _sigma_delta(values: Array, threshold: float) -> tuple[Array, Array]:
    """Of frames that follow one another: where a neuron sends, and what its receiver holds."""
    held = np.zeros(values.shape[1:])
    fired, seen = np.zeros(values.shape), np.zeros(values.shape)
    for index, frame in enumerate(values):
        sends = np.abs(frame - held) >= threshold
        held = np.where(sends, frame, held)
        fired[index], seen[index] = sends, held
    return fired, seen
