"""What engines do next, compiled: `scheduler` on flat arrays, a row per request and one per engine."""

from __future__ import annotations

from typing import Any

from numba import njit

from accelsim.serving.llm.policy import PREFILL_FIRST

_FIRST = PREFILL_FIRST

# Columns of the state of a request; BEHIND is the next in the line of its engine.
PROMPT, OUTPUT, DONE, EMITTED, HELD, PROMISED, LAST, AWAY, SHARED, KEYS, FROM, HITS, BEHIND = range(13)
# Entries of the counters of an engine: its blocks, its sequences (WAITING ones from HEAD to TAIL, with those
# that it has not looked at, UNSEEN, last), its step, and its totals.
FREE, PROMISE, IDLE, PIECE = range(4)
RUNNING, STACKED, HEAD, TAIL, WAITING, UNSEEN, SINCE, ASKED, AWAKE = range(4, 13)
PLANNED, MOVED, BUDGET = range(13, 16)
PREEMPTED, STEPS, BUSY, TOKENS, PEAK, LAST_GAP, LAST_BIN = range(16, 23)
COUNTERS = 23
# Columns of the prefix cache: users of a piece (-1: it is not there) and its place among the idle ones, a
# ring through the last row, from the longest unused to the last used.
USERS, OLDER, NEWER = range(3)


@njit(cache=True, inline="always")
def _blocks(tokens: int, block: int) -> int:
    return (tokens + block - 1) // block


@njit(cache=True, inline="always")
def decoding(q: Any, r: int) -> bool:
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
def release(q: Any, c: Any, p: Any, keys: Any, r: int) -> None:
    c[FREE] += q[r, HELD]
    for i in range(q[r, SHARED] - 1, -1, -1):
        if _leave(p, c, keys[q[r, FROM] + i]):
            c[FREE] += c[PIECE]
    c[PROMISE] -= q[r, PROMISED]
    q[r, HELD] = 0
    q[r, SHARED] = 0
    q[r, PROMISED] = 0


@njit(cache=True)
def publish(q: Any, c: Any, p: Any, keys: Any, r: int, tokens: int, rules: Any) -> None:
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
    release(q, c, p, keys, victim)
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
        elif c[WAITING] > 0:
            r = c[HEAD]
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
            c[HEAD] = q[r, BEHIND]
            c[WAITING] -= 1
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
            publish(q, c, p, keys, r, q[r, DONE] + tokens, rules)


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
        if not decoding(q, r):
            want = q[r, PROMPT] + q[r, EMITTED] - q[r, DONE]
        tokens = min(want, c[BUDGET])
        while not _take(q, c, p, r, tokens, rules):
            preempted = True
            if _preempt(q, c, p, keys, running, stack, rules) == r:
                break
        if place >= c[RUNNING]:
            break
        _work(c, work, r, tokens)
        publish(q, c, p, keys, r, q[r, DONE] + tokens, rules)
        place += 1
    if not preempted:
        _admit_all(q, c, p, keys, running, stack, work, rules, False)


@njit(cache=True)
def _plan_first(q: Any, c: Any, p: Any, keys: Any, running: Any, stack: Any, work: Any, rules: Any) -> None:
    if c[RUNNING] > 0:
        r = running[c[RUNNING] - 1]
        if not decoding(q, r):
            tokens = min(q[r, PROMPT] + q[r, EMITTED] - q[r, DONE], c[BUDGET])
            if _take(q, c, p, r, tokens, rules):
                _work(c, work, r, tokens)
    _admit_all(q, c, p, keys, running, stack, work, rules, True)
    if c[PLANNED] > 0:
        return
    place = 0
    while place < c[RUNNING]:
        r = running[place]
        tokens = 1 + rules.drafts if decoding(q, r) else 0
        gone = False
        while not _take(q, c, p, r, tokens, rules):
            if _preempt(q, c, p, keys, running, stack, rules) == r:
                gone = True
                break
        if not gone and tokens > 0:
            _work(c, work, r, tokens)
        place += 1


@njit(cache=True)
def plan(q: Any, c: Any, p: Any, keys: Any, running: Any, stack: Any, work: Any, rules: Any) -> None:
    """The next step of an engine: `work` has its sequences and their tokens, `c[PLANNED]` their number."""
    c[PLANNED], c[MOVED], c[BUDGET] = 0, 0, rules.budget
    if rules.style == _FIRST:
        _plan_first(q, c, p, keys, running, stack, work, rules)
    else:
        _plan_mixed(q, c, p, keys, running, stack, work, rules)


@njit(cache=True)
def enter(q: Any, c: Any, r: int) -> None:
    """A request joins the line of an engine."""
    if c[WAITING] + c[UNSEEN] == 0:
        c[HEAD] = r
    else:
        q[c[TAIL], BEHIND] = r
    c[TAIL] = r
    c[UNSEEN] += 1
