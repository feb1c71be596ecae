"""The readable engine: simpy, one station or a closed loop."""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.serving.arrivals import ClosedLoop
from accelsim.serving.limiter import RateLimit, RateLimiter, SharedThreads
from accelsim.serving.log import Log
from accelsim.serving.requests import Requests, to_ns
from accelsim.serving.service import Times
from accelsim.serving.station import ARRIVAL, Moment, Policy, Request, Station, environment, requests_of


def run_open(requests: Requests, policy: Policy, times: Times) -> Log:
    """Serve requests that come at their own times."""
    env = environment()
    station = Station(env, policy, times)
    held = requests_of(requests)
    feed(station, held)
    env.run()
    return Log.of(held, station)


def run_models(
    requests: Requests, parts: Sequence[tuple[Policy, Times]], limiter: RateLimiter
) -> tuple[Log, list[Log]]:
    """Serve several models whose instances share resources; requests choose by their model index."""
    env = environment()
    stations = [Station(env, policy, times) for policy, times in parts]
    for station, (policy, _) in zip(stations, parts):
        limit = getattr(policy, "rate_limit", None)
        if isinstance(limiter, SharedThreads):
            limit = RateLimit({"threads": 1})
        if limit is not None:
            limiter.join(station, limit)
    held = requests_of(requests)
    own: list[list[Request]] = [[r for r in held if r.model == i] for i in range(len(parts))]
    for station, mine in zip(stations, own):
        for place, request in enumerate(mine):
            request.index = place
        feed(station, mine)
    env.run()
    whole = Log.of(held, None)
    return whole, [Log.of(mine, station) for mine, station in zip(own, stations)]


def feed(station: Station, requests: list[Request]) -> None:
    """Submit requests to a station at their arrival times, then close it."""
    env, coming = station.env, iter(requests)

    def arrive(request: Request) -> None:
        station.submit(request)
        following()

    def following() -> None:
        request = next(coming, None)
        if request is None:
            station.close()
            return
        Moment(env, request.arrival_ns - station.now, ARRIVAL, lambda: arrive(request))

    following()


def run_closed(loop: ClosedLoop, n: int, policy: Policy, times: Times, seed: int = 0) -> tuple[Requests, Log]:
    """Serve a closed loop of users until `n` requests have been sent and answered."""
    env = environment()
    thinking = to_ns(loop.thinking_s(n, seed))
    sent: list[Request] = []
    waiting: dict[int, int] = {}
    owner: list[int] = []

    def ask(user: int) -> None:
        count = min(loop.samples, n - len(sent))
        if count == 0:
            return
        waiting[user] = count
        query = [Request(len(sent) + i, station.now) for i in range(count)]
        sent.extend(query)
        owner.extend([user] * count)
        for request in query:
            station.submit(request)
        if len(sent) == n:
            station.close()

    def answered(request: Request) -> None:
        user = owner[request.index]
        waiting[user] -= 1
        if waiting[user] == 0:
            think = int(thinking[request.index])
            station.at(station.now + think, lambda: ask(user), ARRIVAL)

    station = Station(env, policy, times, answered)
    for user in range(loop.users):
        station.at(0, lambda user=user: ask(user), ARRIVAL)  # type: ignore[misc]
    env.run()
    log = Log.of(sent, station)
    return Requests(log.arrival_ns / 1e9), log
