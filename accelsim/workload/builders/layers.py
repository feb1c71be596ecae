"""`GraphBuilder`: write a network layer by layer; shapes, names and batch axes follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

from accelsim.core.errors import GraphError
from accelsim.core.precision import Precision, precision
from accelsim.workload.graph import Graph, Op, Phase, Role, Tensor
from accelsim.workload.ops.conv import output_size


class GraphBuilder:
    """Collects ops of one graph.

    Every layer method takes its input tensors and returns its output tensor. Activations are batch-first:
    axis 0 is the batch axis unless a method says otherwise. Ops built inside ``with builder.repeated(n):``
    run `n` times
    (identical layers).

    Parameters
    ----------
    name : str
    default : str or Precision
        Format of weights and activations.
    """

    def __init__(self, name: str, default: str | Precision = "fp16") -> None:
        self.name = name
        self.precision = precision(default)
        self.ops: list[Op] = []
        self._counts: dict[str, int] = {}
        self._scope: list[str] = []
        self._repeat, self._block = 1, 0

    # -- naming and structure
    # --------------------------------------------------------------------------------------

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of ops built inside."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    @contextmanager
    def repeated(self, times: int) -> Iterator[None]:
        """Ops built inside run `times` times; their weights exist once per time."""
        held, self._repeat = (self._repeat, self._block), self._repeat * times
        if times > 1 and self.ops and self.ops[-1].repeat == self._repeat:
            self._block = self.ops[-1].block + 1
        try:
            yield
        finally:
            self._repeat, self._block = held

    def unique(self, stem: str) -> str:
        """A fresh op name under the current scope: ``layer1.0.conv``, then ``layer1.0.conv_1``."""
        full = ".".join([*self._scope, stem])
        count = self._counts.get(full, 0)
        self._counts[full] = count + 1
        return full if count == 0 else f"{full}_{count}"

    def input(
        self, name: str, *shape: int, role: Role = "activation", batch_axis: int | None = 0, dtype: str = ""
    ) -> Tensor:
        fmt = precision(dtype, storage=True) if dtype else self.precision
        return Tensor(name, tuple(shape), fmt, role, batch_axis=batch_axis)

    def weight(self, name: str, *shape: int) -> Tensor:
        return Tensor(name, tuple(shape), self.precision, "weight")

    def op(
        self,
        kind: str,
        inputs: Sequence[Tensor],
        *shapes: Sequence[int],
        stem: str = "",
        dtype: str = "",
        batch_axis: int | None = 0,
        **attributes: Any,
    ) -> Any:
        """Add an op; returns its output tensor (a tuple of them when several shapes are given)."""
        name = self.unique(stem or kind)
        fmt = precision(dtype, storage=True) if dtype else self.precision
        outputs = tuple(
            Tensor(name if i == 0 else f"{name}:{i}", tuple(shape), fmt, batch_axis=batch_axis)
            for i, shape in enumerate(shapes)
        )
        self.ops.append(
            Op(name, kind, tuple(inputs), outputs, attributes, self._repeat, kind, block=self._block)
        )
        return outputs[0] if len(outputs) == 1 else outputs

    def build(
        self, *, phase: Phase = "forward", item: str = "item", batch: int = 1, **metadata: Any
    ) -> Graph:
        return Graph(self.name, self.ops, phase=phase, batch=batch, item=item, metadata=metadata)

    # -- layers
    # ----------------------------------------------------------------------------------------------------

    def conv(
        self,
        x: Tensor,
        channels: int,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = "same",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = False,
        stem: str = "conv",
    ) -> Tensor:
        """Convolution.

        ``padding="same"`` pads (kernel - 1) // 2 on each side, as the PyTorch model zoos do.
        """
        rank = len(x.shape) - 2
        k, s, d = (_spread(v, rank) for v in (kernel, stride, dilation))
        p = tuple(di * (ki - 1) // 2 for ki, di in zip(k, d)) if padding == "same" else _spread(padding, rank)
        out = tuple(output_size(x.shape[2 + i], k[i], s[i], 2 * p[i], d[i]) for i in range(rank))
        name = ".".join([*self._scope, stem])
        w = self.weight(f"{name}.weight#{len(self.ops)}", channels, x.shape[1] // groups, *k)
        inputs = [x, w]
        if bias:
            inputs.append(self.weight(f"{name}.bias#{len(self.ops)}", channels))
        return self.op(
            "conv",
            inputs,
            (x.shape[0], channels, *out),
            stem=stem,
            stride=s,
            padding=p,
            dilation=d,
            groups=groups,
        )

    def conv_transposed(
        self, x: Tensor, channels: int, kernel: int, *, stride: int, bias: bool = True, stem: str = "upconv"
    ) -> Tensor:
        """Transposed convolution without padding: each spatial size grows to (size - 1) stride + kernel."""
        rank = len(x.shape) - 2
        name = ".".join([*self._scope, stem])
        inputs = [x, self.weight(f"{name}.weight#{len(self.ops)}", x.shape[1], channels, *(kernel,) * rank)]
        if bias:
            inputs.append(self.weight(f"{name}.bias#{len(self.ops)}", channels))
        out = tuple((size - 1) * stride + kernel for size in x.shape[2:])
        return self.op(
            "conv",
            inputs,
            (x.shape[0], channels, *out),
            stem=stem,
            stride=(stride,) * rank,
            padding=(0,) * rank,
            groups=1,
            transposed=True,
        )

    def linear(self, x: Tensor, features: int, *, bias: bool = True, stem: str = "linear") -> Tensor:
        """Matrix product with a weight over the last axis."""
        name = ".".join([*self._scope, stem])
        inputs = [x, self.weight(f"{name}.weight#{len(self.ops)}", x.shape[-1], features)]
        if bias:
            inputs.append(self.weight(f"{name}.bias#{len(self.ops)}", features))
        return self.op("matmul", inputs, (*x.shape[:-1], features), stem=stem)

    def matmul(self, a: Tensor, b: Tensor, *, transpose_b: bool = False, stem: str = "matmul") -> Tensor:
        """Product of two activations."""
        n = b.shape[-2] if transpose_b else b.shape[-1]
        return self.op("matmul", [a, b], (*a.shape[:-1], n), stem=stem, transpose_b=transpose_b)

    def pool(
        self,
        x: Tensor,
        mode: str,
        kernel: int,
        *,
        stride: int | None = None,
        padding: int = 0,
        ceil: bool = False,
    ) -> Tensor:
        rank = len(x.shape) - 2
        step = stride or kernel
        extra = step - 1 if ceil else 0
        out = tuple((x.shape[2 + i] + 2 * padding - kernel + extra) // step + 1 for i in range(rank))
        return self.op(
            "pool",
            [x],
            (*x.shape[:2], *out),
            stem=f"{mode}pool",
            mode=mode,
            kernel=(kernel,) * rank,
            stride=(step,) * rank,
            padding=(padding,) * rank,
        )

    def global_pool(self, x: Tensor, mode: str = "avg") -> Tensor:
        """Pool over all spatial axes, which stay as ones."""
        rank = len(x.shape) - 2
        kernel = x.shape[2:]
        return self.op(
            "pool",
            [x],
            (*x.shape[:2], *(1,) * rank),
            stem="globalpool",
            mode=mode,
            kernel=kernel,
            stride=kernel,
            padding=(0,) * rank,
        )

    def batch_norm(self, x: Tensor, stem: str = "bn") -> Tensor:
        """Normalisation with running statistics: constants, so only scale and shift are parameters."""
        return self._norm("batch_norm", x, x.shape[1], 4, stem)

    def layer_norm(self, x: Tensor, stem: str = "norm") -> Tensor:
        return self._norm("layer_norm", x, x.shape[-1], 2, stem)

    def rms_norm(self, x: Tensor, stem: str = "norm") -> Tensor:
        return self._norm("rms_norm", x, x.shape[-1], 1, stem)

    def group_norm(self, x: Tensor, groups: int, stem: str = "norm") -> Tensor:
        return self._norm("group_norm", x, x.shape[1], 2, stem, groups=groups)

    def _norm(self, kind: str, x: Tensor, size: int, vectors: int, stem: str, **attributes: Any) -> Tensor:
        name = ".".join([*self._scope, stem])
        roles: tuple[tuple[str, Role], ...] = (
            ("weight", "weight"),
            ("bias", "weight"),
            ("mean", "constant"),
            ("var", "constant"),
        )
        held = [
            Tensor(f"{name}.{part}#{len(self.ops)}", (size,), self.precision, role)
            for part, role in roles[:vectors]
        ]
        return self.op(kind, [x, *held], x.shape, stem=stem, **attributes)

    def activation(self, x: Tensor, function: str = "relu") -> Tensor:
        return self.op("activation", [x], x.shape, stem=function, function=function)

    def softmax(self, x: Tensor, axis: int = -1) -> Tensor:
        return self.op("softmax", [x], x.shape, axis=axis)

    def elementwise(self, function: str, *tensors: Tensor) -> Tensor:
        """Broadcast arithmetic: add, mul, sub, div ..."""
        rank = max(len(t.shape) for t in tensors)
        padded = [(1,) * (rank - len(t.shape)) + t.shape for t in tensors]
        shape = tuple(max(sizes) for sizes in zip(*padded))
        for t, dims in zip(tensors, padded):
            if any(d not in (1, s) for d, s in zip(dims, shape)):
                raise GraphError(f"cannot broadcast {t.shape} to {shape}", self.name)
        return self.op("elementwise", tensors, shape, stem=function, function=function)

    def add(self, *tensors: Tensor) -> Tensor:
        return self.elementwise("add", *tensors)

    def concat(self, *tensors: Tensor, axis: int = 1) -> Tensor:
        shape = list(tensors[0].shape)
        shape[axis] = sum(t.shape[axis] for t in tensors)
        return self.op("concat", tensors, shape, axis=axis)

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        if prod(shape) != x.elements:
            raise GraphError(f"cannot reshape {x.shape} to {shape}", self.name)
        return self.op("reshape", [x], shape)

    def views(self, x: Tensor, parts: int, axis: int = -1) -> tuple[Tensor, ...]:
        """`x` cut into equal parts along an axis: strided views that nothing copies."""
        axis %= len(x.shape)
        size, rest = divmod(x.shape[axis], parts)
        if rest:
            raise GraphError(f"axis {axis} of {x.shape} does not divide into {parts} parts", self.name)
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        return tuple(self.op("reshape", [x], *[shape] * parts, stem="views"))

    def resize(self, x: Tensor, scale: int, mode: str = "nearest") -> Tensor:
        """Spatial sizes times an integer."""
        return self.op("resize", [x], (*x.shape[:2], *(size * scale for size in x.shape[2:])), mode=mode)

    def flatten(self, x: Tensor) -> Tensor:
        return self.reshape(x, x.shape[0], prod(x.shape[1:]))

    def transpose(self, x: Tensor, *axes: int) -> Tensor:
        batch_axis = None if x.batch_axis is None else axes.index(x.batch_axis)
        return self.op("transpose", [x], [x.shape[a] for a in axes], axes=axes, batch_axis=batch_axis)

    def embedding(self, indices: Tensor, rows: int, width: int, stem: str = "embedding") -> Tensor:
        """Rows of a table; `indices` keeps its shape and gains the width."""
        name = ".".join([*self._scope, stem])
        table = self.weight(f"{name}.weight#{len(self.ops)}", rows, width)
        return self.op("gather", [table, indices], (*indices.shape, width), stem=stem)

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = False,
        window: int | None = None,
        stem: str = "attention",
    ) -> Tensor:
        """Scaled dot-product attention on (batch, heads, tokens, width); fewer k/v heads than q heads is GQA
        or MQA.
        """
        attributes: dict[str, Any] = {"causal": causal}
        if window:
            attributes["window"] = window
        return self.op("attention", [q, k, v], (*q.shape[:3], v.shape[3]), stem=stem, **attributes)


def _spread(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)
