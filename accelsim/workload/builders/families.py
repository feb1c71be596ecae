"""The model families that a workload file can name; a family's module is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from accelsim.workload.graph import Graph

Builder = Callable[[str, dict[str, Any], str | None, int | None], Graph]


def _lazy(module: str, function: str) -> Builder:
    def build(name: str, parameters: dict[str, Any], phase: str | None, context: int | None) -> Graph:
        found: Builder = getattr(import_module(f"accelsim.workload.builders.{module}"), function)
        return found(name, parameters, phase, context)

    return build


# Builder name -> (module of this package, function). A function takes (name, parameters, phase, context).
BUILDERS: dict[str, Builder] = {
    "gemm": _lazy("micro", "gemm"),
    "conv": _lazy("micro", "conv"),
    "attention": _lazy("micro", "attention"),
    "recurrent": _lazy("recurrent", "recurrent"),
    "dlrm": _lazy("recommendation", "dlrm"),
    "huggingface": _lazy("hf_workload", "huggingface"),
    "alexnet": _lazy("vgg", "build_alexnet"),
    "vgg": _lazy("vgg", "build"),
    "resnet": _lazy("resnet", "build"),
    "mobilenet": _lazy("mobilenet", "build"),
    "efficientnet": _lazy("efficientnet", "build"),
    "densenet": _lazy("densenet", "build"),
    "inception": _lazy("inception", "build"),
    "ssd-mobilenet": _lazy("ssd", "build"),
    "yolov3-tiny": _lazy("yolo", "build_v3_tiny"),
    "yolov8n": _lazy("yolo", "build_v8n"),
    "unet": _lazy("unet", "build"),
    "diffusion-unet": _lazy("diffusion", "build"),
    "mlp": _lazy("small", "build_mlp"),
    "ds-cnn": _lazy("small", "build_ds_cnn"),
    "finn": _lazy("finn", "build"),
}
