"""Spaces: the points that a study asks about, as axes, zipped axes and conditions.

An axis is a name and its values. The name is an argument of `simulate` (``workload hardware batch precision
stack context ...``), with ``rate_per_s`` or ``arrivals`` among them of `serve` (``batching requests slo
prompt_tokens ...``), or the dotted path of a hardware parameter (``array.rows``, ``memory.bandwidth``), which
then replaces the device's own. A space never holds its points: it counts in mixed radix.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import AccelsimError, RequestError, did_you_mean
from accelsim.explore.conditions import condition

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DEFAULTS: dict[str, Any] = {"batch": 1, "precision": None}
"""Axes that every point has."""


def pow2(low: int, high: int) -> list[int]:
    """Powers of two from `low` to `high`, both included when they are powers of two.

    Parameters
    ----------
    low, high : int

    Returns
    -------
    list of int
    """
    if low < 1 or high < low:
        raise RequestError(f"pow2({low}, {high}) needs 1 <= low <= high")
    return [2**i for i in range((low - 1).bit_length(), high.bit_length()) if low <= 2**i <= high]


def linear(low: Any, high: Any, count: int) -> list[Any]:
    """`count` evenly spaced values from `low` to `high`.

    Parameters
    ----------
    low, high : number or str
        Numbers, or texts with the same unit (``"1 TB/s"``); whole numbers stay whole.
    count : int

    Returns
    -------
    list
    """
    return _ranged("linear", low, high, count, lambda a, b, at: a + (b - a) * at)


def log(low: Any, high: Any, count: int) -> list[Any]:
    """`count` values from `low` to `high`, each the same factor above the one before.

    Parameters
    ----------
    low, high, count
        See `linear`.

    Returns
    -------
    list
    """
    return _ranged("log", low, high, count, lambda a, b, at: a * (b / a) ** at)


def _ranged(
    name: str, low: Any, high: Any, count: int, between: Callable[[float, float, float], float]
) -> list[Any]:
    (first, unit), (last, other) = _parts(low), _parts(high)
    if unit != other:
        raise RequestError(f"{name}({low!r}, {high!r}) needs one unit for both ends")
    if count < 2 or last <= first or (name == "log" and first <= 0.0):
        least = "0 < " if name == "log" else ""
        raise RequestError(
            f"{name}({low!r}, {high!r}, {count}) needs {least}low < high and at least 2 values"
        )
    values = [float(f"{between(first, last, i / (count - 1)):.12g}") for i in range(count)]
    numbers = [int(v) for v in values] if all(v.is_integer() for v in values) else values
    return [f"{v} {unit}" for v in numbers] if unit else numbers


def _parts(end: Any) -> tuple[float, str]:
    """Number and unit of an end of a range."""
    number, _, unit = str(end).strip().partition(" ")
    try:
        return float(number), unit.strip()
    except ValueError:
        raise RequestError(f"{end!r} is not a number, or a number and a unit such as '1 TB/s'") from None


class Space:
    """Every combination of some axes that meets the conditions.

    Parameters
    ----------
    axes : mapping of str to value or sequence
        ``workload`` and ``hardware`` must be there.
    zipped : sequence of sequences of str
        Axes of equal length that advance together.
    where : str or sequence of str
        Conditions, see `accelsim.explore.conditions`; ``computes(hardware, precision)`` is true where the
        device computes in that precision.

    Raises
    ------
    RequestError
        An axis is unknown (with the nearest name) or empty, zipped axes differ in length, a condition cannot
        be read, or no point is left.
    AccelsimError
        A workload, device, precision, batch or hardware parameter does not exist.
    """

    def __init__(
        self,
        axes: Mapping[str, Any],
        *,
        zipped: Sequence[Sequence[str]] = (),
        where: str | Sequence[str] = (),
    ) -> None:
        self.axes = {name: _values(value) for name, value in {**axes, **_absent(axes)}.items()}
        for name in ("workload", "hardware"):
            if name not in self.axes:
                raise RequestError(f"a space needs the axis '{name}'")
        for name, held in self.axes.items():
            if not held:
                raise RequestError(f"the list for '{name}' is empty")
        self.zipped = tuple(tuple(group) for group in zipped)
        self._dimensions = self._grouped()
        texts = [where] if isinstance(where, str) else list(where)
        self._check_values()
        self.where = tuple(condition(text, self.axes, {"computes": _computes}) for text in texts)
        if not len(self):
            raise RequestError("no point of the space meets its conditions", hint="; ".join(texts))

    # -- shape
    # ------------------------------------------------------------------------------------------------------

    def _grouped(self) -> list[tuple[tuple[str, ...], int]]:
        """Names that advance together, and how many steps they have, outermost first."""
        home: dict[str, tuple[str, ...]] = {}
        for group in self.zipped:
            for name in group:
                if name not in self.axes:
                    raise RequestError(f"no axis '{name}' to zip", hint=did_you_mean(name, self.axes))
                if name in home:
                    raise RequestError(f"the axis '{name}' is zipped twice")
                home[name] = group
            lengths = {name: len(self.axes[name]) for name in group}
            if len(set(lengths.values())) > 1:
                detail = ", ".join(f"{name} {count}" for name, count in lengths.items())
                raise RequestError(f"zipped axes differ in length: {detail}")
        groups = dict.fromkeys(home.get(name, (name,)) for name in self.axes)
        return [(group, len(self.axes[group[0]])) for group in groups]

    @cached_property
    def indices(self) -> npt.NDArray[np.int64]:
        """Places in the full grid of the points that meet the conditions, ascending."""
        import numpy as np

        shape = [count for _, count in self._dimensions]
        keep = np.ones(shape, dtype=bool)
        for rule in self.where:
            read = [i for i, (names, _) in enumerate(self._dimensions) if set(names) & set(rule.names)]
            small = np.zeros([shape[i] for i in read], dtype=bool)
            for at in np.ndindex(*small.shape):
                small[at] = rule.holds(self._named(dict(zip(read, at))))
            keep &= small.reshape([shape[i] if i in read else 1 for i in range(len(shape))])
        return np.flatnonzero(keep)

    def _named(self, steps: Mapping[int, int]) -> dict[str, Any]:
        """Values of the axes of some dimensions at the steps given."""
        return {name: self.axes[name][step] for i, step in steps.items() for name in self._dimensions[i][0]}

    def __len__(self) -> int:
        grid = math.prod(count for _, count in self._dimensions)
        return len(self.indices) if self.where else grid

    def point(self, position: int) -> dict[str, Any]:
        """The point at a position, in the order of the axes (the last axis changes fastest)."""
        named = self._named(dict(enumerate(reversed(self.steps(position).values()))))
        return {name: named[name] for name in self.axes}

    # -- steps of dimensions: what a search moves on
    # ----------------------------------------------------------------

    @property
    def dimensions(self) -> dict[str, tuple[Any, ...]]:
        """Values by dimension; zipped axes are one, ``a+b``, with the values of the first."""
        return {"+".join(names): self.axes[names[0]] for names, _ in self._dimensions}

    @property
    def dimension_sizes(self) -> dict[str, int]:
        """Values of each dimension, outermost first."""
        return {"+".join(names): count for names, count in self._dimensions}

    def dimension_of(self, axis: str) -> str:
        """The dimension that an axis belongs to."""
        return next("+".join(names) for names, _ in self._dimensions if axis in names)

    def steps_of(self, positions: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
        """Steps along each dimension of many points, see `steps`."""
        import numpy as np

        flat = self.indices[positions] if self.where else positions
        found: dict[str, npt.NDArray[np.int64]] = {}
        for names, count in reversed(self._dimensions):
            flat, found["+".join(names)] = np.divmod(flat, count)
        return found

    def steps(self, position: int) -> dict[str, int]:
        """Step along each dimension of the point at a position."""
        flat = int(self.indices[position]) if self.where else position
        found: dict[str, int] = {}
        for names, count in reversed(self._dimensions):
            flat, found["+".join(names)] = divmod(flat, count)
        return found

    def position(self, steps: Mapping[str, int]) -> int | None:
        """Position of the point at these steps; None where a condition leaves it out."""
        import numpy as np

        flat = 0
        for names, count in self._dimensions:
            flat = flat * count + steps["+".join(names)]
        if not self.where:
            return flat
        place = int(np.searchsorted(self.indices, flat))
        return place if place < len(self.indices) and self.indices[place] == flat else None

    def points(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        """The points from `start` up to `stop`."""
        for position in range(start, len(self) if stop is None else min(stop, len(self))):
            yield self.point(position)

    @property
    def varied(self) -> tuple[str, ...]:
        """Axes with more than one value."""
        return tuple(name for name, held in self.axes.items() if len(held) > 1)

    def __repr__(self) -> str:
        sizes = " x ".join(f"{'+'.join(names)} {count}" for names, count in self._dimensions)
        limits = f", {len(self.where)} conditions" if self.where else ""
        return f"Space of {len(self)} points ({sizes}{limits})"

    # -- checks, before anything runs
    # -------------------------------------------------------------------------------

    def _check_values(self) -> None:
        from accelsim.core.precision import plan
        from accelsim.explore import served
        from accelsim.hardware.spec import load_hardware
        from accelsim.workload.load import workload_file

        known = _arguments()
        if served.is_served(self.axes):
            known = (*known, *served.arguments())
            served.check(self.axes)
        parameters = {name for name in self.axes if "." in name}
        for name in self.axes:
            if name not in known and name not in parameters:
                raise RequestError(f"unknown parameter '{name}'", hint=did_you_mean(name, known))
        for batch in self.axes["batch"]:
            if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
                raise RequestError(f"batch {batch!r} is not a positive integer")
        for request in self.axes["precision"]:
            if request is not None:
                plan(request)
        for model in self.axes["workload"]:
            if isinstance(model, str | Path):
                workload_file(model)
        devices = [load_hardware(name) for name in self.axes["hardware"]]
        for name in parameters:
            for value in self.axes[name]:
                self._check_parameter(devices, name, value)

    @staticmethod
    def _check_parameter(devices: Sequence[Any], name: str, value: Any) -> None:
        """A hardware parameter must exist on every device of the space."""
        for device in devices:
            device.replace(**{name: value})


def _absent(axes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in DEFAULTS.items() if name not in axes}


def _values(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable) or hasattr(value, "ops"):
        return (value,)
    return tuple(value)


def _arguments() -> tuple[str, ...]:
    """Arguments of `simulate`."""
    from accelsim.engine.simulate import simulate

    return tuple(inspect.signature(simulate).parameters)


def _computes(hardware: Any, precision: Any) -> bool:
    from accelsim.architectures import architecture_of
    from accelsim.core.precision import plan
    from accelsim.hardware.spec import load_hardware

    device = load_hardware(hardware)
    try:
        return architecture_of(device.kind).supports(device, plan(precision).activation.name)
    except AccelsimError:
        return False
