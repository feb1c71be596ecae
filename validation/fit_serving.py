"""Fit the host constants of the serving stacks and the flags of benchmark campaigns on training rows.

``python validation/fit_serving.py [vllm trtllm sglang] [--inner] [--write]``

prints the constants of each backend for `hwconfigs/gpu/_stacks.yaml`, and with ``--write`` replaces the flags
in ``validation/serving/campaigns.csv``. Rows that are held out are never replayed. ``--inner`` leaves out
each fifth of the training rows' configurations, and each model, fits the rest and prints the errors there.

Each row is replayed at a base point, with each constant moved, and with flags that change what the engine
does; between these the answers are taken as linear, so the search itself, and leaving rows out, replay
nothing. A campaign takes the flags with the least loss among a few documented values, if they are clearly
better than the defaults; constants and flags take turns.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from accelsim.core.paths import data_folder
from accelsim.serving.llm.policy import Host
from accelsim.validate.llm_campaigns import COLUMNS, DEFAULT, FILE, Settings, branch_of, known, usual_of
from accelsim.validate.llm_rows import ServingRow, rows
from accelsim.validate.llm_serving import ACCEPTANCE, frame_of, replay

Array = npt.NDArray[np.float64]

BACKENDS = ("vllm", "trtllm", "sglang")
ROWS, SEED = {"vllm": 420, "trtllm": 900, "sglang": 900}, 5
"""Most rows of a backend that are replayed, drawn at random; flags of campaigns need all there are."""

MOST_TOKENS = 70_000
"""Rows with more users x output tokens take too long for a fit."""

BASE = Host(4e-4, 1e-5, 2e-3, 0.0, 0.2)
MOVED = {"step_s": 6e-4, "sequence_s": 2e-5, "prompt_s": 5e-3, "prompt_share": 0.2}
"""By how much each constant is moved."""

UNIT = np.array([1e-3, 1e-5, 5e-3, 0.3, 3e-2, 5.0])
"""Scale of step, sequence and prompt constants [s], share, request [s], and delivery tokens less one."""

STARTS = ((0.4, 1.0, 0.5, 0.6, 0.5, 0.6), (0.3, 0.3, 0.1, 1.0, 3.0, 0.0), (0.5, 0.5, 0.1, 1.0, 0.1, 0.8))
"""Where constants start, in units of `UNIT`."""

SCALES = (0.3, 0.1)
"""Log errors of TTFT and TPOT from which on a row counts little (Welsch)."""

DELIVERY = (1, 4, 12, 40)
"""Tokens until the client has the first, that are replayed."""

STREAMS = {"vllm": (1,), "trtllm": (1, 4, 20), "sglang": (1, 10, 30)}
POLLS = {"sglang": (30,)}
DRAFTS = {"deepseek-ai--DeepSeek-R1": 3}
SHORT = {"trtllm": (1,)}
"""Flags that are told apart: `stream_interval` and `scheduler_recv_interval` of published recipes,
multi-token prediction (three drafts) of TensorRT-LLM for models that have the head for it, and an engine with
one place less than users."""

GAIN = 0.6
BRANCH_GAIN = 1.5
"""Loss that flags of a campaign must save, summed over its rows, against those of most campaigns, and those
of a branch of its launch script against the campaign's."""

TURNS = 6


@dataclass
class Fitted:
    """Constants of a backend, tokens until the client has the first, and flags by campaign."""

    host: Host
    delivery: float
    settings: dict[str, Settings]
    backend: str

    def of(self, row: ServingRow) -> Settings:
        """Flags of a row."""
        return usual_of(row, self.settings)


