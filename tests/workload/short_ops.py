"""Short ways to write tensors and ops in tests."""

from __future__ import annotations

from accelsim.core.precision import precision
from accelsim.workload.graph import Op, Role, Tensor

FP16 = precision("fp16")


def tensor(name: str, *shape: int, role: Role = "activation", batch_axis: int | None = None) -> Tensor:
    """An fp16 tensor."""
    return Tensor(name, shape, FP16, role, batch_axis=batch_axis)


def op(kind: str, inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]], **attributes: object) -> Op:
    """An op from the shapes of its fp16 operands."""
    ins = tuple(tensor(f"x{i}", *shape) for i, shape in enumerate(inputs))
    outs = tuple(tensor(f"y{i}", *shape) for i, shape in enumerate(outputs))
    return Op(kind, kind, ins, outs, attributes)
