"""The fast engine: the loop of `engine` as one compiled kernel on flat arrays, equal to it by request."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from accelsim.serving.llm import steptime, surface
from accelsim.serving.llm.engine import Run, Tables
from accelsim.serving.llm.policy import PREFILL_FIRST, Host, Rules
from accelsim.serving.llm.steptime import BINS

_lookup = njit(cache=True)(surface.lookup)
_padded = njit(cache=True)(steptime.padded)
_with_host = njit(cache=True)(steptime.with_host)
_accepted = njit(cache=True)(steptime.accepted)
_bin_s = float(steptime.BIN)
_BINS = BINS
_FIRST = PREFILL_FIRST

# Columns of the state of a request.
PROMPT, OUTPUT, DONE, EMITTED, HELD, PROMISED, LAST, AWAY = range(8)
# Entries of the counters.
FREE, PROMISE, PREEMPTED, RUNNING, STACKED, NEXT, BEGUN, PLANNED, MOVED, BUDGET = range(10)


@njit(cache=True)
def _gap_bin(gap_ns: int) -> int:
    return min(int(np.log(max(gap_ns, 1)) / _bin_s), _BINS - 1)


@njit(cache=True, inline="always")
def _blocks(tokens: int, block: int) -> int:
    return (tokens + block - 1) // block


@njit(cache=True, inline="always")
def _decoding(q: Any, r: int) -> bool:
    return q[r, EMITTED] > 0 and q[r, PROMPT] + q[r, EMITTED] - q[r, DONE] == 1


@njit(cache=True)
def _take(q: Any, c: Any, r: int, tokens: int, block: int) -> bool:
    need = _blocks(q[r, DONE] + tokens, block) - q[r, HELD]
    if need > c[FREE]:
        return False
    if need > 0:
        c[FREE] -= need
        q[r, HELD] += need
    return True


@njit(cache=True)
def _release(q: Any, c: Any, r: int) -> None:
    c[FREE] += q[r, HELD]
    c[PROMISE] -= q[r, PROMISED]
    q[r, HELD] = 0
    q[r, PROMISED] = 0


@njit(cache=True)
def _preempt(q: Any, c: Any, running: Any, stack: Any, swap: bool) -> int:
    c[RUNNING] -= 1
    victim = running[c[RUNNING]]
    _release(q, c, victim)
    if swap and q[victim, EMITTED] > 0:
        q[victim, AWAY] = 1
        c[MOVED] += q[victim, DONE]
    else:
        q[victim, DONE] = 0
    stack[c[STACKED]] = victim
    c[STACKED] += 1
    c[PREEMPTED] += 1
    return int(victim)


@njit(cache=True)
def _admit_all(q: Any, c: Any, running: Any, stack: Any, work: Any, rules: Any, alone: bool) -> None:
    """Admission from the queue, preempted sequences first; `alone`: an uncut prompt may exceed the budget
    when it has the step for itself."""
    while c[RUNNING] < rules.max_seqs and c[BUDGET] > 0:
        if c[STACKED] > 0:
            r = stack[c[STACKED] - 1]
        elif c[NEXT] < c[BEGUN]:
            r = c[NEXT]
        else:
            break
        remaining = q[r, PROMPT] + q[r, EMITTED] - q[r, DONE]
        if remaining > c[BUDGET] and not rules.chunked:
            if alone:
                if c[PLANNED] > 0:
                    break
            elif q[r, EMITTED] == 0:
                break
        tokens = min(remaining, c[BUDGET])
        promise = 0
        if rules.reserve > 0:
            promise = _blocks(q[r, PROMPT] + int(rules.reserve * q[r, OUTPUT]), rules.block)
            if c[PROMISE] + promise > rules.blocks:
                break
        if not _take(q, c, r, tokens, rules.block):
            break
        if c[STACKED] > 0:
            c[STACKED] -= 1
        else:
            c[NEXT] += 1
        running[c[RUNNING]] = r
        c[RUNNING] += 1
        q[r, PROMISED] = promise
        c[PROMISE] += promise
        if q[r, AWAY] > 0:
            q[r, AWAY] = 0
            c[MOVED] += q[r, DONE]
        _work(c, work, r, tokens)


@njit(cache=True, inline="always")
def _work(c: Any, work: Any, r: int, tokens: int) -> None:
    work[c[PLANNED], 0] = r
    work[c[PLANNED], 1] = tokens
    c[PLANNED] += 1
    c[BUDGET] -= tokens


@njit(cache=True)
def _plan_mixed(q: Any, c: Any, running: Any, stack: Any, work: Any, rules: Any) -> None:
    place = 0
    preempted = False
    while place < c[RUNNING] and c[BUDGET] > 0:
        r = running[place]
        want = 1 + rules.drafts
        if not _decoding(q, r):
            want = q[r, PROMPT] + q[r, EMITTED] - q[r, DONE]
        tokens = min(want, c[BUDGET])
        while not _take(q, c, r, tokens, rules.block):
            preempted = True
            if _preempt(q, c, running, stack, rules.swap) == r:
                break
        if place >= c[RUNNING]:
            break
        _work(c, work, r, tokens)
        place += 1
    if not preempted:
        _admit_all(q, c, running, stack, work, rules, False)


@njit(cache=True)
def _plan_first(q: Any, c: Any, running: Any, stack: Any, work: Any, rules: Any) -> None:
    if c[RUNNING] > 0:
        r = running[c[RUNNING] - 1]
        if not _decoding(q, r):
            tokens = min(q[r, PROMPT] + q[r, EMITTED] - q[r, DONE], c[BUDGET])
            if _take(q, c, r, tokens, rules.block):
                _work(c, work, r, tokens)
    _admit_all(q, c, running, stack, work, rules, True)
    if c[PLANNED] > 0:
        return
    place = 0
    while place < c[RUNNING]:
        r = running[place]
        tokens = 1 + rules.drafts if _decoding(q, r) else 0
        gone = False
        while not _take(q, c, r, tokens, rules.block):
            if _preempt(q, c, running, stack, rules.swap) == r:
                gone = True
                break
        if not gone and tokens > 0:
            _work(c, work, r, tokens)
        place += 1


@njit(cache=True)
def _serve(
    arrival: Any, first: Any, finish: Any, q: Any, rules: Any, host: Any,
    t0: Any, t1: Any, t2: Any, t3: Any, j0: Any, j1: Any, j2: Any, j3: Any,
    count_energy: bool, users: int, think: Any, gaps: Any, totals: Any, floats: Any,
) -> None:  # fmt: skip
    n = len(arrival)
    known = min(users, n) if users > 0 else n
    coming = np.empty(n, dtype=np.int64)
    coming[:known] = np.sort(arrival[:known])
    running = np.empty(rules.max_seqs + 1, dtype=np.int64)
    stack = np.empty(n + 1 if n < rules.max_seqs else rules.max_seqs + 1, dtype=np.int64)
    work = np.empty((rules.max_seqs + 1, 2), dtype=np.int64)
    c = np.zeros(10, dtype=np.int64)
    c[FREE] = rules.blocks
    clock, position, unseen = 0, 0, rules.poll
    steps, busy, out, peak = 0, 0, 0, 0
    kv_ns, energy = 0.0, 0.0
    last_gap, last_bin = -1, 0
    while True:
        while unseen >= rules.poll and position < known and coming[position] <= clock:
            arrival[c[BEGUN]] = coming[position]
            c[BEGUN] += 1
            position += 1
        if unseen >= rules.poll:
            unseen = 0
        c[PLANNED], c[MOVED], c[BUDGET] = 0, 0, rules.budget
        if rules.style == _FIRST:
            _plan_first(q, c, running, stack, work, rules)
        else:
            _plan_mixed(q, c, running, stack, work, rules)
        if c[PLANNED] == 0:
            if position >= known:
                break
            clock = max(clock, coming[position])
            unseen = rules.poll
            continue
        decoding, chunks, new, sampled, context, past, drafted = 0, 0, 0, 0, 0, 0, 0
        for i in range(c[PLANNED]):
            r, tokens = work[i, 0], work[i, 1]
            if _decoding(q, r):
                decoding += 1
                drafted += tokens
                context += q[r, DONE] + 1
                sampled += tokens
            else:
                chunks += 1
                new += tokens
                past += q[r, DONE]
                if tokens == q[r, PROMPT] + q[r, EMITTED] - q[r, DONE]:
                    sampled += 1
        unseen += 1 if chunks == 0 else rules.poll
        total = drafted + new
        if rules.padded and chunks == 0:
            total = _padded(total, len(t0) - 1)
        mean = context / decoding if decoding > 0 else 0.0
        before = past / chunks if chunks > 0 else 0.0
        sampled = min(sampled, len(t1) - 1)
        seconds = _lookup(t0, t1, t2, t3, total, sampled, decoding, mean, chunks, new, before)
        seconds = _with_host(host, seconds, decoding + chunks, chunks > 0)
        seconds += c[MOVED] * rules.swap_s
        if drafted > decoding:
            seconds += rules.drafts * rules.draft_s
        if count_energy:
            energy += _lookup(j0, j1, j2, j3, total, sampled, decoding, mean, chunks, new, before)
        taken = int(seconds * 1e9 + 0.5)
        clock += taken
        busy += taken
        steps += 1
        used = rules.blocks - c[FREE]
        kv_ns += float(used) * taken
        peak = max(peak, used)
        ended = False
        for i in range(c[PLANNED]):
            r, tokens = work[i, 0], work[i, 1]
            if _decoding(q, r):
                got = 1
                if tokens > 1:
                    got += _accepted(r, q[r, EMITTED], tokens - 1, rules.acceptance)
                got = min(got, q[r, OUTPUT] - q[r, EMITTED])
                q[r, DONE] += got
            else:
                q[r, DONE] += tokens
                got = 1 if q[r, PROMPT] + q[r, EMITTED] == q[r, DONE] else 0
            if got == 0:
                continue
            if q[r, EMITTED] > 0:
                gap = clock - q[r, LAST]
                if gap != last_gap:
                    last_gap, last_bin = gap, _gap_bin(gap)
                gaps[last_bin] += 1
                gaps[0] += got - 1
            q[r, LAST] = clock
            q[r, EMITTED] += got
            out += got
            if first[r] < 0 and q[r, EMITTED] >= min(rules.stream, q[r, OUTPUT]):
                first[r] = clock
            if q[r, EMITTED] >= q[r, OUTPUT]:
                finish[r] = clock
                _release(q, c, r)
                ended = True
                if users > 0 and known < n:
                    at = clock + think[known]
                    place = known
                    while place > position and coming[place - 1] > at:
                        coming[place] = coming[place - 1]
                        place -= 1
                    coming[place] = at
                    known += 1
        if ended:
            kept = 0
            for i in range(c[RUNNING]):
                r = running[i]
                if q[r, EMITTED] < q[r, OUTPUT]:
                    running[kept] = r
                    kept += 1
            c[RUNNING] = kept
    totals[0], totals[1], totals[2], totals[3], totals[4] = steps, busy, c[PREEMPTED], out, peak
    floats[0], floats[1] = kv_ns, energy


def run(
    arrival_ns: npt.NDArray[np.int64],
    prompt: npt.NDArray[np.int64],
    output: npt.NDArray[np.int64],
    rules: Rules,
    host: Host,
    tables_s: Tables,
    tables_j: Tables | None = None,
    *,
    users: int = 0,
    think_ns: npt.NDArray[np.int64] | None = None,
) -> Run:
    """As `accelsim.serving.llm.engine.run`."""
    n = len(prompt)
    arrival = arrival_ns.astype(np.int64, copy=True)
    first, finish = np.full(n, -1), np.full(n, -1)
    q = np.zeros((n, 8), dtype=np.int64)
    q[:, PROMPT], q[:, OUTPUT] = prompt, output
    gaps, totals, floats = np.zeros(BINS, dtype=np.int64), np.zeros(5, dtype=np.int64), np.zeros(2)
    think = np.zeros(n, dtype=np.int64) if think_ns is None else think_ns
    energy = tables_s if tables_j is None else tables_j
    _serve(
        arrival, first, finish, q, rules, host, *tables_s, *energy,
        tables_j is not None, users, think, gaps, totals, floats,
    )  # fmt: skip
    steps, busy, preempted, out, peak = totals.tolist()
    return Run(
        arrival,
        first,
        finish,
        steps,
        busy,
        preempted,
        out,
        peak,
        float(floats[0]),
        float(floats[1]),
        gaps,
        "numba",
    )