@dataclass(frozen=True)
class Answers:
    """Replays of rows.

    Attributes
    ----------
    held : list of ServingRow
    measured : array, (rows, 2)
        TTFT and TPOT [s].
    points : array, (rows, constants + 1, 2)
        With the default flags, at the base and with each constant moved [s].
    delivered : array, (rows, delivery tokens, 2)
        At the base with other delivery tokens: what TTFT gains [s], and TPOT over that at the base.
    changed : array, (rows, engine flags, 2)
        At the base with other flags, over the answer with the defaults.
    flags : list of Settings
        The engine flags, the defaults first.
    """

    held: list[ServingRow]
    measured: Array
    points: Array
    delivered: Array
    changed: Array
    flags: list[Settings]

    def of(self, which: npt.NDArray[np.bool_]) -> Answers:
        """Some of the rows."""
        held = [r for r, kept in zip(self.held, which) if kept]
        arrays = (a[which] for a in (self.measured, self.points, self.delivered, self.changed))
        return Answers(held, *arrays, self.flags)

    def at(self, x: Array, flag: npt.NDArray[np.int64], stream: Array) -> Array:
        """TTFT and TPOT with constants, the engine flags of each row, and steps whose tokens go together."""
        slopes = (self.points[:, 1:] - self.points[:, :1]) / np.array(list(MOVED.values()))[:, None]
        both: Array = self.points[:, 0] + np.einsum("rcv,c->rv", slopes, x[:4] - START)
        both = both * self.changed[np.arange(len(both)), flag]
        per_step = np.array([_per_step(f.drafts) for f in self.flags])[flag]
        tokens = np.clip(1.0 + x[5] + (stream - 1) * per_step, 1.0, DELIVERY[-1])
        place = np.clip(np.searchsorted(DELIVERY, tokens, side="right") - 1, 0, len(DELIVERY) - 2)
        low, high = np.array(DELIVERY)[place], np.array(DELIVERY)[place + 1]
        share, every = ((tokens - low) / (high - low))[:, None], np.arange(len(both))
        held = self.delivered[every, place] * (1 - share) + self.delivered[every, place + 1] * share
        both[:, 0] += x[4] + held[:, 0] * both[:, 1] / self.points[:, 0, 1]
        both[:, 1] *= held[:, 1]
        return both


START = np.array([getattr(BASE, name) for name in MOVED])


def _per_step(drafts: int) -> float:
    return sum(ACCEPTANCE**i for i in range(drafts + 1))


def loss(predicted: Array, measured: Array) -> Array:
    """Welsch loss of both log errors, by row."""
    error = np.log(np.maximum(predicted, 1e-6) / measured) / np.array(SCALES)
    both: Array = (1.0 - np.exp(-0.5 * error**2)).sum(axis=1)
    return both


def answers(training: Sequence[ServingRow]) -> Answers:
    """Replay rows of one backend."""
    backend = training[0].backend
    cheap = [r for r in training if r.users * r.osl < MOST_TOKENS]
    order = np.random.default_rng(SEED).permutation(len(cheap))[: ROWS[backend]]
    flags = [DEFAULT, *(Settings(poll=p) for p in POLLS.get(backend, ()))]
    flags += [Settings(short=n) for n in SHORT.get(backend, ())]
    if backend == "trtllm":
        flags += [Settings(drafts=d) for d in sorted(set(DRAFTS.values()))]
    held, points, delivered, changed = [], [], [], []
    for row in sorted((cheap[i] for i in order), key=_device):

        def ask(
            host: Host, settings: Settings = DEFAULT, tokens: int = 1, row: ServingRow = row
        ) -> tuple[float, float]:
            found = replay(row, host, settings=settings, stream=tokens)
            return found.ttft_s, found.tpot_s

        base = ask(BASE)
        if np.isnan(base[0]):
            continue
        held.append(row)
        moved = [ask(BASE._replace(**{name: getattr(BASE, name) + by})) for name, by in MOVED.items()]
        points.append([base, *moved])
        later = np.array([base, *(ask(BASE, tokens=n) for n in DELIVERY[1:])])
        delivered.append(np.stack([later[:, 0] - base[0], later[:, 1] / base[1]], axis=1))
        other = [
            ask(BASE, f) if f != DEFAULT and (not f.drafts or row.config in DRAFTS) else base for f in flags
        ]
        changed.append(np.array(other) / np.array(base))
    measured = np.array([(r.ttft_s, r.tpot_s) for r in held])
    return Answers(held, measured, *(np.array(a) for a in (points, delivered, changed)), flags)


