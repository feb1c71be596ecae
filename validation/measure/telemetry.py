"""Clocks, power and temperature while a row is measured, read from NVML through ctypes."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_longlong, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass, field
from typing import Any

INTERVAL_S = 0.02

# From nvml.h.
_CLOCK_SM, _CLOCK_MEMORY = 1, 2
_TEMPERATURE_GPU = 0
_FIELD_POWER_INSTANT = 186
_THROTTLE = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


class NvmlError(Exception):
    """NVML is missing or refused a call."""


class _FieldValue(ctypes.Structure):
    """nvmlFieldValue_t; the value is a union of eight bytes."""

    _fields_ = (
        ("field", c_uint),
        ("scope", c_uint),
        ("timestamp", c_longlong),
        ("latency_us", c_longlong),
        ("value_type", c_int),
        ("status", c_int),
        ("value", c_ulonglong),
    )


class Nvml:
    """One GPU seen through the management library.

    Parameters
    ----------
    bus_id : str
        ``domain:bus:device.function`` of the GPU; its index in NVML differs from CUDA's where
        ``CUDA_VISIBLE_DEVICES`` is set.
    library : object, optional
        What has the functions of ``libnvidia-ml.so.1``; loaded when not given.

    Raises
    ------
    NvmlError
    """

    def __init__(self, bus_id: str, library: Any = None) -> None:
        if library is None:
            try:
                library = ctypes.CDLL("libnvidia-ml.so.1")
            except OSError as error:
                raise NvmlError(f"no NVML: {error}") from None
        self._library = library
        self._handle = c_void_p()
        self._do("nvmlInit_v2")
        self._do("nvmlDeviceGetHandleByPciBusId_v2", c_char_p(bus_id.encode()), byref(self._handle))

    def _do(self, function: str, *arguments: Any) -> None:
        try:
            status = getattr(self._library, function)(*arguments)
        except AttributeError:
            raise NvmlError(f"{function} is not in this NVML") from None
        if status:
            raise NvmlError(f"{function} answered {status}")

    def _number(self, function: str, *arguments: int, kind: Any = c_uint) -> float:
        found = kind()
        self._do(function, self._handle, *map(c_uint, arguments), byref(found))
        return float(found.value)

    def sm_clock_hz(self) -> float:
        return 1e6 * self._number("nvmlDeviceGetClockInfo", _CLOCK_SM)

    def memory_clock_hz(self) -> float:
        return 1e6 * self._number("nvmlDeviceGetClockInfo", _CLOCK_MEMORY)

    def temperature_c(self) -> float:
        return self._number("nvmlDeviceGetTemperature", _TEMPERATURE_GPU)

    def power_w(self) -> float:
        """Board power now, or the driver's mean over up to a second where it has nothing quicker [W]."""
        asked = _FieldValue(field=_FIELD_POWER_INSTANT)
        try:
            self._do("nvmlDeviceGetFieldValues", self._handle, c_int(1), byref(asked))
        except NvmlError:
            asked.status = 1
        if asked.status == 0 and asked.value:
            # The value is an unsigned int in the low half of the union.
            return 1e-3 * (asked.value & 0xFFFFFFFF)
        return 1e-3 * self._number("nvmlDeviceGetPowerUsage")

    def throttle(self) -> int:
        """Bits of the reasons why the clock is below its highest."""
        return int(self._number("nvmlDeviceGetCurrentClocksThrottleReasons", kind=c_ulonglong))

    def driver(self) -> str:
        text = ctypes.create_string_buffer(96)
        self._do("nvmlSystemGetDriverVersion", text, c_uint(96))
        return text.value.decode()

    def power_limit_w(self) -> float:
        return 1e-3 * self._number("nvmlDeviceGetEnforcedPowerLimit")

    def max_sm_clock_hz(self) -> float:
        return 1e6 * self._number("nvmlDeviceGetMaxClockInfo", _CLOCK_SM)

    def max_memory_clock_hz(self) -> float:
        return 1e6 * self._number("nvmlDeviceGetMaxClockInfo", _CLOCK_MEMORY)

    def ecc(self) -> bool:
        current, pending = c_uint(), c_uint()
        self._do("nvmlDeviceGetEccMode", self._handle, byref(current), byref(pending))
        return bool(current.value)


@dataclass(slots=True)
class Reading:
    """Means over a window; NaN where nothing was read, and why."""

    power_w: float = math.nan
    sm_clock_hz: float = math.nan
    memory_clock_hz: float = math.nan
    temperature_c: float = math.nan
    throttle: str = ""
    reason: str = ""


@dataclass(slots=True)
class _Series:
    values: list[float] = field(default_factory=list)
    failure: str = ""


class Sampler:
    """Reads a GPU in a background thread while a window is open.

    Parameters
    ----------
    nvml : Nvml or None
    reason : str
        Why there is none.
    """

    def __init__(self, nvml: Nvml | None, reason: str = "") -> None:
        self._nvml, self._reason = nvml, reason

    @contextmanager
    def window(self) -> Iterator[Reading]:
        """A reading that is filled when the block ends."""
        reading = Reading(reason=self._reason)
        if self._nvml is None:
            yield reading
            return
        sources: dict[str, Callable[[], float]] = {
            "power_w": self._nvml.power_w,
            "sm_clock_hz": self._nvml.sm_clock_hz,
            "memory_clock_hz": self._nvml.memory_clock_hz,
            "temperature_c": self._nvml.temperature_c,
            "throttle": self._nvml.throttle,
        }
        found = {name: _Series() for name in sources}
        done = threading.Event()
        thread = threading.Thread(target=_collect, args=(sources, found, done), daemon=True)
        thread.start()
        try:
            yield reading
        finally:
            done.set()
            thread.join()
        for name in ("power_w", "sm_clock_hz", "memory_clock_hz", "temperature_c"):
            values = found[name].values
            setattr(reading, name, sum(values) / len(values) if values else math.nan)
        bits = 0
        for value in found["throttle"].values:
            bits |= int(value)
        reading.throttle = " + ".join(name for bit, name in _THROTTLE.items() if bits & bit)
        reading.reason = "; ".join(s.failure for s in found.values() if s.failure)


def _collect(
    sources: dict[str, Callable[[], float]], found: dict[str, _Series], done: threading.Event
) -> None:
    while not done.wait(INTERVAL_S):
        for name, read in sources.items():
            if found[name].failure:
                continue
            try:
                found[name].values.append(read())
            except NvmlError as error:
                found[name].failure = str(error)
    for name, series in found.items():
        if not series.values and not series.failure:
            series.failure = f"{name}: no sample within the row"
