"""The table of single operators: which shape columns each needs, with units and defaults.

Predictions take frames in this schema and measurement files add a latency to it, so both meet here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from accelsim.core.errors import AccelsimError, RequestError, UnknownNameError, did_you_mean
from accelsim.core.precision import plan

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]
Kind = Literal["size", "count", "flag", "number"]

_EXPECTED = {
    "size": "a whole number from 1 up",
    "count": "a whole number from 0 up",
    "flag": "true or false",
    "number": "a number from 0 up",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A shape column.

    Attributes
    ----------
    unit : str
    meaning : str
    kind : {"size", "count", "flag", "number"}
        Whole and positive, whole and not negative, true or false, any number that is not negative.
    """

    unit: str
    meaning: str
    kind: Kind = "size"


@dataclass(frozen=True, slots=True)
class OpSchema:
    """An operator of the table.

    Attributes
    ----------
    meaning : str
        What one row computes.
    required : tuple of str
        Shape columns that every row fills.
    optional : mapping of str to (float or str)
        Shape columns with the value that an empty cell has: a number, or the column whose value it takes.
    """

    meaning: str
    required: tuple[str, ...]
    optional: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Required columns, then optional ones."""
        return (*self.required, *self.optional)


COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        "m": Column("rows", "rows of the left operand and of the result"),
        "n": Column("columns", "columns of the right operand and of the result"),
        "k": Column("elements", "length of the dot products"),
        "batch": Column("items", "independent products, images or sequences in one launch"),
        "scale_block": Column("elements", "elements along k with one scale; 0: all of them", "count"),
        "c_in": Column("channels", "channels of the input"),
        "c_out": Column("channels", "filters"),
        "kernel_h": Column("pixels", "height of the filter"),
        "kernel_w": Column("pixels", "width of the filter"),
        "h": Column("pixels", "height of the input without padding"),
        "w": Column("pixels", "width of the input without padding"),
        "stride": Column("pixels", "step of the filter in both directions"),
        "padding": Column("pixels", "zeros added on each side in both directions", "count"),
        "groups": Column("groups", "channel groups; c_in of them is depthwise"),
        "heads": Column("heads", "query heads"),
        "kv_heads": Column("heads", "key and value heads"),
        "head_dim": Column("elements", "width of one head"),
        "seq_q": Column("tokens", "new tokens of each sequence"),
        "seq_kv": Column("tokens", "keys of each sequence, the new tokens included"),
        "causal": Column("", "a token sees only itself and the tokens before it", "flag"),
        "window": Column("tokens", "keys that a token sees at the most, itself included; 0: all", "count"),
        "value_dim": Column("elements", "width of the values of one head, where it is not that of the keys"),
        "latent": Column("elements", "width of the compressed keys and values that all heads share"),
        "rope": Column("elements", "width of the rotated part of the keys that all heads share", "count"),
        "absorbed": Column("", "keys and values are the latents, not expanded from them", "flag"),
        "tokens": Column("tokens", "tokens that are routed, those of all ranks together"),
        "hidden": Column("elements", "width of a token, or units of a recurrent layer"),
        "intermediate": Column("elements", "width inside one expert, before it is split over ranks"),
        "experts": Column("experts", "experts of the layer, those of all ranks together"),
        "topk": Column("experts", "experts that each token visits"),
        "tensor_ranks": Column("devices", "devices that share the width inside each expert"),
        "expert_ranks": Column("devices", "devices that share the experts"),
        "gated": Column("", "three matrices per expert (gate, up, down) instead of two", "flag"),
        "skew": Column("", "exponent of the power law of expert loads; 0: balanced", "number"),
        "local": Column("", "a token that visits the rank makes all its choices there", "flag"),
        "rows": Column("rows", "rows; for an embedding, rows that are looked up"),
        "cols": Column("elements", "elements of a row"),
        "inputs": Column("tensors", "tensors that are read"),
        "steps": Column("steps", "time steps"),
        "input": Column("elements", "width of the input; 0: no input product", "count"),
        "bytes": Column("B", "buffer of one device: what is reduced, gathered into, scattered or exchanged"),
        "ranks": Column("devices", "devices that take part"),
    }
)  # fmt: skip

_MATRIX = {"scale_block": 0.0}
_LATENT = {"latent": 512.0, "rope": 64.0}
_ROWS = OpSchema("", ("rows", "cols"), {"inputs": 1.0})
_LINK = OpSchema("", ("bytes", "ranks"))
_RECURRENT = OpSchema("", ("hidden", "steps"), {"batch": 1.0, "input": "hidden"})


def _as(template: OpSchema, meaning: str) -> OpSchema:
    return OpSchema(meaning, template.required, template.optional)


OPS: Mapping[str, OpSchema] = MappingProxyType(
    {
        "gemm": OpSchema("(m, k) activations times (k, n) weights", ("m", "n", "k"), _MATRIX),
        "bmm": OpSchema("batch products of (m, k) and (k, n) activations", ("batch", "m", "n", "k"), _MATRIX),
        "conv2d": OpSchema(
            "two-dimensional convolution",
            ("c_in", "c_out", "kernel_h", "kernel_w", "h", "w"),
            {"batch": 1.0, "stride": 1.0, "padding": 0.0, "groups": 1.0},
        ),
        "attention_prefill": OpSchema(
            "attention of many new tokens",
            ("heads", "head_dim", "seq_q"),
            {"batch": 1.0, "kv_heads": "heads", "seq_kv": "seq_q", "causal": 1.0, "window": 0.0},
        ),
        "attention_decode": OpSchema(
            "attention of a few new tokens to a cache",
            ("heads", "head_dim", "seq_kv"),
            {"batch": 1.0, "kv_heads": "heads", "seq_q": 1.0, "causal": 1.0, "window": 0.0},
        ),
        "mla_prefill": OpSchema(
            "latent attention of many new tokens",
            ("heads", "seq_q"),
            {
                "batch": 1.0,
                "seq_kv": "seq_q",
                "head_dim": 192.0,
                "value_dim": 128.0,
                "causal": 1.0,
                "absorbed": 0.0,
                **_LATENT,
            },
        ),
        "mla_decode": OpSchema(
            "latent attention of a few new tokens to a cache, absorbed",
            ("heads", "seq_kv"),
            {"batch": 1.0, "seq_q": 1.0, "causal": 1.0} | _LATENT,
        ),
        "moe": OpSchema(
            "the experts of a layer on one rank: dispatch, products, weighted sum; without the router",
            ("tokens", "hidden", "intermediate", "experts", "topk"),
            {
                "tensor_ranks": 1.0,
                "expert_ranks": 1.0,
                "gated": 1.0,
                "skew": 0.0,
                "local": 0.0,
                "scale_block": 0.0,
            },
        ),
        "softmax": _as(_ROWS, "softmax of each row"),
        "layernorm": _as(_ROWS, "layer normalisation of each row; two inputs: of a sum"),
        "rmsnorm": _as(_ROWS, "root-mean-square normalisation of each row; two inputs: of a sum"),
        "elementwise": _as(_ROWS, "one output from inputs of the same shape"),
        "embedding": OpSchema("rows read from a table", ("rows", "cols")),
        "lstm": _as(_RECURRENT, "long short-term memory, four gates"),
        "gru": _as(_RECURRENT, "gated recurrent unit, three gates"),
        "rnn": _as(_RECURRENT, "plain recurrent layer, one gate"),
        "allreduce": _as(_LINK, "sum of the buffers of all ranks, on all ranks"),
        "allgather": _as(_LINK, "concatenation of the parts of all ranks, on all ranks"),
        "reducescatter": _as(_LINK, "sum of the buffers of all ranks, a part on each rank"),
        "alltoall": _as(_LINK, "each rank sends an equal part of its buffer to each other"),
        "sendrecv": _as(_LINK, "one rank sends its buffer to the next"),
    }
)  # fmt: skip

_MOST_ROWS_NAMED = 5
_MOST_PROBLEMS_NAMED = 4


def check(frame: pd.DataFrame) -> None:
    """Refuse a frame that is not in the schema.

    Raises
    ------
    RequestError
        A missing column, an unknown op or precision, or a cell that is not usable: names the columns and the
        rows (counted from 0), up to a handful of each.
    """
    for column in ("op", "precision"):
        if column not in frame.columns:
            have = ", ".join(map(str, frame.columns)) or "none"
            raise RequestError(f"the table has no column '{column}'", hint=f"columns are: {have}")
    codes, names = _labels(frame, "op")
    unknown = [i for i, name in enumerate(names) if name not in OPS]
    if unknown:
        _refuse_labels("op", codes, names, unknown, did_you_mean(names[unknown[0]], OPS))
    _check_precisions(*_labels(frame, "precision"))
    problems: list[str] = []
    for i, name in enumerate(names):
        rows = None if len(names) == 1 else np.flatnonzero(codes == i)
        problems += _problems(frame if rows is None else frame.iloc[rows], name, rows)
    if problems:
        more = len(problems) - _MOST_PROBLEMS_NAMED
        text = "; ".join(problems[:_MOST_PROBLEMS_NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise RequestError(text, hint="rows count from 0")


def shapes(frame: pd.DataFrame, op: str) -> dict[str, Array]:
    """Shape columns of rows of one op as numbers, empty cells filled with their defaults.

    Parameters
    ----------
    frame : DataFrame
        Rows that `check` accepts, all of `op`.
    """
    spec = OPS[op]
    found = {name: _numbers(frame[name]) for name in spec.required}
    for name, default in spec.optional.items():
        if name in frame.columns:
            values = _numbers(frame[name])
            empty = np.isnan(values)
            if empty.any():
                values = np.where(empty, found[default] if isinstance(default, str) else default, values)
        else:
            values = found[default] if isinstance(default, str) else np.full(len(frame), default)
        found[name] = values
    return found


def _labels(frame: pd.DataFrame, column: str) -> tuple[npt.NDArray[np.intp], list[str]]:
    """Codes of the cells of a text column, -1 where empty, and the text of each code."""
    import pandas as pd

    codes, names = pd.factorize(frame[column])
    if (codes < 0).any():
        raise RequestError(
            f"column '{column}' is empty in {_name_rows(np.flatnonzero(codes < 0))}", hint="rows count from 0"
        )
    return codes, [str(name) for name in names]


def _check_precisions(codes: npt.NDArray[np.intp], names: list[str]) -> None:
    bad, hint = [], ""
    for i, name in enumerate(names):
        try:
            plan(name)
        except (UnknownNameError, RequestError) as error:
            bad.append(i)
            hint = hint or _advice(error)
    if bad:
        _refuse_labels("precision", codes, names, bad, hint)


def _advice(error: AccelsimError) -> str:
    return f"{error.what}; {error.hint}" if error.hint else error.what


def _refuse_labels(
    column: str, codes: npt.NDArray[np.intp], names: list[str], bad: list[int], hint: str
) -> None:
    rows = np.flatnonzero(np.isin(codes, bad))
    words = ", ".join(f"'{names[i]}'" for i in bad[:_MOST_ROWS_NAMED])
    raise RequestError(f"column '{column}' has unknown {words} in {_name_rows(rows)}", hint=hint)


def _problems(frame: pd.DataFrame, op: str, rows: npt.NDArray[np.intp] | None) -> list[str]:
    """What is wrong with the rows of one op, in words."""
    spec = OPS[op]
    missing = [c for c in spec.required if c not in frame.columns]
    if missing:
        return [f"{op} needs column {' and '.join(repr(c) for c in missing)}"]
    found: list[str] = []
    for name in spec.columns:
        if name not in frame.columns:
            continue
        column = COLUMNS[name]
        values = _numbers(frame[name])
        empty = np.isnan(values)
        if empty.any():
            text = empty & frame[name].notna().to_numpy()
            _report(found, op, name, text, rows, frame, column)
            if name in spec.required:
                _report(found, op, name, empty & ~text, rows, frame, column)
        with np.errstate(invalid="ignore"):
            _report(found, op, name, _unusable(values, column.kind) & ~empty, rows, frame, column)
    if not found:
        for column_name, words, bad in _contradictions(op, shapes(frame, op)):
            if bad.any():
                at = np.flatnonzero(bad)
                where = _name_rows(at if rows is None else rows[at])
                found.append(f"{op}: column '{column_name}': {words} in {where}")
    return found


def _unusable(values: Array, kind: Kind) -> npt.NDArray[np.bool_]:
    if kind == "flag":
        return (values != 0.0) & (values != 1.0)
    bad = ~np.isfinite(values) | (values < (1.0 if kind == "size" else 0.0))
    return bad if kind == "number" else bad | (values != np.floor(values))


def _report(
    found: list[str],
    op: str,
    name: str,
    bad: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.intp] | None,
    frame: pd.DataFrame,
    column: Column,
) -> None:
    if not bad.any():
        return
    at = np.flatnonzero(bad)
    cells = ", ".join(str(v) for v in frame[name].iloc[at[:_MOST_ROWS_NAMED]])
    where = _name_rows(at if rows is None else rows[at])
    found.append(f"{op}: column '{name}' has {cells} in {where}, expected {_EXPECTED[column.kind]}")


def _contradictions(op: str, s: dict[str, Array]) -> list[tuple[str, str, npt.NDArray[np.bool_]]]:
    """Shapes that cannot exist: column, what is wrong, which rows."""
    if op == "conv2d":
        uneven = (s["c_in"] % s["groups"] != 0) | (s["c_out"] % s["groups"] != 0)
        margin = 2 * s["padding"]
        too_large = (s["kernel_h"] > s["h"] + margin) | (s["kernel_w"] > s["w"] + margin)
        return [
            ("groups", "c_in and c_out are not both multiples of it", uneven),
            ("kernel_h", "the filter is larger than the padded input", too_large),
        ]
    if op in ("attention_prefill", "attention_decode"):
        return [
            ("kv_heads", "heads is not a multiple of it", s["heads"] % s["kv_heads"] != 0),
            (
                "seq_kv",
                "below seq_q under a causal mask",
                (s["causal"] == 1) & (s["seq_kv"] < s["seq_q"]),
            ),
        ]
    if op in ("mla_prefill", "mla_decode"):
        future = (s["causal"] == 1) & (s["seq_kv"] < s["seq_q"])
        return [("seq_kv", "below seq_q under a causal mask", future)]
    if op == "moe":
        return [
            ("topk", "above experts", s["topk"] > s["experts"]),
            (
                "expert_ranks",
                "experts is not a multiple of it",
                s["experts"] % s["expert_ranks"] != 0,
            ),
            (
                "tensor_ranks",
                "intermediate is not a multiple of it",
                s["intermediate"] % s["tensor_ranks"] != 0,
            ),
        ]
    if "ranks" in s:
        return [("ranks", "one rank has nobody to talk to", s["ranks"] < 2)]
    return []


def _numbers(series: pd.Series[Any]) -> Array:
    """Cells as floats; NaN where a cell is empty or is not a number."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    values = series.astype(object)
    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _name_rows(rows: npt.NDArray[np.intp]) -> str:
    shown = ", ".join(str(r) for r in rows[:_MOST_ROWS_NAMED])
    more = len(rows) - _MOST_ROWS_NAMED
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}" + (f" and {more} more" if more > 0 else "")