def fit(found: Answers, flags: bool = True) -> Fitted:
    """Constants and flags in turns, from several starts; without `flags` all have the defaults."""
    campaigns, of_campaign = _numbered([r.campaign for r in found.held])
    branches, of_branch = _numbered([branch_of(r) for r in found.held])
    above = np.zeros(len(branches), dtype=np.int64)
    above[of_branch] = of_campaign
    backend = found.held[0].backend
    choices = list(product(range(len(found.flags)), STREAMS[backend])) if flags else [(0, 1)]
    speculates = np.array([r.config in DRAFTS for r in found.held])
    n = len(found.held)

    def settings(x: Array) -> npt.NDArray[np.int64]:
        """The choice of each branch, of each campaign, and of one without an entry of its own."""
        each = [
            loss(found.at(x, np.full(n, f), np.full(n, float(stream))), found.measured)
            + np.where((found.flags[f].drafts > 0) & ~speculates, np.inf, 0.0)
            for f, stream in choices
        ]

        def clearly(
            of: npt.NDArray[np.int64], usual: npt.NDArray[np.int64], gain: float
        ) -> npt.NDArray[np.int64]:
            total = np.stack([np.bincount(of, e, len(usual)) for e in each])
            before = total[usual, np.arange(len(usual))]
            return np.where(total.min(axis=0) < before - gain, total.argmin(axis=0), usual)

        usual = int(np.mean(each, axis=1).argmin())
        whole = clearly(of_campaign, np.full(len(campaigns), usual), GAIN)
        return np.concatenate([clearly(of_branch, whole[above], BRANCH_GAIN), whole, [usual]])

    def exceptions(chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Branches and campaigns that need an entry."""
        part, whole = chosen[: len(branches)], chosen[len(branches) : -1]
        return np.concatenate([part != whole[above], whole != chosen[-1], [True]])

    def search(chosen: npt.NDArray[np.int64], u: Array, free: int = 6) -> tuple[Array, float]:
        """The first `free` constants with the least loss, and it."""
        flag = np.array([choices[c][0] for c in chosen])[of_branch]
        stream = np.array([float(choices[c][1]) for c in chosen])[of_branch]
        done = minimize(
            lambda v: float(
                loss(found.at(np.append(np.abs(v), u[len(v) :]) * UNIT, flag, stream), found.measured).mean()
            ),
            u[:free], method="Nelder-Mead", options={"maxiter": 900, "xatol": 1e-3, "fatol": 1e-6},
        )  # fmt: skip
        return np.append(np.abs(done.x), u[free:]), float(done.fun)

    size = len(branches) + len(campaigns) + 1
    best, least = (np.array(STARTS[0]), np.zeros(size, dtype=np.int64)), np.inf
    for start in STARTS:
        u, last = np.array(start), np.full(size, -1)
        for _ in range(TURNS):
            chosen = settings(u * UNIT)
            if (chosen == last).all():
                break
            last = chosen
            u, value = search(chosen, u)
            value += GAIN * float(exceptions(chosen).sum()) / n
            if value < least:
                best, least = (u, chosen), value
    u, chosen = best
    u[-1] = np.rint(u[-1] * UNIT[-1]) / UNIT[-1]  # engines count whole tokens; the others make up for it
    x = search(chosen, u, free=5)[0] * UNIT
    settled = {
        name: replace(found.flags[choices[c][0]], stream=choices[c][1])
        for name, c, needed in zip([*branches, *campaigns, backend], chosen, exceptions(chosen))
        if needed
    }
    return Fitted(Host(*x[:3].tolist(), float(x[4]), float(x[3])), 1.0 + float(x[5]), settled, backend)


def _numbered(names: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Distinct names, and the place of each name among them."""
    distinct = sorted(set(names))
    return distinct, np.array([distinct.index(name) for name in names])


def predicted(found: Answers, fitted: Fitted) -> Array:
    """TTFT and TPOT of rows with fitted constants."""
    h = fitted.host
    x = np.array([h.step_s, h.sequence_s, h.prompt_s, h.prompt_share, h.request_s, fitted.delivery - 1])
    flags = [fitted.of(r) for r in found.held]
    flag = np.array([found.flags.index(replace(f, stream=1)) for f in flags])
    return found.at(x, flag, np.array([float(f.stream) for f in flags]))


def _device(row: ServingRow) -> tuple[str, ...]:
    """Rows of one surface are neighbours."""
    return row.config, row.device, str(row.formats), str(row.split)


def report(label: str, scored: Sequence[ServingRow], fitted: Fitted) -> None:
    """Replay rows and print the errors."""
    found = frame_of(
        replay(
            r, fitted.host, stream=round(fitted.delivery), settings=fitted.of(r)
        )
        for r in sorted(scored, key=_device)
    )  # fmt: skip
    _say(label, found.loc[found["reason"] == "", ["ttft_error", "tpot_error"]].to_numpy())


def _say(label: str, errors: Array) -> None:
    a, b = np.median(np.abs(errors), axis=0)
    c, d = np.median(errors, axis=0)
    sys.stdout.write(
        f"  {label}: {len(errors)} rows, median APE of TTFT and TPOT {a:.1f}, {b:.1f} %, "
        f"bias {c:.1f}, {d:.1f} %\n"
    )
    sys.stdout.flush()


def inner(found: Answers) -> None:
    """Errors on rows that were left out: fifths of the configurations, and each model."""

    def configuration(row: ServingRow) -> str:
        text = f"{row.system}|{row.config}|{row.backend}|{row.precision}|{row.isl}|{row.osl}|{row.split}"
        return str(int(hashlib.sha256(b"inner" + text.encode()).hexdigest(), 16) % 5)

    for label, part in (("fifths of configurations", configuration), ("models", lambda r: r.config)):
        of = np.array([part(r) for r in found.held])
        errors, plain = [], []
        for name in sorted(set(of)):
            kept, rest = found.of(of != name), found.of(of == name)
            errors.append(100 * (predicted(rest, fit(kept)) / rest.measured - 1))
            plain.append(100 * (predicted(rest, fit(kept, flags=False)) / rest.measured - 1))
        _say(f"left out, {label}", np.concatenate(errors))
        _say(f"left out, {label}, no flags", np.concatenate(plain))


def main(arguments: Sequence[str]) -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description="Fit host constants and flags on training rows.")
    parser.add_argument("backends", nargs="*", default=list(BACKENDS))
    parser.add_argument("--inner", action="store_true", help="print errors on training rows left out")
    parser.add_argument("--write", action="store_true", help="write the flags of the campaigns")
    given = parser.parse_args(arguments)
    everything, written = [r for r in rows() if not r.test], dict(known())
    for backend in given.backends:
        sys.stdout.write(f"{backend}\n")
        found = answers([r for r in everything if r.backend == backend])
        if given.inner:
            inner(found)
        fitted = fit(found)
        h = fitted.host
        sys.stdout.write(
            f"  step {h.step_s:.3g} s, sequence {h.sequence_s:.3g} s, prompts {h.prompt_s:.3g} s and share "
            f"{h.prompt_share:.3g}, request {h.request_s:.3g} s, delivery {fitted.delivery:.2f} tokens; "
            f"{len(fitted.settings)} campaigns with flags\n"
        )
        _say("fitted rows", 100 * (predicted(found, fitted) / found.measured - 1))
        report("the same, replayed", found.held, fitted)
        written = {k: v for k, v in written.items() if k.split("|")[0] != backend} | fitted.settings
    if given.write:
        _write(written, Counter(name for r in everything for name in (r.campaign, branch_of(r))))


def _write(settings: Mapping[str, Settings], counts: Mapping[str, int]) -> None:
    with (data_folder("validation") / "serving" / FILE).open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for campaign in sorted(settings):
            s = settings[campaign]
            n = counts[campaign] if "|" in campaign else ""
            table.writerow((campaign, n, s.stream, s.poll, s.drafts, s.short))


if __name__ == "__main__":
    main(sys.argv[1:])
