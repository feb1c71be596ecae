"""ATen operators that move, rename or create data.

Permutations and slices are counted as one copy each, as in an ONNX runtime; ``contiguous`` and ``clone``
behind them are free.
"""

from __future__ import annotations

from accelsim.workload.graph import Op, Tensor
from accelsim.workload.torch_ops import Call, aten, spread

# New shapes for the same memory, and copies whose cost the permutation before them has already.
_RENAMES = (
    "view", "reshape", "flatten", "unflatten", "view_as", "_unsafe_view", "_reshape_alias", "contiguous",
    "clone", "detach", "alias", "identity", "dropout", "feature_dropout", "alpha_dropout", "lift_fresh",
    "lift_fresh_copy",
)  # fmt: skip
_PERMUTES = ("t", "transpose", "permute", "numpy_T", "swapaxes", "movedim", "adjoint", "mT")
_CASTS = ("to", "_to_copy", "type_as")

# On a weight they only say how it is stored: the weight stays a weight, of the same elements.
VIEWS = frozenset((*_RENAMES, *_PERMUTES, *_CASTS, "squeeze", "unsqueeze"))

# Results known before the run.
CREATORS = frozenset(
    (
        "arange", "zeros", "ones", "full", "empty", "eye", "linspace", "scalar_tensor", "tril_indices",
        "triu_indices", "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones",
        "new_full", "new_empty", "rand", "randn", "randint", "rand_like", "randn_like",
    )
)  # fmt: skip


@aten(*_CASTS)
def _to(call: Call) -> list[Op]:
    return [call.op("reshape" if call.x.precision == call.y.precision else "cast", [call.x])]


@aten("squeeze", "unsqueeze")
def _squeeze(call: Call) -> list[Op]:
    dims = call.arg("dim")
    rank = len(call.y.shape if call.type == "unsqueeze" else call.x.shape)
    axes = (
        [i for i, n in enumerate(call.x.shape) if n == 1]
        if dims is None
        else [d % rank for d in spread(dims, 1)]
    )
    if call.type == "unsqueeze":
        return [call.op("reshape", [call.x], inserted=tuple(axes))]
    return [call.op("reshape", [call.x], removed=tuple(a for a in axes if call.x.shape[a] == 1))]


@aten(*_RENAMES)
def _view(call: Call) -> list[Op]:
    return [call.op("reshape", [call.x])]


@aten(*_PERMUTES)
def _transpose(call: Call) -> list[Op]:
    rank = len(call.x.shape)
    axes = list(range(rank))
    if call.type == "permute":
        axes = [d % rank for d in call.arg("dims")]
    elif call.type in ("numpy_T", "movedim"):
        axes = axes[::-1] if call.type == "numpy_T" else _moved(call, rank)
    elif rank > 1:
        first = call.arg("dim0", call.arg("axis0", -2))
        second = call.arg("dim1", call.arg("axis1", -1))
        axes[first % rank], axes[second % rank] = axes[second % rank], axes[first % rank]
    return [call.op("transpose", [call.x], axes=tuple(axes))]


def _moved(call: Call, rank: int) -> list[int]:
    sources = [d % rank for d in spread(call.arg("source"), 1)]
    targets = [d % rank for d in spread(call.arg("destination"), 1)]
    rest = iter([a for a in range(rank) if a not in sources])
    return [sources[targets.index(i)] if i in targets else next(rest) for i in range(rank)]


@aten("expand", "expand_as", "repeat", "tile", "repeat_interleave", "broadcast_to")
def _expand(call: Call) -> list[Op]:
    if call.x.elements == call.y.elements and call.x.role == "activation":
        return [call.op("reshape", [call.x])]
    return [call.op("copy", [call.x])]


@aten(
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "roll",
    "flip",
    "im2col",
    "unfold",
    "col2im",
    "diagonal",
    "rot90",
)
def _copy(call: Call) -> list[Op]:
    return [call.op("copy", [call.x])]


@aten(
    "copy",
    "fill",
    "scatter",
    "index_put",
    "slice_scatter",
    "select_scatter",
    "masked_scatter",
    "scatter_add",
    "index_copy",
)
def _write(call: Call) -> list[Op]:
    return [call.op("copy", call.tensors)]


@aten("cat", "concat", "concatenate")
def _cat(call: Call) -> list[Op]:
    return [call.op("concat", call.tensors, axis=call.arg("dim", 0))]


@aten("stack")
def _stack(call: Call) -> list[Op]:
    return [call.op("concat", call.tensors, axis=call.arg("dim", 0), inserted=(call.arg("dim", 0),))]


@aten("split", "split_with_sizes", "chunk", "tensor_split")
def _split(call: Call) -> list[Op]:
    return [call.op("split", [call.x], call.outputs, axis=call.arg("dim", 0))]


@aten("unbind")
def _unbind(call: Call) -> list[Op]:
    axis = call.arg("dim", 0)
    return [call.op("split", [call.x], call.outputs, axis=axis, removed=(axis,))]


@aten("select")
def _select(call: Call) -> list[Op]:
    return [call.op("slice", [call.x], axes=(call.arg("dim", 0),), removed=(call.arg("dim", 0),))]


@aten("slice", "narrow")
def _slice(call: Call) -> list[Op]:
    if call.x.shape == call.y.shape and call.x.role == "activation":
        return [call.op("reshape", [call.x])]
    return [call.op("slice", [call.x], axes=(call.arg("dim", 0),))]


@aten("embedding")
def _embedding(call: Call) -> list[Op]:
    return [call.op("gather", [call.tensor("weight"), call.tensor("indices")], axis=0)]


@aten("index_select")
def _index_select(call: Call) -> list[Op]:
    return [call.op("gather", [call.tensor("self"), call.tensor("index")], axis=call.arg("dim", 0))]


@aten("gather")
def _gather(call: Call) -> list[Op]:
    table = call.tensor("self")
    return [
        call.op("gather", [table.with_shape(table.elements), call.tensor("index")], axis=0, elements=True)
    ]


@aten("index")
def _index(call: Call) -> list[Op]:
    """One index tensor picks along its axis; several pick elements of the flattened axes."""
    table, indices = call.tensor("self"), call.arg("indices", [])
    given = [(axis, t) for axis, t in enumerate(indices) if isinstance(t, Tensor)]
    if len(given) == 1:
        return [call.op("gather", [table, given[0][1]], axis=given[0][0])]
    return [call.op("copy", call.tensors)]


@aten(
    "pad",
    "constant_pad_nd",
    *(f"{kind}_pad{rank}d" for kind in ("reflection", "replication") for rank in "123"),
)
def _pad(call: Call) -> list[Op]:
    kind = "pad" if call.y.elements >= call.x.elements else "slice"
    return [call.op(kind, [call.x])]


@aten(
    *(
        f"upsample_{mode}"
        for mode in (
            "nearest1d",
            "nearest2d",
            "nearest3d",
            "linear1d",
            "bilinear2d",
            "trilinear3d",
            "bicubic2d",
        )
    )
)
def _resize(call: Call) -> list[Op]:
    mode = "nearest" if "nearest" in call.type else "cubic" if "cubic" in call.type else "linear"
    return [call.op("resize", [call.x], mode=mode)]
