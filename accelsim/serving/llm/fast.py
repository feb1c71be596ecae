"""The fast engine: the loop of `engine` as one compiled kernel on flat arrays, equal to it by request."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from accelsim.serving.llm import steptime, surface
from accelsim.serving.llm.engine import Run
from accelsim.serving.llm.policy import PREFILL_FIRST, Host, Rules
from accelsim.serving.llm.prefix import Prefixes
from accelsim.serving.llm.steptime import BINS
from accelsim.serving.llm.worker import Tables

_lookup = njit(cache=True)(surface.lookup)
_padded = njit(cache=True)(steptime.padded)
_with_host = njit(cache=True)(steptime.with_host)
_accepted = njit(cache=True)(steptime.accepted)
_bin_s = float(steptime.BIN)
_BINS = BINS
_FIRST = PREFILL_FIRST

# Columns of the state of a request.
PROMPT, OUTPUT, DONE, EMITTED, HELD, PROMISED, LAST, AWAY, SHARED, KEYS, FROM, HITS = range(12)
# Entries of the counters.
FREE, PROMISE, PREEMPTED, RUNNING, STACKED, NEXT, BEGUN, PLANNED, MOVED, BUDGET, IDLE, PIECE = range(12)
# Columns of the prefix cache: users of a piece (-1: it is not there) and its place among the idle ones, a
# ring through the last row, from the longest unused to the last used.
USERS, OLDER, NEWER = range(3)


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
def _take(q: Any, c: Any, p: Any, r: int, tokens: int, rules: Any) -> bool:
    have = q[r, HELD] + q[r, SHARED] * c[PIECE]
    if q[r, DONE] + tokens <= have * rules.block:
        return True
    need = _blocks(q[r, DONE] + tokens, rules.block) - have
    if need > c[FREE]:
        return False
    c[FREE] -= need
    q[r, HELD] += need
    while c[IDLE] * c[PIECE] > c[FREE]:
        oldest = p[len(p) - 1, NEWER]
        _unlink(p, c, oldest)
        p[oldest, USERS] = -1
    return True


@njit(cache=True)
def _unlink(p: Any, c: Any, key: int) -> None:
    before, behind = p[key, OLDER], p[key, NEWER]
    p[before, NEWER], p[behind, OLDER] = behind, before
    c[IDLE] -= 1


@njit(cache=True)
def _use(p: Any, c: Any, key: int) -> None:
    """`PrefixCache.use`."""
    if p[key, USERS] == 0:
        _unlink(p, c, key)
    p[key, USERS] = max(p[key, USERS], 0) + 1


@njit(cache=True)
def _leave(p: Any, c: Any, key: int) -> bool:
    """`PrefixCache.leave`."""
    p[key, USERS] -= 1
    if p[key, USERS] > 0:
        return False
    end = len(p) - 1
    newest = p[end, OLDER]
    p[newest, NEWER], p[key, OLDER], p[key, NEWER], p[end, OLDER] = key, newest, end, key
    c[IDLE] += 1
    return True


@njit(cache=True)
def _release(q: Any, c: Any, p: Any, keys: Any, r: int) -> None:
    c[FREE] += q[r, HELD]
    for i in range(q[r, SHARED] - 1, -1, -1):
        if _leave(p, c, keys[q[r, FROM] + i]):
            c[FREE] += c[PIECE]
    c[PROMISE] -= q[r, PROMISED]
    q[r, HELD] = 0
    q[r, SHARED] = 0
    q[r, PROMISED] = 0


@njit(cache=True)
def _publish(q: Any, c: Any, p: Any, keys: Any, r: int, tokens: int, rules: Any) -> None:
    if q[r, SHARED] == q[r, KEYS]:
        return
    most = min(q[r, KEYS], tokens // rules.grain)
    piece = c[PIECE]
    while q[r, SHARED] < most:
        key = keys[q[r, FROM] + q[r, SHARED]]
        if p[key, USERS] > 0:
            c[FREE] += piece
        _use(p, c, key)
        q[r, HELD] -= piece
        q[r, SHARED] += 1


@njit(cache=True)
def _found(q: Any, p: Any, keys: Any, r: int, rules: Any) -> int:
    if q[r, DONE] > 0 or q[r, KEYS] == 0:
        return 0
    most = min(q[r, KEYS], (q[r, PROMPT] + q[r, EMITTED] - 1) // rules.grain)
    count = 0
    while count < most and p[keys[q[r, FROM] + count], USERS] >= 0:
        count += 1
    return count


@njit(cache=True)
def _enter(q: Any, c: Any, p: Any, keys: Any, r: int, pieces: int, tokens: int, rules: Any) -> bool:
    idle, piece = 0, c[PIECE]
    for i in range(pieces):
        idle += p[keys[q[r, FROM] + i], USERS] == 0
    need = _blocks(q[r, DONE] + pieces * rules.grain + tokens, rules.block) - pieces * piece
    if need + idle * piece > c[FREE]:
        return False
    for i in range(pieces):
        _use(p, c, keys[q[r, FROM] + i])
    c[FREE] -= idle * piece
    q[r, SHARED] = pieces
    q[r, DONE] += pieces * rules.grain
    return bool(_take(q, c, p, r, tokens, rules))


@njit(cache=True)
def _preempt(q: Any, c: Any, p: Any, keys: Any, running: Any, stack: Any, rules: Any) -> int:
    c[RUNNING] -= 1
    victim = running[c[RUNNING]]
    _release(q, c, p, keys, victim)
    if rules.swap and q[victim, EMITTED] > 0:
        q[victim, AWAY] = 1
        c[MOVED] += q[victim, DONE]
    else:
        q[victim, DONE] = 0
    stack[c[STACKED]] = victim
    c[STACKED] += 1
    c[PREEMPTED] += 1
    return int(victim)


@njit(cache=True)
def _admit_all(
    q: Any, c: Any, p: Any, keys: Any, running: Any, stack: Any, work: Any, rules: Any, alone: bool
) -> None:
    """Admission from the queue, preempted sequences first; `alone`: an uncut prompt may exceed the budget
    when it has the step for itself."""
    while c[RUNNING] < rules.max_seqs and c[BUDGET] > 0:
        if c[STACKED] > 0:
            r = stack[c[STACKED] - 1]
        elif c[NEXT] < c[BEGUN]:
            r = c[NEXT]
        else:
            break
        pieces = _found(q, p, keys, r, rules)
        remaining = q[r, PROMPT] + q[r, EMITTED] - q[r, DONE] - pieces * rules.grain
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
        if not _enter(q, c, p, keys, r, pieces, tokens, rules):
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
        if q[r, HITS] < 0:
            q[r, HITS] = pieces * rules.grain
        _work(c, work, r, tokens)
        if not alone:
            _publish(q, c, p, keys, r, q[r, DONE] + tokens, rules)


@njit(cache=True, inline="always")
def _work(c: Any, work: Any, r: int, tokens: int) -> None:
    work[c[PLANNED], 0] = r
    work[c[PLANNED], 1] = tokens
    c[PLANNED] += 1
    c[BUDGET] -= tokens


@njit(cache=True)
def _plan_mixed(q: Any, c: Any, p: Any, keys: Any, running: Any, stack: Any, work: Any, rules: Any) -> None:
    place = 0
    preempted = False
    while place < c[RUNNING] and c[BUDGET] > 0:
        r = running[place]
        want = 1 + rules.drafts
        if not _decoding(q, r):
            want = q[r, PROMPT] + q[r, EMITTED] - q[r, DONE]
        tokens = min(want, c[BUDGET])
        while not _take(q, c, p, r, tokens, rules):
            preempted = True
            if _preempt(q, c, p, keys, running, stack, rules) == r:
                break
        if place >= c[RUNNING]:
            break
        _work(c, work, r, tokens)
        _publish(q, c, p, keys, r, q[r, DONE] + tokens, rules)
        place += 1
    if not preempted:
        _admit_all(q, c, p, keys, running, stack, work, rules, False)


@njit(cache=True)
def _plan_first(q: Any, c: Any, p: Any, keys: Any, running: Any, stack: Any, work: Any, rules: Any) -> None:
    if c[RUNNING] > 0:
        r = running[c[RUNNING] - 1]
        if not _decoding(q, r):
            tokens = min(q[r, PROMPT] + q[r, EMITTED] - q[r, DONE], c[BUDGET])
            if _take(q, c, p, r, tokens, rules):
                _work(c, work, r, tokens)
    _admit_all(q, c, p, keys, running, stack, work, rules, True)
    if c[PLANNED] > 0:
        return
    place = 0
    while place < c[RUNNING]:
        r = running[place]
        tokens = 1 + rules.drafts if _decoding(q, r) else 0
        gone = False
        while not _take(q, c, p, r, tokens, rules):
            if _preempt(q, c, p, keys, running, stack, rules) == r:
                gone = True
                break
        if not gone and tokens > 0:
            _work(c, work, r, tokens)
        place += 1


@njit(cache=True)
def _serve(
    arrival: Any, first: Any, finish: Any, q: Any, p: Any, keys: Any, rules: Any, host: Any,
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
    c = np.zeros(12, dtype=np.int64)
    c[FREE], c[PIECE] = rules.blocks, rules.grain // rules.block
    clock, position, unseen, until = 0, 0, rules.poll, 0
    steps, busy, out, peak = 0, 0, 0, 0
    kv_ns, energy = 0.0, 0.0
    last_gap, last_bin = -1, 0
    while True:
        while unseen >= rules.poll and position < known and coming[position] <= until:
            arrival[c[BEGUN]] = coming[position]
            c[BEGUN] += 1
            position += 1
        if unseen >= rules.poll:
            unseen = 0
        c[PLANNED], c[MOVED], c[BUDGET] = 0, 0, rules.budget
        if rules.style == _FIRST:
            _plan_first(q, c, p, keys, running, stack, work, rules)
        else:
            _plan_mixed(q, c, p, keys, running, stack, work, rules)
        if c[PLANNED] == 0:
            if position >= known:
                break
            clock = max(clock, coming[position])
            until, unseen = clock, rules.poll
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
        until = clock if rules.ahead else clock + taken
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
            if rules.style == _FIRST:
                _publish(q, c, p, keys, r, q[r, DONE], rules)
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
                _release(q, c, p, keys, r)
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
    prefixes: Prefixes | None = None,
) -> Run:
    """As `accelsim.serving.llm.engine.run`."""
    n = len(prompt)
    arrival = arrival_ns.astype(np.int64, copy=True)
    first, finish = np.full(n, -1), np.full(n, -1)
    q = np.zeros((n, 12), dtype=np.int64)
    q[:, PROMPT], q[:, OUTPUT], q[:, HITS] = prompt, output, -1
    pieces, keys = 0, np.zeros(0, dtype=np.int64)
    if prefixes is not None and rules.grain:
        pieces, keys = prefixes.pieces, prefixes.keys
        q[:, FROM], q[:, KEYS] = prefixes.begin, prefixes.count
    cache = np.full((pieces + 1, 3), -1, dtype=np.int64)
    cache[pieces, OLDER:] = pieces
    gaps, totals, floats = np.zeros(BINS, dtype=np.int64), np.zeros(5, dtype=np.int64), np.zeros(2)
    think = np.zeros(n, dtype=np.int64) if think_ns is None else think_ns
    energy = tables_s if tables_j is None else tables_j
    _serve(
        arrival, first, finish, q, cache, keys, rules, host, *tables_s, *energy,
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
        np.maximum(q[:, HITS], 0),
        "numba",
    )
