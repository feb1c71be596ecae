"""Triton's ``config.pbtxt``: what the server reads of it, and what it would refuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from accelsim.core.errors import ConfigError, RequestError
from accelsim.serving.limiter import RateLimit
from accelsim.serving.priority import QueuePolicy
from accelsim.serving.sequence import TritonSequence
from accelsim.serving.textproto import Message, parse, read_file
from accelsim.serving.triton import Triton

_MODEL = {
    "name",
    "platform",
    "backend",
    "runtime",
    "version_policy",
    "max_batch_size",
    "input",
    "output",
    "batch_input",
    "batch_output",
    "optimization",
    "dynamic_batching",
    "sequence_batching",
    "ensemble_scheduling",
    "instance_group",
    "default_model_filename",
    "cc_model_filenames",
    "metric_tags",
    "parameters",
    "model_warmup",
    "model_operations",
    "model_transaction_policy",
    "model_repository_agents",
    "response_cache",
    "model_metrics",
}
_DYNAMIC = {
    "preferred_batch_size",
    "max_queue_delay_microseconds",
    "preserve_ordering",
    "priority_levels",
    "default_priority_level",
    "default_queue_policy",
    "priority_queue_policy",
}
_QUEUE = {"timeout_action", "default_timeout_microseconds", "allow_timeout_override", "max_queue_size"}
_GROUP = {
    "name",
    "kind",
    "count",
    "rate_limiter",
    "gpus",
    "secondary_devices",
    "profile",
    "passive",
    "host_policy",
}
_VERSIONS = {"latest", "all", "specific"}
_SEQUENCE = {
    "direct",
    "oldest",
    "max_sequence_idle_microseconds",
    "control_input",
    "state",
    "iterative_sequence",
    "generative_sequence",
}
_OLDEST = {
    "max_candidate_sequences",
    "preferred_batch_size",
    "max_queue_delay_microseconds",
    "preserve_ordering",
}
_SCHEDULERS = ("dynamic_batching", "sequence_batching", "ensemble_scheduling")


@dataclass(frozen=True)
class EnsembleStep:
    """One model of an ensemble: its tensors, by the ensemble's names."""

    model: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class TritonModel:
    """A model as its ``config.pbtxt`` describes it.

    Attributes
    ----------
    name : str
    policy : Triton or TritonSequence
    inputs, outputs : tuple of str
        Tensors of the model.
    steps : tuple of EnsembleStep
        Of an ensemble; empty otherwise.
    max_inflight : int
        ``max_inflight_requests`` of an ensemble; 0 is no cap.
    parameters : mapping
        ``parameters``, as text.
    versions : str
        ``latest 1``, ``all`` or ``specific 2,3``: which versions are loaded, each with its own scheduler.
    """

    name: str
    policy: Triton | TritonSequence
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    steps: tuple[EnsembleStep, ...] = ()
    parameters: dict[str, str] = field(default_factory=dict)
    versions: str = "latest 1"
    max_inflight: int = 0


def read(path: str | Path) -> TritonModel:
    """Read a ``config.pbtxt``.

    Raises
    ------
    ConfigError
        A field that is not known, or that the server would refuse.
    """
    return _model(read_file(path), Path(path).parent.name)


def from_text(text: str) -> TritonModel:
    """Read the text of a ``config.pbtxt``."""
    return _model(parse(text, "config.pbtxt"), "")


def _model(message: Message, folder: str) -> TritonModel:
    message.check(_MODEL, "a model")
    chosen = [s for s in _SCHEDULERS if message.all(s)]
    if len(chosen) > 1:
        raise ConfigError(
            f"a model has one scheduler, found {' and '.join(chosen)}", message.place(chosen[1]), "keep one"
        )
    most = message.integer("max_batch_size")
    if most < 0:
        raise ConfigError("max_batch_size must not be negative", message.place("max_batch_size"))
    steps = _steps(message)
    if steps and message.all("instance_group"):
        raise ConfigError("an ensemble has no instances of its own", message.place("instance_group"))
    policy = _sequence(message, most) if message.all("sequence_batching") else _policy(message, most)
    return TritonModel(
        message.text("name", folder),
        policy,
        tuple(m.text("name") for m in message.messages("input")),
        tuple(m.text("name") for m in message.messages("output")),
        steps,
        _parameters(message),
        _versions(message),
        _max_inflight(message),
    )


def _policy(message: Message, most: int) -> Triton:
    batching = message.message("dynamic_batching")
    instances = _instances(message)
    if batching is None:
        return Triton(max(most, 1), instances=instances, dynamic=False, rate_limit=_rate_limit(message))
    batching.check(_DYNAMIC, "dynamic_batching")
    if most == 0:
        raise ConfigError("dynamic_batching needs max_batch_size of at least 1", batching.where)
    levels = {}
    for entry in batching.messages("priority_queue_policy"):
        entry.check({"key", "value"}, "priority_queue_policy")
        levels[entry.integer("key")] = _queue(entry.message("value"))
    try:
        return Triton(
            most,
            batching.integer("max_queue_delay_microseconds"),
            tuple(batching.integers("preferred_batch_size")),
            instances,
            preserve_ordering=batching.flag("preserve_ordering"),
            priority_levels=batching.integer("priority_levels"),
            default_priority=batching.integer("default_priority_level"),
            queue_policy=_queue(batching.message("default_queue_policy")),
            level_policies=levels,
            rate_limit=_rate_limit(message),
        )
    except RequestError as error:
        raise ConfigError(error.what, batching.where, error.hint) from None


