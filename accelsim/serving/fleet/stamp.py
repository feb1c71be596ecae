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


def stamp_of(run: FleetRun, arrivals: Any, coming: Requests | None, settings: tuple[Any, ...]) -> Stamp:
    """The stamp of a run: equal stamps give equal numbers."""
    digest = hashlib.blake2b(repr((_plain(run.fleet), settings)).encode(), digest_size=8)
    kinds = [kind for pool in run.pools for kind in pool.kinds]
    for kind in kinds:
        digest.update(kind.identity())
    if coming is None:
        digest.update(repr(arrivals).encode())
    else:
        for column in (
            coming.arrival_ns, coming.priority, coming.timeout_s, coming.model, coming.sequence,
            coming.prompt_tokens, coming.output_tokens, coming.prefix_tokens, coming.prefix_group,
        ):  # fmt: skip
            digest.update(b"-" if column is None else column.tobytes())
        digest.update(repr(coming.hash_ids).encode())
    hardware, workloads = zip(*(kind.hashes() for kind in kinds))
    return Stamp(
        VERSION,
        MODEL_VERSION,
        " ".join(dict.fromkeys(h for h in hardware if h)),
        " ".join(dict.fromkeys(w for w in workloads if w)),
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
