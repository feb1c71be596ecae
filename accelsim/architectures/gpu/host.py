"""What a software stack (data, see `accelsim.hardware.stacks`) means for kernels: fusion and launches."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from accelsim.architectures.fusion import EPILOGUES, Joins, epilogue
from accelsim.hardware.stacks import Fusion, stack_of
from accelsim.workload.graph import Op

_NORMS = frozenset({"layer_norm", "rms_norm", "group_norm", "batch_norm", "softmax"})


@lru_cache(maxsize=64)
def joins_of(fuses: tuple[Fusion, ...]) -> Joins:
    """Rule for `accelsim.architectures.fusion.fuse` of a set of fusions; equal sets give one rule."""

    def joins(anchor: Op, op: Op) -> bool:
        if epilogue(anchor, op):
            return "epilogues" in fuses or ("bias" in fuses and _adds_weight(op))
        if anchor.work.engine not in ("vector", "memory") or anchor.kind not in EPILOGUES:
            return False
        return ("chains" in fuses and op.kind in EPILOGUES) or ("norms" in fuses and op.kind in _NORMS)

    return joins


def _adds_weight(op: Op) -> bool:
    return op.attribute("function", "") == "add" and any(t.role == "weight" for t in op.inputs)


def joining_rule(stack: str) -> Joins:
    """Fusion of a software stack.

    Raises
    ------
    RequestError
        The stack is unknown.
    """
    return joins_of(stack_of(stack).fuses)


def launch_gap_s(device: Any, stack: str) -> float:
    """Gap between the end of a kernel and the start of the next [s]."""
    own = stack_of(stack)
    device_s = float(device.launch.stream_s if own.launch == "stream" else device.launch.graph_s)
    return device_s + own.more_launch_s


def host_bound_s(device: Any, stack: str) -> float:
    """Least time between kernels that the host can sustain [s]."""
    return stack_of(stack).host_operators * float(device.launch.eager_s)


def ramp_s(device: Any) -> float:
    """What a kernel takes beside the gap of a replayed graph, with nothing to do [s]."""
    cycles = float(device.kernels.product.launch_cycles)
    return max(0.0, cycles / float(device.sm.clock_hz) - float(device.launch.graph_s))
