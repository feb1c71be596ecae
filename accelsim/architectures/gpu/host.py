"""What the host adds to a kernel, and what rides on what, by software stack."""

from __future__ import annotations

from typing import Any

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


STACKS: dict[str, Joins] = {"eager": alone, "graph": epilogue, "tensorrt": chains}


def joining_rule(stack: str) -> Joins:
    """Fusion of a software stack.

    Raises
    ------
    RequestError
        The stack is unknown.
    """
    try:
        return STACKS[stack]
    except KeyError:
        raise RequestError(f"unknown software stack '{stack}'", hint=did_you_mean(stack, STACKS)) from None


def launch_gap_s(device: Any, stack: str) -> float:
    """Gap between the end of a kernel and the start of the next [s]: on a stream for ``eager``, inside a
    replayed graph otherwise.
    """
    return float(device.launch.stream_s if stack == "eager" else device.launch.graph_s)


def host_bound_s(device: Any, stack: str) -> float:
    """Least time between kernels that the host can sustain [s]: an eager framework dispatches every operator
    anew.
    """
    return float(device.launch.eager_s) if stack == "eager" else 0.0
