"""TorchServe's ``config.properties`` and a model's ``model-config.yaml``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from accelsim.core.errors import ConfigError, RequestError, did_you_mean
from accelsim.serving.torchserve import TorchServe

_BATCHING = {
    "batchSize": ("max_batch", 1),
    "maxBatchDelay": ("max_batch_delay_ms", 100),
    "minWorkers": ("workers", 1),
}

_PROPERTIES = {
    "inference_address",
    "management_address",
    "metrics_address",
    "grpc_inference_address",
    "grpc_management_address",
    "grpc_inference_port",
    "grpc_management_port",
    "load_models",
    "model_store",
    "models",
    "model_snapshot",
    "job_queue_size",
    "default_workers_per_model",
    "default_response_timeout",
    "default_startup_timeout",
    "unregister_model_timeout",
    "number_of_netty_threads",
    "netty_client_threads",
    "number_of_gpu",
    "batch_size",
    "max_batch_delay",
    "max_request_size",
    "max_response_size",
    "limit_max_image_pixels",
    "allowed_urls",
    "cors_allowed_origin",
    "cors_allowed_methods",
    "cors_allowed_headers",
    "decode_input_request",
    "enable_envvars_config",
    "install_py_dep_per_model",
    "prefer_direct_buffer",
    "async_logging",
    "vmargs",
    "enable_metrics_api",
    "metrics_format",
    "metrics_mode",
    "metrics_config",
    "disable_system_metrics",
    "system_metrics_cmd",
    "use_native_io",
    "io_ratio",
    "blacklist_env_vars",
    "keystore",
    "keystore_pass",
    "keystore_type",
    "private_key_file",
    "certificate_file",
    "enable_token_api",
    "disable_token_authorization",
    "enable_model_api",
    "model_api_enabled",
    "cpu_launcher_enable",
    "cpu_launcher_args",
    "ipex_enable",
    "grpc_inference_max_connection_age_ms",
    "grpc_management_max_connection_age_ms",
    "workflow_store",
    "max_retry_timeout_in_sec",
    "model_config",
    "use_env_allowed_urls",
}

_MODEL = {
    "minWorkers",
    "maxWorkers",
    "batchSize",
    "maxBatchDelay",
    "responseTimeout",
    "startupTimeout",
    "deviceType",
    "deviceIds",
    "parallelType",
    "parallelLevel",
    "handler",
    "pt2",
    "torchrun",
    "jobQueueSize",
    "useJobTicket",
    "sequenceMaxIdleMSec",
    "sequenceBatching",
    "maxSequenceJobQueueSize",
    "maxNumSequence",
    "continuousBatching",
    "clientTimeoutInMills",
    "useVenv",
    "asyncCommunication",
    "micro_batching",
    "defaultVersion",
    "marName",
    "maxRetryTimeoutInSec",
    "runtimeType",
}
_CUSTOM = {"handler", "pippy", "deepspeed", "micro_batching", "vllm_engine_config"}


def read(
    properties: str | Path, model_config: str | Path | None = None, model: str | None = None
) -> TorchServe:
    """The policy of one model.

    Parameters
    ----------
    properties : path
        ``config.properties``.
    model_config : path, optional
        The model's ``model-config.yaml``, which wins.
    model : str, optional
        Model of the ``models`` property; may be left out when there is only one.

    Raises
    ------
    ConfigError
        A field that is not known, or that the server would refuse.
    """
    held = _properties(Path(properties))
    room = _whole(held.get("job_queue_size", (100, "")), "job_queue_size")
    values: dict[str, Any] = {"job_queue_size": room}
    if "default_workers_per_model" in held:
        values["workers"] = _whole(held["default_workers_per_model"], "default_workers_per_model")
    if "models" in held:
        values.update(_batching(*_of_models(held["models"], model)))
    if model_config is not None:
        path = Path(model_config)
        values.update(_batching(_yaml(path), str(path)))
    try:
        return TorchServe(**values)
    except RequestError as error:
        raise ConfigError(error.what, str(model_config or properties), error.hint) from None


def _properties(path: Path) -> dict[str, tuple[str, str]]:
    """Java properties: ``key=value``, ``#`` comments, lines continued by a backslash; each with its place."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read ({getattr(error, 'strerror', error)})", str(path)) from None
    found: dict[str, tuple[str, str]] = {}
    text, begin = "", 1
    for number, line in enumerate(lines, start=1):
        begin = begin if text else number
        text += line.strip()
        if text.endswith("\\"):
            text = text[:-1]
            continue
        if text and text[0] not in "#!":
            key, _, value = text.partition("=")
            name = key.strip()
            if name not in _PROPERTIES:
                hint = did_you_mean(name, _PROPERTIES)
                raise ConfigError(f"unknown property '{name}'", f"{path}:{begin}", hint)
            found[name] = (value.strip(), f"{path}:{begin}")
        text = ""
    return found


def _of_models(entry: tuple[str, str], model: str | None) -> tuple[dict[str, Any], str]:
    """Settings of one model in the ``models`` property: by name, then version."""
    text, where = entry
    try:
        models = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"'models' is not JSON ({error})", where) from None
    if not isinstance(models, dict) or not all(isinstance(v, dict) and v for v in models.values()):
        raise ConfigError("'models' must map names to versions", where)
    if model is None and len(models) != 1:
        raise ConfigError(f"{len(models)} models, say which", where, did_you_mean("", models))
    name = model if model is not None else next(iter(models))
    if name not in models:
        raise ConfigError(f"no model '{name}'", where, did_you_mean(name, models))
    return models[name][max(models[name])], where


def _yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read ({str(error).splitlines()[0]})", str(path)) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError("expected a mapping of settings", str(path))
    return data


def _batching(settings: dict[str, Any], where: str) -> dict[str, int]:
    for name in settings:
        if name not in _MODEL | _CUSTOM:
            raise ConfigError(f"unknown field '{name}'", where, did_you_mean(str(name), _MODEL))
    values = {}
    for name, (ours, _) in _BATCHING.items():
        if name in settings:
            values[ours] = _whole((settings[name], where), name)
    if "jobQueueSize" in settings:
        values["job_queue_size"] = _whole((settings["jobQueueSize"], where), "jobQueueSize")
    largest = settings.get("maxWorkers")
    if largest is not None and _whole((largest, where), "maxWorkers") < values.get("workers", 1):
        raise ConfigError(f"maxWorkers {largest} is below minWorkers {values['workers']}", where)
    return values


def _whole(entry: tuple[Any, str], name: str) -> int:
    value, where = entry
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ConfigError(f"'{name}' must be a whole number, got {value!r}", where) from None
