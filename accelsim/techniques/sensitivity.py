"""What quantisation does to a real network, layer by layer: its weights' noise, its output's error.

One layer at a time is quantised (its weights, and what it reads), the network runs, and its output is
compared with the unquantised one. Formats follow common practice: integer and fp8 weights have one scale per
output channel, integer activations one scale and a zero point per tensor, block formats their own blocks
along the dot product.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.core.errors import ModelFileError, RequestError, UnknownNameError, did_you_mean
from accelsim.core.precision import PrecisionPlan
from accelsim.core.version import VERSION
from accelsim.techniques.network import Array, Layer, Network, open_model
from accelsim.techniques.numerics import (
    NumberFormat,
    check_finite,
    fake_quantise,
    inlier_error,
    number_format,
    sqnr_db,
)

if TYPE_CHECKING:
    import pandas as pd

SAMPLES = 4
GRANULARITIES = ("tensor", "channel")


@dataclass(frozen=True)
class Formats:
    """Formats of a layer's weights and of the activations that it reads."""

    weight: NumberFormat
    activation: NumberFormat

    @property
    def name(self) -> str:
        if self.weight == self.activation:
            return self.weight.name
        return f"weight={self.weight.name},activation={self.activation.name}"

    @property
    def reads_exactly(self) -> bool:
        """Activations stay as they are."""
        return self.activation.name == "fp32"


def formats_of(request: Any) -> Formats:
    """Read ``"int8"``, ``"weight=int4,activation=fp16"``, a mapping by role or a plan.

    Raises
    ------
    UnknownNameError, RequestError
    """
    if isinstance(request, Formats):
        return request
    if isinstance(request, PrecisionPlan):
        return Formats(number_format(request.weight.name), number_format(request.activation.name))
    if isinstance(request, str) and "=" in request:
        pairs = (part.partition("=") for part in request.split(","))
        request = {role.strip(): name.strip() for role, _, name in pairs}
    if isinstance(request, Mapping):
        roles = ("weight", "activation")
        unknown = sorted(set(request) - {*roles, "kv"})
        if unknown:
            raise RequestError(f"unknown role '{unknown[0]}'", hint=did_you_mean(unknown[0], roles))
        return Formats(*(number_format(request.get(role, "fp32")) for role in roles))
    one = number_format(request)
    return Formats(one, one)


@dataclass(frozen=True)
class Rules:
    """How arrays are scaled.

    Attributes
    ----------
    granularity : str or int
        Of weights in integers, fp8, fp6 and fp4: one scale per ``tensor``, per output ``channel``, or per
        that many elements of a channel.
    scale_rule : str
        Of power-of-two scales; see `fake_quantise`.
    """

    granularity: str | int = "channel"
    scale_rule: str = "floor"

    def weight(self, array: Array, fmt: NumberFormat, axis: int | None, name: str) -> Array:
        """Weights after quantisation."""
        if self.granularity == "tensor" and not fmt.block:
            axis = None
        block = self.granularity if isinstance(self.granularity, int) else None
        return fake_quantise(array, fmt, axis=axis, block=block, scale_rule=self.scale_rule, name=name)

    def activation(self, array: Array, fmt: NumberFormat, kind: str) -> Array:
        """What a layer reads after quantisation: blocks run along the channels."""
        if fmt.block:
            channels = 1 if kind.startswith("Conv") else -1
            moved = np.moveaxis(array, channels, -1)
            made = fake_quantise(moved, fmt, block=fmt.block, scale_rule=self.scale_rule, name="activations")
            return np.ascontiguousarray(np.moveaxis(made, -1, channels)).astype(array.dtype)
        return fake_quantise(array, fmt, symmetric=not fmt.integer, name="activations").astype(array.dtype)


def _rules(granularity: str | int, scale_rule: str) -> Rules:
    number = isinstance(granularity, int) and not isinstance(granularity, bool) and granularity > 0
    if not number and granularity not in GRANULARITIES:
        raise RequestError(
            f"granularity {granularity!r} is neither a number of elements nor one of tensor, channel"
        )
    return Rules(granularity, scale_rule)


