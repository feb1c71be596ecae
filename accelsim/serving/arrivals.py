"""When requests come: arrival processes, seeded and vectorised.

Every process answers ``generate(n, seed) -> Requests``. Processes whose rate changes share one construction:
a unit-rate Poisson process, mapped through the inverse of the cumulative rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from accelsim.core.errors import RequestError
from accelsim.serving.requests import Requests

Floats = NDArray[np.float64]


class Arrivals(Protocol):
    """What an engine asks of an arrival process."""

    @property
    def rate_per_s(self) -> float:
        """Mean rate [1/s]."""
        ...

    def generate(self, n: int, seed: int = 0) -> Requests:
        """The first `n` requests."""
        ...


class LengthLaw(Protocol):
    """A distribution of token counts."""

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class LogNormalLengths:
    """Token counts with a log-normal spread, at least one.

    Parameters
    ----------
    mean : float
        [tokens]
    cv : float
        Standard deviation over mean.
    longest : int
        Longer draws are cut [tokens].
    """

    mean: float
    cv: float = 1.0
    longest: int = 1 << 20

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        variance = math.log1p(self.cv**2)
        draws = rng.lognormal(math.log(self.mean) - variance / 2, math.sqrt(variance), n)
        return np.clip(np.rint(draws), 1, self.longest).astype(np.int64)


@dataclass(frozen=True)
class UniformLengths:
    """Token counts uniform between two ends, both included.

    Parameters
    ----------
    low, high : int
        [tokens]
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise RequestError(f"lengths from {self.low} to {self.high} make no sense")

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.integers(self.low, self.high + 1, n)


@dataclass(frozen=True)
class EmpiricalLengths:
    """Token counts drawn with replacement from observed ones."""

    observed: Sequence[int]

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.choice(np.asarray(self.observed, dtype=np.int64), n)


Length = int | LengthLaw


@dataclass(frozen=True, kw_only=True)
class _Process:
    """Base of open-loop processes: times from the subclass, token counts (see `Poisson`) from here."""

    prompt_tokens: Length | None = None
    output_tokens: Length | None = None
    prefix_tokens: Length | None = None
    prefix_groups: int = 1

    def generate(self, n: int, seed: int = 0) -> Requests:
        """The first `n` requests; equal seeds give equal requests."""
        if n < 1:
            raise RequestError(f"cannot generate {n} requests", hint="ask for at least one")
        times, lengths = (np.random.default_rng([seed, stream]) for stream in (1, 2))
        return _with_prefixes(
            Requests(
                self._times(n, times),
                _lengths(self.prompt_tokens, n, lengths),
                _lengths(self.output_tokens, n, lengths),
            ),
            self.prefix_tokens,
            self.prefix_groups,
            seed,
        )

    def _times(self, n: int, rng: np.random.Generator) -> Floats:
        raise NotImplementedError


def _lengths(law: Length | None, n: int, rng: np.random.Generator) -> NDArray[np.int64] | None:
    return None if law is None else _drawn(law, n, rng)


