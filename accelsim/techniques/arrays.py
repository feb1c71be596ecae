"""Real weights: arrays by name, from a mapping, an ONNX file or a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelsim.core.errors import GraphError, MissingExtraError, ModelFileError, RequestError
from accelsim.techniques.safetensors import floating_tensors
from accelsim.workload.graph import Tensor


class Arrays:
    """Weights of a graph by tensor name.

    A builder's tensors carry a running number (``conv1.weight#4``), which files do not; matrices of files
    may be stored transposed, (out, in).

    Parameters
    ----------
    source : mapping, str or Path
        Arrays by name, an ``.onnx`` or a ``.safetensors`` file.
    """

    def __init__(self, source: Mapping[str, Any] | str | Path) -> None:
        if not isinstance(source, Mapping | str | Path):
            raise RequestError(f"weights {source!r} are neither arrays by name nor a file")
        self.held: Mapping[str, Any] = source if isinstance(source, Mapping) else _read(Path(source))
        self._checked: dict[str, Any] = {}

    def of(self, t: Tensor) -> Any:
        """The array of a tensor in the tensor's own shape, or None.

        Raises
        ------
        GraphError
            The array has another shape, or holds a NaN or an infinity.
        """
        import numpy as np

        name = next((n for n in (t.name, t.name.split("#")[0]) if n in self.held), None)
        if name is None:
            return None
        if t.name in self._checked:
            return self._checked[t.name]
        values = np.asarray(self.held[name])
        if values.dtype.kind not in "fiub":
            values = values.astype(np.float32)
        if values.shape != t.shape and values.ndim == 2 and values.shape == t.shape[::-1]:
            values = values.T
        if values.shape != t.shape:
            raise GraphError(f"the weights given have shape {values.shape}, the graph has {t.shape}", t.name)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise GraphError("the weights given hold NaN or Inf", t.name, "repair the weights first")
        self._checked[t.name] = values
        return values

    def require(self, t: Tensor) -> Any:
        """As `of`, for a tensor that is there."""
        values = self.of(t)
        if values is None:
            raise RequestError(f"no weights for '{t.name}'")
        return values


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ModelFileError("no such file", str(path))
    if path.suffix == ".onnx":
        return _onnx(path)
    if path.suffix == ".safetensors":
        return dict(floating_tensors(path))
    raise ModelFileError(
        "no weights can be read from this kind of file", str(path), "give .onnx or .safetensors"
    )


def _onnx(path: Path) -> Mapping[str, Any]:
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from onnx import numpy_helper
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "reading weights of an ONNX file") from None
    try:
        model = onnx.load(str(path))
    except (DecodeError, ValueError, OSError):
        raise ModelFileError("not an ONNX file, or a truncated one", str(path)) from None
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            for a in node.attribute:
                if a.name == "value":
                    found[node.output[0]] = numpy_helper.to_array(a.t)
    return found
