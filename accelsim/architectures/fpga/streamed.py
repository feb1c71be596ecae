"""Weights that do not fit on chip and come from external memory, once per frame.

A unit whose weights are streamed holds a frame of its input on chip and passes all of it under each part of
the weights (PE x SIMD of them), so every weight is read once per frame instead of once per pixel. It trades
its weights for a buffer of two frames and an accumulator per pixel, and it starts when its input is complete.
"""

from __future__ import annotations

from dataclasses import replace

from accelsim.architectures.fpga.fifo import with_fifos
from accelsim.architectures.fpga.network import Network, Stage, Unit

LARGE_BITS = 8 * 2**20  # networks with fewer weights keep them on chip
LEVELS = 4


def _saving(unit: Unit) -> float:
    """Bits that a unit gives back by streaming its weights [bit]."""
    if unit.kind != "mvau" or not unit.weights or unit.dynamic or unit.feedback or unit.rounds > 1:
        return 0.0
    frames = 2 * unit.pixels_in * unit.channels * unit.act_bits
    sums = 32 * unit.pixels
    return float(unit.weights * unit.weight_bits - frames - sums)


def levels(network: Network) -> list[Network]:
    """The network with all weights on chip, and with more and more of those streamed that give back most
    memory.

    The levels depend on the network alone, so a larger board has all the choices of a smaller one.
    """
    total = sum(s.unit.weights * s.unit.weight_bits for s in network.stages if not s.unit.dynamic)
    order = sorted(range(len(network.stages)), key=lambda i: -_saving(network.stages[i].unit))
    gain = [i for i in order if _saving(network.stages[i].unit) > 0]
    if total < LARGE_BITS or not gain:
        return [network]
    counts = sorted({-(-len(gain) * k // LEVELS) for k in range(1, LEVELS + 1)})
    return [network, *(_with(network, frozenset(gain[:count])) for count in counts)]


def _with(network: Network, chosen: frozenset[int]) -> Network:
    stages = []
    for i, stage in enumerate(network.stages):
        if i not in chosen:
            stages.append(stage)
            continue
        edges = tuple(replace(e, mode="all") for e in stage.edges)
        stages.append(Stage(stage.name, stage.part, replace(stage.unit, streamed=True, bypass_bits=0), edges))
    return with_fifos(replace(network, stages=tuple(stages)))


def weight_bytes(unit: Unit) -> float:
    """Weights that a frame reads from external memory [B]."""
    return unit.weights * unit.weight_bits / 8 if unit.streamed else 0.0
