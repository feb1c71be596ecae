"""Recurrent layers: the input product of all steps at once, then the steps, launched one by one or as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.architectures.base import Kernel
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.rates import product_precision
from accelsim.architectures.gpu.tiles import STEP_BYTES, TILES
from accelsim.hardware.stacks import stack_of

if TYPE_CHECKING:
    from accelsim.architectures.gpu.lower import Locality, Plan

REGISTER_SHARE = 0.6
"""Share of the register files that a persistent kernel can fill with weights (Diamos et al., ICML 2016, keep
a 1152-wide fp32 layer in 6.1 MB of registers); the rest are accumulators and addresses.
"""

ALGORITHMS = ("a launch per step", "persistent")


def step_s(device: Any, stack: str, kind: str) -> float:
    """Cost of one step beside its product and its gates [s]."""
    models = device.kernels.recurrent
    return float(getattr(models.get(stack, models["default"]), f"{kind}_s"))


def plan_recurrent(
    plan: Plan,
    index: int,
    kernel: Kernel,
    traffic: float,
    at: Locality,
    units: tuple[float, float, float],
    device: Any,
    stack: str,
) -> None:
    """Add the rows of a recurrent layer; where its weights fit the register files a stack that has persistent
    kernels may take one.

    Parameters
    ----------
    units : tuple of float
        FLOP per SM and clock, clock [Hz], operations per SM and clock of the vector lanes.
    """
    rate, clock, vector = units
    anchor = kernel.anchor
    x, w_ih, w_hh = anchor.inputs[:3]
    ahead, step = anchor.work.nests
    vector_ops = sum(op.work.vector_ops for op in kernel.ops)
    bytes_a, bytes_b = x.precision.bytes_per_element, w_ih.precision.bytes_per_element
    written = sum(t.size_bytes for t in kernel.outputs)
    extra = max(0.0, traffic - x.size_bytes - w_ih.size_bytes - written)
    widths = (bytes_a, bytes_b, bytes_a)
    table = plan.table((bytes_a, bytes_b, STEP_BYTES, TILES, True))
    integer = float(product_precision(x, w_ih).is_integer)
    steps = float(step.steps)
    state = step.batch * step.m * step.k * bytes_a
    gates = step.batch * step.m * step.n * bytes_a

    def product(sizes: tuple[float, ...], moved: tuple[float, ...], gaps: tuple[float, ...]) -> list[float]:
        return [R.MATRIX, *sizes, *widths, rate, clock, *moved, *gaps, 0.0, vector, table, 1.0, integer, 0.0]

    inputs = product(
        (ahead.batch, ahead.m, ahead.n, ahead.k),
        (x.size_bytes, w_ih.size_bytes, written, extra),
        (at.left, at.weights, at.outputs, at.weights),
    )
    sizes = (step.batch, step.m, step.n, step.k)
    again = w_hh.size_bytes + 2.0 * state + gates
    one = product(sizes, (state, w_hh.size_bytes, gates, 0.0), (0.0, again, 0.0, 0.0))
    plan.add(index, inputs)
    plan.add(index, one, steps)
    lanes = (float(device.sm.clock_hz), vector)
    plan.add(index, _stream(lanes, vector_ops / steps, a=gates, c=state), steps)
    plan.serial_s[index] = steps * step_s(device, stack, anchor.kind)
    plan.algorithms[index] = ALGORITHMS
    registers = 4.0 * device.sm.registers * device.sm.count
    if stack_of(stack).persistent and w_hh.size_bytes <= REGISTER_SHARE * registers:
        plan.add(index, inputs, choice=1)
        plan.add(index, _stream(lanes, 0.0, b=w_hh.size_bytes), choice=1)  # counted with the first product
        # Every SM reads the whole state of the last step from the L2, and waits for all others to write it.
        exchange = _stream(
            (clock, rate / 2.0), step.batch * step.m * step.n * step.k, a=state * device.sm.count
        )
        plan.add(index, exchange, steps, launches=0.0, choice=1)
        plan.add(index, _stream(lanes, vector_ops / steps), steps, launches=0.0, choice=1)


def _stream(
    lanes: tuple[float, float], ops: float, *, a: float = 0.0, b: float = 0.0, c: float = 0.0
) -> list[float]:
    """A row that moves bytes between the L2 and the SMs and computes."""
    row = [0.0] * R.WIDTH
    row[R.KIND], row[R.SHARE] = R.STREAM, 1.0
    row[R.CLOCK], row[R.VECTOR_RATE] = lanes
    row[R.VECTOR_OPS], row[R.A_BYTES], row[R.B_BYTES], row[R.C_BYTES] = ops, a, b, c
    return row
