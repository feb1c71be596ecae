"""TensorFlow Serving's batching parameters file."""

from __future__ import annotations

from pathlib import Path

from accelsim.core.errors import ConfigError, RequestError
from accelsim.serving.textproto import Message, read_file
from accelsim.serving.tfserving import TensorFlowServing

_KNOWN = {
    "max_batch_size",
    "batch_timeout_micros",
    "max_enqueued_batches",
    "num_batch_threads",
    "allowed_batch_sizes",
    "pad_variable_length_inputs",
    "thread_pool_name",
}


def read(path: str | Path, cores: int | None = None) -> TensorFlowServing:
    """Read a ``--batching_parameters_file``.

    Raises
    ------
    ConfigError
        A field that is not known, or that the server would refuse.
    """
    message = read_file(path)
    message.check(_KNOWN, "the batching parameters")
    if cores is None and not message.all("num_batch_threads"):
        raise ConfigError(
            "without num_batch_threads the server has a thread per CPU core", str(path), "say cores=..."
        )
    try:
        return TensorFlowServing(
            _value(message, "max_batch_size", 1000),
            _value(message, "batch_timeout_micros", 0),
            _value(message, "max_enqueued_batches", 10),
            _value(message, "num_batch_threads", cores or 1),
            tuple(message.integers("allowed_batch_sizes")),
        )
    except RequestError as error:
        raise ConfigError(error.what, str(path), error.hint) from None


def _value(message: Message, name: str, default: int) -> int:
    """A number wrapped in a message, as the file writes them: ``max_batch_size { value: 32 }``."""
    if not message.all(name):
        return default
    if not isinstance(message.all(name)[-1][0], Message):
        return message.integer(name)
    inner = message.messages(name)[-1]
    inner.check({"value"}, name)
    return inner.integer("value")