def _drawn(law: Length, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.full(n, law, dtype=np.int64) if isinstance(law, int) else law.sample(n, rng)


def _with_prefixes(requests: Requests, law: Length | None, groups: int, seed: int) -> Requests:
    """Requests that share beginnings of their prompts."""
    if groups < 1:
        raise RequestError(f"there must be at least one group of prefixes, got {groups}")
    if law is None:
        return requests
    if requests.prompt_tokens is None:
        raise RequestError("a shared prefix needs a prompt", hint="pass prompt_tokens too")
    n, rng = len(requests), np.random.default_rng([seed, 3])
    return replace(
        requests,
        prefix_tokens=np.minimum(_drawn(law, n, rng), requests.prompt_tokens),
        prefix_group=rng.integers(0, groups, n),
    )


def _positive(what: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise RequestError(f"{what} must be positive, got {value}")


@dataclass(frozen=True)
class Poisson(_Process):
    """Independent exponential gaps.

    Parameters
    ----------
    rate_per_s : float
        Mean rate [1/s].
    prompt_tokens, output_tokens : int or LengthLaw, optional
        Lengths of language-model requests.
    prefix_tokens : int or LengthLaw, optional
        How much of its prompt a request shares with others, at the beginning; at most the prompt.
    prefix_groups : int
        Different beginnings; each request has one of them, all alike likely.
    """

    rate_per_s: float

    def __post_init__(self) -> None:
        _positive("the rate", self.rate_per_s)

    def _times(self, n: int, rng: np.random.Generator) -> Floats:
        return np.cumsum(rng.exponential(1.0 / self.rate_per_s, n))


@dataclass(frozen=True)
class Gamma(_Process):
    """Independent gamma gaps: `cv` above 1 is burstier than Poisson, below 1 smoother.

    Parameters
    ----------
    rate_per_s : float
        Mean rate [1/s].
    cv : float
        Standard deviation of the gaps over their mean.
    prompt_tokens, output_tokens, prefix_tokens, prefix_groups
        See `Poisson`.
    """

    rate_per_s: float
    cv: float

    def __post_init__(self) -> None:
        _positive("the rate", self.rate_per_s)
        _positive("the coefficient of variation", self.cv)

    def _times(self, n: int, rng: np.random.Generator) -> Floats:
        shape = 1.0 / self.cv**2
        return np.cumsum(rng.gamma(shape, 1.0 / (shape * self.rate_per_s), n))


@dataclass(frozen=True)
class Deterministic(_Process):
    """Equal gaps; the first request arrives after one gap.

    Parameters
    ----------
    rate_per_s : float
        [1/s]
    prompt_tokens, output_tokens, prefix_tokens, prefix_groups
        See `Poisson`.
    """

    rate_per_s: float

    def __post_init__(self) -> None:
        _positive("the rate", self.rate_per_s)

    def _times(self, n: int, rng: np.random.Generator) -> Floats:
        return np.arange(1, n + 1) / self.rate_per_s


@dataclass(frozen=True)
class MMPP(_Process):
    """Markov-modulated Poisson process: states visited in turn, each with its rate, for exponential times.

    Parameters
    ----------
    rates_per_s : sequence of float
        Rate in each state [1/s]; 0 is silence.
    dwell_s : sequence of float
        Mean stay in each state [s].
    prompt_tokens, output_tokens, prefix_tokens, prefix_groups
        See `Poisson`.
    """

    rates_per_s: tuple[float, ...]
    dwell_s: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates_per_s", tuple(self.rates_per_s))
        object.__setattr__(self, "dwell_s", tuple(self.dwell_s))
        if len(self.rates_per_s) != len(self.dwell_s) or not self.rates_per_s:
            raise RequestError("an MMPP needs one mean stay per rate")
        if min(self.rates_per_s) < 0 or max(self.rates_per_s) <= 0:
            raise RequestError("rates of an MMPP must not be negative, and one must be positive")
        for stay in self.dwell_s:
            _positive("a mean stay", stay)

    @property
    def rate_per_s(self) -> float:
        """Mean rate [1/s]."""
        return sum(r * d for r, d in zip(self.rates_per_s, self.dwell_s)) / sum(self.dwell_s)

    def _times(self, n: int, rng: np.random.Generator) -> Floats:
        unit = np.cumsum(rng.exponential(1.0, n))
        rates, dwell = np.array(self.rates_per_s), np.array(self.dwell_s)
        time, mass = [np.zeros(1)], [np.zeros(1)]
        rounds = 1 + int(unit[-1] / (rates @ dwell))
        while mass[-1][-1] < unit[-1]:
            stays = rng.exponential(1.0, (rounds, len(rates))) * dwell
            time.append(time[-1][-1] + np.cumsum(stays))
            mass.append(mass[-1][-1] + np.cumsum(stays * rates))
        return np.interp(unit, np.concatenate(mass), np.concatenate(time))


@dataclass(frozen=True)
class Diurnal(_Process):
    """Poisson arrivals whose rate swings over a day: ``rate * (1 + swing * sin(2 pi t / period))``.

    Parameters
    ----------
    rate_per_s : float
        Mean rate [1/s].
    swing : float
        Depth of the swing, 0 to 1.
    period_s : float
        Length of the day [s].
    prompt_tokens, output_tokens, prefix_tokens, prefix_groups
        See `Poisson`.
    """

    rate_per_s: float
    swing: float = 0.5
    period_s: float = 86400.0

    def __post_init__(self) -> None:
        _positive("the rate", self.rate_per_s)
        _positive("the period", self.period_s)
        if not 0 <= self.swing <= 1:
            raise RequestError(f"the swing must be between 0 and 1, got {self.swing}")

    def _times(self, n: int, rng: np.random.Generator) -> Floats:
        unit = np.cumsum(rng.exponential(1.0, n))
        # One day of the cumulative rate, tabulated finely, serves every day; a day's mass is rate * period.
        grid = np.linspace(0.0, self.period_s, 4097)
        turn = 2 * math.pi / self.period_s
        mass = self.rate_per_s * (grid + self.swing / turn * (1 - np.cos(turn * grid)))
        day, within = np.divmod(unit, mass[-1])
        return day * self.period_s + np.interp(within, mass, grid)


@dataclass(frozen=True)
class ClosedLoop:
    """A fixed number of users, each waiting for its answer and thinking before it asks again.

    Parameters
    ----------
    users : int
    think_s : float
        Mean thinking time [s], exponential; 0 asks again at once.
    constant : bool
        Thinking always takes `think_s`.
    samples : int
        Requests that a user sends at once; it waits for all of them.
    prompt_tokens, output_tokens, prefix_tokens : int or LengthLaw, optional
        Lengths of language-model requests, and how much of their prompts they share.
    prefix_groups : int
        Different beginnings.
    """

    users: int
    think_s: float = 0.0
    constant: bool = False
    samples: int = 1
    prompt_tokens: Length | None = None
    output_tokens: Length | None = None
    prefix_tokens: Length | None = None
    prefix_groups: int = 1

    def __post_init__(self) -> None:
        if self.users < 1:
            raise RequestError(f"a closed loop needs at least one user, got {self.users}")
        if self.samples < 1:
            raise RequestError(f"a user sends at least one request, got {self.samples}")
        if self.think_s < 0:
            raise RequestError(f"thinking time must not be negative, got {self.think_s}")

    @property
    def rate_per_s(self) -> float:
        """Unknown before the run: the server sets it."""
        return math.nan

    def thinking_s(self, n: int, seed: int = 0) -> Floats:
        """Thinking time before each of `n` requests [s], in order of asking; the first asks at once."""
        if self.constant or self.think_s == 0:
            return np.full(n, self.think_s)
        return np.random.default_rng([seed, 1]).exponential(self.think_s, n)

    def lengths(self, n: int, seed: int = 0) -> Requests:
        """`n` requests with their lengths; they arrive when the server lets them."""
        rng = np.random.default_rng([seed, 2])
        asked = Requests(
            np.zeros(n), _lengths(self.prompt_tokens, n, rng), _lengths(self.output_tokens, n, rng)
        )
        return _with_prefixes(asked, self.prefix_tokens, self.prefix_groups, seed)

    def generate(self, n: int, seed: int = 0) -> Requests:
        raise RequestError(
            "arrivals of a closed loop depend on the server", hint="pass it to serve(), which runs the loop"
        )


@dataclass(frozen=True)
class Stream:
    """Arrivals with what they all ask for.

    Parameters
    ----------
    arrivals : Arrivals
    priority : int
        1 is the highest; 0 asks for the server's default.
    model : int
        Index of the model.
    timeout_s : float
        0 is none [s].
    """

    arrivals: Arrivals
    priority: int = 0
    model: int = 0
    timeout_s: float = 0.0


class Superposition:
    """Several streams at once, merged by arrival time.

    Parameters
    ----------
    *streams : Stream or Arrivals
    """

    def __init__(self, *streams: Stream | Arrivals) -> None:
        if not streams:
            raise RequestError("a superposition needs at least one stream")
        self.streams = tuple(s if isinstance(s, Stream) else Stream(s) for s in streams)

    @property
    def rate_per_s(self) -> float:
        """Sum of the rates [1/s]."""
        return sum(s.arrivals.rate_per_s for s in self.streams)

    def generate(self, n: int, seed: int = 0) -> Requests:
        """The first `n` requests of all streams together."""
        parts = []
        for place, stream in enumerate(self.streams):
            share = stream.arrivals.rate_per_s / self.rate_per_s if len(self.streams) > 1 else 1.0
            count = math.ceil(n * share + 6 * math.sqrt(n * share) + 8)
            part = stream.arrivals.generate(count, seed * 1009 + place)
            full = np.ones(len(part), dtype=np.int64)
            group = part.prefix_group
            parts.append(
                replace(
                    part,
                    # Streams do not share their beginnings.
                    prefix_group=None if group is None else group * len(self.streams) + place,
                    priority=full * stream.priority,
                    model=full * stream.model,
                    timeout_s=np.full(len(part), stream.timeout_s, dtype=np.float64),
                )
            )
        return merge(parts).first(n)


def merge(parts: Sequence[Requests]) -> Requests:
    """Requests of several sources by arrival time; ties keep the order of the sources."""
    times = np.concatenate([p.arrival_s for p in parts])
    order = np.argsort(times, kind="stable")

    def joined(name: str) -> NDArray[np.int64] | None:
        values = [getattr(p, name) for p in parts]
        return None if any(v is None for v in values) else np.concatenate(values)[order]

    def shared(name: str) -> NDArray[np.int64] | None:
        """Of parts of which some share nothing."""
        if prompts is None or all(getattr(p, name) is None for p in parts):
            return None
        values = [getattr(p, name) for p in parts]
        filled = [np.zeros(len(p), np.int64) if v is None else v for p, v in zip(parts, values)]
        return np.concatenate(filled)[order]

    prompts = joined("prompt_tokens")
    return Requests(
        times[order],
        prompts,
        joined("output_tokens"),
        joined("priority"),
        joined("timeout_s"),  # type: ignore[arg-type]
        joined("model"),
        joined("sequence"),
        None,
        shared("prefix_tokens"),
        shared("prefix_group"),
    )
