"""Reshapes: which axis of the result carries the channels or heads of the source."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from accelsim.techniques.axes import Axis, axis_of, copies, expand, freeze, made, nested, tie


def heads(
    axes: Sequence[Axis], before: Sequence[int], after: Sequence[int], view: bool
) -> list[Axis | None] | None:
    """(b, t, h d) seen as (b, h, t, d), or back: heads by strides. Row-major readings go first elsewhere."""
    wide, split = (before, after) if len(before) < len(after) else (after, before)
    if len(wide) != 3 or len(split) != 4:
        return None
    (b, t, f), (b4, h, t4, d) = wide, split
    if (b, t, f) != (b4, t4, h * d) or (not view and h == t):
        return None
    if wide is before:
        found = axis_of(h)
        tie(axes[2], nested(found, d))
        return [axes[0], found, axes[1], axis_of(d)]
    return [axes[0], axes[2], nested(axes[1], d)]


def row_major(axes: Sequence[Axis], before: Sequence[int], after: Sequence[int]) -> list[Axis | None]:
    """Axes that merge or split in row-major order."""
    result: list[Axis | None] = [None] * len(after)
    for sources, targets in _factors(before, after):
        if len(sources) == len(targets) == 1:
            result[targets[0]] = axes[sources[0]]
            continue
        moving = [i for i in sources if made(axes[i])]
        wide_in = [i for i in sources if before[i] > 1]
        wide_out = [j for j in targets if after[j] > 1]
        if len(wide_in) == len(wide_out) == 1:  # ones come or go
            for j in targets:
                result[j] = axes[wide_in[0]] if j == wide_out[0] else axis_of(1)
        elif not moving:
            freeze(axes[i] for i in sources)
            for j in targets:
                result[j] = axis_of(after[j])
        elif len(moving) == 1 and len(targets) == 1:
            at = sources.index(moving[0])
            outer = copies(axes[moving[0]], prod(before[i] for i in sources[:at]))
            if outer is not None:
                result[targets[0]] = nested(outer, prod(before[i] for i in sources[at + 1 :]))
            else:
                freeze([axes[moving[0]]])
        elif len(moving) == len(sources) == 1:
            _unfold(axes[moving[0]], after, targets, result)
        else:
            freeze(axes[i] for i in sources)
    return result


def _unfold(axis: Axis, shape: Sequence[int], targets: Sequence[int], result: list[Axis | None]) -> None:
    """One axis becomes several: channels before their pixels, or heads before their width, behind a small
    number of stacked projections.
    """
    row = expand(axis)
    lead = 1 if shape[targets[0]] <= 3 and len(targets) > 2 else 0
    outer = prod(shape[j] for j in targets[:lead])
    keeper, inner = targets[lead], prod(shape[j] for j in targets[lead + 1 :])
    new = axis_of(shape[keeper])
    many = copies(nested(new, inner), outer)
    if many is None or (len(row) == 1 and row[0][0].step > 1):
        freeze([axis])
        return
    tie(axis, many)
    result[keeper] = new
    for j in targets:
        if j != keeper:
            result[j] = axis_of(shape[j])


def _factors(a: Sequence[int], b: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Groups of axes of two shapes with equal products, in row-major order; ones join the group before."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(a) or j < len(b):
        left, right = [], []
        m = n = 1
        if i < len(a):
            left.append(i)
            m, i = a[i], i + 1
        if j < len(b):
            right.append(j)
            n, j = b[j], j + 1
        while m != n:
            if m < n and i < len(a):
                left.append(i)
                m, i = m * a[i], i + 1
            elif j < len(b):
                right.append(j)
                n, j = n * b[j], j + 1
            else:
                break
        groups.append((left, right))
    return groups
