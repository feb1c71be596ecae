"""The operator registry: what each kind of operator computes and moves.

A formula is a function from an `Op` to its `Work`, registered under the operator's kind together with small
examples that the tests run::

    @register_op("softmax", examples=[lambda: ...])
    def softmax(op: Op) -> Work: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Literal

from accelsim.core.errors import GraphError, UnsupportedOpError, did_you_mean
from accelsim.workload.graph import Op, Tensor

Engine = Literal["matrix", "vector", "memory", "link", "free"]


@dataclass(frozen=True)
class LoopNest:
    """A multiply-accumulate loop nest, its loops grouped by the operands they index.

    With the left operand A (activations), the right operand B (weights) and the output C:

    ======  ===========  =====================================================
    group   indexes      typical loops
    ======  ===========  =====================================================
    batch   A, B and C   groups of a convolution, heads, batch of a batched matmul
    m       A and C      rows, or n p q of a convolution
    n       B and C      columns, or output channels k
    k       A and B      the reduction, or c r s of a convolution
    ======  ===========  =====================================================

    Convolution loops carry the field's names: n batch, k output channels, c input channels, p q output rows
    and columns (o for depth), r s kernel rows and columns (t for depth).

    Attributes
    ----------
    batch_loops, m_loops, n_loops, k_loops : mapping of str to int
        Loops and their lengths.
    share : float
        The part of the iteration space that runs (a causal mask leaves about one half).
    left, right : int or None
        Indices of the operands in ``op.inputs``; None where one is an intermediate that never leaves the
        operator.
    steps : int
        How often the nest runs one after the other, each run needing the one before (recurrent layers).
    """

    batch_loops: Mapping[str, int]
    m_loops: Mapping[str, int]
    n_loops: Mapping[str, int]
    k_loops: Mapping[str, int]
    share: float = 1.0
    left: int | None = 0
    right: int | None = 1
    steps: int = 1

    @cached_property
    def batch(self) -> int:
        return prod(self.batch_loops.values())

    @cached_property
    def m(self) -> int:
        return prod(self.m_loops.values())

    @cached_property
    def n(self) -> int:
        return prod(self.n_loops.values())

    @cached_property
    def k(self) -> int:
        return prod(self.k_loops.values())

    @cached_property
    def macs(self) -> float:
        """Multiply-accumulates that run, all steps together."""
        return self.batch * self.m * self.n * self.k * self.share * self.steps


@dataclass(frozen=True)
class Work:
    """What one execution of an operator costs, whatever runs it.

    Attributes
    ----------
    bytes_read, bytes_written : float
        Compulsory traffic: each needed input element and each output element once [B].
    nests : tuple of LoopNest
        Multiply-accumulate work.
    vector_ops : float
        Elementwise arithmetic: one per add, multiply, compare; transcendental functions count
        `TRANSCENDENTAL_OPS`.
    link_bytes : float
        Bytes that one device sends to others [B].
    free : bool
        True when nothing runs (a reshape): the operator only renames memory.
    """

    bytes_read: float
    bytes_written: float
    nests: tuple[LoopNest, ...] = ()
    vector_ops: float = 0.0
    link_bytes: float = 0.0
    free: bool = False

    @cached_property
    def flops(self) -> float:
        """Multiply-accumulate arithmetic, 1 MAC = 2 [FLOP]."""
        return 2.0 * sum(nest.macs for nest in self.nests)

    @property
    def engine(self) -> Engine:
        """The unit that the operator occupies."""
        if self.free:
            return "free"
        if self.link_bytes:
            return "link"
        if self.nests:
            return "matrix"
        return "vector" if self.vector_ops else "memory"


TRANSCENDENTAL_OPS = (
    8  # exp, tanh, erf, sqrt as short polynomials; a counting convention, see docs/definitions.md
)

FREE = Work(0.0, 0.0, free=True)

Formula = Callable[[Op], Work]


@dataclass(frozen=True)
class Registration:
    """An operator kind: its formula, what it is, and example ops."""

    kind: str
    formula: Formula
    examples: tuple[Callable[[], Op], ...]
    summary: str = field(default="")


_REGISTRY: dict[str, Registration] = {}


def register_op(kind: str, *, examples: Iterable[Callable[[], Op]]) -> Callable[[Formula], Formula]:
    """Register the formula of an operator kind; a kind registers once and brings at least one example.

    Parameters
    ----------
    kind : str
    examples : iterable of callable
        Each makes an `Op` of the kind, for the tests that every kind passes.

    Returns
    -------
    callable
        The decorator of a function from an `Op` to its `Work`.

    Raises
    ------
    ValueError
        The kind is taken, or no example was given.
    """

    def decorate(formula: Formula) -> Formula:
        if kind in _REGISTRY:
            raise ValueError(
                f"operator kind '{kind}' is registered already, by {_REGISTRY[kind].formula.__module__}"
            )
        cases = tuple(examples)
        if not cases:
            raise ValueError(f"operator kind '{kind}' needs an example")
        summary = (formula.__doc__ or "").strip().split("\n")[0]
        _REGISTRY[kind] = Registration(kind, formula, cases, summary)
        return formula

    return decorate


def registry() -> dict[str, Registration]:
    """All operator kinds."""
    _load()
    return dict(_REGISTRY)


def work_of(op: Op) -> Work:
    """Work of an op by the formula of its kind.

    Raises
    ------
    UnsupportedOpError
        No formula is registered for the kind.
    """
    _load()
    try:
        formula = _REGISTRY[op.kind].formula
    except KeyError:
        raise UnsupportedOpError(
            f"no formula for operator kind '{op.kind}'", op.name, did_you_mean(op.kind, _REGISTRY)
        ) from None
    return formula(op)


def _load() -> None:
    """Import the modules that register formulas."""
    from accelsim.workload.ops import (  # noqa: F401
        attention,
        collective,
        conv,
        elementwise,
        gradient,
        linear,
        moe,
        movement,
        normalisation,
        recurrent,
    )


def bytes_of(tensors: Iterable[Tensor]) -> float:
    """Storage of distinct tensors [B]."""
    return sum({t.name: t.size_bytes for t in tensors}.values())


def compulsory(op: Op) -> tuple[float, float]:
    """Every input once, every output once [B]."""
    return bytes_of(op.inputs), bytes_of(op.outputs)


def require_operands(op: Op, inputs: int, outputs: int = 1) -> None:
    """Refuse an op with fewer operands than its formula reads.

    Raises
    ------
    GraphError
        With the counts.
    """
    if len(op.inputs) < inputs or len(op.outputs) < outputs:
        have = f"{len(op.inputs)} inputs and {len(op.outputs)} outputs"
        raise GraphError(f"{op.kind} needs {inputs} inputs and {outputs} outputs, has {have}", op.name)
