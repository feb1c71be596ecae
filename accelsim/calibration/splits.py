"""Which rows a model may be fitted on: whole groups of shapes and whole families of devices are held out.

A row is a test row when the SHA-256 of its group's text, ``str`` of the columns below joined by ``|``, is
divisible by 5 (by 2 for convolutions and recurrent layers, of which there are few). The rule needs no list,
so that whoever repeats it holds the same rows out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.architectures import opschema

if TYPE_CHECKING:
    import pandas as pd

FAMILIES = (
    ("a100-sxm",),
    ("h100-sxm", "h200-sxm"),
    ("b200", "b300", "gb200", "gb300"),
    ("l40s",),
    ("rtx-pro-6000",),
)
"""Devices with the same chip family: leaving one out leaves its siblings out."""

_LAYER = ("c_in", "c_out", "kernel_h", "kernel_w", "h", "w", "stride", "padding", "groups")
_HEADS = ("heads", "kv_heads", "head_dim", "window")
_ROWS = ("rows", "cols")
_LINK = ("bytes", "ranks")
_RECURRENT = ("hidden", "steps")

GROUPS: Mapping[str, tuple[tuple[str, ...], int]] = MappingProxyType(
    {
        "gemm": (("n", "k"), 5),
        "bmm": (("batch", "n", "k"), 5),
        "conv2d": (_LAYER, 2),
        "attention_prefill": (_HEADS, 5),
        "attention_decode": (_HEADS, 5),
        # There are eight numbers of heads, so a sequence's batch is part of its group.
        "mla_prefill": (("heads", "batch"), 5),
        "mla_decode": (("heads", "batch"), 5),
        "moe": (("hidden", "intermediate", "experts", "topk"), 5),
        "softmax": (_ROWS, 5),
        "layernorm": (_ROWS, 5),
        "rmsnorm": (_ROWS, 5),
        "elementwise": (_ROWS, 5),
        "embedding": (_ROWS, 5),
        "lstm": (_RECURRENT, 2),
        "gru": (_RECURRENT, 2),
        "rnn": (_RECURRENT, 2),
        "allreduce": (_LINK, 5),
        "allgather": (_LINK, 5),
        "reducescatter": (_LINK, 5),
        "alltoall": (_LINK, 5),
        "sendrecv": (_LINK, 5),
    }
)
"""Op to the columns of its group and the divisor."""


def held_out(frame: pd.DataFrame, salt: str = "") -> npt.NDArray[np.bool_]:
    """Whether each row is a test row.

    Parameters
    ----------
    frame : DataFrame
        Rows that `accelsim.architectures.opschema.check` accepts.
    salt : str
        Text before that of the group: another fold, with which training rows are split once more. Empty is
        the rule whose test rows are scored.
    """
    out = np.zeros(len(frame), dtype=bool)
    for rows, group, keys, divisor in _grouped(frame):
        out[rows] = np.array([divides(salt + key, divisor) for key in keys])[group]
    return out


def shape_groups(frame: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Number of the shape group of each row; rows of one group stand or fall together."""
    out = np.zeros(len(frame), dtype=np.intp)
    start = 0
    for rows, group, keys, _ in _grouped(frame):
        out[rows] = group + start
        start += len(keys)
    return out


def _grouped(
    frame: pd.DataFrame,
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], list[str], int]]:
    """Of each op: its rows, the number of the group of each, the text of each group, the divisor."""
    import pandas as pd

    codes, names = pd.factorize(frame["op"])
    for code, op in enumerate(map(str, names)):
        rows = np.flatnonzero(codes == code)
        columns, divisor = GROUPS[op]
        shape = opschema.shapes(frame.iloc[rows], op)
        cells = pd.DataFrame({c: shape[c].astype(np.int64) for c in columns})
        group = cells.groupby(list(columns), sort=False).ngroup().to_numpy().astype(np.intp)
        keys = cells.drop_duplicates().itertuples(index=False)  # in the order of the group numbers
        yield rows, group, ["|".join(map(str, key)) for key in keys], divisor


def divides(text: str, divisor: int) -> bool:
    """Whether the divisor divides the SHA-256 of the text, read as one number."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % divisor == 0


def siblings(device: str) -> tuple[str, ...]:
    """The device and those that are left out with it."""
    return next((family for family in FAMILIES if device in family), (device,))
