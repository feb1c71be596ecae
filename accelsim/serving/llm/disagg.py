"""Prefill and decode on devices of their own: a prompt is computed in one pool, its cache travels to another.

A request goes to the prefill worker with the least outstanding work, its cache crosses the link, and the
decode worker with the fewest sequences takes it; the client's first token comes from there.
"""

from __future__ import annotations

from collections.abc import Sequence as Row
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from accelsim.core.errors import RequestError
from accelsim.serving.llm.engine import Feed, Ints, Run
from accelsim.serving.llm.prefix import Prefixes
from accelsim.serving.llm.scheduler import Sequence
from accelsim.serving.llm.setup import Setup
from accelsim.serving.llm.worker import Pace, Worker
from accelsim.serving.station import ARRIVAL, Moment

LINK_BYTES_PER_S = 50e9
"""A 400 Gb/s network adapter for each device (assumed) [B/s]."""

LINK_LATENCY_S = 1e-3
"""Handshake and first byte (assumed) [s]."""


@dataclass(frozen=True)
class Pool:
    """Equal workers.

    Attributes
    ----------
    workers : int
    pace : Pace
    """

    workers: int
    pace: Pace

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise RequestError(f"a pool needs at least one worker, got {self.workers}")


@dataclass(frozen=True)
class Transfer:
    """How a cache travels.

    Attributes
    ----------
    latency_s : float
        Before the first byte [s].
    token_s : float
        Per token [s].
    """

    latency_s: float
    token_s: float

    def taken_ns(self, tokens: int) -> int:
        """Time for the cache of a prompt [ns]."""
        return int((self.latency_s + self.token_s * tokens) * 1e9 + 0.5)


def transfer_between(source: Setup, sink: Setup, bytes_per_s: float, latency_s: float) -> Transfer:
    """How caches travel between engines: every device sends and takes its share; the end with the larger
    shares decides.
    """
    if not bytes_per_s > 0 or latency_s < 0:
        raise RequestError(f"a link of {bytes_per_s} B/s and {latency_s} s makes no sense")
    return Transfer(latency_s, max(source.memory.token, sink.memory.token) / bytes_per_s)


class Did(Protocol):
    """What a worker of either engine has done."""

    @property
    def steps(self) -> int: ...
    @property
    def busy_ns(self) -> int: ...
    @property
    def preemptions(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def kv_peak(self) -> int: ...
    @property
    def kv_ns(self) -> float: ...
    @property
    def energy_j(self) -> float: ...


@dataclass(frozen=True)
class Effort:
    """What a pool did.

    Attributes
    ----------
    busy : float
        Mean share of the workers' time, from 0 to the last answer.
    steps, preemptions : int
    energy_j : float
        Dynamic energy of one device of each worker.
    """

    busy: float
    steps: int
    preemptions: int
    energy_j: float


def run(
    arrival_ns: Ints,
    prompt: Ints,
    output: Ints,
    prefill: Pool,
    decode: Pool,
    transfer: Transfer,
    *,
    users: int = 0,
    think_ns: Ints | None = None,
    prefixes: Prefixes | None = None,
) -> tuple[Run, Effort]:
    """Serve requests on two pools; parameters as `accelsim.serving.llm.engine.run`.

    Returns
    -------
    Run, Effort
        Steps, preemptions and energy of the run are sums over the decode workers, busy time and blocks their
        means; the effort is that of the prefill workers.
    """
    asked: list[int] = []  # prompt tokens at each prefill worker
    place: dict[int, int] = {}

    def enter(s: Sequence) -> None:
        i = place[s.number] = min(range(len(sources)), key=asked.__getitem__)
        asked[i] += s.prompt
        sources[i].enter(Sequence(s.number, s.prompt, 1, s.keys))

    def computed(s: Sequence) -> None:
        asked[place[s.number]] -= s.prompt
        feed.sequences[s.number].hits = s.hits
        Moment(feed.env, transfer.taken_ns(s.prompt), ARRIVAL, partial(arrive, feed.sequences[s.number]))

    def arrive(s: Sequence) -> None:
        s.done, s.emitted, s.last_ns = s.prompt, 1, feed.env.now
        if decode.pace.rules.grain != prefill.pace.rules.grain:  # pieces of another size cannot be shared
            s.keys = ()
        if decode.pace.rules.stream <= 1 or s.output == 1:
            s.first_ns = s.last_ns
        if s.output == 1:
            s.finish_ns = s.last_ns
            feed.answered()
        else:
            min(sinks, key=lambda w: w.sequences).enter(s)

    shared = prefixes if prefill.pace.rules.grain else None
    feed = Feed(arrival_ns, prompt, output, shared, users, think_ns, enter)
    sources = [Worker(feed.env, prefill.pace, computed) for _ in range(prefill.workers)]
    sinks = [Worker(feed.env, decode.pace, lambda s: feed.answered()) for _ in range(decode.workers)]
    asked += [0] * len(sources)
    feed.env.run()
    gaps = sum((w.gaps for w in sinks), start=0 * sinks[0].gaps)
    first, finish, hits = (feed.column(name) for name in ("first_ns", "finish_ns", "hits"))
    return added_up(feed.arrival_ns, first, finish, hits, gaps, sources, sinks, "simpy")


def added_up(
    arrival_ns: Ints,
    first_ns: Ints,
    finish_ns: Ints,
    hits: Ints,
    gaps: Ints,
    sources: Row[Did],
    sinks: Row[Did],
    engine: str,
) -> tuple[Run, Effort]:
    """What the workers of two pools did, as a run and the effort of the prefill workers."""
    whole = max(1, int(finish_ns.max(initial=0)))
    done = Run(
        arrival_ns,
        first_ns,
        finish_ns,
        sum(w.steps for w in sinks),
        sum(w.busy_ns for w in sinks) // len(sinks),
        sum(w.preemptions for w in sinks),
        sum(w.tokens for w in sinks) + len(arrival_ns),
        max(w.kv_peak for w in sinks),
        sum(w.kv_ns for w in sinks) / len(sinks),
        sum(w.energy_j for w in sinks),
        gaps,
        hits,
        engine,
    )
    effort = Effort(
        sum(w.busy_ns for w in sources) / len(sources) / whole,
        sum(w.steps for w in sources),
        sum(w.preemptions for w in sources),
        sum(w.energy_j for w in sources),
    )
    return done, effort