class Probe:
    """A network with inputs, its unquantised outputs, and what every layer reads.

    Parameters
    ----------
    network : Network
    feeds : sequence of mapping
        Inputs of one run each.
    rules : Rules
    """

    def __init__(self, network: Network, feeds: Sequence[Mapping[str, Array]], rules: Rules) -> None:
        self.network = network
        self.feeds = feeds
        self.rules = rules
        self.layers = {layer.name: layer for layer in network.layers}
        reads = [layer.data for layer in network.layers if layer.data] if network.activations else []
        names = list(dict.fromkeys((*network.outputs, *reads)))
        runs = [dict(zip(names, network.run(feed, fetch=names))) for feed in feeds]
        self._reads = [{name: run[name] for name in reads} for run in runs]
        self._outputs = [[run[name] for name in network.outputs] for run in runs]
        for k, name in enumerate(network.outputs):
            for run in self._outputs:
                check_finite(run[k], f"{network.where}: output '{name}' on these inputs")

    def quantised(self, layer: Layer, formats: Formats) -> list[Array]:
        """Weights of a layer after quantisation."""
        where = self.network.where
        return [
            self.rules.weight(array, formats.weight, layer.axis, f"{where}: {name}")
            for name, array in zip(layer.weights, layer.arrays)
        ]

    def layer_error(self, layer: Layer, formats: Formats, weights: list[Array]) -> float:
        """Error of the output when one layer is quantised."""
        found = []
        for feed, reads in zip(self.feeds, self._reads):
            data = {}
            if layer.data and not formats.reads_exactly:
                data = {layer.name: self.rules.activation(reads[layer.data], formats.activation, layer.kind)}
            found.append(self.network.run(feed, {layer.name: weights}, data))
        return self._error(found)

    def error(self, choice: Mapping[str, Any]) -> float:
        """Error of the output when layers are quantised together, each on what the quantised ones before it
        pass on.

        Parameters
        ----------
        choice : mapping
            Formats by name of layer; the others stay as they are.
        """
        chosen = {name: formats_of(request) for name, request in choice.items()}
        unknown = sorted(set(chosen) - set(self.layers))
        if unknown:
            raise UnknownNameError(
                f"no layer '{unknown[0]}' in {self.network.where}",
                hint=did_you_mean(unknown[0], self.layers),
            )
        weights = {name: self.quantised(self.layers[name], f) for name, f in chosen.items()}
        found = []
        for feed in self.feeds:
            data: dict[str, Array] = {}
            for layer in self.network.layers:
                formats = chosen.get(layer.name)
                if formats is not None and layer.data and not formats.reads_exactly:
                    arrived = self.network.run(feed, weights, data, [layer.data])[0]
                    data[layer.name] = self.rules.activation(arrived, formats.activation, layer.kind)
            found.append(self.network.run(feed, weights, data))
        return self._error(found)

    def _error(self, found: list[list[Array]]) -> float:
        """Relative error of each output over all runs, as the root of the mean square over outputs."""
        squares = []
        for k in range(len(self.network.outputs)):
            want = np.concatenate([run[k].reshape(-1) for run in self._outputs]).astype(np.float64)
            have = np.concatenate([run[k].reshape(-1) for run in found]).astype(np.float64)
            signal = float(np.square(want).sum())
            noise = float(np.square(want - have).sum())
            squares.append(noise / signal if signal else (0.0 if noise == 0.0 else np.inf))
        return float(np.mean(squares)) ** 0.5


