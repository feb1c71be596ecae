"""Recurrent layers."""

from __future__ import annotations

from accelsim.core.errors import GraphError
from accelsim.core.precision import precision
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.ops import (
    TRANSCENDENTAL_OPS,
    LoopNest,
    Work,
    compulsory,
    register_op,
    require_operands,
)

_FP16 = precision("fp16")
_SIGMOID = TRANSCENDENTAL_OPS + 2  # negate inside exp, add one, divide
_TANH = TRANSCENDENTAL_OPS

# Per hidden unit and step. LSTM: add the two products (4 gates), three sigmoids, tanh of the candidate and
# of the cell, f c + i g, o tanh(c). GRU: add the two products (3 gates), two sigmoids, one tanh, the reset
# product, (1 - z) n + z h.
LSTM_OPS = 4 + 3 * _SIGMOID + 2 * _TANH + 3 + 1
GRU_OPS = 3 + 2 * _SIGMOID + _TANH + 1 + 4


def _example(kind: str, gates: int, directions: int = 1) -> Op:
    t, b, i, h = 5, 1, 32, 48
    x = Tensor("x", (t, b, i), _FP16, batch_axis=1)
    w_ih = Tensor("w_ih", (directions * gates * h, i), _FP16, role="weight")
    w_hh = Tensor("w_hh", (directions * gates * h, h), _FP16, role="weight")
    y = Tensor("y", (t, b, directions * h), _FP16, batch_axis=1)
    return Op(kind, kind, (x, w_ih, w_hh), (y,), {"hidden": h, "directions": directions})


def _recurrent(op: Op, gates: int, per_unit: int) -> Work:
    require_operands(op, 3)
    x, w_ih, w_hh = op.inputs[:3]
    hidden, directions = op.attribute("hidden"), op.attribute("directions", 1)
    if len(x.shape) != 3 or not isinstance(hidden, int) or hidden < 1 or directions not in (1, 2):
        raise GraphError(f"{op.kind} needs x (t, b, i), hidden and 1 or 2 directions, got {x.shape}", op.name)
    steps, batch, features = x.shape
    rows = directions * gates * hidden
    if w_ih.elements != rows * features or w_hh.elements != rows * hidden:
        raise GraphError(
            f"weights {w_ih.shape} and {w_hh.shape} do not fit input {x.shape} and hidden {hidden}", op.name
        )
    if op.outputs[0].elements != steps * batch * directions * hidden:
        raise GraphError(
            f"output {op.outputs[0].shape} does not fit input {x.shape} and hidden {hidden}", op.name
        )
    across = {"r": directions}
    columns = {"g": gates, "h": hidden}
    ahead = LoopNest(across, {"t": steps, "b": batch}, columns, {"i": features}, left=0, right=1)
    step = LoopNest(across, {"b": batch}, columns, {"h": hidden}, left=None, right=2, steps=steps)
    biases = sum(t.elements for t in op.inputs[3:] if t.role == "weight")
    read, written = compulsory(op)
    vector = steps * batch * (directions * hidden * per_unit + biases)
    return Work(read, written, (ahead, step), vector_ops=vector)


@register_op("lstm", examples=[lambda: _example("lstm", 4), lambda: _example("lstm", 4, directions=2)])
def lstm(op: Op) -> Work:
    """Long short-term memory layer (4 gates) over a whole sequence.

    ``inputs = (x, w_ih, w_hh[, biases, states])``: x (t, b, i), w_ih (directions 4 h, i), w_hh (directions
    4 h, h), output (t, b, directions h). Two nests: the input product of all steps at once (m = t b), and
    the recurrent one, t times in turn (m = b), whose weights count once in the compulsory bytes. Gate
    arithmetic is `LSTM_OPS` per hidden unit and step. Attributes: hidden, directions.
    """
    return _recurrent(op, 4, LSTM_OPS)


@register_op("gru", examples=[lambda: _example("gru", 3), lambda: _example("gru", 3, directions=2)])
def gru(op: Op) -> Work:
    """Gated recurrent unit layer (3 gates) over a whole sequence.

    Operands and nests as for `lstm`, with 3 h rows; `GRU_OPS` per hidden unit and step.
    """
    return _recurrent(op, 3, GRU_OPS)
