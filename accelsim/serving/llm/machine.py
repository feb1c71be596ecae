"""Operators costed by the device model, by the thousand; formats and splits of a served model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures import architecture_of
from accelsim.architectures.base import Options
from accelsim.architectures.opschema import OPS
from accelsim.core.errors import RequestError
from accelsim.core.precision import plan
from accelsim.workload.graph import Graph, Op

Array = npt.NDArray[np.float64]

PLAIN = "graph"
"""Stack whose products are plain ones in a recorded graph."""


@dataclass(frozen=True)
class Formats:
    """Formats of a served model.

    Attributes
    ----------
    linear : str
        Products with weights, as in the operator table.
    experts : str
        Expert layers.
    attention : str
        Products of attention and its result.
    kv : str
        Cache.
    scale_block : int
        Elements along k with one scale of fp8 products; 0 for one scale per tensor.
    head : str
        Output projection.
    projections : str
        Products around attention, which checkpoints with 4-bit weights often leave wider; empty: as `linear`.
    fused : bool
        The kernel in front of a product writes its input in the narrow format (static scales, or a fused
        norm and activation), so products take the constants of plain ones; else those of the stack, measured
        with quantisation in them.
    fused_norms : bool
        Only norms do so: products behind attention and activations have a quantisation of their own.
    """

    linear: str = "bf16"
    experts: str = "bf16"
    attention: str = "bf16"
    kv: str = "bf16"
    scale_block: int = 0
    head: str = "bf16"
    projections: str = ""
    fused: bool = False
    fused_norms: bool = False


@dataclass(frozen=True)
class Split:
    """How devices share a model.

    Attributes
    ----------
    tensor : int
        Devices that share attention heads and dense layers.
    pipeline : int
        Stages.
    data : int
        Ranks with attention of their own, whose experts are shared (attention data parallelism).
    expert : int
        Devices that share the experts of a layer; the rest of ``tensor * data`` shares their width.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: int = 1

    def __post_init__(self) -> None:
        for name in ("tensor", "pipeline", "data", "expert"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RequestError(f"{name} parallelism must be a positive whole number, got {value!r}")
        if (self.tensor * self.data) % self.expert:
            raise RequestError(
                f"{self.tensor * self.data} devices of a stage cannot hold experts in {self.expert} parts",
                hint="expert must divide tensor * data",
            )

    @property
    def devices(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def expert_width(self) -> int:
        """Devices that share the width inside an expert."""
        return self.tensor * self.data // self.expert


@dataclass(frozen=True)
class Costed:
    """Sums over the operators of a part of a step, by point of a grid."""

    seconds: Array
    joules: Array


class Machine:
    """Costs operators on a device, each batch of rows at once.

    Parameters
    ----------
    device : Device
        A device whose architecture predicts single operators.
    stack : str
    """

    def __init__(self, device: Any, stack: str) -> None:
        self.device = device
        self.architecture = architecture_of(device.kind)
        self.options = Options(stack=stack)

    def rows(self, op: str, formats: str, *, plain: bool = False, **sizes: Any) -> Costed:
        """Latency and dynamic energy of rows; sizes are numbers or arrays of one length. `plain`: with the
        constants of no stack.
        """
        spec = OPS[op]
        given = {name: np.asarray(value, dtype=np.float64) for name, value in sizes.items()}
        shape = np.broadcast_shapes(*(v.shape for v in given.values()))
        columns = {name: np.broadcast_to(given[name], shape) for name in spec.required}
        for name, default in spec.optional.items():
            value = given.get(name, columns[default] if isinstance(default, str) else np.asarray(default))
            columns[name] = np.broadcast_to(value, shape)
        flat = np.stack([c.ravel() for c in columns.values()], axis=1).astype(np.float64)
        distinct, position = np.unique(flat, axis=0, return_inverse=True)
        table = self.architecture.predict(
            op,
            dict(zip(columns, distinct.T)),
            plan(formats),
            self.device,
            Options(stack=PLAIN) if plain else self.options,
        )
        at = position.reshape(shape)
        return Costed(table.latency_s[at], table.energy_j[at])

    def stream(self, rows: Any, cols: Any, inputs: float = 1.0) -> Costed:
        """A row-wise kernel in 16 bits: the DRAM or latency bound of its traffic, without a table of its own.

        The stream model of the device's elementwise kernels, at a fixed grid of sizes (its time is linear
        between them).
        """
        cells = np.asarray(rows, dtype=np.float64) * np.asarray(cols, dtype=np.float64)
        grid, costs = self._streams(inputs)
        return Costed(np.interp(cells, grid, costs.seconds), np.interp(cells, grid, costs.joules))

    def _streams(self, inputs: float) -> tuple[Array, Costed]:
        if inputs not in _STREAMS.setdefault((self.device.hash, self.options.stack), {}):
            cells = 2.0 ** np.arange(10, 34, 0.5)
            found = self.rows(
                "elementwise", "bf16", rows=np.maximum(1, cells // 1024), cols=1024, inputs=inputs
            )
            _STREAMS[self.device.hash, self.options.stack][inputs] = (cells // 1024 * 1024, found)
        return _STREAMS[self.device.hash, self.options.stack][inputs]

    def graph(self, ops: list[Op]) -> Costed:
        """Operators without rows in the table, each by itself."""
        program = self.architecture.lower(Graph("operators", ops), self.device, self.options)
        found = {
            kernel.name: (cost.latency_s, sum(cost.energy_j.values()))
            for kernel, cost in zip(program.kernels, self.architecture.cost(program))
        }
        pairs = np.array([found[op.name] for op in ops])
        return Costed(pairs[:, 0], pairs[:, 1])


_STREAMS: dict[tuple[str, str], dict[float, tuple[Array, Costed]]] = {}


@dataclass
class Sum:
    """Adds up costs of one grid."""

    seconds: Array
    joules: Array = field(init=False)

    def __post_init__(self) -> None:
        self.joules = np.zeros_like(self.seconds)

    def add(self, cost: Costed, times: float = 1.0) -> None:
        self.seconds = self.seconds + times * cost.seconds
        self.joules = self.joules + times * cost.joules
