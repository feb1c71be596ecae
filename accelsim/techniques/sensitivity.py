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
from accelsim.techniques.formats import Formats, Rules, formats_of, rules
from accelsim.techniques.network import Array, Network, open_model
from accelsim.techniques.numerics import check_finite, inlier_error, sqnr_db
from accelsim.techniques.probe import Probe

if TYPE_CHECKING:
    import pandas as pd

SAMPLES = 4


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

    def error(self, choice: Any) -> float:
        """Measured output error of the whole network when layers are quantised together.

        Parameters
        ----------
        choice : str or mapping
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
        by_layer = isinstance(choice, Mapping) and not set(choice) <= {"weight", "activation", "kv"}
        return self.probe.error(choice if by_layer else dict.fromkeys(self.probe.layers, choice))

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
    how = rules(granularity, scale_rule)
    file = Path(path).expanduser()
    if file.is_dir() or not file.exists():
        raise ModelFileError(
            "this is a folder, expected a file" if file.is_dir() else "no such file", str(path)
        )
    suffix = file.suffix.lower()
    only = None if layers is None else list(layers)
    if suffix == ".safetensors":
        return _weights_only(file, wanted, how, only)
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
    probe = Probe(network, feeds, how)
    chosen = _chosen([layer.name for layer in network.layers], only, where)
    rows = []
    for formats in wanted:
        for layer in network.layers:
            if layer.name in chosen:
                made = probe.quantised(layer, formats)
                error = probe.layer_error(layer, formats, made)
                rows.append(_row(layer.name, layer.kind, formats, layer.arrays, made, error, layer.weights))
    notes = [said, *_how(wanted, how)]
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


def _weights_only(file: Path, wanted: list[Formats], how: Rules, only: list[str] | None) -> Sensitivity:
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
            made = how.weight(array, formats.weight, 0, name)
            kind = "matrix" if array.ndim == 2 else "kernel"
            by_format[formats.name].append(_row(name, kind, formats, [array], [made], nan, (name,)))
    if not names:
        raise ModelFileError("no tensor of the file is a matrix of floating-point weights", str(file))
    _chosen(names, only, str(file))
    notes = [
        "weights only: a safetensors file has no graph to run, so output errors are NaN",
        *_how(wanted, how),
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
    before, after = _flat(arrays), _flat(made)
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


def _flat(arrays: Sequence[Array]) -> Array:
    parts = [np.asarray(a).reshape(-1) for a in arrays]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _how(wanted: list[Formats], how: Rules) -> list[str]:
    """How weights and activations were scaled, in words."""
    notes = []
    if any(f.weight.scale == "float" for f in wanted):
        share = how.granularity
        per = f"block of {share} elements of an output channel" if isinstance(share, int) else str(share)
        notes.append(
            f"weights: one float32 scale per {per.replace('channel', 'output channel', 1)}, symmetric"
        )
    if any(f.activation.integer for f in wanted):
        notes.append(
            "integer activations: one scale and zero point per tensor, from the range of these inputs"
        )
    if any(f.weight.scale == "e8m0" or f.activation.scale == "e8m0" for f in wanted):
        notes.append(f"power-of-two scales by the {how.scale_rule} rule")
    return notes


def _provenance(file: Path) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as opened:
        while part := opened.read(1 << 22):
            digest.update(part)
    return {"file": file.name, "file_hash": digest.hexdigest(), "version": VERSION}
