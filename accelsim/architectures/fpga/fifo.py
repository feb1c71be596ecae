"""FIFOs: how many pixels each stream between two stages must hold so that a pipeline neither stalls nor deadlocks."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from accelsim.architectures.fpga.network import Edge, Network, Stage

SLACK = 2
"""Pixels that a plain stream holds beside what its reader needs at once."""

_SAMPLES = 5


def needed(edge: Edge, stage: Stage, outputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the last input pixel of `edge` that each output pixel of `stage` needs.

    A window's last pixel lies dilation (kernel - 1) below and right of its corner; padding outside the frame is not waited for.
    """
    n = edge.pixels
    if edge.mode == "all":
        return np.full_like(outputs, n - 1)
    if edge.mode == "window" and stage.unit.window is not None:
        w = stage.unit.window
        row, column = np.divmod(outputs, w.out_w)
        last_row = np.clip(row * w.stride_h - w.pad_h + (w.kernel_h - 1) * w.dilation_h, 0, w.height - 1)
        last_column = np.clip(column * w.stride_w - w.pad_w + (w.kernel_w - 1) * w.dilation_w, 0, w.width - 1)
        return last_row * w.width + last_column
    return -(-((outputs + 1) * n) // max(stage.unit.pixels, 1)) - 1


def depths(stages: tuple[Stage, ...]) -> list[list[int]]:
    """Capacity of every edge, by stage and input [pixel].

    A window holds its buffer, a frame-wide need two frames, a plain stream what one output takes and `SLACK`. Where paths that fork join again, the
    shorter ones hold the lag of the longest: the difference of the fork's pixels that both need for the same output, and a pixel for
    each stage between.
    """
    found: list[list[int]] = []
    ancestors: list[int] = []
    for index, stage in enumerate(stages):
        mask = 1 << index
        for edge in stage.edges:
            mask |= ancestors[edge.source]
        ancestors.append(mask)
        held = [_plain(edge, stage) for edge in stage.edges]
        if len(stage.edges) > 1:
            held = [max(a, b) for a, b in zip(held, _lags(index, stages, ancestors))]
        found.append(held)
    return found


def _plain(edge: Edge, stage: Stage) -> int:
    if edge.mode == "window" and stage.unit.window is not None:
        w = stage.unit.window
        return w.bracket + w.stride_w + (w.stride_h - 1) * w.padded_w + SLACK
    if edge.mode == "all":
        return 2 * edge.pixels
    return ceil(edge.pixels / max(stage.unit.pixels, 1)) + SLACK


def _lags(join: int, stages: tuple[Stage, ...], ancestors: list[int]) -> list[int]:
    """Pixels that each input of a join must hold, from what the paths to their nearest common stage need."""
    stage = stages[join]
    shared = ancestors[stage.edges[0].source]
    for edge in stage.edges[1:]:
        shared &= ancestors[edge.source]
    if not shared:
        return [0] * len(stage.edges)
    fork = shared.bit_length() - 1
    samples = np.unique(np.linspace(0, stage.unit.pixels - 1, _SAMPLES).astype(np.int64))
    needs, hops = [], []
    for edge in stage.edges:
        need, hop = _at_fork(edge, stage, samples, fork, stages)
        needs.append(need)
        hops.append(hop)
    most = np.max(needs, axis=0)
    total = max(stages[fork].unit.pixels, 1)
    return [
        ceil(int(np.max(most - need)) * edge.pixels / total) + max(hops) - hop + SLACK
        for edge, need, hop in zip(stage.edges, needs, hops)
    ]


def _at_fork(
    edge: Edge, stage: Stage, samples: NDArray[np.int64], fork: int, stages: tuple[Stage, ...]
) -> tuple[NDArray[np.int64], int]:
    """(pixels of the fork that samples of the join need through an edge, longest path in stages)."""
    pending: dict[int, tuple[NDArray[np.int64], int]] = {edge.source: (needed(edge, stage, samples), 1)}
    while True:
        index = max(pending)
        need, hop = pending.pop(index)
        if index <= fork:
            return need, hop
        for inner in stages[index].edges:
            if inner.source < fork:
                continue
            deeper = needed(inner, stages[index], need)
            held = pending.get(inner.source)
            if held is not None:
                deeper, hop_there = np.maximum(held[0], deeper), max(held[1], hop + 1)
            else:
                hop_there = hop + 1
            pending[inner.source] = (deeper, hop_there)


def with_bypass(network: Network) -> Network:
    """The network with every join's bypass FIFOs charged to its unit."""
    changed = []
    for stage, held in zip(network.stages, depths(network.stages)):
        extra = 0
        if len(stage.edges) > 1:
            for edge, depth in zip(stage.edges, held):
                if edge.mode == "stream" and depth > SLACK + 1:
                    source = network.stages[edge.source].unit
                    frame = max(source.mh, 1) * source.rounds * source.out_bits
                    extra += depth * frame
        changed.append(stage if not extra else replace(stage, unit=replace(stage.unit, bypass_bits=extra)))
    return replace(network, stages=tuple(changed))
