"""Which axis of each tensor grows with the batch: by comparing two imports, or by rules when only one exists.

An importer reads a model for `b` items and, where the file allows it, again for ``2 b``: the axis that
doubles is the batch axis, whatever the model does in between (`compare_batches`). A file that writes its
batch into reshape targets can only be read as it is; then the axis is carried from the inputs through every
operator (`mark_batch`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import prod

from accelsim.core.errors import GraphError
from accelsim.workload.graph import Op, Tensor

# Input position, tensor, its batch axis.
_Marked = list[tuple[int, Tensor, int]]
_Rule = Callable[[Op, _Marked, Tensor, int], int | None]


def compare_batches(ops: Sequence[Op], doubled: Sequence[Op]) -> list[Op]:
    """Set batch axes from the same model imported for twice the batch.

    Raises
    ------
    GraphError
        The imports differ in more than one axis that doubles (the batch is baked into the file, or the model
        depends on the batch in another way).
    """
    if [(op.name, op.kind) for op in ops] != [(op.name, op.kind) for op in doubled]:
        raise GraphError("the operators depend on the batch")

    def marked(t: Tensor, twice: Tensor) -> Tensor:
        axis = _doubled_axis(t, twice)
        return t if axis is None else replace(t, batch_axis=axis)

    found = []
    for op, twin in zip(ops, doubled):
        if (
            len(op.inputs) != len(twin.inputs)
            or len(op.outputs) != len(twin.outputs)
            or op.repeat != twin.repeat
        ):
            raise GraphError("the operators depend on the batch", op.name)
        inputs = tuple(map(marked, op.inputs, twin.inputs))
        outputs = tuple(map(marked, op.outputs, twin.outputs))
        found.append(replace(op, inputs=inputs, outputs=outputs))
    return found


def _doubled_axis(t: Tensor, twice: Tensor) -> int | None:
    if t.shape == twice.shape:
        return None
    axes = [i for i, (a, b) in enumerate(zip(t.shape, twice.shape)) if a != b]
    if len(t.shape) != len(twice.shape) or len(axes) != 1 or twice.shape[axes[0]] != 2 * t.shape[axes[0]]:
        raise GraphError(f"tensor '{t.name}' grows from {t.shape} to {twice.shape} when the batch doubles")
    if t.role == "weight":
        raise GraphError(f"weight '{t.name}' depends on the batch")
    return axes[0]


def mark_batch(ops: Iterable[Op], inputs: Iterable[Tensor]) -> list[Op]:
    """Carry the batch axis of graph inputs through every operator.

    Parameters
    ----------
    ops : iterable of Op
        In topological order.
    inputs : iterable of Tensor
        Graph inputs; those with a `batch_axis` are where it starts.

    Returns
    -------
    list of Op
        The same ops with `batch_axis` set. A tensor whose axis no rule finds keeps None; `unresolved` names
        the first.
    """
    ops = list(ops)
    axes = {t.name: t.batch_axis for t in inputs if t.batch_axis is not None}
    batch = next((t.shape[t.batch_axis] for t in inputs if t.batch_axis is not None), 1)
    _forward(ops, axes, batch)
    if _backward(ops, axes, batch):
        _forward(ops, axes, batch)

    def marked(t: Tensor) -> Tensor:
        axis = axes.get(t.name)
        return t if axis is None or t.role == "weight" else replace(t, batch_axis=axis)

    return [
        replace(op, inputs=tuple(map(marked, op.inputs)), outputs=tuple(map(marked, op.outputs)))
        for op in ops
    ]


def unresolved(ops: Iterable[Op]) -> str:
    """Why `with_batch` cannot work, or ``""``.

    The first tensor that comes from the inputs and has no batch axis, or the first op whose operands no
    longer fit when the batch doubles.
    """
    for op in ops:
        if not any(t.batch_axis is not None for t in op.inputs):
            continue
        for t in op.outputs:
            if t.batch_axis is None:
                return f"the batch axis of '{t.name}' {t.shape} behind {op.kind} '{op.name}' is unknown"
        try:
            _ = replace(op, inputs=tuple(map(_twice, op.inputs)), outputs=tuple(map(_twice, op.outputs))).work
        except GraphError as error:
            return f"{op.kind} '{op.name}' does not fit a larger batch: {error.what}"
    return ""


def _twice(t: Tensor) -> Tensor:
    if t.batch_axis is None:
        return t
    return replace(t, shape=tuple(n * (2 if i == t.batch_axis else 1) for i, n in enumerate(t.shape)))


def _forward(ops: Sequence[Op], axes: dict[str, int], batch: int) -> None:
    for op in ops:
        marked = [
            (i, t, axes[t.name])
            for i, t in enumerate(op.inputs)
            if t.name in axes and t.role != "weight" and axes[t.name] < len(t.shape)
        ]
        if not marked:
            continue
        for output in op.outputs:
            if output.name in axes:
                continue
            axis = _output_axis(op, marked, output, batch)
            if axis is not None and 0 <= axis < len(output.shape) and output.shape[axis] % batch == 0:
                axes[output.name] = axis


def _backward(ops: Sequence[Op], axes: dict[str, int], batch: int) -> bool:
    """Mark what was built for the batch, not from the inputs, such as a repeated class token."""
    found = False
    for op in reversed(ops):
        for output in op.outputs:
            axis = axes.get(output.name)
            if axis is None or op.kind not in ("concat", "elementwise", "copy", "activation"):
                continue
            if op.kind == "concat" and axis == _axis(op, output):
                continue
            for t in op.inputs:
                lone = t.role == "activation" and t.name not in axes and len(t.shape) == len(output.shape)
                if lone and t.shape[axis] == output.shape[axis] and (batch > 1 or op.kind != "elementwise"):
                    axes[t.name] = axis
                    found = True
    return found


def _output_axis(op: Op, marked: _Marked, output: Tensor, batch: int) -> int | None:
    for name, rule in (("removed", _removed), ("inserted", _inserted)):
        if name in op.attributes:
            return rule(op, marked, output, batch)
    return _RULES.get(op.kind, _aligned)(op, marked, output, batch)


def _aligned(op: Op, marked: _Marked, output: Tensor, batch: int) -> int | None:
    """Axes match from the right, as in broadcasting; the size on the axis stays."""
    found = set()
    for _, t, of_input in marked:
        axis = of_input + len(output.shape) - len(t.shape)
        if 0 <= axis < len(output.shape) and output.shape[axis] == t.shape[of_input]:
            found.add(axis)
    if op.kind == "generic" and not found:
        same = (a for _, t, a in marked if a < len(output.shape) and output.shape[a] == t.shape[a])
        return next(same, None)
    return _only(found)


def _only(found: set[int]) -> int | None:
    """The one axis; two mean that every item meets every other, and no single axis grows."""
    return found.pop() if len(found) == 1 else None


def _removed(op: Op, marked: _Marked, output: Tensor, batch: int) -> int | None:
    """The output lacks the axes in ``removed`` (squeeze, select)."""
    _, t, axis = marked[0]
    gone = {a % len(t.shape) for a in op.attributes["removed"]}
    return None if axis in gone else axis - sum(a < axis for a in gone)


def _inserted(op: Op, marked: _Marked, output: Tensor, batch: int) -> int | None:
    """The output has the new axes in ``inserted`` (unsqueeze, stack)."""
    new = {a % len(output.shape) for a in op.attributes["inserted"]}
    kept = [a for a in range(len(output.shape)) if a not in new]
    axis = marked[0][2]
    return kept[axis] if axis < len(kept) else None


def _transpose(op: Op, marked: _Marked, output: Tensor, batch: int) -> int | None:
    _, t, axis = marked[0]
    axes = [a % len(t.shape) for a in op.attribute("axes", range(len(t.shape))[::-1])]
    return axes.index(axis)


def _reshape(op: Op, marked: _Marked, output: Tensor, batch: int) -> int | None:
    """Follow the batch as a factor of the row-major index.

    With `lead` the product of the axes before the batch axis, the batch is the factor between ``lead`` and
    ``lead * batch`` of the cumulative product of sizes; the output axis that covers this interval grows. For
    batch 1 the interval is empty and axes on both sides qualify, see `_reshape_of_one`.
    """
    _, t, axis = marked[0]
    lead = prod(t.shape[:axis])
    before = [prod(output.shape[:i]) for i in range(len(output.shape) + 1)]
    if batch > 1:
        fits = (i for i in range(len(output.shape)) if before[i] <= lead and lead * batch <= before[i + 1])
        return next((i for i in fits if (lead // before[i]) * before[i] == lead), None)
    return _reshape_of_one(t, axis, output, lead, before)


def _reshape_of_one(t: Tensor, axis: int, output: Tensor, lead: int, before: list[int]) -> int | None:
    fits = [i for i in range(len(output.shape)) if before[i] <= lead <= before[i + 1]]
    if not fits:
        return None
    alone = [i for i in fits if output.shape[i] == 1]
    if alone:
        return alone[0]
    left, right = fits[0], fits[-1]
    # (t, b, h d) -> (t, b h, d) splits what follows the batch, which then leads the split; (t, b, e) -> (t b,
    # e) keeps it, and the batch joins what comes before.
    following = len(t.shape) - axis - (1 if t.shape[axis] == 1 else 0)
    return right if len(output.shape) - right > following else left


def _reduce(op: Op, marked: _Marked, output: Tensor, batch: int) -> int | None:
    _, t, axis = marked[0]
    rank = len(t.shape)
    axes = op.attribute("axes")
    gone = (
        set(range(rank)) if axes is None else {a % rank for a in ((axes,) if isinstance(axes, int) else axes)}
    )
    if axis in gone:
        return None
    return axis if len(output.shape) == rank else axis - sum(a < axis for a in gone)


def _gather(op: Op, marked: _Marked, output: Tensor, batch: int) -> int | None:
    """Output axes: table axes before ``axis``, index axes, table axes after it."""
    table, indices = op.inputs[0], op.inputs[1]
    if op.attribute("elements"):  # one index per output element
        return _aligned(op, marked, output, batch)
    picked = op.attribute("axis", 0) % len(table.shape)
    for position, _, axis in marked:
        if position == 1:
            return picked + axis
        if position == 0 and axis != picked:
            return axis + (len(indices.shape) - 1 if axis > picked else 0)
    return None


def _matmul(op: Op, marked: _Marked, output: Tensor, batch: int) -> int | None:
    """Leading axes match from the right; rows of a and columns of b are the output's last two axes."""
    rank = len(output.shape)
    found = set()
    for position, t, axis in marked:
        back = len(t.shape) - 1 - axis
        transposed = bool(op.attribute("transpose_b" if position else "transpose_a"))
        if position > 1:
            continue
        if back >= 2:
            found.add(rank - 1 - back)
        elif position == 0 and back == (0 if transposed else 1):
            found.add(rank - 2)
        elif position == 1 and back == (1 if transposed else 0):
            found.add(rank - 1)
    return _only(found)


def _concat(op: Op, marked: _Marked, output: Tensor, batch: int) -> int | None:
    axis = marked[0][2]
    return None if axis == _axis(op, output) else axis


def _axis(op: Op, output: Tensor) -> int:
    return op.attribute("axis", 0) % len(output.shape)


def _same(op: Op, marked: _Marked, output: Tensor, batch: int) -> int | None:
    return marked[0][2]


_RULES: dict[str, _Rule] = {
    "transpose": _transpose,
    "reshape": _reshape,
    "reduce": _reduce,
    "gather": _gather,
    "matmul": _matmul,
    "concat": _concat,
    "conv": _same,
    "pool": _same,
    "attention": _same,
    "resize": _same,
}
