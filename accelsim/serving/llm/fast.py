"""The fast engine: workers on one clock as a compiled loop on flat arrays, equal to the readable ones.

Without sources, requests enter the sinks: one engine is a single sink. With them, prompts are computed by the
sources and travel to the sinks (`disagg`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from accelsim.serving.llm import disagg, steptime, surface
from accelsim.serving.llm import fast_plan as state
from accelsim.serving.llm.engine import Ints, Run
from accelsim.serving.llm.fast_plan import (
    ASKED,
    AWAKE,
    BUSY,
    COUNTERS,
    DONE,
    EMITTED,
    FREE,
    FROM,
    HITS,
    KEYS,
    LAST,
    LAST_BIN,
    LAST_GAP,
    MOVED,
    OUTPUT,
    PEAK,
    PIECE,
    PLANNED,
    PREEMPTED,
    PROMPT,
    RUNNING,
    SINCE,
    STACKED,
    STEPS,
    TOKENS,
    UNSEEN,
    WAITING,
)
from accelsim.serving.llm.policy import PREFILL_FIRST, Host, Rules
from accelsim.serving.llm.prefix import Prefixes
from accelsim.serving.llm.steptime import BINS
from accelsim.serving.llm.worker import Pace, Tables

_lookup = njit(cache=True)(surface.lookup)
_padded = njit(cache=True)(steptime.padded)
_with_host = njit(cache=True)(steptime.with_host)
_accepted = njit(cache=True)(steptime.accepted)
_bin_s = float(steptime.BIN)
_BINS = BINS
_FIRST = PREFILL_FIRST

# A worker sleeps, is about to plan, or computes.
ASLEEP, PLANNING, COMPUTING = range(3)
# Among the events of one instant, steps end before requests come; equals keep the order of their numbers.
_ENDS, _COMES = 0, 1 << 60
# Columns of what an engine adds up in floats.
KV_NS, ENERGY = range(2)


class _Flat(NamedTuple):
    """`Pace` for compiled code."""

    rules: Rules
    host: Host
    seconds: Tables
    joules: Tables
    counted: bool


def _flat(pace: Pace) -> _Flat:
    joules = pace.tables_s if pace.tables_j is None else pace.tables_j
    return _Flat(pace.rules, pace.host, pace.tables_s, joules, pace.tables_j is not None)


class Tally(NamedTuple):
    """What a worker did, as `worker.Worker` has it."""

    steps: int
    busy_ns: int
    preemptions: int
    tokens: int
    kv_peak: int
    kv_ns: float
    energy_j: float


@njit(cache=True)
def _gap_bin(gap_ns: int) -> int:
    return min(int(np.log(max(gap_ns, 1)) / _bin_s), _BINS - 1)


@njit(cache=True)
def _push(heap: Any, size: int, time: int, key: int, what: int) -> int:
    """One event more in a binary heap of (time, key, what)."""
    i = size
    while i > 0:
        up = (i - 1) >> 1
        if heap[up, 0] < time or (heap[up, 0] == time and heap[up, 1] < key):
            break
        heap[i] = heap[up]
        i = up
    heap[i, 0], heap[i, 1], heap[i, 2] = time, key, what
    return size + 1


@njit(cache=True)
def _pop(heap: Any, size: int) -> int:
    """One event less; the first was read before."""
    size -= 1
    time, key, what = heap[size, 0], heap[size, 1], heap[size, 2]
    i = 0
    while 2 * i + 1 < size:
        down = 2 * i + 1
        if down + 1 < size and (
            heap[down + 1, 0] < heap[down, 0]
            or (heap[down + 1, 0] == heap[down, 0] and heap[down + 1, 1] < heap[down, 1])
        ):
            down += 1
        if time < heap[down, 0] or (time == heap[down, 0] and key < heap[down, 1]):
            break
        heap[i] = heap[down]
        i = down
    heap[i, 0], heap[i, 1], heap[i, 2] = time, key, what
    return size


@njit(cache=True)
def _begin(q: Any, c: Any, f: Any, p: Any, keys: Any, running: Any, stack: Any, work: Any, pace: Any) -> int:
    """`Worker._begin`: plan a step and say how long it takes [ns]; -1 when there is nothing to do."""
    rules = pace.rules
    if c[SINCE] >= rules.poll:
        c[WAITING] += c[UNSEEN]
        c[UNSEEN], c[SINCE] = 0, 0
    state.plan(q, c, p, keys, running, stack, work, rules)
    if c[PLANNED] == 0 and c[UNSEEN] > 0:
        c[WAITING] += c[UNSEEN]
        c[UNSEEN], c[SINCE] = 0, 0
        state.plan(q, c, p, keys, running, stack, work, rules)
    if c[PLANNED] == 0:
        c[SINCE] = rules.poll
        return -1
    decoding, chunks, new, sampled, context, past, drafted = 0, 0, 0, 0, 0, 0, 0
    for i in range(c[PLANNED]):
        r, tokens = work[i, 0], work[i, 1]
        if state.decoding(q, r):
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
    c[SINCE] += 1 if chunks == 0 else rules.poll
    total = drafted + new
    if rules.padded and chunks == 0:
        total = _padded(total, len(pace.seconds[0]) - 1)
    mean = context / decoding if decoding > 0 else 0.0
    before = past / chunks if chunks > 0 else 0.0
    sampled = min(sampled, len(pace.seconds[1]) - 1)
    seconds = _lookup(*pace.seconds, total, sampled, decoding, mean, chunks, new, before)
    seconds = _with_host(pace.host, seconds, decoding + chunks, chunks > 0)
    seconds += c[MOVED] * rules.swap_s
    if drafted > decoding:
        seconds += rules.drafts * rules.draft_s
    if pace.counted:
        f[ENERGY] += _lookup(*pace.joules, total, sampled, decoding, mean, chunks, new, before)
    taken = int(seconds * 1e9 + 0.5)
    used = rules.blocks - c[FREE]
    f[KV_NS] += float(used) * taken
    c[PEAK] = max(c[PEAK], used)
    c[STEPS] += 1
    c[BUSY] += taken
    return taken


@njit(cache=True)
def _end(
    q: Any, c: Any, p: Any, keys: Any, running: Any, work: Any, pace: Any, clock: int,
    first: Any, finish: Any, gaps: Any, ended: Any,
) -> int:  # fmt: skip
    """`Worker._end`: hand out the tokens of a step; how many sequences have `ended`."""
    rules = pace.rules
    count = 0
    for i in range(c[PLANNED]):
        r, tokens = work[i, 0], work[i, 1]
        if state.decoding(q, r):
            got = 1
            if tokens > 1:
                got += _accepted(r, q[r, EMITTED], tokens - 1, rules.acceptance)
            got = min(got, q[r, OUTPUT] - q[r, EMITTED])
            q[r, DONE] += got
        else:
            q[r, DONE] += tokens
            got = 1 if q[r, PROMPT] + q[r, EMITTED] == q[r, DONE] else 0
        if rules.style == _FIRST:
            state.publish(q, c, p, keys, r, q[r, DONE], rules)
        if got == 0:
            continue
        if q[r, EMITTED] > 0:
            gap = clock - q[r, LAST]
            if gap != c[LAST_GAP]:
                c[LAST_GAP], c[LAST_BIN] = gap, _gap_bin(gap)
            gaps[c[LAST_BIN]] += 1
            gaps[0] += got - 1
        q[r, LAST] = clock
        q[r, EMITTED] += got
        c[TOKENS] += got
        if first[r] < 0 and q[r, EMITTED] >= min(rules.stream, q[r, OUTPUT]):
            first[r] = clock
        if q[r, EMITTED] >= q[r, OUTPUT]:
            finish[r] = clock
            state.release(q, c, p, keys, r)
            ended[count] = r
            count += 1
    if count > 0:
        kept = 0
        for i in range(c[RUNNING]):
            r = running[i]
            if q[r, EMITTED] < q[r, OUTPUT]:
                running[kept] = r
                kept += 1
        c[RUNNING] = kept
    return count


@njit(cache=True)
def _idlest(c: Any, begin: int, end: int) -> int:
    """The engine with the fewest sequences."""
    best, least = begin, np.int64(1) << 62
    for w in range(begin, end):
        have = c[w, UNSEEN] + c[w, WAITING] + c[w, STACKED] + c[w, RUNNING]
        if have < least:
            best, least = w, have
    return best


@njit(cache=True)
def _serve(
    arrival: Any, first: Any, finish: Any, output: Any, q: Any, c: Any, f: Any, p: Any, keys: Any,
    sources: int, source: Any, sink: Any, latency_s: float, token_s: float,
    users: int, think: Any, gaps: Any,
) -> None:  # fmt: skip
    n, workers = len(arrival), len(c)
    known = min(users, n) if users > 0 else n
    coming = np.sort(arrival[:known])
    most = max(source.rules.max_seqs, sink.rules.max_seqs) + 1
    running, stack = np.empty((workers, most), np.int64), np.empty((workers, most), np.int64)
    work, ended = np.empty((workers, most, 2), np.int64), np.empty(most, np.int64)
    ready = np.empty(workers, np.int64)  # workers that are about to plan, a ring
    front, planning = 0, 0
    heap = np.empty((workers + 2 + (n if users > 0 or sources > 0 else 0), 3), np.int64)
    size, number = 0, 0
    follow, again = workers, workers + 1
    clock, begun, position = 0, 0, 0
    if known > 0:
        size = _push(heap, size, coming[0], _COMES, follow)
    while True:
        if planning > 0 and (size == 0 or heap[0, 0] > clock):
            w = ready[front]
            front = (front + 1) % workers
            planning -= 1
            if w < sources:
                taken = _begin(q, c[w], f[w], p[w], keys, running[w], stack[w], work[w], source)
            else:
                taken = _begin(q, c[w], f[w], p[w], keys, running[w], stack[w], work[w], sink)
            c[w, AWAKE] = ASLEEP
            if taken >= 0:
                c[w, AWAKE] = COMPUTING
                number += 1
                size = _push(heap, size, clock + taken, _ENDS + number, w)
            continue
        if size == 0:
            break
        clock, what = heap[0, 0], heap[0, 2]
        size = _pop(heap, size)
        entered, woken, done, r = -1, -1, 0, -1
        if what < workers:
            w = woken = what
            c[w, AWAKE] = ASLEEP
            if w < sources:
                count = _end(
                    q, c[w], p[w], keys, running[w], work[w], source, clock, first, finish, gaps, ended
                )
                for i in range(count):
                    r = ended[i]
                    c[w, ASKED] -= q[r, PROMPT]
                    taken = int((latency_s + token_s * q[r, PROMPT]) * 1e9 + 0.5)
                    number += 1
                    size = _push(heap, size, clock + taken, _COMES + number, workers + 2 + r)
            else:
                done = _end(q, c[w], p[w], keys, running[w], work[w], sink, clock, first, finish, gaps, ended)
        elif what <= again:
            r = begun
            begun += 1
            arrival[r] = clock
            if sources > 0:
                q[r, OUTPUT] = 1
                entered = 0
                for w in range(1, sources):
                    if c[w, ASKED] < c[entered, ASKED]:
                        entered = w
                c[entered, ASKED] += q[r, PROMPT]
            else:
                entered = _idlest(c, sources, workers)
        else:
            r = what - workers - 2
            q[r, DONE], q[r, EMITTED], q[r, OUTPUT], q[r, LAST] = q[r, PROMPT], 1, output[r], clock
            first[r] = clock if sink.rules.stream <= 1 or output[r] == 1 else -1
            finish[r] = clock if output[r] == 1 else -1
            if source.rules.grain != sink.rules.grain:
                q[r, KEYS] = 0
            if output[r] == 1:
                done = 1
            else:
                entered = _idlest(c, sources, workers)
        if entered >= 0:
            state.enter(q, c[entered], r)
            woken = entered
        if what == follow:
            position += 1
            if position < len(coming):
                number += 1
                size = _push(heap, size, coming[position], _COMES + number, follow)
        if users > 0:
            for _ in range(min(done, n - known)):
                number += 1
                size = _push(heap, size, clock + think[known], _COMES + number, again)
                known += 1
        if woken >= 0 and c[woken, AWAKE] == ASLEEP:
            c[woken, AWAKE] = PLANNING
            ready[(front + planning) % workers] = woken
            planning += 1


def _start(
    arrival_ns: Ints,
    prompt: Ints,
    output: Ints,
    prefill: disagg.Pool | None,
    decode: disagg.Pool,
    transfer: disagg.Transfer,
    users: int,
    think_ns: Ints | None,
    prefixes: Prefixes | None,
) -> tuple[Ints, Ints, Ints, Ints, Ints, list[Tally]]:
    """Arrival, first token, end and hits of each request, gaps between tokens, what each worker did."""
    n, sources = len(prompt), 0 if prefill is None else prefill.workers
    paces = [] if prefill is None else [prefill.pace] * sources
    paces += [decode.pace] * decode.workers
    arrival = arrival_ns.astype(np.int64, copy=True)
    first, finish = np.full(n, -1), np.full(n, -1)
    q = np.zeros((n, 13), dtype=np.int64)
    q[:, PROMPT], q[:, OUTPUT], q[:, HITS] = prompt, output, -1
    pieces, keys = 0, np.zeros(0, dtype=np.int64)
    if prefixes is not None and paces[0].rules.grain:
        pieces, keys = prefixes.pieces, prefixes.keys
        q[:, FROM], q[:, KEYS] = prefixes.begin, prefixes.count
    cache = np.full((len(paces), pieces + 1, 3), -1, dtype=np.int64)
    cache[:, pieces, state.OLDER :] = pieces
    c = np.zeros((len(paces), COUNTERS), dtype=np.int64)
    for row, pace in zip(c, paces):
        rules = pace.rules
        row[FREE], row[PIECE], row[SINCE] = rules.blocks, rules.grain // rules.block, rules.poll
        row[LAST_GAP] = -1
    f, gaps = np.zeros((len(paces), 2)), np.zeros(BINS, dtype=np.int64)
    think = np.zeros(n, dtype=np.int64) if think_ns is None else think_ns
    _serve(
        arrival, first, finish, np.asarray(output, dtype=np.int64), q, c, f, cache, keys,
        sources, _flat(paces[0]), _flat(decode.pace), transfer.latency_s, transfer.token_s,
        users, think, gaps,
    )  # fmt: skip
    wanted = c[:, [STEPS, BUSY, PREEMPTED, TOKENS, PEAK]].tolist()
    tallies = [Tally(*whole, *real) for whole, real in zip(wanted, f.tolist())]
    return arrival, first, finish, np.maximum(q[:, HITS], 0), gaps, tallies


def run(
    arrival_ns: Ints,
    prompt: Ints,
    output: Ints,
    rules: Rules,
    host: Host,
    tables_s: Tables,
    tables_j: Tables | None = None,
    *,
    users: int = 0,
    think_ns: Ints | None = None,
    prefixes: Prefixes | None = None,
) -> Run:
    """As `accelsim.serving.llm.engine.run`."""
    pool = disagg.Pool(1, Pace(rules, host, tables_s, tables_j))
    arrival, first, finish, hits, gaps, (did,) = _start(
        arrival_ns, prompt, output, None, pool, disagg.Transfer(0.0, 0.0), users, think_ns, prefixes
    )
    return Run(
        arrival, first, finish, did.steps, did.busy_ns, did.preemptions, did.tokens, did.kv_peak, did.kv_ns,
        did.energy_j, gaps, hits, "numba",
    )  # fmt: skip


def run_pools(
    arrival_ns: Ints,
    prompt: Ints,
    output: Ints,
    prefill: disagg.Pool,
    decode: disagg.Pool,
    transfer: disagg.Transfer,
    *,
    users: int = 0,
    think_ns: Ints | None = None,
    prefixes: Prefixes | None = None,
) -> tuple[Run, disagg.Effort]:
    """As `accelsim.serving.llm.disagg.run`."""
    arrival, first, finish, hits, gaps, tallies = _start(
        arrival_ns, prompt, output, prefill, decode, transfer, users, think_ns, prefixes
    )
    sources, sinks = tallies[: prefill.workers], tallies[prefill.workers :]
    return disagg.added_up(arrival, first, finish, hits, gaps, sources, sinks, "numba")