@dataclass(frozen=True)
class Sensitivity:
    """How much each layer of a network minds a format.

    Attributes
    ----------
    model : str
        The file.
    formats : tuple of str
    rows : tuple of dict
        One per layer and format; see `frame`.
    notes : tuple of str
        How it was measured, and what was not.
    provenance : dict
        Hash of the file, seed, samples, versions.
    outputs : dict of str to str
        Output tensor of each layer in an ONNX file.
    """

    model: str
    formats: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    provenance: dict[str, Any]
    outputs: dict[str, str] = field(default_factory=dict)
    probe: Probe | None = field(default=None, repr=False, compare=False)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Columns ``layer kind parameters precision sqnr_db inlier_error output_error weights``.

        ``sqnr_db`` and ``inlier_error`` are those of the weights; ``output_error`` is the relative error of
        the network's output when that layer alone is quantised, NaN where the network did not run.
        """
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    @property
    def ran(self) -> bool:
        """Whether the network ran, so that output errors are known."""
        return self.probe is not None

    def ranking(self, precision: Any = None) -> list[str]:
        """Layers from the most sensitive to the least: by output error, or by SQNR where nothing ran."""
        name = self._format(precision)
        rows = [row for row in self.rows if row["precision"] == name]
        worst = "output_error" if self.ran else "sqnr_db"
        sign = -1.0 if self.ran else 1.0
        return [row["layer"] for row in sorted(rows, key=lambda row: sign * row[worst])]

    def errors(self, precision: Any = None) -> dict[str, float]:
        """Output error by layer."""
        name = self._format(precision)
        return {row["layer"]: row["output_error"] for row in self.rows if row["precision"] == name}

    def error(self, plan: Any) -> float:
        """Measured output error of the whole network when layers are quantised together.

        Parameters
        ----------
        plan : str or mapping
            One format for all layers, or formats by name of layer.

        Raises
        ------
        RequestError
            The network did not run.
        """
        if self.probe is None:
            raise RequestError(
                "the error of a plan needs a network that runs", self.model, "use the model's ONNX file"
            )
        by_layer = isinstance(plan, Mapping) and not set(plan) <= {"weight", "activation", "kv"}
        return self.probe.error(plan if by_layer else dict.fromkeys(self.probe.layers, plan))

    def _format(self, precision: Any) -> str:
        if precision is None:
            return self.formats[0]
        name = formats_of(precision).name
        if name not in self.formats:
            raise RequestError(f"{name} was not measured", self.model, f"measured: {', '.join(self.formats)}")
        return name

    def __repr__(self) -> str:
        layers = len({row["layer"] for row in self.rows})
        return f"Sensitivity of {Path(self.model).name}: {layers} layers, {', '.join(self.formats)}"

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{note}</li>" for note in self.notes)
        return f"<p>{self!r}</p>{self.frame.to_html(max_rows=40, notebook=True)}<ul>{notes}</ul>"


def sensitivity(
    path: str | Path,
    precision: Any = "int8",
    *,
    inputs: Mapping[str, Any] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    granularity: str | int = "channel",
    scale_rule: str = "floor",
    layers: Iterable[str] | None = None,
) -> Sensitivity:
    """Measure what a format does to each layer of a real network.

    Parameters
    ----------
    path : str or Path
        An ``.onnx`` file, which onnxruntime runs, or a ``.safetensors`` file: weights only, no output error.
    precision : str or mapping, or a list of them
        Format of a layer's weights and of what it reads, or by role: ``"weight=int4,activation=fp16"``. A
        role that is not named stays as it is. See `accelsim.techniques.numerics.FORMATS`.
    inputs : mapping, optional
        Arrays by input name. By default seeded random ones, which the notes describe: real data is better.
    samples : int
        Random items.
    seed : int
    dims : mapping, optional
        Sizes of open axes of the inputs, by name.
    granularity : {"channel", "tensor"} or int
        What shares a scale of the weights; a number is a block of that many elements.
    scale_rule : {"floor", "ceil"}
        Of power-of-two scales; see `accelsim.techniques.numerics.fake_quantise`.
    layers : iterable of str, optional
        Only these.

    Returns
    -------
    Sensitivity

    Raises
    ------
    AccelsimError
        Not a model file, an unknown format, a package that is missing, weights that are NaN or infinite.
    """
    requests = [precision] if isinstance(precision, str | Mapping | PrecisionPlan | Formats) else precision
    wanted = [formats_of(request) for request in requests]
    if not wanted:
        raise RequestError("the list of formats is empty")
    rules = _rules(granularity, scale_rule)
    file = Path(path).expanduser()
    if file.is_dir() or not file.exists():
        raise ModelFileError(
            "this is a folder, expected a file" if file.is_dir() else "no such file", str(path)
        )
    suffix = file.suffix.lower()
    only = None if layers is None else list(layers)
    if suffix == ".safetensors":
        return _weights_only(file, wanted, rules, only)
    if suffix != ".onnx":
        raise ModelFileError("expected an .onnx or a .safetensors file", str(path))
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise RequestError(f"samples {samples!r} is not a positive integer")
    from accelsim.techniques.samples import sample_inputs

    model, where = open_model(file)
    network = Network(model, where, activations=any(not f.reads_exactly for f in wanted))
    if inputs is not None:
        feeds, said = [network.check_feeds(inputs)], "inputs: as given"
    else:
        feeds, said = sample_inputs(network, model, samples, seed, dict(dims or {}))
    probe = Probe(network, feeds, rules)
    chosen = _chosen([layer.name for layer in network.layers], only, where)
    rows = []
    for formats in wanted:
        for layer in network.layers:
            if layer.name in chosen:
                made = probe.quantised(layer, formats)
                error = probe.layer_error(layer, formats, made)
                rows.append(_row(layer.name, layer.kind, formats, layer.arrays, made, error, layer.weights))
    notes = [said, *_how(wanted, rules)]
    notes.append("output error: norm of the change over norm of the output, one layer quantised at a time")
    if network.squashed:
        notes.append(f"output {', '.join(network.squashed)} is compared before its final softmax or sigmoid")
    provenance = {
        **_provenance(file),
        "seed": None if inputs is not None else seed,
        "samples": None if inputs is not None else samples,
        "onnxruntime": network.version,
    }
    return Sensitivity(
        str(file),
        tuple(f.name for f in wanted),
        tuple(rows),
        tuple(notes),
        provenance,
        {layer.name: layer.output for layer in network.layers},
        probe,
    )


def _weights_only(file: Path, wanted: list[Formats], rules: Rules, only: list[str] | None) -> Sensitivity:
    from accelsim.techniques.safetensors import floating_tensors

    by_format: dict[str, list[dict[str, Any]]] = {f.name: [] for f in wanted}
    names, skipped = [], 0
    for name, array in floating_tensors(file):
        check_finite(array, f"{file}: {name}")
        if array.ndim < 2:
            skipped += 1
            continue
        names.append(name)
        if only is not None and name not in only:
            continue
        for formats in wanted:
            made = rules.weight(array, formats.weight, 0, name)
            kind = "matrix" if array.ndim == 2 else "kernel"
            by_format[formats.name].append(_row(name, kind, formats, [array], [made], nan, (name,)))
    if not names:
        raise ModelFileError("no tensor of the file is a matrix of floating-point weights", str(file))
    _chosen(names, only, str(file))
    notes = [
        "weights only: a safetensors file has no graph to run, so output errors are NaN",
        *_how(wanted, rules),
    ]
    if skipped:
        notes.append(f"{skipped} vectors and scalars (biases, norms) are left out")
    rows = tuple(row for found in by_format.values() for row in found)
    return Sensitivity(str(file), tuple(by_format), rows, tuple(notes), _provenance(file))


def _chosen(names: Sequence[str], only: list[str] | None, where: str) -> set[str]:
    unknown = [name for name in only or () if name not in names]
    if unknown:
        raise UnknownNameError(f"no layer '{unknown[0]}' in {where}", hint=did_you_mean(unknown[0], names))
    return set(names if only is None else only)


def _row(
    name: str,
    kind: str,
    formats: Formats,
    arrays: Sequence[Array],
    made: Sequence[Array],
    error: float,
    weights: tuple[str, ...],
) -> dict[str, Any]:
    before = np.concatenate([np.asarray(a).reshape(-1) for a in arrays])
    after = np.concatenate([np.asarray(a).reshape(-1) for a in made])
    return {
        "layer": name,
        "kind": kind,
        "parameters": int(before.size),
        "precision": formats.name,
        "sqnr_db": sqnr_db(before, after),
        "inlier_error": inlier_error(before, after),
        "output_error": error if not isnan(error) else nan,
        "weights": " ".join(weights),
    }


def _how(wanted: list[Formats], rules: Rules) -> list[str]:
    """How weights and activations were scaled, in words."""
    notes = []
    if any(f.weight.scale == "float" for f in wanted):
        share = rules.granularity
        per = f"block of {share} elements of an output channel" if isinstance(share, int) else str(share)
        notes.append(
            f"weights: one float32 scale per {per.replace('channel', 'output channel', 1)}, symmetric"
        )
    if any(f.activation.integer for f in wanted):
        notes.append(
            "integer activations: one scale and zero point per tensor, from the range of these inputs"
        )
    if any(f.weight.scale == "e8m0" or f.activation.scale == "e8m0" for f in wanted):
        notes.append(f"power-of-two scales by the {rules.scale_rule} rule")
    return notes


def _provenance(file: Path) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as opened:
        while part := opened.read(1 << 22):
            digest.update(part)
    return {"file": file.name, "file_hash": digest.hexdigest(), "version": VERSION}
