"""What confidential computing adds to whole queries of a language model."""

from __future__ import annotations

from typing import Any

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.explore.compose import compose
from accelsim.techniques.security import Confidential


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

    Decode steps at the first, the middle and the last context stand for all (Simpson's rule: their time is
    close to linear in the context).

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
    weights = [("prefill", prompt, 1.0)]
    last = prompt + output - 1
    for share, context in ((1 / 6, prompt + 1), (4 / 6, (prompt + 1 + last) // 2), (1 / 6, last)):
        weights.append(("decode", max(context, 1), share * (output - 1)))
    plain = added = low = high = 0.0
    for phase, context, times in weights:
        if not times:
            continue
        options = {"phase": phase, "context": context, "batch": batch, "stack": stack, **settings}
        found = compose(workload, hardware, Confidential(), **options)
        if isinstance(found, Infeasible):
            raise InfeasibleError(found.reason, found.need, found.have, found.hint)
        sealed = found.part("encrypted transfers")
        plain += times * found.plain.summary["latency_s"]
        added += times * sealed.latency_s
        low, high = low + times * sealed.low_s, high + times * sealed.high_s
    return {
        "plain_s": plain,
        "added_s": added,
        "overhead_pct": 100.0 * added / plain,
        "overhead_low_pct": 100.0 * low / plain,
        "overhead_high_pct": 100.0 * high / plain,
        "throughput_drop_pct": 100.0 * added / (plain + added),
    }
