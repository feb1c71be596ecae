"""Liveness: how much activation memory a graph needs when its ops run in topological order."""

from __future__ import annotations

from accelsim.workload.graph import Graph


def peak_activation_bytes(graph: Graph) -> float:
    """Largest sum of live activations [B].

    A tensor lives from the op that writes it to the last op that reads it or a view of it; what nothing reads
    lives to the end. Free ops (reshapes) make views and take no memory.
    """
    ops = graph.ops
    storage: dict[str, tuple[str, ...]] = {}
    size = {t.name: t.size_bytes for t in graph.inputs if t.role == "activation"}
    born = dict.fromkeys(size, 0)
    last: dict[str, int] = {}
    for position, op in enumerate(ops):
        held = tuple(dict.fromkeys(name for t in op.inputs for name in storage.get(t.name, (t.name,))))
        for name in held:
            last[name] = position
        for t in op.outputs:
            if op.work.free:
                storage[t.name] = held
            else:
                size[t.name], born[t.name] = t.size_bytes, position
    for t in graph.outputs:
        for name in storage.get(t.name, (t.name,)):
            last[name] = len(ops)
    change = [0.0] * (len(ops) + 2)
    for name, held_bytes in size.items():
        change[born[name]] += held_bytes
        change[last.get(name, len(ops)) + 1] -= held_bytes
    peak = live = 0.0
    for delta in change:
        live += delta
        peak = max(peak, live)
    return peak