def _sequence(message: Message, most: int) -> TritonSequence:
    batching = message.messages("sequence_batching")[-1]
    batching.check(_SEQUENCE, "sequence_batching")
    direct, oldest = batching.message("direct"), batching.message("oldest")
    if direct is not None and oldest is not None:
        raise ConfigError("a sequence batcher has one strategy", oldest.where, "keep direct or oldest")
    try:
        if oldest is not None:
            oldest.check(_OLDEST, "oldest")
            return TritonSequence(
                max(most, 1),
                "oldest",
                oldest.integer("max_queue_delay_microseconds"),
                max_candidate_sequences=oldest.integer("max_candidate_sequences"),
                preferred=tuple(oldest.integers("preferred_batch_size")),
                instances=_instances(message),
            )
        held = direct if direct is not None else Message(batching.where)
        held.check({"max_queue_delay_microseconds", "minimum_slot_utilization"}, "direct")
        return TritonSequence(
            max(most, 1),
            "direct",
            held.integer("max_queue_delay_microseconds"),
            held.number("minimum_slot_utilization"),
            instances=_instances(message),
        )
    except RequestError as error:
        raise ConfigError(error.what, batching.where, error.hint) from None


def _queue(message: Message | None) -> QueuePolicy:
    if message is None:
        return QueuePolicy()
    message.check(_QUEUE, "a queue policy")
    try:
        return QueuePolicy(
            message.text("timeout_action", "REJECT"),
            message.integer("default_timeout_microseconds"),
            message.flag("allow_timeout_override"),
            message.integer("max_queue_size"),
        )
    except RequestError as error:
        raise ConfigError(error.what, message.where, error.hint) from None


def _instances(message: Message) -> int:
    """Executors of the model: per group, its count on each of its GPUs."""
    total = 0
    for group in message.messages("instance_group"):
        group.check(_GROUP, "instance_group")
        count = group.integer("count", 1)
        if count < 1:
            raise ConfigError(f"instance_group count must be at least 1, got {count}", group.place("count"))
        total += 0 if group.flag("passive") else count * max(1, len(group.integers("gpus")))
    return total or 1


def _rate_limit(message: Message) -> RateLimit | None:
    """The rate limit of the instances; groups with different ones have no policy here."""
    found = []
    for group in message.messages("instance_group"):
        limiter = group.message("rate_limiter")
        if limiter is None:
            continue
        limiter.check({"resources", "priority"}, "rate_limiter")
        needs = {}
        for resource in limiter.messages("resources"):
            resource.check({"name", "global", "count"}, "resources")
            needs[resource.text("name")] = resource.integer("count", 1)
        try:
            found.append(RateLimit(needs, limiter.integer("priority", 1)))
        except RequestError as error:
            raise ConfigError(error.what, limiter.where, error.hint) from None
    if found and (len(message.messages("instance_group")) > 1 and any(f != found[0] for f in found)):
        raise ConfigError("instance groups with different rate limits", message.place("instance_group"))
    return found[0] if found else None


def _steps(message: Message) -> tuple[EnsembleStep, ...]:
    schedule = message.message("ensemble_scheduling")
    if schedule is None:
        return ()
    schedule.check({"step", "max_inflight_requests"}, "ensemble_scheduling")
    steps = []
    for step in schedule.messages("step"):
        known = {"model_name", "model_version", "input_map", "output_map", "model_namespace"}
        step.check(known, "a step")
        maps = [[m.text("value") for m in step.messages(side)] for side in ("input_map", "output_map")]
        steps.append(EnsembleStep(step.text("model_name"), tuple(maps[0]), tuple(maps[1])))
    if not steps:
        raise ConfigError("an ensemble needs at least one step", schedule.where)
    return tuple(steps)


def _max_inflight(message: Message) -> int:
    schedule = message.message("ensemble_scheduling")
    cap = 0 if schedule is None else schedule.integer("max_inflight_requests")
    if schedule is not None and cap < 0:
        raise ConfigError(f"max_inflight_requests must not be negative, got {cap}", schedule.where)
    return cap


def _parameters(message: Message) -> dict[str, str]:
    found = {}
    for entry in message.messages("parameters"):
        value = entry.message("value")
        found[entry.text("key")] = value.text("string_value") if value is not None else ""
    return found


def _versions(message: Message) -> str:
    policy = message.message("version_policy")
    if policy is None:
        return "latest 1"
    policy.check(_VERSIONS, "version_policy")
    latest, specific = policy.message("latest"), policy.message("specific")
    if specific is not None:
        return "specific " + ",".join(str(v) for v in specific.integers("versions"))
    return f"latest {latest.integer('num_versions', 1)}" if latest is not None else "all"
