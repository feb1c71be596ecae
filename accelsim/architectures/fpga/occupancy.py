"""How full the streams of a pipeline get."""

from __future__ import annotations

from typing import Any

from accelsim.architectures.fpga.dataflow import PipelineProgram
from accelsim.architectures.fpga.design import Design, dataflow_of
from accelsim.architectures.fpga.fifo import occupied, waiting
from accelsim.architectures.fpga.resources import FIFO_DEPTH, STREAM_WORDS
from accelsim.architectures.fpga.timing import pace, words
from accelsim.hardware.schema import FpgaDevice


def fifos(program: PipelineProgram) -> list[dict[str, Any]]:
    """Streams between the stages of a program, when frames follow each other at its interval.

    Returns
    -------
    list of dict
        ``turn writer reader``, ``peak_words`` the most that waits between the two, beside what the reader's
        window or join holds, and ``depth_words`` what the FIFO holds. Whole frames that wait in a reader's
        memory are left out.
    """
    return [
        row for turn, design in enumerate(program.turns.designs) for row in _of(design, program.device, turn)
    ]


def _of(design: Design, device: FpgaDevice, turn: int) -> list[dict[str, Any]]:
    stages, rows = design.network.stages, design.plan.rows
    times = pace(design.network, rows, design.ports, device.memory.latency_s * design.clock_hz)
    each = [max(words(s.unit, int(pe)), 1) for s, pe in zip(stages, rows.pe)]
    base = STREAM_WORDS if dataflow_of(device).weights == "embedded" else FIFO_DEPTH
    depths = occupied(design.network, times, design.interval, each, base)
    peaks = waiting(design.network, times, design.interval)
    return [
        {
            "turn": turn,
            "writer": stages[edge.source].name,
            "reader": stage.name,
            "peak_words": peak * each[edge.source],
            "depth_words": depth or base,
        }
        for stage, held, most in zip(stages, depths, peaks)
        for edge, depth, peak in zip(stage.edges, held, most)
        if edge.mode != "all"
    ]
