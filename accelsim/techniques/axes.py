"""Which axes of a graph's tensors are one and the same size: what channel pruning may shrink, and all that
shrinks with it.

Every axis is a row of segments ``(size, inner)``: a size that a product with weights made, each of whose
elements stands for `inner` neighbours (pixels behind a flattened channel, the width of a head). Operators
tie axes: an addition makes two the same, a concatenation puts one behind the other, a depthwise convolution
keeps them, views and gates cut them. Ties are kept by substitution, as union-find does: a size becomes a row
of other sizes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import gcd, lcm

MAX_SEGMENTS = 4096
"""Segments of one axis at most; an axis that would need more keeps its size."""


@dataclass(eq=False)
class Size:
    """One size.

    Attributes
    ----------
    size : int
        Elements.
    fixed : bool
        Something that pruning cannot follow reads or makes it: inputs, outputs, unknown operators.
    stream : bool
        It is the width of hidden states: layer norms and embedding tables run over it.
    head : bool
        Its elements are attention heads.
    step : int
        What is kept must be a multiple of this (groups).
    owners : tuple of str
        The operators whose weights made it.
    """

    size: int
    fixed: bool = False
    stream: bool = False
    head: bool = False
    step: int = 1
    owners: tuple[str, ...] = ()
    parts: Axis | None = field(default=None, repr=False)

    def become(self, parts: Axis) -> None:
        """Put a row of other sizes in place of this one; they inherit what is known of it."""
        self.parts = parts
        for part, inner in parts:
            part.fixed |= self.fixed
            part.stream |= self.stream
            part.head |= self.head
            part.owners = tuple(dict.fromkeys((*part.owners, *self.owners)))
            if self.step > 1 and len(parts) > 1:
                part.fixed = True
            part.require(self.step // gcd(self.step, inner))

    def require(self, step: int) -> None:
        """What is kept must be a multiple of `step`, too."""
        self.step = lcm(self.step, step)
        if self.size % self.step:
            self.fixed = True


Axis = tuple[tuple[Size, int], ...]


def axis_of(size: int, *, fixed: bool = False) -> Axis:
    """An axis that is one size."""
    return ((Size(size, fixed), 1),)


def expand(axis: Axis) -> Axis:
    """The axis in sizes that nothing replaces any more."""
    found: list[tuple[Size, int]] = []
    for size, inner in axis:
        if size.parts is None:
            found.append((size, inner))
        else:
            found.extend((part, own * inner) for part, own in expand(size.parts))
    return tuple(found)


def length(axis: Axis) -> int:
    """Elements of an axis as it was built."""
    return sum(size.size * inner for size, inner in axis)


def freeze(axes: Iterable[Axis]) -> None:
    """Keep these axes as they are."""
    for axis in axes:
        for size, _ in expand(axis):
            size.fixed = True


def made(axis: Axis) -> bool:
    """Whether a product with weights made any part of an axis."""
    return any(size.owners for size, _ in expand(axis))


def cut(axis: Axis, at: int) -> tuple[Axis, Axis]:
    """The first `at` elements of an axis and the rest; a size in which the cut falls becomes two."""
    before: list[tuple[Size, int]] = []
    row = deque(expand(axis))
    while at > 0 and row:
        size, inner = row.popleft()
        whole = size.size * inner
        if whole <= at:
            before.append((size, inner))
            at -= whole
            continue
        if at % inner:
            freeze([((size, inner),)])
            first, second = Size(at, fixed=True), Size(whole - at, fixed=True)
            return (*before, (first, 1)), ((second, 1), *row)
        halves = Size(at // inner), Size(size.size - at // inner)
        size.become(tuple((half, 1) for half in halves))
        before.append((halves[0], inner))
        row.appendleft((halves[1], inner))
        at = 0
    return tuple(before), tuple(row)


def tie(one: Axis, other: Axis) -> None:
    """Make two axes of equal length the same."""
    left, right = deque(expand(one)), deque(expand(other))
    while left and right:
        (u, m), (v, k) = left[0], right[0]
        if u is v and m == k:
            left.popleft()
            right.popleft()
            continue
        if u.size * m == v.size * k:
            if k % m == 0:
                u.become(((v, k // m),))
            elif m % k == 0:
                v.become(((u, m // k),))
            else:
                freeze([((u, m), (v, k))])
            left.popleft()
            right.popleft()
        else:
            longer, short = (left, v.size * k) if u.size * m > v.size * k else (right, u.size * m)
            inner = longer[0][1]
            if short % inner or u is v:
                freeze([tuple(left), tuple(right)])
                return
            cut((longer[0],), short)
        left, right = deque(expand(tuple(left))), deque(expand(tuple(right)))


def nested(axis: Axis, inner: int) -> Axis:
    """The axis when each element stands for `inner` neighbours (axes behind it are merged into it)."""
    return tuple((size, own * inner) for size, own in expand(axis))


def copies(axis: Axis, outer: int) -> Axis | None:
    """The axis `outer` times in a row (plain axes before it are merged into it); None when that is too
    long.
    """
    row = expand(axis)
    return row * outer if len(row) * outer <= MAX_SEGMENTS else None
