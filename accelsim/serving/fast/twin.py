"""Which policies the kernels cover, and how a policy becomes their arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.serving.batching import Greedy, StaticBatch
from accelsim.serving.log import Log
from accelsim.serving.rayserve import RayServe
from accelsim.serving.requests import Requests, to_ns
from accelsim.serving.service import Times
from accelsim.serving.station import Policy
from accelsim.serving.tfserving import TensorFlowServing
from accelsim.serving.torchserve import TorchServe
from accelsim.serving.triton import Triton

_NONE_INT = np.zeros(0, np.int64)


def covers(policy: Policy) -> bool:
    """Whether the kernels know a policy."""
    return type(policy) in _RUNNERS or isinstance(policy, Greedy)


def run_open(requests: Requests, policy: Policy, times: Times) -> Log:
    """Serve requests that come at their own times; equals the simpy engine's log."""
    arrival = requests.arrival_ns
    n = len(arrival)
    finish = np.full(n, -1, np.int64)
    status = np.zeros(n, np.int8)
    execution = np.full(n, -1, np.int32)
    runs: tuple[Any, ...] = tuple(np.empty(n, kind) for kind in (*(np.int64,) * 2, *(np.int32,) * 3))
    factors = times.factors if times.factors is not None else np.zeros(0)
    clock = (times.service_ns, times.held_ns, times.gap_ns, factors, times.wake_ns, times.answer_ns)
    runner = _RUNNERS.get(type(policy), _plain)
    count = runner(policy, requests, arrival, clock, (finish, status, execution, runs))
    # Views keep the memory of unused rows untouched, and with it unclaimed.
    start, held, size, padded, instance = (column[:count] for column in runs)
    return Log(arrival, finish, status, execution, start, held, size, padded, instance, "numba")


def _plain(policy: Any, requests: Requests, arrival: NDArray[np.int64], clock: Any, out: Any) -> int:
    from accelsim.serving.fast.plain import run

    least = policy.batch if isinstance(policy, StaticBatch) else 1
    return int(run(arrival, least, policy.max_batch, policy.instances, *clock, *out))


def _collect(policy: Any, requests: Requests, arrival: NDArray[np.int64], clock: Any, out: Any) -> int:
    from accelsim.serving.fast.collect import run

    torch = isinstance(policy, TorchServe)
    wait = policy.max_batch_delay_ms * 1_000_000 if torch else round(policy.wait_s * 1e9)
    room = policy.job_queue_size if torch else len(arrival) + 1
    return int(run(arrival, torch, policy.max_batch, wait, room, policy.instances, *clock, *out))


def _shared(policy: Any, requests: Requests, arrival: NDArray[np.int64], clock: Any, out: Any) -> int:
    from accelsim.serving.fast.shared import run

    pad = np.array([0, *(policy.padded(b) for b in range(1, policy.max_batch + 1))], np.int64)
    room, timeout = policy.max_enqueued_batches, policy.batch_timeout_us * 1000
    return int(run(arrival, policy.max_batch, timeout, room, pad, policy.instances, *clock, *out))


def _triton(policy: Any, requests: Requests, arrival: NDArray[np.int64], clock: Any, out: Any) -> int:
    from accelsim.serving.fast import batcher, plain

    if not policy.dynamic:
        return int(plain.run(arrival, 1, 1, policy.instances, *clock, *out))
    policies = policy.policies
    level = _NONE_INT
    if len(policies) > 1:
        asked = np.zeros(len(arrival), np.int64) if requests.priority is None else requests.priority
        known = (asked > 0) & (asked <= len(policies))
        level = np.where(known, asked, max(policy.default_priority, 1)) - 1
    timeouts = np.array([p.default_timeout_us * 1000 for p in policies], np.int64)
    asked_ns = _NONE_INT if requests.timeout_s is None else to_ns(requests.timeout_s)
    return int(
        batcher.run(
            arrival,
            level,
            asked_ns,
            policy.max_batch,
            np.array(policy.sizes, np.int64),
            policy.max_queue_delay_us * 1000,
            policy.prefetches,
            policy.preserve_ordering,
            timeouts,
            np.array([p.allow_timeout_override for p in policies]),
            np.array([p.timeout_action == "DELAY" for p in policies]),
            np.array([p.max_queue_size for p in policies], np.int64),
            policy.instances,
            *clock,
            *out,
        )
    )


_RUNNERS = {
    StaticBatch: _plain,
    TorchServe: _collect,
    RayServe: _collect,
    TensorFlowServing: _shared,
    Triton: _triton,
}
