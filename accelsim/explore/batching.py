"""Batch size as a choice: curves, knees, largest batches under a limit, and items of different lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from accelsim.core.accessors import Accessible
from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.hardware.spec import load_hardware
from accelsim.techniques.padding import Lengths, bucketed, optimal_edges
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload

if TYPE_CHECKING:
    import pandas as pd

BATCHES = tuple(2**i for i in range(11))
"""Batches of a curve unless others are given."""

KNEE_SHARE = 0.9
"""Share of the highest throughput that the knee reaches."""

MOST = 2**17
"""Largest batch that `largest_batch` tries."""

CANDIDATES = 48
"""Lengths that are simulated at most; others are padded to the next of them."""


@dataclass(frozen=True)
class BatchCurve(Accessible):
    """What a batch buys on one device.

    Attributes
    ----------
    rows : tuple of dict
        One per batch, ascending; infeasible ones end the curve with ``status reason``.
    serial_steps : int
        Most steps of a recurrent layer, which follow one another whatever the batch; 1 for feed-forward
        networks.
    notes : tuple of str
    """

    rows: tuple[dict[str, Any], ...]
    serial_steps: int
    notes: tuple[str, ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per batch: ``batch status latency_s latency_low_s latency_high_s throughput_per_s
        throughput_low_per_s throughput_high_per_s memory_bytes energy_per_item_j power_w mac_utilisation
        bound reason``.
        """
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    @property
    def _feasible(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["status"] == "ok"]

    def knee(self, share: float = KNEE_SHARE) -> int | None:
        """The smallest batch of the curve with at least this share of its highest throughput."""
        if not 0 < share <= 1:
            raise RequestError(f"share {share!r} is not in (0, 1]")
        rows = self._feasible
        top = max((row["throughput_per_s"] for row in rows), default=math.nan)
        return next((row["batch"] for row in rows if row["throughput_per_s"] >= share * top), None)

    @property
    def kneedle(self) -> int | None:
        """The batch where throughput over batch, both scaled to [0, 1], stands highest above the diagonal
        (Satopaa et al., ICDCSW 2011, doi:10.1109/ICDCSW.2011.20).
        """
        rows = self._feasible
        if len(rows) < 3:
            return None
        x = [float(row["batch"]) for row in rows]
        y = [row["throughput_per_s"] for row in rows]
        if max(y) == min(y):
            return int(rows[0]["batch"])
        above = [(b - min(y)) / (max(y) - min(y)) - (a - x[0]) / (x[-1] - x[0]) for a, b in zip(x, y)]
        return int(rows[above.index(max(above))]["batch"])

    if TYPE_CHECKING:  # accessors that accelsim/__init__.py registers

        @property
        def plot(self) -> Any: ...

    @property
    def gain(self) -> float:
        """Highest throughput over that of the smallest batch."""
        rows = self._feasible
        if not rows:
            return math.nan
        return float(max(row["throughput_per_s"] for row in rows) / rows[0]["throughput_per_s"])


def batch_curve(
    workload: Any,
    hardware: Any,
    *,
    precision: Any = None,
    batches: Iterable[int] = BATCHES,
    phase: str | None = None,
    context: int | None = None,
    **settings: Any,
) -> BatchCurve:
    """Latency, throughput, memory and energy over the batch.

    Parameters
    ----------
    workload, hardware, precision, phase, context, **settings
        Of `simulate`.
    batches : iterable of int
        Batches to simulate; those after the first that does not fit are left out.

    Returns
    -------
    BatchCurve
        ``.frame`` has a row per batch; ``.plot`` draws it.
    """
    graph = load_workload(workload, phase=phase, context=context)
    sizes = sorted(set(batches))
    if not sizes:
        raise RequestError("the list of batches is empty")
    rows: list[dict[str, Any]] = []
    for batch in sizes:
        result = simulate(graph, hardware, batch=batch, precision=precision, **settings)
        rows.append(_row(result, batch))
        if isinstance(result, Infeasible):
            break
    steps = _serial_steps(graph)
    notes = (
        (
            f"recurrent: {steps} steps follow one another and each needs all weights, so a larger batch pays "
            "until the products of one step fill the device",
        )
        if steps > 1
        else ()
    )
    return BatchCurve(tuple(rows), steps, notes)


def _row(result: Result | Infeasible, batch: int) -> dict[str, Any]:
    s = result.summary
    if isinstance(result, Infeasible):
        return {
            "batch": batch,
            "status": "infeasible",
            "reason": f"{s['reason']}: {s['need']} of {s['have']}",
        }
    scale = s["throughput_per_s"] * s["latency_s"]
    return {
        "batch": batch,
        "status": "ok",
        "latency_s": s["latency_s"],
        "latency_low_s": s["latency_low_s"],
        "latency_high_s": s["latency_high_s"],
        "throughput_per_s": s["throughput_per_s"],
        "throughput_low_per_s": scale / s["latency_high_s"],
        "throughput_high_per_s": scale / s["latency_low_s"],
        "memory_bytes": s["memory_bytes"],
        "energy_per_item_j": s["energy_per_item_j"],
        "power_w": s["power_w"],
        "mac_utilisation": s["mac_utilisation"],
        "bound": s["bound"],
        "reason": "",
    }


