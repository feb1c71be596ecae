"""Pixel-level simulation of frames through a streaming pipeline (numba).

Each stage turns input pixels into output pixels one by one. Pixel o of a stage starts when the stage is free
and its input is there (the whole window, or the first word of a plain stream), takes `stream` cycles that
overlap with the arrival of its input and `tail` cycles that do not, and leaves when the FIFO behind it has
room. Times are cycles since the first input word was asked for.
"""

from __future__ import annotations

import numpy as np
from numba import njit

STREAM, WINDOW, ALL = 0, 1, 2

# columns of an edge's geometry
(
    SOURCE,
    MODE,
    PIXELS,
    CAPACITY,
    HEIGHT,
    WIDTH,
    REACH_H,
    REACH_W,
    STRIDE_H,
    STRIDE_W,
    PAD_H,
    PAD_W,
    OUT_W,
    OUTPUTS,
) = range(14)


@njit(cache=True, inline="always")
def last_needed(g, o):  # type: ignore[no-untyped-def]
    """Index of the last input pixel that output o needs; both count through the frames."""
    frame, o = o // g[OUTPUTS], o % g[OUTPUTS]
    return frame * g[PIXELS] + _last(g, o)


@njit(cache=True, inline="always")
def oldest_needed(g, o):  # type: ignore[no-untyped-def]
    """Index of the oldest input pixel that output o or a later one needs; both count through the frames."""
    frame, o = o // g[OUTPUTS], o % g[OUTPUTS]
    return frame * g[PIXELS] + _oldest(g, o)


