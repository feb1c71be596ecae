"""What the ONNX importer knows about a value and about a node, and the table that maps node types to operator
kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from accelsim.core.errors import GraphError, UnsupportedOpError
from accelsim.core.precision import Precision, precision
from accelsim.workload.graph import Op, Tensor

# Element types of onnx.TensorProto, by number.
_FORMATS = {
    1: "fp32", 2: "int8", 3: "int8", 4: "int16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "fp16",
    11: "fp64", 12: "int32", 13: "int64", 14: "fp64", 15: "fp64", 16: "bf16", 17: "fp8_e4m3",
    18: "fp8_e4m3", 19: "fp8_e5m2", 20: "fp8_e5m2", 21: "int4", 22: "int4", 23: "mxfp4", 24: "int8",
    25: "int2", 26: "int2",
}  # fmt: skip
FLOATS = frozenset({1, 10, 11, 16, 17, 18, 19, 20, 23})
FLOAT32, INT8, INT32, INT64, BOOL = 1, 3, 6, 7, 9

Shape = tuple[int, ...]


def format_of(dtype: int, where: str = "") -> Precision:
    """Storage format of an ONNX element type."""
    try:
        return precision(_FORMATS[dtype], storage=True)
    except KeyError:
        what = "text" if dtype == 8 else f"element type {dtype}"
        raise UnsupportedOpError(f"tensors of {what} cannot be simulated", where) from None


def integer_format(bits: float, where: str = "") -> Precision:
    """Narrowest integer format that holds `bits` bits."""
    for limit, name in ((1, "int1"), (2, "int2"), (4, "int4"), (8, "int8"), (16, "int16"), (32, "int32")):
        if 0 < bits <= limit:
            return precision(name, storage=True)
    raise UnsupportedOpError(f"no format of {bits:g} bits", where)


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor during import.

    Attributes
    ----------
    tensor : Tensor
        Roles weight and constant mean that it is known before the run.
    dtype : int
        ONNX element type that shape inference sees; a quantised tensor keeps its float type.
    data : numpy.ndarray or None
        Contents of small known tensors: shapes, axes, scales.
    """

    tensor: Tensor
    dtype: int
    data: Any = None

    @property
    def known(self) -> bool:
        return self.tensor.role in ("weight", "constant")


@dataclass(frozen=True)
class Node:
    """A node with its operands resolved; outputs that nothing reads are None."""

    name: str
    type: str
    domain: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[Value | None, ...]
    outputs: tuple[Tensor | None, ...]

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def value(self, index: int) -> Value:
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise GraphError(f"input {index} of {self.type} is missing", self.name)
        return found

    def tensor(self, index: int) -> Tensor:
        return self.value(index).tensor

    def weight(self, index: int) -> Tensor:
        """Operand that is a weight whatever its element type (quantised weights are integers)."""
        value = self.value(index)
        return replace(value.tensor, role="weight") if value.known else value.tensor

    def tensors(self, *indices: int) -> list[Tensor]:
        """Those of the operands that are given and not empty."""
        wanted = indices or range(len(self.inputs))
        return [self.tensor(i) for i in wanted if self.has(i) and self.tensor(i).elements]

    def data(self, index: int) -> Any:
        """Contents of a known operand, or None."""
        return self.value(index).data if self.has(index) else None

    def attr(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def ints(self, name: str, index: int = -1) -> tuple[int, ...] | None:
        """A list of integers that older opsets hold in an attribute and newer ones in an input."""
        found = self.attributes.get(name)
        if found is None and index >= 0:
            found = self.data(index)
        if found is None:
            return None
        items = (
            found.reshape(-1)
            if hasattr(found, "reshape")
            else found
            if isinstance(found, list | tuple)
            else [found]
        )
        return tuple(int(i) for i in items)

    @property
    def x(self) -> Tensor:
        return self.tensor(0)

    @property
    def y(self) -> Tensor:
        first = self.outputs[0] if self.outputs else None
        if first is None:
            raise GraphError(f"{self.type} has no output", self.name)
        return first

    @property
    def written(self) -> tuple[Tensor, ...]:
        return tuple(t for t in self.outputs if t is not None)

    def op(
        self,
        kind: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor] = (),
        *,
        part: str = "",
        approximated: str = "",
        repeat: int = 1,
        **attributes: Any,
    ) -> Op:
        """An op of this node; `part` names one of several."""
        name = f"{self.name}.{part}" if part else self.name
        written = tuple(outputs) or (self.y,)
        return Op(name, kind, tuple(inputs), written, attributes, repeat, self.type, approximated)

    def free(self, x: Tensor, y: Tensor, part: str = "") -> Op:
        """A new shape for the same memory."""
        return self.op("reshape", [x], [y], part=part)


Mapper = Callable[[Node], list[Op]]
ShapeRule = Callable[[Node], list[tuple[int, Shape]]]

MICROSOFT = "com.microsoft"

NODES: dict[tuple[str, str], Mapper] = {}
SHAPES: dict[tuple[str, str], ShapeRule] = {}


def maps(*types: str, domain: str = "") -> Callable[[Mapper], Mapper]:
    """Register how nodes of these types become ops."""

    def decorate(mapper: Mapper) -> Mapper:
        for name in types:
            NODES[domain, name] = mapper
        return mapper

    return decorate


def shapes(*types: str, domain: str = "") -> Callable[[ShapeRule], ShapeRule]:
    """Register the output types and shapes of nodes that ``onnx.shape_inference`` does not know."""

    def decorate(rule: ShapeRule) -> ShapeRule:
        for name in types:
            SHAPES[domain, name] = rule
        return rule

    return decorate


def like_first(node: Node) -> list[tuple[int, Shape]]:
    """Every output has the type and shape of the first input."""
    return [(node.value(0).dtype, node.x.shape)] * max(1, len(node.outputs))


def broadcast(*shapes_in: Shape) -> Shape:
    rank = max(map(len, shapes_in))
    return tuple(max(sizes) for sizes in zip(*((1,) * (rank - len(s)) + s for s in shapes_in)))
