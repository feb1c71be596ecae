"""A fleet, as users name it: pools of replicas in a data flow, with faults, changes and clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.serving.arrivals import Length
from accelsim.serving.fleet.admission import Admission
from accelsim.serving.fleet.autoscaler import Autoscaler
from accelsim.serving.fleet.balancers import Balancer, balancer_of
from accelsim.serving.fleet.checks import finite
from accelsim.serving.fleet.client import Client
from accelsim.serving.fleet.faults import Fault, LinkDelay, LinkLoss
from accelsim.serving.fleet.place import Place
from accelsim.serving.fleet.replica import Replica
from accelsim.serving.fleet.versions import Change, Swap, check_split


@dataclass(frozen=True)
class Pool:
    """Replicas of one model behind one balancer; a stage of a pipeline where it comes after others.

    Parameters
    ----------
    replicas : Replica or sequence of Replica
        Kinds of replicas; the autoscaler changes the number of the first.
    name : str
    balancer : str or Balancer
        ``round_robin random least_outstanding power_of_two latency_aware weighted nearest prefix_aware``, or
        an object.
    concurrency : int, optional
        Requests at one replica at most; others wait in one queue before the balancer (Knative's
        ``containerConcurrency``).
    admission : Admission, optional
    autoscaler : Autoscaler, optional
    client : Client, optional
        The fleet's by default.
    split : mapping of str to float, optional
        Share of the traffic by version; by the balancer alone when absent.
    after : sequence of str
        Pools whose answers it needs; none for those that take the request itself.
    fan_out : int or LengthLaw
        Calls per request (a detector's finds for a classifier); 0 skips the pool, and what needs only it.
    model : int, optional
        It takes only requests of this model index.
    request_bytes, answer_bytes : float
        Size of messages [B].
    detect_s : float
        Time until the balancer notices that a replica has crashed [s].
    """

    replicas: tuple[Replica, ...]
    name: str = "model"
    balancer: str | Balancer = "round_robin"
    concurrency: int | None = None
    admission: Admission | None = None
    autoscaler: Autoscaler | None = None
    client: Client | None = None
    split: Mapping[str, float] | None = None
    after: tuple[str, ...] = ()
    fan_out: Length = 1
    model: int | None = None
    request_bytes: float = 0.0
    answer_bytes: float = 0.0
    detect_s: float = 0.0

    def __post_init__(self) -> None:
        kinds = (self.replicas,) if isinstance(self.replicas, Replica) else tuple(self.replicas)
        object.__setattr__(self, "replicas", kinds)
        object.__setattr__(self, "balancer", balancer_of(self.balancer))
        object.__setattr__(self, "after", (self.after,) if isinstance(self.after, str) else tuple(self.after))
        scaler = self.autoscaler
        count = sum(kind.count for kind in kinds)
        if not kinds or (count < 1 and (scaler is None or scaler.least > 0)):
            raise RequestError(f"pool '{self.name}' has zero replicas", hint="give a replica a count")
        if scaler is not None and not scaler.least <= kinds[0].count <= scaler.most:
            raise RequestError(
                f"pool '{self.name}' starts with {kinds[0].count} replicas, but its autoscaler keeps "
                f"{scaler.least} to {scaler.most}"
            )
        names = [kind.name for kind in kinds]
        for name in names:
            if names.count(name) > 1:
                raise RequestError(f"two kinds of replicas of pool '{self.name}' are called '{name}'")
        if self.concurrency is not None and self.concurrency < 1:
            raise RequestError(f"a replica takes at least one request at a time, got {self.concurrency}")
        if isinstance(self.fan_out, int) and self.fan_out < 0:
            raise RequestError(f"the fan-out must not be negative, got {self.fan_out}")
        for what in ("request_bytes", "answer_bytes", "detect_s"):
            finite(f"{what} of pool '{self.name}'", getattr(self, what))
        if self.split is not None:
            check_split(self.split)
            self.check_versions(self.split)

    def check_versions(self, split: Mapping[str, float], more: Iterable[str] = ()) -> None:
        """Refuse shares of versions that no replica has."""
        known = {kind.version for kind in self.replicas} | set(more)
        for version in split:
            if version not in known:
                hint = did_you_mean(version, known)
                raise RequestError(f"no replica of pool '{self.name}' has version '{version}'", hint=hint)


@dataclass(frozen=True)
class Fleet:
    """Pools and what happens to them.

    Parameters
    ----------
    pools : Pool, or sequence of Pool
        Several in any order: a data flow by ``after``, models by ``model``.
    client : Client
        What callers do, unless a pool says otherwise.
    faults : sequence of Fault
        `Crash`, `Restart`, `Slow`, `LinkLoss`, `LinkDelay`.
    changes : sequence of Change
        `Shift`, `Swap`.
    name : str

    Raises
    ------
    RequestError
        No pools, two of one name, an unknown input, a cycle, a fault of an unknown replica or place.
    """

    pools: tuple[Pool, ...]
    client: Client = field(default_factory=Client)
    faults: tuple[Fault, ...] = ()
    changes: tuple[Change, ...] = ()
    name: str = "fleet"

    def __post_init__(self) -> None:
        pools = (self.pools,) if isinstance(self.pools, Pool) else tuple(self.pools)
        object.__setattr__(self, "pools", pools)
        object.__setattr__(self, "faults", tuple(self.faults))
        object.__setattr__(self, "changes", tuple(self.changes))
        if not pools:
            raise RequestError("a fleet needs at least one pool")
        names = [p.name for p in pools]
        for pool in pools:
            if names.count(pool.name) > 1:
                raise RequestError(f"two pools of the fleet are called '{pool.name}'")
            for needed in pool.after:
                if needed not in names:
                    hint = did_you_mean(needed, names)
                    raise RequestError(f"pool '{pool.name}' needs '{needed}', which is no pool", hint=hint)
        object.__setattr__(self, "pools", _in_order(pools))
        self._check_places()
        for change in self.changes:
            self._check_change(change)
        for fault in self.faults:
            self._check_fault(fault)

    @classmethod
    def from_file(cls, path: str | Path) -> Fleet:
        """The fleet of a YAML file; see `accelsim.serving.fleet.document` for its form.

        Raises
        ------
        ConfigError
            A key or kind that is not known, a missing or wrong value.
        """
        from accelsim.serving.fleet.document import read_fleet

        return read_fleet(path)

    @property
    def places(self) -> dict[str, Place]:
        """Places by name."""
        return {kind.place.name: kind.place for kind in self._kinds()}

    def pool_of(self, change: Change) -> Pool:
        """The pool that a change is about."""
        if change.pool is None:
            if len(self.pools) > 1:
                hint = f"name it: {', '.join(p.name for p in self.pools)}"
                raise RequestError("a change does not say which pool it is about", hint=hint)
            return self.pools[0]
        for pool in self.pools:
            if pool.name == change.pool:
                return pool
        hint = did_you_mean(change.pool, [p.name for p in self.pools])
        raise RequestError(f"a change is about '{change.pool}', which is no pool", hint=hint)

    def _kinds(self) -> list[Replica]:
        swapped = [c.replica for c in self.changes if isinstance(c, Swap)]
        return [kind for pool in self.pools for kind in pool.replicas] + swapped

    def _check_places(self) -> None:
        for kind in self._kinds():
            if self.places[kind.place.name] != kind.place:
                raise RequestError(
                    f"two places are called '{kind.place.name}'", hint="give each its own name"
                )

    def _check_change(self, change: Change) -> None:
        pool = self.pool_of(change)
        swaps = [c.replica for c in self.changes if isinstance(c, Swap) and self.pool_of(c) is pool]
        if isinstance(change, Swap):
            if change.replica.name in [kind.name for kind in pool.replicas]:
                hint = "give the new one its own name"
                raise RequestError(
                    f"pool '{pool.name}' has a replica called '{change.replica.name}'", hint=hint
                )
        else:
            pool.check_versions(change.split, [kind.version for kind in swaps])

    def _check_fault(self, fault: Fault) -> None:
        if isinstance(fault, LinkLoss | LinkDelay):
            if fault.place is not None and fault.place not in self.places:
                hint = did_you_mean(fault.place, self.places)
                raise RequestError(f"a fault is about the place '{fault.place}', which is none", hint=hint)
        elif fault.replica is not None:
            kinds = {kind.name for kind in self._kinds()}
            kind = fault.replica.rpartition("-")[0] if fault.replica not in kinds else fault.replica
            if kind not in kinds:
                hint = did_you_mean(fault.replica, kinds)
                raise RequestError(f"a fault is about '{fault.replica}', which is no replica", hint=hint)


def _in_order(pools: Sequence[Pool]) -> tuple[Pool, ...]:
    """Pools with those that they need in front.

    Raises
    ------
    RequestError
        There is a cycle.
    """
    left, done = list(pools), list[Pool]()
    while left:
        known = {p.name for p in done}
        ready = [p for p in left if known.issuperset(p.after)]
        if not ready:
            raise RequestError(f"the pipeline has a cycle through {', '.join(p.name for p in left)}")
        done += ready
        names = {p.name for p in ready}
        left = [p for p in left if p.name not in names]
    return tuple(done)