@njit(cache=True, inline="always")
def _last(g, o):  # type: ignore[no-untyped-def]
    """`last_needed` of one frame."""
    if g[MODE] == ALL:
        return g[PIXELS] - 1
    if g[MODE] == WINDOW:
        row = (o // g[OUT_W]) * g[STRIDE_H] - g[PAD_H] + g[REACH_H]
        column = (o % g[OUT_W]) * g[STRIDE_W] - g[PAD_W] + g[REACH_W]
        return min(max(row, 0), g[HEIGHT] - 1) * g[WIDTH] + min(max(column, 0), g[WIDTH] - 1)
    return ((o + 1) * g[PIXELS] + g[OUTPUTS] - 1) // g[OUTPUTS] - 1


@njit(cache=True, inline="always")
def _oldest(g, o):  # type: ignore[no-untyped-def]
    """`oldest_needed` of one frame."""
    if g[MODE] == ALL:
        return 0
    if g[MODE] == WINDOW:
        row = o // g[OUT_W]
        here = max(row * g[STRIDE_H] - g[PAD_H], 0) * g[WIDTH] + max(
            (o % g[OUT_W]) * g[STRIDE_W] - g[PAD_W], 0
        )
        if (row + 1) * g[OUT_W] >= g[OUTPUTS]:
            return here
        return min(here, max((row + 1) * g[STRIDE_H] - g[PAD_H], 0) * g[WIDTH])
    return o * g[PIXELS] // g[OUTPUTS]


@njit(cache=True)
def simulate(  # type: ignore[no-untyped-def]
    frames,
    outputs,
    stream,
    tail,
    latency,
    early,
    accept,
    edge_offsets,
    edges,
    reader_offsets,
    readers,
    reader_stages,
    start,
    finish,
    fill,
):
    """Run frames that follow each other as fast as the pipeline takes them.

    Parameters
    ----------
    frames : int
    outputs : int64 (stages,)
        Output pixels.
    stream, tail, latency : float64 (stages,)
        Cycles of a pixel that overlap with its input, that follow it, and pipeline depth.
    early : bool (stages,)
        The first word of a pixel leaves at once, not after `stream`.
    accept : float64 (stages,)
        Cycles in which a window's buffer takes in one pixel.
    edge_offsets : int64 (stages + 1,), edges : int64 (edges, 14)
        Inputs of each stage.
    reader_offsets : int64 (stages + 1,), readers, reader_stages : int64 (edges,)
        Edges that read each stage, and whose they are.
    start : float64 (stages,), finish : float64 (frames, stages)
        Written: when a stage starts its first pixel, and when the last one of each frame leaves it.
    fill : int64 (edges,)
        Written: the most pixels that an edge held.

    Returns
    -------
    int
        -1, or a stage that waits for ever (a deadlock).
    """
    n = len(outputs)
    base = np.zeros(n + 1, dtype=np.int64)
    for s in range(n):
        base[s + 1] = base[s] + frames * outputs[s]
    first = np.zeros(base[n])
    last = np.zeros(base[n])
    taken = np.zeros(base[n])  # when the input of an output pixel is no longer needed
    done = np.zeros(n, dtype=np.int64)
    free = np.zeros(n)
    m = len(edges)
    stored = np.zeros(m, dtype=np.int64)  # pixels in the window's buffer so far, and when the last came in
    stored_at = np.zeros(m)
    released = np.zeros(m, dtype=np.int64)  # first output after which a pixel's slot is free
    left = n
    while left > 0:
        moved = False
        for s in range(n):
            while done[s] < frames * outputs[s]:
                o = done[s]
                ready = 0.0
                complete = 0.0
                blocked = False
                for e in range(edge_offsets[s], edge_offsets[s + 1]):
                    g = edges[e]
                    source = g[SOURCE]
                    need = last_needed(g, o)
                    if need >= done[source]:
                        blocked = True
                        break
                    if g[MODE] == WINDOW:
                        while stored[e] <= need:
                            stored_at[e] = max(stored_at[e] + accept[s], last[base[source] + stored[e]])
                            stored[e] += 1
                        ready = max(ready, stored_at[e])
                    else:
                        ready = max(ready, first[base[source] + min(oldest_needed(g, o), need)])
                        complete = max(complete, last[base[source] + need])
                if blocked:
                    break
                room = 0.0
                for i in range(reader_offsets[s], reader_offsets[s + 1]):
                    e = readers[i]
                    g = edges[e]
                    slot = o - g[CAPACITY]
                    if slot < 0:
                        continue
                    t = reader_stages[i]
                    while released[e] + 1 < frames * outputs[t] and oldest_needed(g, released[e] + 1) <= slot:
                        released[e] += 1
                    if released[e] >= done[t]:
                        blocked = True
                        break
                    room = max(room, taken[base[t] + released[e]])
                if blocked:
                    break
                begin = max(free[s], ready)
                streamed = max(begin + stream[s], complete)
                end = max(streamed + tail[s], room)
                first[base[s] + o] = max(begin + 1.0 if early[s] else streamed, room) + latency[s]
                last[base[s] + o] = end + latency[s]
                taken[base[s] + o] = streamed
                free[s] = end
                if o == 0:
                    start[s] = begin
                done[s] = o + 1
                moved = True
                if done[s] % outputs[s] == 0:
                    finish[o // outputs[s], s] = last[base[s] + o]
                if done[s] == frames * outputs[s]:
                    left -= 1
        if not moved:
            for s in range(n):
                if done[s] < frames * outputs[s]:
                    return s
    for t in range(n):
        for e in range(edge_offsets[t], edge_offsets[t + 1]):
            g = edges[e]
            source = base[g[SOURCE]]
            passed = 0
            most = 0
            for i in range(frames * g[PIXELS]):
                while passed < frames * outputs[t] and taken[base[t] + passed] <= last[source + i]:
                    passed += 1
                most = max(most, i + 1 - oldest_needed(g, passed))
            fill[e] = most
    return -1


@njit(cache=True)
def earliest(outputs, stream, tail, latency, edge_offsets, edges):  # type: ignore[no-untyped-def]
    """A lower bound of the first frame's time, without following pixels [cycles].

    A stage cannot start before each source has made the first pixels that it needs, nor end before it has
    done all its work since, nor before a source has made the last pixel that it needs.

    Parameters
    ----------
    outputs, stream, tail, latency, edge_offsets, edges
        As in `simulate`.
    """
    n = len(outputs)
    start, end = np.zeros(n), np.zeros(n)
    latest = 0.0
    for s in range(n):
        after = 0.0
        for e in range(edge_offsets[s], edge_offsets[s + 1]):
            g = edges[e]
            source = g[SOURCE]
            each, ready = stream[source] + tail[source], start[source] + latency[source]
            if g[MODE] == WINDOW:
                start[s] = max(start[s], ready + (last_needed(g, 0) + 1.0) * each)
                # A window may leave the last rows and columns out.
                after = max(after, ready + (last_needed(g, outputs[s] - 1) + 1.0) * each)
                continue
            start[s] = max(start[s], ready)
            after = max(after, end[source])
            if g[MODE] == ALL:
                after = max(after, end[source] + tail[s] + (outputs[s] - 1) * (stream[s] + tail[s]))
        end[s] = max(start[s] + outputs[s] * (stream[s] + tail[s]), after) + latency[s]
        latest = max(latest, end[s])
    return latest
