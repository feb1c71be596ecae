"""Software stacks as data: what rides on what, what a launch costs, in which layout activations lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from accelsim.architectures.fusion import EPILOGUES, Joins, alone, epilogue
from accelsim.core.errors import RequestError, did_you_mean
from accelsim.workload.graph import Op

_NORMS = frozenset({"layer_norm", "rms_norm", "group_norm", "batch_norm", "softmax"})


def chains(anchor: Op, op: Op) -> bool:
    """Joining rule of a graph compiler: epilogues on matrix kernels, chains of elementwise work, a norm after
    the residual sum.
    """
    if epilogue(anchor, op):
        return True
    return (
        anchor.work.engine in ("vector", "memory")
        and anchor.kind in EPILOGUES
        and (op.kind in EPILOGUES or op.kind in _NORMS)
    )


@dataclass(frozen=True, slots=True)
class Stack:
    """A software stack.

    Attributes
    ----------
    joins : callable
        Joining rule, see `accelsim.architectures.fusion.fuse`.
    launch : {"stream", "graph"}
        Kernels are launched one by one, or replayed as a recorded graph.
    dispatches : bool
        The host dispatches every operator anew, which bounds the time between kernels.
    planar : bool
        Activations of images lie channel by channel (NCHW), which tensor-core convolutions transpose.
    persistent : bool
        Recurrent layers whose weights fit the register files run as one kernel that keeps them there.
    folds_norms : bool
        A batch norm after a matrix kernel is folded into its weights when the engine is built.
    """

    joins: Joins
    launch: Literal["stream", "graph"]
    dispatches: bool = False
    planar: bool = False
    persistent: bool = False
    folds_norms: bool = False


_SERVING = Stack(chains, "graph")
"""Serving engines replay recorded steps and fuse residual sums with norms and gates with activations."""

STACKS: dict[str, Stack] = {
    "eager": Stack(alone, "stream", dispatches=True, planar=True),
    "graph": Stack(epilogue, "graph"),
    "tensorrt": Stack(chains, "graph", persistent=True, folds_norms=True),
    "vllm": _SERVING,
    "trtllm": _SERVING,
    "sglang": _SERVING,
}


def stack_of(name: str) -> Stack:
    """A software stack by name.

    Raises
    ------
    RequestError
        The stack is unknown.
    """
    try:
        return STACKS[name]
    except KeyError:
        raise RequestError(f"unknown software stack '{name}'", hint=did_you_mean(name, STACKS)) from None


def joining_rule(stack: str) -> Joins:
    """Fusion of a software stack.

    Raises
    ------
    RequestError
        The stack is unknown.
    """
    return stack_of(stack).joins


def launch_gap_s(device: Any, stack: str) -> float:
    """Gap between the end of a kernel and the start of the next [s]."""
    return float(device.launch.stream_s if stack_of(stack).launch == "stream" else device.launch.graph_s)


def host_bound_s(device: Any, stack: str) -> float:
    """Least time between kernels that the host can sustain [s]."""
    return float(device.launch.eager_s) if stack_of(stack).dispatches else 0.0


def ramp_s(device: Any) -> float:
    """What a kernel takes beside the gap of a replayed graph, with nothing to do [s]."""
    cycles = float(device.kernels.product.launch_cycles)
    return max(0.0, cycles / float(device.sm.clock_hz) - float(device.launch.graph_s))
