"""How many tokens of cache fit beside the weights."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.core.outcome import InfeasibleError
from accelsim.core.units import si
from accelsim.serving.llm.work import StepWork
from accelsim.workload.builders.transformer import Mlp, Moe

BUFFERS = 2.0
"""Activation buffers of the widest step that live at once (assumed)."""


@dataclass(frozen=True)
class Memory:
    """Memory of one device [B].

    Attributes
    ----------
    usable : float
        What the engine may take: capacity times its utilisation.
    weights, activations, states : float
        `states` are those of `max_num_seqs` sequences whose size does not grow.
    token : float
        Cache of one token.
    block_size : int
        Tokens of a block.
    """

    usable: float
    weights: float
    activations: float
    states: float
    token: float
    block_size: int

    @property
    def blocks(self) -> int:
        """Blocks that fit."""
        free = self.usable - self.weights - self.activations - self.states
        return int(free // max(1.0, self.token * self.block_size))

    @property
    def tokens(self) -> int:
        return self.blocks * self.block_size


def memory_of(
    work: StepWork,
    *,
    utilisation: float,
    block_size: int,
    max_tokens: int,
    max_sequences: int,
    reserve: float,
) -> Memory:
    """Memory of a device that runs `work`.

    Parameters
    ----------
    work : StepWork
    utilisation : float
        Share of the memory that the engine takes.
    block_size : int
        [tokens]
    max_tokens, max_sequences : int
        Of a step: they size activations, logits and states.
    reserve : float
        What the runtime keeps: context, libraries, recorded graphs, communication buffers [B].

    Raises
    ------
    InfeasibleError
        The weights leave no room.
    """
    model, split = work.model, work.split
    widest = max(model.hidden, 2 * max(_width(b.feed_forward) for b in model.blocks) // split.tensor)
    activations = BUFFERS * max_tokens * widest * 2.0 + max_sequences * model.vocabulary * 4.0 / split.tensor
    found = Memory(
        utilisation * work.machine.device.memory.capacity_bytes - reserve,
        work.weight_bytes(),
        activations,
        work.state_bytes_per_sequence() * max_sequences,
        work.kv_bytes_per_token(),
        block_size,
    )
    if found.blocks < 1:
        need = found.weights + found.activations + found.states + found.token * block_size
        raise InfeasibleError(
            "memory",
            f"{si(need, 'B')} (weights {si(found.weights, 'B')}, activations {si(found.activations, 'B')}) "
            "and cache",
            f"{si(found.usable, 'B')} per device that the engine may use",
            "use more devices, a narrower precision or a smaller max_num_batched_tokens",
        )
    return found


def _width(feed_forward: Mlp | Moe) -> int:
    return feed_forward.width
