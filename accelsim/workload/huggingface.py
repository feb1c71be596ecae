"""Graphs from a HuggingFace ``config.json``: sizes from its fields, structure from its architecture name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from accelsim.core.errors import ModelFileError, UnknownNameError, did_you_mean
from accelsim.core.precision import precision as lookup_precision
from accelsim.workload.builders.hf_decoders import DECODERS, read_decoder
from accelsim.workload.builders.hf_encoders import ENCODERS
from accelsim.workload.builders.hf_fields import Fields, Reading, Request
from accelsim.workload.graph import Graph

MAX_FILE_BYTES = 4 * 2**20


def from_config(
    source: str | Path | Mapping[str, Any],
    *,
    phase: str | None = None,
    context: int | None = None,
    name: str | None = None,
    where: str = "",
    precision: str | None = None,
) -> Graph:
    """Build the graph of a HuggingFace model.

    Parameters
    ----------
    source : path or mapping
        A ``config.json``, or its fields.
    phase : {"forward", "prefill", "decode"}, optional
        Decoder-only models have prefill (default) and decode; encoders have forward; Whisper and T5 have all
        three, where forward is the encoder alone.
    context : int, optional
        Tokens of the prompt (prefill), of the sequence (forward), or of the cache with the new token included
        (decode). Default 1024 for language models, 128 for GPT-2, BERT and DistilBERT.
    name : str, optional
        Name of the graph.
    where : str, optional
        Where a mapping comes from, for errors.
    precision : str, optional
        Format of weights and activations; by default ``torch_dtype`` of the file, else bf16 for language
        models and fp16 for the others.

    Returns
    -------
    Graph
        For one item. Its metadata tells ``architecture``, ``context``, ``parameters_total`` (whole model),
        ``active_parameters`` (per token, without the input embedding), ``kv_elements_per_token`` and a
        ``note`` on what was assumed.

    Raises
    ------
    ModelFileError
        Not JSON, an unknown architecture, a missing or impossible field.
    RequestError
        A phase or context that the model does not have.
    """
    if isinstance(source, Mapping):
        fields, stem = Fields(source, where or "config"), ""
    else:
        path = Path(source).expanduser()
        fields, stem = Fields(_read(path), str(path)), _stem(path)
    family, held = _family(fields)
    chosen = precision or _dtype(held, fields) or family.precision
    try:
        lookup_precision(chosen)
    except UnknownNameError as error:
        raise ModelFileError(error.what, fields.where, error.hint) from None
    request = Request(name or stem or str(fields.get("model_type", family.name)), phase, context, chosen)
    reading = family.read(held, request)
    reading.graph.metadata.update(
        architecture=family.name,
        context=reading.context,
        parameters_total=reading.parameters_total,
        active_parameters=active_parameters(reading.graph),
        kv_elements_per_token=reading.kv_elements_per_token,
        note="; ".join(reading.notes),
    )
    return reading.graph


def read_fields(path: Path) -> Fields:
    """Fields of a ``config.json``.

    Raises
    ------
    ModelFileError
        It cannot be read, or is not a JSON object.
    """
    return Fields(_read(path), str(path))


def active_parameters(graph: Graph) -> float:
    """Weights that one token uses, input embeddings not counted: of the experts, top_k of each layer's."""
    counted: dict[str, float] = {}
    for op in graph:
        if op.kind == "gather":
            continue
        routed = op.attribute("top_k", 1) / op.attribute("experts", 1) if op.kind == "grouped_matmul" else 1.0
        for t in op.weights:
            counted[t.name] = max(counted.get(t.name, 0.0), t.elements * op.repeat * routed)
    return sum(counted.values())


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read the file ({error.strerror})", str(path)) from None
    if len(raw) > MAX_FILE_BYTES:
        raise ModelFileError(f"the file has {len(raw)} bytes, too many for a config.json", str(path))
    try:
        document = json.loads(raw)
    except json.JSONDecodeError as error:
        raise ModelFileError(f"not JSON: {error.msg}", f"{path}:{error.lineno}") from None
    except (UnicodeDecodeError, RecursionError, ValueError):
        raise ModelFileError("not JSON", str(path)) from None
    if not isinstance(document, dict):
        raise ModelFileError("expected a JSON object with the fields of a model", str(path))
    return document


def _stem(path: Path) -> str:
    if path.name == "config.json":
        return path.resolve().parent.name
    return path.stem.removesuffix("_config")


def _dtype(held: Fields, fields: Fields) -> str:
    for source in (held, fields):
        found = source.get("torch_dtype", source.get("dtype"))
        if found is not None:
            return str(found).removeprefix("torch.")
    return ""


@dataclass(frozen=True)
class Family:
    """A model family: its name, default format and how to read it."""

    name: str
    precision: str
    read: Callable[[Fields, Request], Reading]


def _family(fields: Fields) -> tuple[Family, Fields]:
    """Family by architecture name, else by model type, and its fields (a multimodal file has them nested)."""
    names = fields.get("architectures")
    named = [str(n) for n in names] if isinstance(names, list) else [names] if isinstance(names, str) else []
    table = families()
    for key in (*named, str(fields.get("model_type", ""))):
        if key in table:
            family = table[key]
            nested = fields.get("text_config")
            if isinstance(nested, Mapping):
                return family, Fields(
                    {**nested, **_outer(fields)}, f"{fields.where}: text_config", multimodal=True
                )
            return family, fields
    if not named and fields.get("model_type") is None:
        raise ModelFileError("neither 'architectures' nor 'model_type' is given", fields.where)
    key = named[0] if named else str(fields.get("model_type"))
    raise ModelFileError(f"unknown architecture '{key}'", fields.where, did_you_mean(key, table))


def _outer(fields: Fields) -> dict[str, Any]:
    """Fields beside ``text_config`` that hold for the language model."""
    return {k: fields.values[k] for k in ("tie_word_embeddings", "quantization_config") if k in fields.values}


@lru_cache(maxsize=1)
def families() -> dict[str, Family]:
    """Families by every architecture name and model type that selects them."""
    table: dict[str, Family] = {}
    for reader, names in DECODERS:
        table.update(
            dict.fromkeys(
                names,
                Family(names[0], "fp16" if names[0] == "gpt2" else "bf16", partial(read_decoder, reader)),
            )
        )
    for read, names in ENCODERS:
        table.update(dict.fromkeys(names, Family(names[0], "fp16", read)))
    return table
