"""Pruning: a graph with fewer weights, channels, heads or layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from accelsim.core.errors import GraphError, RequestError, did_you_mean
from accelsim.techniques.arrays import Arrays
from accelsim.techniques.depth import drop_layers
from accelsim.techniques.sparsity import gains, patterned, unstructured
from accelsim.techniques.structured import WHAT, shrink
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload

METHODS = ("unstructured", "2:4", *WHAT, "layers")
"""Besides 2:4, any pattern N:M."""

_PATTERN = re.compile(r"\d+:\d+")


@dataclass(frozen=True)
class Pruning:
    """How a graph was pruned; in its metadata as ``pruning``.

    Attributes
    ----------
    method : str
    amount : float
        Share of elements that went: weights, channels or layers by method.
    basis : str
        Whether real weights decided.
    detail : str
        What happened, in words.
    flops_share, weight_share : float
        Arithmetic and parameters left over those of the graph before; zeros inside weights count in neither.
    kept_norm : float or None
        Share of the L1 norm of the weights given that is left.
    kept : mapping
        Operator to the indices of its output channels that stay, where weights decided.
    """

    method: str
    amount: float
    basis: str
    detail: str
    flops_share: float = 1.0
    weight_share: float = 1.0
    kept_norm: float | None = None
    kept: Mapping[str, tuple[int, ...]] | None = None

    @property
    def label(self) -> str:
        """Method and share, as tables show them."""
        return f"{self.method} {self.amount:.0%}"

    def __str__(self) -> str:
        return f"pruned by '{self.method}': {self.detail}; {self.basis}"


def prune(
    workload: Any,
    method: str = "channel",
    amount: float | Mapping[str, float] = 0.5,
    *,
    weights: Mapping[str, Any] | str | Path | None = None,
    align: int = 1,
    phase: str | None = None,
    context: int | None = None,
) -> Graph:
    """Prune a workload.

    Parameters
    ----------
    workload : str or Path or Graph
        See `load_workload`; phase and context too.
    method : str
        ``unstructured`` zeroes single weights; ``2:4`` or another N:M keeps N of every M along each product's
        reduction; ``channel`` removes output channels of convolutions, heads and feed-forward widths;
        ``heads`` and ``ffn`` only those; ``layers`` drops repeated layers or residual blocks.
    amount : float or mapping
        Share to remove, in [0, 1): of the weights, of the channels of each layer, or of the layers. A
        mapping gives shares by operator name or pattern (``{"layer4.*": 0.5}``), and leaves the others
        alone. A pattern N:M has its own share: a mapping then names the layers that take it.
    weights : mapping, str or Path, optional
        Arrays by tensor name, an ``.onnx`` or a ``.safetensors`` file. With them magnitudes decide what goes;
        without, the counts are the same for every layer (statistical).
    align : int
        Channels that stay are rounded up to a multiple of this.

    Returns
    -------
    Graph
        Its metadata hold a `Pruning`. Amount 0 gives the graph itself.

    Raises
    ------
    RequestError
        Unknown method, or an amount outside [0, 1).
    GraphError
        A layer would be empty, a pattern does not divide a layer that was named, or there is nothing to
        prune.
    """
    graph = load_workload(workload, phase=phase, context=context)
    where = f"prune {graph.name}"
    nm = isinstance(method, str) and bool(_PATTERN.fullmatch(method))
    if method not in METHODS and not nm:
        raise RequestError(f"unknown pruning method '{method}'", hint=did_you_mean(str(method), METHODS))
    if isinstance(align, bool) or not isinstance(align, int) or align < 1:
        raise RequestError(f"align {align!r} is not a positive integer", where)
    share = scales(amount, where)
    if isinstance(amount, Mapping):
        _known(graph, amount)
    elif amount == 0 and not nm:
        return graph
    arrays = Arrays(weights) if weights is not None else None
    if nm:
        result, done = _nm(graph, method, amount, arrays)
    elif method == "unstructured":
        result, done = _unstructured(graph, share, arrays)
    elif method == "layers":
        result, done = _layers(graph, amount)
    else:
        result, done = _channels(graph, method, share, align, arrays)
    return result.map_ops(lambda op: op, metadata={**result.metadata, "pruning": done})


def notes(graph: Graph, device: Any) -> tuple[str, ...]:
    """How a graph was pruned, and what its zeros bring on a device; empty for a graph that was not."""
    done = graph.metadata.get("pruning")
    said = (str(done),) if isinstance(done, Pruning) else ()
    return (*said, *gains(graph, device))


def _basis(matched: int, weights: int, given: bool) -> str:
    if not given:
        return "statistical: no weights were given"
    if not matched:
        return "statistical: none of the weights given has the name of a tensor of this graph"
    return f"magnitudes of {matched} of {weights} weight tensors; the others statistical"


def _unstructured(graph: Graph, share: Callable[[tuple[str, ...]], float], arrays: Arrays | None) -> Any:
    found = unstructured(graph, share, arrays)
    held = [t for t in found.graph.weights if t.density < 1]
    zeros = sum((1 - t.density) * t.elements for t in held) / max(1, sum(t.elements for t in held))
    done = Pruning(
        "unstructured",
        zeros,
        _basis(found.matched, found.pruned, arrays is not None),
        f"{zeros:.1%} of the values in {found.pruned} weight tensors are zero",
        kept_norm=found.norm,
    )
    return found.graph, done


def _nm(graph: Graph, pattern: str, amount: float | Mapping[str, float], arrays: Arrays | None) -> Any:
    chosen = (lambda op: any(fnmatchcase(op, p) for p in amount)) if isinstance(amount, Mapping) else None
    found = patterned(graph, pattern, chosen, arrays)
    keep, block = map(int, pattern.split(":"))
    detail = f"{keep} of every {block} weights stay in {found.pruned} tensors"
    if found.skipped:
        first = ", ".join(found.skipped[:3])
        detail += f"; {block} does not divide the inputs of {len(found.skipped)} layers, left dense ({first})"
    basis = _basis(found.matched, found.pruned, arrays is not None)
    return found.graph, Pruning(pattern, 1 - keep / block, basis, detail, kept_norm=found.norm)


def _layers(graph: Graph, amount: float | Mapping[str, float]) -> Any:
    if isinstance(amount, Mapping):
        raise RequestError("layer dropping takes one amount for the whole graph", f"prune {graph.name}")
    result, dropped, layers = drop_layers(graph, amount)
    basis = "statistical: layers are spaced evenly"
    return result, Pruning(
        "layers",
        dropped / layers,
        basis,
        f"{dropped} of {layers} layers dropped",
        _ratio(result.flops, graph.flops),
        _ratio(result.parameters, graph.parameters),
    )


def _channels(
    graph: Graph,
    method: str,
    share: Callable[[tuple[str, ...]], float],
    align: int,
    arrays: Arrays | None,
) -> Any:
    found = shrink(graph, method, share, align, arrays)
    flops = _ratio(found.graph.flops, graph.flops)
    size = _ratio(found.graph.parameters, graph.parameters)
    return found.graph, Pruning(
        method,
        found.removed / found.total,
        _basis(found.matched, len(graph.weights), arrays is not None),
        f"{found.removed} channels or heads of {found.sizes} layer groups went; {flops:.1%} of the FLOPs and "
        f"{size:.1%} of the parameters are left",
        flops,
        size,
        found.norm,
        found.kept or None,
    )


def _ratio(after: float, before: float) -> float:
    return after / before if before else 1.0


def _known(graph: Graph, amount: Mapping[str, float]) -> None:
    names = [op.name for op in graph]
    for pattern in amount:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise GraphError(f"no operator is called '{pattern}'", graph.name, did_you_mean(pattern, names))


def scales(amount: float | Mapping[str, float], where: str) -> Callable[[tuple[str, ...]], float]:
    """Read an amount: one share for all, or shares by operator name patterns (``layer3.*``), 0 for the
    others.

    Raises
    ------
    RequestError
        A share outside [0, 1).
    """
    for share in amount.values() if isinstance(amount, Mapping) else (amount,):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise RequestError(f"amount {share!r} is not in [0, 1)", where)

    def of(owners: tuple[str, ...]) -> float:
        if not isinstance(amount, Mapping):
            return float(amount)
        shares = [
            next((s for name, s in amount.items() if fnmatchcase(owner, name)), 0.0) for owner in owners
        ]
        return float(min(shares, default=0.0))

    return of
