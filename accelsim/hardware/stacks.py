"""Software stacks on GPUs as data: ``hwconfigs/gpu/_stacks.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from pydantic import Field

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.paths import data_folder
from accelsim.core.quantity import Quantity
from accelsim.hardware.section import Seconds, Section
from accelsim.hardware.spec import read_section

Fusion = Literal["epilogues", "bias", "chains", "norms"]


class Stack(Section):
    """A software stack: what rides on what, what a launch costs, in which layout activations lie."""

    title: str
    note: str = ""
    fuses: tuple[Fusion, ...]
    """``epilogues``: elementwise work rides on the matrix kernel that feeds it; ``bias``: of it only the sum
    with a weight; ``chains``: elementwise work in turn is one kernel; ``norms``: so is a norm after it."""
    launch: Literal["stream", "graph"]
    """Kernels are launched one by one, or replayed as a recorded graph."""
    more_launch_s: Seconds = Field(alias="more_launch")
    """Cost of each launch beside what the device says."""
    host_operators: float = Field(ge=0)
    """The host bounds the time between kernels by this multiple of the device's `launch.eager`; 0: it does
    not."""
    host_per_step_s: Seconds = Field(alias="host_per_step")
    """What the host adds to each run of a graph (a step of a serving engine)."""
    host_per_sequence_s: Seconds = Field(default=0.0, alias="host_per_sequence")
    """What it adds to each step of a serving engine per sequence in it."""
    host_per_prompts_s: Seconds = Field(default=0.0, alias="host_per_prompts")
    """What it adds to each step that has prompts: such steps run no recorded graph."""
    prompt_share: float = Field(default=0.0, ge=0)
    """What such steps take beyond the sum of their kernels measured alone, as a share of it: gaps between
    kernels launched one by one, clocks under a long load, small kernels that no operator stands for."""
    host_per_request_s: Seconds = Field(default=0.0, alias="host_per_request")
    """Tokenising and transport of a request, beside the steps."""
    delivery_tokens: float = Field(default=1.0, ge=1)
    """Tokens of a sequence that exist when its first reaches the client: streaming intervals and queues
    between engine and client."""
    planar: bool = False
    """Activations of images lie channel by channel (NCHW), which tensor-core convolutions transpose."""
    persistent: bool = False
    """Recurrent layers whose weights fit the register files run as one kernel that keeps them there."""
    folds_norms: bool = False
    """A batch norm after a matrix kernel is folded into its weights when the engine is built."""


class _File(Section):
    eager: Stack
    graph: Stack
    tensorrt: Stack
    vllm: Stack
    trtllm: Stack
    sglang: Stack


@lru_cache(maxsize=1)
def stacks() -> Mapping[str, Stack]:
    """The stacks by name.

    Raises
    ------
    ConfigError
        The file is missing or damaged.
    """
    file, _ = _read()
    return {name: getattr(file, name) for name in _File.model_fields}


def stack_evidence() -> Mapping[str, Quantity]:
    """Every number of the stacks with its source and status, by path (``vllm.host_per_step``)."""
    return _read()[1]


@lru_cache(maxsize=1)
def _read() -> tuple[_File, Mapping[str, Quantity]]:
    return read_section(_File, data_folder("hwconfigs") / "gpu" / "_stacks.yaml")


def stack_of(name: str) -> Stack:
    """A software stack by name.

    Raises
    ------
    RequestError
        The stack is unknown.
    """
    known = stacks()
    if name not in known:
        raise RequestError(f"unknown software stack '{name}'", hint=did_you_mean(name, known))
    return known[name]
