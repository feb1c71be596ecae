"""What a model update weighs on the wire: compression and secure aggregation, as formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelsim.core.errors import RequestError

KEY_BITS = SHARE_BITS = 256
"""Public keys and secret shares (Bonawitz et al. 2017, doi:10.1145/3133956.3133982)."""


@dataclass(frozen=True)
class Compression:
    """How an update is written.

    Parameters
    ----------
    bits : int
        Of each value.
    keep : float
        Share of the values that are sent, the largest (top-k); above 0, to 1.
    """

    bits: int = 32
    keep: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 1 <= self.bits <= 32:
            raise RequestError(f"{self.bits!r} bits per value: expected 1 to 32", "compression")
        if not 0 < self.keep <= 1:
            raise RequestError(f"keep {self.keep!r} is not a share above 0 and up to 1", "compression")

    def update_bytes(self, parameters: int) -> float:
        """Size of an update [B]: values, and where some are left out their places, as indices of
        ceil(log2 P) bits or as a bitmap, whichever is smaller.
        """
        kept = math.ceil(self.keep * parameters)
        places = min(kept * math.ceil(math.log2(max(parameters, 2))), parameters) if kept < parameters else 0
        return (kept * self.bits + places) / 8


@dataclass(frozen=True)
class SecureAggregation:
    """Pairwise masks that cancel in the sum (Bonawitz et al. 2017); rates are assumed.

    Parameters
    ----------
    group : int, optional
        Clients that mask each other; all of a round by default. In groups the cost of a client falls from
        O(n^2 + m n) to O(g^2 + m g).
    masks_per_s : float
        Elements of mask that a client makes [1/s].
    agreement_s : float
        A key agreement on a client [s].
    share_s : float
        A share of a secret on a client [s].
    server_speedup : float
        Server's rate over a client's.
    """

    group: int | None = None
    masks_per_s: float = 2e8
    agreement_s: float = 1e-4
    share_s: float = 1e-6
    server_speedup: float = 16.0

    def __post_init__(self) -> None:
        if self.group is not None and (not isinstance(self.group, int) or self.group < 2):
            raise RequestError(f"a group of {self.group!r} cannot mask each other", "secure aggregation")
        for name in ("masks_per_s", "server_speedup"):
            if not getattr(self, name) > 0:
                raise RequestError(f"{name} must be positive", "secure aggregation")
        for name in ("agreement_s", "share_s"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"{name} must not be negative", "secure aggregation")

    def peers(self, clients: int) -> int:
        """Clients of one group, the client itself included."""
        return clients if self.group is None else min(self.group, clients)

    def sum_bits(self, clients: int, bits: int) -> int:
        """Bits of an element whose sum over the group must not overflow: ceil(log2(n (2^b - 1) + 1))."""
        return math.ceil(math.log2(self.peers(clients) * (2**bits - 1) + 1))

    def sent_bytes(self, clients: int, parameters: int, bits: int) -> float:
        """What a client sends [B]: two keys, 2 (n - 1) shares, the masked vector, n shares for unmasking."""
        n = self.peers(clients)
        vector = parameters * self.sum_bits(clients, bits)
        return (2 * KEY_BITS + (3 * n - 2) * SHARE_BITS + vector) / 8

    def received_bytes(self, clients: int) -> float:
        """What a client receives beside the model [B]: the keys of its peers and its shares of theirs."""
        return 2 * (self.peers(clients) - 1) * (KEY_BITS + SHARE_BITS) / 8

    def client_s(self, clients: int, parameters: int) -> float:
        """Arithmetic of a client [s]: O(n^2 + m n)."""
        n = self.peers(clients)
        agreements = 2 * (n - 1) * self.agreement_s
        return agreements + n * n * self.share_s + n * parameters / self.masks_per_s

    def server_s(self, clients: int, gone: int, parameters: int) -> float:
        """Arithmetic of the server [s]: the own mask of each client that answered, and for each that is gone
        its masks with all that answered, after its secret is put together from n shares.
        """
        n = self.peers(clients)
        groups = clients / n
        lost = gone / groups
        masks = (n - lost) * parameters * (1 + lost)
        return groups * (masks / self.masks_per_s + n * n * self.share_s) / self.server_speedup
