"""Thread blocks on streaming multiprocessors, and what the time of a kernel is spent on (numba).

Shared by plain and grouped products; docs/models.md, section GPU, "What time is spent on", has the rules.
"""

from __future__ import annotations

import math

from numba import njit

from accelsim.architectures.gpu import rows as R


@njit(cache=True)
def block_step(tile_m, tile_n, step_k, width_a, width_b, rate, shared, from_l2):  # type: ignore[no-untyped-def]
    """One step of one block: tensor issue [clk], operands from shared memory [clk], bytes from the L2 [B]."""
    step_bytes = (tile_m * width_a * from_l2 + tile_n * width_b) * step_k
    issue = 2.0 * tile_m * tile_n * step_k / rate
    operands = width_a / min(tile_n, 128.0) + width_b / min(tile_m, 64.0)
    return issue, step_k * tile_m * tile_n * operands / shared, step_bytes


@njit(cache=True)
def waves(blocks, sms, fit):  # type: ignore[no-untyped-def]
    """Blocks that one SM runs, those that it runs together, and how often it starts some."""
    queue = max(1.0, math.ceil(blocks / sms))
    together = min(fit, queue)
    return queue, together, math.ceil(queue / together)


@njit(cache=True)
def divided(body, main_s, dram_s):  # type: ignore[no-untyped-def]
    """On-chip and DRAM part of a duration: the longer of the two in full, of the other what it adds."""
    if dram_s >= main_s:
        return body - dram_s, dram_s
    return main_s, body - main_s


@njit(cache=True)
def spread(out, on_chip_s, step, busy_s, limits, even, again):  # type: ignore[no-untyped-def]
    """Add the on-chip time of a product to the stalls of whatever bounds its main loop.

    Parameters
    ----------
    out : ndarray
        A row of the output, see `rows`.
    on_chip_s : float
        What to add in all [s].
    step : tuple of float
        Of one step: tensor issue, shared memory, L2 port, unpacking, overhead [clk].
    busy_s : float
        Time of the main loops by the steps' work [s].
    limits : tuple of float
        The same by the L2, by the latency of steps, and by the vector lanes [s].
    even : tuple of float
        Share of the work's, and of the latencies', time that is left with blocks spread evenly over the SMs.
    again : tuple of float
        Epilogues of all rounds but the last: fixed part and what is written [s].
    """
    issue, supply, load, unpack, overhead = step
    l2_s, wait_s, vector_s = limits
    main_s = max(busy_s, l2_s, wait_s, vector_s)
    whole = main_s + again[0] + again[1]
    if whole <= 0.0:
        out[R.STALL_COMPUTE] += on_chip_s
        return
    scale = on_chip_s / whole
    out[R.STALL_LATENCY] += scale * again[0]
    out[R.STALL_L2] += scale * again[1]
    main_s *= scale
    if l2_s >= max(busy_s, wait_s, vector_s):
        out[R.STALL_L2] += main_s
    elif wait_s > max(busy_s, vector_s):
        out[R.STALL_LATENCY] += main_s * even[1]
        out[R.STALL_TAIL] += main_s * (1.0 - even[1])
    elif vector_s > busy_s:
        out[R.STALL_COMPUTE] += main_s
    else:
        out[R.STALL_TAIL] += main_s * (1.0 - even[0])
        main_s *= even[0]
        work = max(issue, supply, load)
        clocks = work + unpack + overhead
        if issue >= work:
            out[R.STALL_COMPUTE] += main_s * work / clocks
        elif supply >= work:
            out[R.STALL_SHARED] += main_s * work / clocks
        else:
            out[R.STALL_L2] += main_s * work / clocks
        out[R.STALL_COMPUTE] += main_s * unpack / clocks
        out[R.STALL_LATENCY] += main_s * overhead / clocks
