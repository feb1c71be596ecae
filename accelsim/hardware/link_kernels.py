"""Constants of collectives: how protocols of a communication library trade latency for bandwidth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from accelsim.hardware.section import Fraction, Seconds, Section

Ratio = Annotated[float, Field(ge=0)]


class Protocol(Section):
    """One way to run a collective: t = fixed + step steps + part (steps + copies) / (efficiency rate), with
    part the bytes of one step."""

    fixed_s: Seconds = Field(alias="fixed")
    step_s: Seconds = Field(alias="step")
    """Latency of one step: a message to a neighbour and its flag."""
    efficiency: Fraction
    """Share of the link's bandwidth that the payload gets."""
    copies: Ratio
    """Local copies, in units of one step's bytes."""


class CollectiveModel(Section):
    """Collectives of the devices that share one kind of link; each call takes the fastest protocol."""

    ring: Mapping[str, Protocol]
    """All-reduce, all-gather, reduce-scatter."""
    exchange: Mapping[str, Protocol]
    """All-to-all and send."""
    switch: Protocol | None = None
    """All-reduce of floats inside the switch, for 8 devices and more."""
    allreduce: Mapping[str, Mapping[str, Protocol]] = Field(default_factory=dict)
    """All-reduce kernels of serving frameworks, by stack; in ``one_shot`` each device reads all buffers."""
