"""Measure single operators on this machine: a table that `accelsim calibrate` and `accelsim validate` read.

    python validation/measure_gpu.py --out rows.csv --budget-minutes 10

Needs torch and numpy, and the folder `measure` beside this file; not accelsim. `docs/measuring.md` explains
the columns.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure.conditions import Sidecar, attempt_nvml, catalog_name, describe, now
from measure.design import FORMATS, Item, design
from measure.kernels import Case, build, first_line, unusable
from measure.table import Table, TableError
from measure.telemetry import Sampler
from measure.timing import Loop, Timer, TooSlowError

_MOST_FAILURES_IN_A_ROW = 20
_PROGRESS_EVERY_S = 10.0
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is spent on a row and how large items get: row, warm-up [s]; item [FLOP, B]."""

    row_s: float
    warm_up_s: float
    most_flop: float
    most_bytes: float


_EFFORTS = {
    ("cuda", False): Effort(0.25, 2.0, 2e12, 4e9),
    ("cuda", True): Effort(0.06, 0.5, 2e11, 2e8),
    ("cpu", False): Effort(0.25, 0.2, 2e9, 1.28e8),
    ("cpu", True): Effort(0.03, 0.05, 3e7, 4e6),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the harness; the exit code is 130 after an interruption."""
    options = _parse(arguments)
    deadline = time.monotonic() + 60.0 * options.budget_minutes
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        _say("torch sees no CUDA device here; --device cpu measures the processor")
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    torch.backends.cudnn.benchmark = True  # the library tries its algorithms, as inference set-ups do
    try:
        with torch.inference_mode(), Table(options.out) as table:
            return _run(options, device, table, deadline)
    except (TableError, OSError) as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(options: argparse.Namespace, device: torch.device, table: Table, deadline: float) -> int:
    effort = _EFFORTS[device.type, options.quick]
    nvml, reason = attempt_nvml(device)
    sidecar = Sidecar(options.out.with_name(options.out.name + ".json"))
    facts = describe(device, nvml, reason)
    name = options.name or ("cpu" if device.type == "cpu" else catalog_name(facts["device_name"]))
    run = now()
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    sidecar.start({"run": run, "date": run, "device": name, "settings": settings, **asdict(effort), **facts})
    status, timer = "failed", None
    try:
        timer = Timer(device, effort.row_s)
        harness = _Harness(table, sidecar, timer, Sampler(nvml, reason), deadline, run, name)
        status = harness.measure(options.ops, options.seed, effort)
    except KeyboardInterrupt:
        status = "interrupted"
    finally:
        more = {"cache_bytes": timer.cache_bytes, "graph_failure": timer.graph_failure} if timer else {}
        sidecar.finish(status, table.rows, more)
    _say(f"{table.rows} rows in {options.out} ({status})")
    return _INTERRUPTED if status == "interrupted" else 0


@dataclass(slots=True)
class _Harness:
    table: Table
    sidecar: Sidecar
    timer: Timer
    sampler: Sampler
    deadline: float
    run: str
    name: str

    def measure(self, ops: tuple[str, ...], seed: int, effort: Effort) -> str:
        """Measure until the design or the budget ends; says which."""
        reasons = {
            (op, precision): unusable(op, precision, self.timer.device)
            for op in ops
            for precision in FORMATS[op]
        }
        for (op, precision), reason in reasons.items():
            if reason:
                self.sidecar.skip(op, precision, reason)
        items = design(
            ops, seed, effort.most_flop, effort.most_bytes, lambda op, precision: not reasons[op, precision]
        )
        if not items:
            return "nothing to measure"
        self._warm_up(effort.warm_up_s)
        order = np.random.default_rng(seed)
        failures, said = 0, time.monotonic()
        for at, item in enumerate(items):
            if self._left_s() <= 0:
                return "budget"
            failures = 0 if self._item(item, order) else failures + 1
            if failures == _MOST_FAILURES_IN_A_ROW:
                return "stopped: the device fails every call"
            if time.monotonic() - said > _PROGRESS_EVERY_S:
                said = time.monotonic()
                _say(f"{at + 1} of {len(items)} items, {self.table.rows} rows, {self._left_s():.0f} s left")
        return "complete"

    def _left_s(self) -> float:
        return self.deadline - time.monotonic()

    def _warm_up(self, duration_s: float) -> None:
        """Bring clocks and temperature to where sustained work holds them."""
        case = build(Item("gemm", "fp32", {"m": 512, "n": 512, "k": 512}), self.timer.device)
        end = time.monotonic() + min(duration_s, 0.1 * self._left_s())
        while time.monotonic() < end:
            self.timer.samples_s(self.timer.prepare(case, "warm", math.inf))

    def _item(self, item: Item, order: np.random.Generator) -> bool:
        """Measure an item in each state of the L2, in random order; False when the device failed."""
        try:
            case = build(item, self.timer.device)
            states = sorted({"cold", "warm", _predicted_state(item)})
            for state in order.permutation(states):
                if self._left_s() <= 0:
                    return True
                self._row(item, case, str(state))
        except TooSlowError as error:
            self.sidecar.skip(item.op, item.precision, f"too slow for what was left of the budget ({error})")
        except (RuntimeError, NotImplementedError) as error:
            self.sidecar.skip(item.op, item.precision, f"{first_line(error)} {item.shape}")
            if self.timer.cuda:
                torch.cuda.empty_cache()
            return isinstance(error, torch.cuda.OutOfMemoryError)
        return True

    def _row(self, item: Item, case: Case, state: str) -> None:
        loop = self.timer.prepare(case, state, self._left_s())
        with self.sampler.window() as reading:
            samples_s = self.timer.samples_s(loop)
        self._add(item, case, state, loop, samples_s, asdict(reading))

    def _add(
        self, item: Item, case: Case, state: str, loop: Loop, samples_s: np.ndarray, reading: dict[str, Any]
    ) -> None:
        low, first, median, third, high = np.percentile(samples_s, (5, 25, 50, 75, 95)).tolist()
        flags = [case.flag]
        if state != _predicted_state(item):
            flags.append(f"{state} L2: predictions are of a {_predicted_state(item)} one")
        if loop.timer == "stream":
            flags.append("no graph: the host's time may be in it")
        words = f"weights cycled over {len(loop.operands)} copies" if state == "cycled" else f"{state} L2"
        self.table.add(
            {
                "run": self.run,
                "op": item.op,
                "precision": item.precision,
                **item.shape,
                "latency_s": median,
                "spread_s": (high - low) / 2.0,
                "q25_s": first,
                "q75_s": third,
                "repeats": len(samples_s),
                "calls": loop.calls,
                "device": self.name,
                "backend": "torch",
                "version": torch.__version__,
                "kernel": case.kernel,
                "includes": case.includes,
                "flag": "; ".join(filter(None, flags)),
                "conditions": f"{loop.timer}, {words}, back to back",
                "l2": state,
                "timer": loop.timer,
                **{k: v for k, v in reading.items() if k != "reason"},
                "telemetry": reading["reason"],
                "time_utc": now(),
            }
        )


def _predicted_state(item: Item) -> str:
    """State of the L2 that predictions of operators are of: the kernel before made the activations, and the
    weights of a layer were last used one run of the network ago.
    """
    return "cycled" if item.op in ("gemm", "conv2d") else "warm"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure single operators on this machine.")
    parser.add_argument("--out", type=Path, required=True, help="CSV file; continued when it exists")
    parser.add_argument(
        "--ops", type=_ops, default=tuple(FORMATS), help="operators, with commas between them"
    )
    parser.add_argument("--budget-minutes", type=_positive, default=10.0, help="stop after this time")
    parser.add_argument(
        "--seed", type=int, default=0, help="another one measures other shapes in another order"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--name", help="device name for the table; by default the catalog's for this GPU")
    parser.add_argument("--quick", action="store_true", help="small shapes and few repeats: a trial")
    return parser.parse_args(arguments)


def _ops(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [n for n in names if n not in FORMATS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown operator '{unknown[0]}'; there are {', '.join(FORMATS)}")
    return names


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number of minutes")
    return value


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
