"""What was measured on, under which conditions: the JSON file beside the table."""

from __future__ import annotations

import json
import os
import platform
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from measure.telemetry import Nvml, NvmlError

# Name that the driver gives, as a whole, to the name in accelsim's catalog.
CATALOG_NAMES = (
    (r"NVIDIA B300.*SXM.*", "b300"),
    (r"NVIDIA B200", "b200"),
    (r"NVIDIA GB300", "gb300"),
    (r"NVIDIA GB200", "gb200"),
    (r"NVIDIA H200", "h200-sxm"),
    (r"NVIDIA H100 80GB HBM3", "h100-sxm"),
    (r"NVIDIA H100 PCIe", "h100-pcie"),
    (r"NVIDIA A100-SXM4-80GB", "a100-sxm"),
    (r"NVIDIA A100 80GB PCIe", "a100-pcie"),
    (r"NVIDIA A100-SXM4-40GB", "a100-40-sxm"),
    (r"NVIDIA A100-PCIE-40GB", "a100-40-pcie"),
    (r"NVIDIA A(2|10|30|40)", r"a\1"),
    (r"NVIDIA (L4|L40S)", r"\1"),
    (r"(NVIDIA|Tesla) T4", "t4"),
    (r"Tesla V100-SXM2-16GB", "v100-sxm"),
    (r"Tesla V100-PCIE-16GB", "v100-pcie"),
    (r"Tesla P100-SXM2-16GB", "p100"),
    (r"NVIDIA GeForce RTX (3090|4090|5090)", r"rtx-\1"),
    (r"NVIDIA GeForce RTX 2080 Ti", "rtx-2080-ti"),
    (r"NVIDIA RTX PRO 6000 Blackwell (Server|Workstation) Edition", "rtx-pro-6000"),
)


def catalog_name(name: str) -> str:
    """Name of a device in accelsim's catalog, or its own name in the same style when it is not there."""
    for pattern, known in CATALOG_NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(known).lower()
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def bus_id(device: torch.device) -> str:
    """PCI address of a CUDA device, as NVML takes it.

    Raises
    ------
    NvmlError
        This torch does not tell.
    """
    found = torch.cuda.get_device_properties(device)
    try:
        return f"{found.pci_domain_id:08x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}.0"
    except AttributeError:
        raise NvmlError("this torch does not tell the PCI address of a device") from None


def describe(device: torch.device, nvml: Nvml | None, reason: str) -> dict[str, Any]:
    """Device, software and settings. What cannot be read is null, and `unread` says why."""
    unread: dict[str, str] = {}

    def read(name: str, function: str) -> Any:
        if nvml is None:
            unread[name] = reason
            return None
        try:
            return getattr(nvml, function)()
        except NvmlError as error:
            unread[name] = str(error)
            return None

    found: dict[str, Any] = {
        "device_name": _processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "driver": read("driver", "driver"),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "ecc": read("ecc", "ecc"),
        "power_limit_w": read("power_limit_w", "power_limit_w"),
        "max_sm_clock_hz": read("max_sm_clock_hz", "max_sm_clock_hz"),
        "max_memory_clock_hz": read("max_memory_clock_hz", "max_memory_clock_hz"),
        "sm_clock_before_hz": read("sm_clock_before_hz", "sm_clock_hz"),
        "memory_clock_before_hz": read("memory_clock_before_hz", "memory_clock_hz"),
        "temperature_before_c": read("temperature_before_c", "temperature_c"),
        "fp16_reduced_precision_reduction": (
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
        ),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "compute_capability": f"{properties.major}.{properties.minor}",
            "sm_count": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
    return found | {"unread": unread}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def now() -> str:
    """Date and time in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Sidecar:
    """The JSON file beside a table: one entry per run, replaced as a whole so that it is never half written.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: list[dict[str, Any]] = []
        if path.is_file():
            self._runs = json.loads(path.read_text())["runs"]
        self._skipped: Counter[tuple[str, str, str]] = Counter()

    def start(self, run: dict[str, Any]) -> None:
        """Add a run; ``status`` stays ``running`` if the process is killed."""
        self._runs.append(run | {"status": "running", "rows": 0, "skipped": []})
        self._write()

    def skip(self, op: str, precision: str, reason: str) -> None:
        """Count an item that was not measured."""
        self._skipped[op, precision, reason] += 1

    def finish(self, status: str, rows: int, more: dict[str, Any]) -> None:
        """Close the run."""
        skipped = [
            {"op": op, "precision": precision, "reason": reason, "items": count}
            for (op, precision, reason), count in sorted(self._skipped.items())
        ]
        self._runs[-1] |= {"status": status, "rows": rows, "ended": now(), "skipped": skipped} | more
        self._write()

    def _write(self) -> None:
        part = self._path.with_name(self._path.name + ".part")
        part.write_text(json.dumps({"runs": self._runs}, indent=1) + "\n")
        part.replace(self._path)


def attempt_nvml(device: torch.device, open_: Callable[[str], Nvml] = Nvml) -> tuple[Nvml | None, str]:
    """The GPU through NVML, or None and why."""
    if device.type != "cuda":
        return None, "not a GPU"
    try:
        return open_(bus_id(device)), ""
    except NvmlError as error:
        return None, str(error)
