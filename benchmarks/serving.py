"""How fast serving is simulated: ``python benchmarks/serving.py [--json]``.

Processor time on one core, best of several runs, kernels compiled before. Targets are printed beside the
figures; nothing fails here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

import accelsim as ax
from accelsim.explore import linear
from accelsim.serving import ClosedLoop, Greedy, Pool, QueuePolicy, Replica, curve, serve_fleet
from accelsim.serving.fast import twin
from accelsim.serving.service import Times

REQUESTS = 1_000_000
READABLE = 20_000
LAW = ax.LinearService(0.004, 0.0005)
POLICIES = {
    "greedy": Greedy(8),
    "triton": ax.Triton(8),
    "triton, delay 1 ms": ax.Triton(8, max_queue_delay_us=1000),
    "triton, 4 instances": ax.Triton(8, instances=4),
    "triton, timeout": ax.Triton(8, queue_policy=QueuePolicy("REJECT", 30_000)),
    "tensorflow serving": ax.TensorFlowServing(8, 1000, 100),
    "torchserve": ax.TorchServe(8, 5, 1, 1000),
}
MEMORY = """
import resource
import accelsim as ax
law = ax.LinearService(0.004, 0.0005)
ax.serve(law, arrivals=ax.Poisson(750), batching=ax.Triton(8), requests=10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


CHAT = {"prompt_tokens": 512, "output_tokens": 128}
ENGINE = ax.ContinuousBatching("vllm", max_num_seqs=64)


def best_s(call: Callable[[], object], times: int = 3) -> float:
    """Least processor time of a call [s]."""
    call()
    taken = []
    for _ in range(times):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


def figures() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, policy in POLICIES.items():
        arrivals = ax.Poisson(750 * policy.instances)
        requests = arrivals.generate(REQUESTS)
        few = arrivals.generate(READABLE)
        times = Times.of(LAW, ax.Overheads(), policy.max_batch)
        kernel = REQUESTS / best_s(lambda: twin.run_open(requests, policy, times))  # noqa: B023
        whole = REQUESTS / best_s(lambda: ax.serve(LAW, arrivals=requests, batching=policy))  # noqa: B023
        slow = READABLE / best_s(lambda: ax.serve(LAW, arrivals=few, batching=policy, engine="simpy"))  # noqa: B023
        rows.append({"what": f"{name}: kernel", "value": kernel, "unit": "requests/s", "target": 3e6})
        rows.append({"what": f"{name}: serve()", "value": whole, "unit": "requests/s", "target": None})
        rows.append({"what": f"{name}: simpy", "value": slow, "unit": "requests/s", "target": 2e4})
    fleet = Pool(Replica(LAW, batching=Greedy(8), count=4), balancer="least_outstanding")
    traffic = ax.Poisson(3000).generate(READABLE)
    several = READABLE / best_s(lambda: serve_fleet(fleet, arrivals=traffic))
    rows.append({"what": "fleet of 4, greedy: simpy", "value": several, "unit": "requests/s", "target": 2e4})
    rates = [100 + 40 * i for i in range(20)]
    sweep = best_s(lambda: curve(LAW, rates_per_s=rates, batching=ax.Triton(8), requests=100_000), 1)
    rows.append({"what": "p99 against rate, 20 x 100,000", "value": sweep, "unit": "s", "target": 3.0})
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    rows.append(
        {"what": "memory, 10,000,000 requests", "value": float(done.stdout), "unit": "B", "target": 1e9}
    )
    return rows


def token_figures() -> list[dict[str, object]]:
    """Llama-3.1-8B on an H100, batches up to 64, 512 tokens in and 128 out."""
    rows: list[dict[str, object]] = []
    busy = ClosedLoop(64, **CHAT)
    shared = ClosedLoop(64, **CHAT, prefix_tokens=256, prefix_groups=100)
    pools = {"prefill": 2, "decode": 2}
    for what, users, more, count, target in (
        ("numba", busy, {"engine": "numba"}, 20_000, 2e4),
        ("numba, shared prefixes", shared, {"engine": "numba"}, 20_000, 2e4),
        ("numba, two and two in pools", busy, {"engine": "numba", **pools}, 20_000, 2e4),
        ("simpy", busy, {"engine": "simpy"}, 1000, None),
    ):
        given = {"arrivals": users, "batching": ENGINE, "requests": count, **more}
        taken = best_s(lambda: ax.serve("llama-3.1-8b", "h100-sxm", **given))  # noqa: B023
        rows.append(
            {"what": f"llama: {what}", "value": count / taken, "unit": "requests/s", "target": target}
        )
    for count in (200, 1000):
        axes = {
            "workload": "llama-3.1-8b", "hardware": ["h100-sxm", "h200-sxm"], "batching": [ENGINE],
            "rate_per_s": linear(0.5, 20.0, 40), **CHAT, "requests": count, "jobs": 1,
        }  # fmt: skip
        taken = best_s(lambda: ax.sweep(**axes), 2)  # noqa: B023
        rows.append(
            {"what": f"llama sweep, {count} requests a point", "value": 80 / taken, "unit": "points/s",
             "target": 100.0}
        )  # fmt: skip
    return rows


def main() -> None:
    rows = [*figures(), *token_figures()]
    if "--json" in sys.argv:
        print(json.dumps(rows))
        return
    for row in rows:
        target = f"(target {row['target']:.3g})" if row["target"] is not None else ""
        print(f"{row['what']:34s} {row['value']:12.4g} {row['unit']} {target}")


if __name__ == "__main__":
    main()
