"""Versions that every Result carries."""

from __future__ import annotations

VERSION = "0.1.0"

MODEL_VERSION = "4"
"""Changes whenever a number can change; CHANGELOG's "numbers changed" says what did."""
