"""What security and privacy add to an inference or to a training run, as graphs and formulas.

The measures are data; `accelsim.explore.compose` runs them on a device. Times are arguments here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelsim.core.errors import RequestError
from accelsim.hardware.protection import Seal, multiplier_of, protection
from accelsim.hardware.stacks import stack_of
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph, Tensor

ENGINES = ("vllm", "trtllm", "sglang")
"""Stacks that send the small arrays of `Protection.engine_copies` with each step."""

TOKEN_BYTES = 4
"""A sampled token."""


# -- measures
# -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Screen:
    """A stage before the model that may refuse a request.

    Parameters
    ----------
    model : workload, optional
        A detector, as `simulate` takes it; without one the stage validates the input: every element against
        its range, in one pass.
    rejects : float
        Share of the requests that it refuses, in [0, 1). Later stages do not run for these.
    """

    model: Any = None
    rejects: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rejects < 1:
            raise RequestError(f"rejects {self.rejects!r} is not a share from 0 to below 1", "screen")


@dataclass(frozen=True)
class Smoothing:
    """Randomised smoothing: the vote of n noisy passes (Cohen et al. 2019, arXiv:1902.02918).

    Parameters
    ----------
    passes : int
        The paper predicts from 100 and certifies from 100,000 (recalled).
    together : int
        Passes that run as one batch; fewer where that does not fit.
    """

    passes: int = 100
    together: int = 128

    def __post_init__(self) -> None:
        for name in ("passes", "together"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RequestError(f"{name} {value!r} is not a positive integer", "smoothing")


@dataclass(frozen=True)
class Vote:
    """Further models whose answers are averaged with the model's, one after the other.

    Parameters
    ----------
    models : sequence of workloads
    """

    models: Sequence[Any]

    def __post_init__(self) -> None:
        if isinstance(self.models, str) or not len(self.models):
            raise RequestError("a vote needs a list of further models", "vote")


@dataclass(frozen=True)
class Confidential:
    """Memory of the device closed to the host; transfers between them are encrypted.

    The cost follows from the bytes, copies and submissions of a run, see `sealed_s`.
    """


@dataclass(frozen=True)
class Encrypted:
    """Computation on encrypted data: a multiplier with its published range, all assumed.

    Parameters
    ----------
    scheme : {"homomorphic", "mpc"}
    """

    scheme: str = "homomorphic"

    def __post_init__(self) -> None:
        multiplier_of(self.scheme)


@dataclass(frozen=True)
class OutputNoise:
    """Differential privacy on outputs: noise on each of them."""


# -- graphs
# -----------------------------------------------------------------------------------------------------------


def validation_graph(graph: Graph) -> Graph:
    """Range checks of a model's inputs: two comparisons and one sum per element.

    Raises
    ------
    RequestError
        The model has no input that could be checked.
    """
    checked = [t for t in graph.inputs if t.role == "activation" and len(t.shape) > 1]
    if not checked:
        raise RequestError(f"{graph.name} has no input to validate")
    b = GraphBuilder(f"{graph.name} input validation", checked[0].precision)
    for t in checked:
        low = b.weight(f"{t.name}.range", 1)
        inside = b.op("elementwise", [t, low], t.shape, stem="inside", function="compare")
        axes = tuple(range(1, len(t.shape)))
        b.op("reduce", [inside], (t.shape[0],), stem="all", function="min", axes=axes, keepdims=False)
    return b.build(item=graph.item)


def noise_graph(graph: Graph) -> Graph:
    """Noise on each output of a model."""
    out = [t for t in answers(graph) if t.shape]
    b = GraphBuilder(f"{graph.name} output noise", out[0].precision)
    for t in out:
        x = Tensor(f"{t.name}.clean", t.shape, t.precision, batch_axis=t.batch_axis)
        noise = Tensor(f"{t.name}.noise", t.shape, t.precision, batch_axis=t.batch_axis)
        b.op("elementwise", [x, noise], t.shape, stem="noise", function="add")
    return b.build(item=graph.item)


def answers(graph: Graph) -> tuple[Tensor, ...]:
    """Outputs that a request is answered with: not what is written to the cache."""
    written = {t.name for op in graph if op.kind == "kv_write" for t in op.outputs}
    return tuple(t for t in graph.outputs if t.name not in written)


# -- confidential computing
# -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traffic:
    """What crosses between host and device in one run.

    Attributes
    ----------
    size_bytes : float
        [B]
    copies : int
    launches : float
        Submissions of work.
    """

    size_bytes: float
    copies: int
    launches: float


def traffic(graph: Graph, batch: int, stack: str, runs: float, kernels: float) -> Traffic:
    """Traffic of a graph that runs once or, on inputs that the device makes of what it got, more often.

    Each input and each answer is a copy of its own. Of a language model only the sampled token leaves, and a
    serving engine sends some small arrays more. A recorded graph is submitted once, else every kernel is; a
    serving engine submits some kernels around it.

    Parameters
    ----------
    graph : Graph
    batch : int
    stack : str
        See `simulate`; empty on devices that have none.
    runs, kernels : float
        Runs, and kernels of all of them.
    """
    each = batch / graph.batch
    inputs = [t for t in graph.inputs if t.role == "activation"]
    size = sum(t.size_bytes * (each if t.batch_axis is not None else 1) for t in inputs)
    if graph.phase == "forward":
        out = answers(graph)
        size += sum(t.size_bytes * (each if t.batch_axis is not None else 1) for t in out)
        copies = len(inputs) + len(out)
    else:
        size += TOKEN_BYTES * batch
        copies = len(inputs) + 1
    recorded = not stack or stack_of(stack).launch == "graph"
    launches = runs if recorded else kernels
    if stack in ENGINES:
        more = protection().engine_copies
        copies += more
        size += more * TOKEN_BYTES * batch
        launches += runs * protection().engine_launches
    return Traffic(size, copies, launches)


def sealed_s(moved: Traffic, seal: Seal, copy_s: float | None = None) -> float:
    """What encryption adds to a run [s]: bytes (1 / sealed - 1 / plain) + copies copy_s + launches launch_s.

    Parameters
    ----------
    moved : Traffic
    seal : Seal
    copy_s : float, optional
        Other than the seal's own, for the ends of its range [s].
    """
    slower = moved.size_bytes * (1.0 / seal.sealed_bytes_per_s - 1.0 / seal.plain_bytes_per_s)
    each = seal.copy_s if copy_s is None else copy_s
    return slower + moved.copies * each + moved.launches * seal.launch_s


# -- training
# -----------------------------------------------------------------------------------------------------------


def attack_passes(steps: int) -> int:
    """Forward and backward passes of an update with PGD of k steps: k + 1 (Madry et al., arXiv:1706.06083).

    Raises
    ------
    RequestError
        A negative number of steps.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise RequestError(f"attack_steps {steps!r} is not zero or a positive integer")
    return steps + 1


def per_sample(parameters: int, batch: int) -> Mapping[str, float]:
    """What DP-SGD adds to a step that keeps the gradient of every sample (Abadi et al., arXiv:1607.00133).

    Each sample's gradient is written, read for its norm, and read again to be scaled and summed, in fp32.

    Parameters
    ----------
    parameters, batch : int

    Returns
    -------
    mapping
        ``bytes_moved`` and ``memory_bytes`` [B], ``vector_ops``: 4 per parameter and sample, and the noise.
    """
    size = 4.0 * parameters * batch
    return {
        "bytes_moved": 3.0 * size,
        "memory_bytes": size,
        "vector_ops": 4.0 * parameters * batch + 2.0 * parameters,
    }
