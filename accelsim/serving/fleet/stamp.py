"""What produced a fleet's result. Times and arrivals count by their numbers, not by how they were made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from accelsim.core.version import MODEL_VERSION, VERSION
from accelsim.engine.result import Stamp
from accelsim.serving.fleet.replica import Replica
from accelsim.serving.fleet.run import FleetRun
from accelsim.serving.requests import Requests
from accelsim.serving.service import DeviceService

DRAWS = 16
"""Random factors of a law that count for its identity."""


def stamp_of(run: FleetRun, arrivals: Any, coming: Requests | None, settings: tuple[Any, ...]) -> Stamp:
    """The stamp of a run: equal stamps give equal numbers."""
    digest = hashlib.blake2b(repr((_plain(run.fleet), settings)).encode(), digest_size=8)
    kinds = [kind for pool in run.pools for kind in pool.kinds]
    for kind in kinds:
        times = kind.times
        digest.update(times.service_ns.tobytes() + times.held_ns.tobytes() + times.gap_ns.tobytes())
        draw = getattr(kind.law, "factors", None)
        drawn = draw(DRAWS, run.seed) if draw is not None else None
        digest.update(b"-" if drawn is None else drawn.tobytes())
    if coming is None:
        digest.update(repr(arrivals).encode())
    else:
        for column in (coming.arrival_ns, coming.priority, coming.timeout_s, coming.model, coming.sequence):
            digest.update(b"-" if column is None else column.tobytes())
    laws = [kind.law for kind in kinds if isinstance(kind.law, DeviceService)]
    stamps = [law.results[law.grid[0]].stamp for law in laws]
    return Stamp(
        VERSION,
        MODEL_VERSION,
        " ".join(dict.fromkeys(s.hardware_hash for s in stamps)),
        " ".join(dict.fromkeys(s.workload_hash for s in stamps)),
        digest.hexdigest(),
        run.seed,
        "simpy",
    )


def _plain(value: Any) -> Any:
    """What a fleet is made of, without its models and devices: their times count instead."""
    if is_dataclass(value):
        left_out = ("model", "hardware") if isinstance(value, Replica) else ()
        return tuple(
            (f.name, _plain(getattr(value, f.name))) for f in fields(value) if f.name not in left_out
        )
    if isinstance(value, Mapping):
        return tuple((key, _plain(item)) for key, item in value.items())
    if isinstance(value, tuple | list):
        return tuple(_plain(item) for item in value)
    return repr(value)
