"""Builders: model families as code, with one small vocabulary of layers.

A workload file names a builder and its parameters; `BUILDERS` maps the names to functions ``build(name,
parameters, phase, context) -> Graph``.
"""

from __future__ import annotations