def _serial_steps(graph: Graph) -> int:
    return max((nest.steps for op in graph for nest in op.work.nests), default=1)


def largest_batch(
    workload: Any,
    hardware: Any,
    *,
    latency_s: float | None = None,
    memory_bytes: float | None = None,
    phase: str | None = None,
    context: int | None = None,
    **settings: Any,
) -> int:
    """The largest batch that a device can hold and that keeps the limits; 0 when not even one item does.

    Doubling, then bisection over integers: the batch keeps the limits and the next one does not. Memory
    grows with the batch; where a latency dips again beyond the first batch that misses the limit, the later
    batches are not looked at.

    Parameters
    ----------
    workload, hardware, phase, context, **settings
        Of `simulate`.
    latency_s : float, optional
        Longest latency of a batch [s].
    memory_bytes : float, optional
        Most memory [B]; the device's capacity holds anyway.

    Returns
    -------
    int
    """
    for name, limit in (("latency_s", latency_s), ("memory_bytes", memory_bytes)):
        if limit is not None and (
            isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0
        ):
            raise RequestError(f"{name} {limit!r} is not a positive number")
    graph = load_workload(workload, phase=phase, context=context)
    device = load_hardware(hardware)

    def keeps(batch: int) -> bool:
        result = simulate(graph, device, batch=batch, **settings)
        if isinstance(result, Infeasible):
            return False
        s = result.summary
        return (latency_s is None or s["latency_s"] <= latency_s) and (
            memory_bytes is None or s["memory_bytes"] <= memory_bytes
        )

    return boundary(keeps, MOST)


def boundary(keeps: Callable[[int], bool], most: int) -> int:
    """The largest n <= `most` with ``keeps(n)`` and not ``keeps(n + 1)`` that doubling and bisection meet; 0
    when ``keeps(1)`` fails.
    """
    if not keeps(1):
        return 0
    low, high = 1, 2
    while high <= most and keeps(high):
        low, high = high, 2 * high
    if high > most:
        if low == most or keeps(most):
            return most
        high = most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


# -- items of different lengths
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Buckets:
    """Ways to batch sequences of different lengths.

    Attributes
    ----------
    edges : tuple of int
        The best bucket edges [tokens].
    rows : tuple of dict
        One per way: ``way tokens_per_item waste_pct seconds_per_item throughput_per_s``.
    """

    edges: tuple[int, ...]
    rows: tuple[dict[str, Any], ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))


def length_buckets(
    workload: Any,
    hardware: Any,
    lengths: Sequence[int],
    *,
    buckets: int = 4,
    batch: int = 8,
    weights: Sequence[float] | None = None,
    phase: str | None = None,
    **settings: Any,
) -> Buckets:
    """Padding against bucketing, by simulated latency.

    Four ways: every item padded to the longest length there is; to the longest of its batch; to the edge of
    its bucket, with the edges that cost least time (exact dynamic programming); not at all (each batch of
    one length). Batches are full, and items come in any order. More than `CANDIDATES` distinct lengths are
    rounded up to that many quantiles before they are simulated.

    Parameters
    ----------
    workload, hardware, phase, **settings
        Of `simulate`; the workload takes a context length.
    lengths : sequence of int
        Observed lengths, or distinct ones with `weights`.
    buckets, batch : int
    weights : sequence of float, optional
        Weight of each length.

    Returns
    -------
    Buckets
        The edges, and a row of seconds per item for each way.
    """
    given = Lengths.of(lengths, weights)
    held = _thinned(given)
    seconds: dict[int, float] = {}

    def cost(length: int) -> float:
        if length not in seconds:
            graph = load_workload(workload, phase=phase, context=length)
            result = simulate(graph, hardware, batch=batch, **settings)
            if isinstance(result, Infeasible):
                raise RequestError(
                    f"a batch of {batch} items of length {length} does not run: {result.summary['reason']}",
                    str(result.summary["hardware"]),
                )
            seconds[length] = result.summary["latency_s"] / batch
        return seconds[length]

    edges = optimal_edges(held, buckets, cost)
    ways = (
        ("longest length", float(given.longest), cost(held.longest)),
        (
            "longest of the batch",
            given.expected_of_longest(batch),
            held.expected_of_longest(batch, cost),
        ),
        (f"{len(edges)} buckets", bucketed(given, edges), bucketed(held, edges, cost)),
        ("no padding", given.mean, held.expected(cost)),
    )
    rows = tuple(
        {
            "way": way,
            "tokens_per_item": tokens,
            "waste_pct": 100.0 * (1.0 - given.mean / tokens),
            "seconds_per_item": spent,
            "throughput_per_s": 1.0 / spent,
        }
        for way, tokens, spent in ways
    )
    return Buckets(edges, rows)


def _thinned(lengths: Lengths) -> Lengths:
    """At most `CANDIDATES` lengths: each item rounded up to a quantile."""
    if len(lengths.values) <= CANDIDATES:
        return lengths
    found: dict[int, float] = {}
    upto, group, start = 0.0, 1, 0.0
    for n, p in zip(lengths.values, lengths.shares):
        upto += p
        start += p
        if upto >= group / CANDIDATES - 1e-12 or n == lengths.longest:
            found[n], start = start, 0.0
            group = int(upto * CANDIDATES + 1e-9) + 1
    return Lengths(tuple(found), tuple(found.values()))
