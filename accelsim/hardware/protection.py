"""What protecting data costs, as data: ``hwconfigs/_protection.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.paths import data_folder
from accelsim.core.quantity import Quantity
from accelsim.hardware.schema import Device
from accelsim.hardware.section import BytesPerSecond, Count, Joules, Seconds, Section
from accelsim.hardware.spec import read_section


class Seal(Section):
    """Encrypted transfers between host and device."""

    title: str
    plain_bytes_per_s: BytesPerSecond = Field(alias="plain")
    """Rate of copies without encryption."""
    sealed_bytes_per_s: BytesPerSecond = Field(alias="sealed")
    """Rate of encrypted copies: encryption, bounce buffer and link together."""
    copy_s: Seconds = Field(alias="copy")
    """What encryption adds to each copy, however small."""
    copy_low_s: Seconds = Field(alias="copy_low")
    copy_high_s: Seconds = Field(alias="copy_high")
    launch_s: Seconds = Field(alias="launch")
    """What encryption adds to each submission of work."""
    byte_j: Joules = Field(alias="byte")
    """Energy of encrypting and decrypting a byte."""


class Multiplier(Section):
    """Time of a computation on encrypted data over that of the plain one, with its published range."""

    title: str
    low: Annotated[float, Field(ge=1)]
    typical: Annotated[float, Field(ge=1)]
    high: Annotated[float, Field(ge=1)]


class _Seals(Section):
    card: Seal
    module: Seal
    stick: Seal


class _Encrypted(Section):
    homomorphic: Multiplier
    mpc: Multiplier


class Protection(Section):
    """The file."""

    sealed: _Seals
    engine_copies: Count
    """Small arrays that a serving engine sends with each step beside the model's own inputs."""
    engine_launches: Count
    """Kernels that a serving engine submits with each step beside the model's recorded graph."""
    encrypted: _Encrypted


def protection() -> Protection:
    """The numbers.

    Raises
    ------
    ConfigError
        The file is missing or damaged.
    """
    return _read()[0]


def protection_evidence() -> Mapping[str, Quantity]:
    """Every number with its source and status, by path (``sealed.card.copy``)."""
    return _read()[1]


@lru_cache(maxsize=1)
def _read() -> tuple[Protection, Mapping[str, Quantity]]:
    return read_section(Protection, data_folder("hwconfigs") / "_protection.yaml")


def seal_of(device: Device) -> Seal:
    """How a device's transfers are sealed: a card, an edge module, or a part behind a small host's bus."""
    held, kind = protection().sealed, getattr(device, "kind", "")
    edge = device.placement == ("edge",)
    if kind == "neuromorphic" or (edge and kind == "systolic"):
        return held.stick
    return held.module if edge else held.card


def multiplier_of(scheme: str) -> Multiplier:
    """Cost of computing on encrypted data.

    Raises
    ------
    RequestError
        The scheme is unknown.
    """
    known = _Encrypted.model_fields
    if scheme not in known:
        raise RequestError(f"unknown scheme '{scheme}'", hint=did_you_mean(scheme, known))
    found: Multiplier = getattr(protection().encrypted, scheme)
    return found
