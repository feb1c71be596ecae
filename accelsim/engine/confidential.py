"""What confidential computing adds to whole queries of a language model."""

from __future__ import annotations

from typing import Any

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.engine.simulate import simulate
from accelsim.hardware.protection import seal_of
from accelsim.hardware.spec import load_hardware
from accelsim.techniques.security import sealed_s, traffic
from accelsim.workload.load import load_workload


def confidential_query(
    workload: Any,
    hardware: Any,
    *,
    prompt: int,
    output: int,
    batch: int = 1,
    stack: str = "vllm",
    **settings: Any,
) -> dict[str, float]:
    """What confidential computing adds to a query of a language model: prompt in, tokens out.

    Each pass pays for its own traffic, see `accelsim.techniques.security.sealed_s`. Decode steps at the
    first, the middle and the last context stand for all (Simpson's rule: their time is close to linear in the
    context).

    Parameters
    ----------
    workload, hardware, batch, stack, **settings
        See `simulate`.
    prompt, output : int
        Tokens.

    Returns
    -------
    dict
        ``plain_s added_s overhead_pct overhead_low_pct overhead_high_pct throughput_drop_pct``.

    Raises
    ------
    RequestError
        No prompt or no output.
    InfeasibleError
        The model does not fit.
    """
    for name, value in (("prompt", prompt), ("output", output)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RequestError(f"{name} {value!r} is not a positive number of tokens")
    device: Any = load_hardware(hardware)
    seal = seal_of(device)
    last = prompt + output - 1
    passes = [("prefill", prompt, 1.0)]
    if output > 1:
        for share, context in ((1 / 6, prompt + 1), (4 / 6, (prompt + 1 + last) // 2), (1 / 6, last)):
            passes.append(("decode", context, share * (output - 1)))
    plain = added = low = high = 0.0
    for phase, context, times in passes:
        graph = load_workload(workload, phase=phase, context=context)
        found = simulate(graph, device, batch=batch, stack=stack, **settings)
        if isinstance(found, Infeasible):
            raise InfeasibleError(found.reason, found.need, found.have, found.hint)
        kernels = float(found.ops["repeat"].sum())
        moved = traffic(graph, batch, stack if device.kind == "gpu" else "", 1, kernels)
        plain += times * found.summary["latency_s"]
        added += times * sealed_s(moved, seal)
        low += times * sealed_s(moved, seal, seal.copy_low_s)
        high += times * sealed_s(moved, seal, seal.copy_high_s)
    return {
        "plain_s": plain,
        "added_s": added,
        "overhead_pct": 100.0 * added / plain,
        "overhead_low_pct": 100.0 * low / plain,
        "overhead_high_pct": 100.0 * high / plain,
        "throughput_drop_pct": 100.0 * added / (plain + added),
    }
