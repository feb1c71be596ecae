"""What a language model computes per layer, read from the same files as its graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from accelsim.core.errors import RequestError
from accelsim.core.yamlfile import read_yaml
from accelsim.workload.builders.decoder import Decoder, Layer
from accelsim.workload.builders.hf_decoders import DECODERS
from accelsim.workload.builders.hf_fields import Fields
from accelsim.workload.builders.latent import LatentAttention
from accelsim.workload.builders.transformer import Attention, Mlp, Moe
from accelsim.workload.huggingface import read_fields
from accelsim.workload.load import workload_file

FULL_INTERVAL = 4
"""Every so many layers of a hybrid model attend fully, where its file does not say (Qwen3-Next)."""


@dataclass(frozen=True)
class DeltaNet:
    """Gated delta rule (arXiv:2412.06464): linear attention with a state of fixed size.

    Attributes
    ----------
    key_heads, value_heads : int
    key_dim, value_dim : int
        Width of a head.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int

    @property
    def kv_elements_per_token(self) -> int:
        """The state does not grow with the context."""
        return 0

    @property
    def state_elements(self) -> int:
        """Of one sequence in one layer."""
        return self.value_heads * self.key_dim * self.value_dim


Mixer = Attention | LatentAttention | DeltaNet


@dataclass(frozen=True)
class Block:
    """Layers that are alike.

    Attributes
    ----------
    mixer : Attention or LatentAttention or DeltaNet
    feed_forward : Mlp or Moe
    times : int
    """

    mixer: Mixer
    feed_forward: Mlp | Moe
    times: int


@dataclass(frozen=True)
class ModelShape:
    """A decoder as a list of alike layers.

    Attributes
    ----------
    name : str
    hidden, vocabulary : int
    blocks : tuple of Block
    tied : bool
        The output projection is the embedding table.
    gated_queries : bool
        Full attention multiplies its result with a gate as wide as the queries (Qwen3.5).
    """

    name: str
    hidden: int
    vocabulary: int
    blocks: tuple[Block, ...]
    tied: bool = False
    gated_queries: bool = False

    @property
    def layers(self) -> int:
        return sum(b.times for b in self.blocks)

    @property
    def moe(self) -> bool:
        """Whether some layers have experts."""
        return any(isinstance(b.feed_forward, Moe) for b in self.blocks)


def shape_of(source: Any) -> ModelShape:
    """Shape of a model by catalog name, workload file or HuggingFace ``config.json``.

    Raises
    ------
    AccelsimError
        No such model, or it is no decoder.
    """
    if isinstance(source, ModelShape):
        return source
    path = workload_file(source)
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(path: Path, changed_ns: int) -> ModelShape:
    """The shape of a file as it was at a time."""
    if path.suffix == ".json":
        return _from_fields(read_fields(path), path.stem.removesuffix("_config"))
    parameters = _huggingface(read_yaml(path), path)
    return _from_fields(Fields(parameters["config"], str(path)), path.stem)


def _huggingface(document: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    if document.get("builder") != "huggingface":
        raise RequestError(f"{path.stem} is no language model", hint="serving of tokens needs a decoder")
    found: Mapping[str, Any] = document["parameters"]
    return found


def _from_fields(fields: Fields, name: str) -> ModelShape:
    names = fields.get("architectures")
    keys = [*(names if isinstance(names, list) else []), fields.get("model_type")]
    nested = fields.get("text_config")
    held = fields
    if isinstance(nested, Mapping):
        outer = {k: fields.values[k] for k in ("tie_word_embeddings",) if k in fields.values}
        held = Fields({**nested, **outer}, f"{fields.where}: text_config", multimodal=True)
    if any(str(k).startswith(("Qwen3_5", "qwen3_5", "Qwen3Next", "qwen3_next")) for k in keys):
        return _hybrid(held, name)
    readers = {n: reader for reader, family in DECODERS for n in family}
    for key in keys:
        if key in readers:
            return _of_decoder(readers[key](held), name)
    raise RequestError(f"{name} is no decoder that can be served", fields.where)


def _of_decoder(model: Decoder, name: str) -> ModelShape:
    alike = Counter(_plain(layer) for layer in model.layers)
    blocks = tuple(Block(layer.attention, layer.feed_forward, n) for layer, n in alike.items())
    return ModelShape(name, model.hidden, model.vocabulary, blocks, model.tied)


def _plain(layer: Layer) -> Layer:
    """Layers that differ in notes only are alike."""
    attention = layer.attention
    return (
        replace(layer, attention=replace(attention, note="")) if isinstance(attention, Attention) else layer
    )


def _hybrid(f: Fields, name: str) -> ModelShape:
    """Qwen3-Next and Qwen3.5: delta-rule layers, and full attention in every fourth."""
    count = f.layers("num_hidden_layers")
    kinds = f.pattern("layer_types", count)
    every = f.size("full_attention_interval", FULL_INTERVAL)
    if kinds is None:
        kinds = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(count)]
    head = f.size("head_dim", f.size("hidden_size") // f.size("num_attention_heads"))
    full = Attention(f.size("num_attention_heads"), f.size("num_key_value_heads"), head, head, qk_norm="head")
    delta = DeltaNet(
        f.size("linear_num_key_heads"),
        f.size("linear_num_value_heads"),
        f.size("linear_key_head_dim"),
        f.size("linear_value_head_dim"),
    )
    feed: Mlp | Moe = Mlp(f.size("intermediate_size", 1))
    if f.get("num_experts"):
        feed = Moe(
            f.size("num_experts"),
            f.size("num_experts_per_tok"),
            f.size("moe_intermediate_size"),
            shared_width=f.size("shared_expert_intermediate_size", 0, minimum=0),
            shared_gate=True,
        )
    full_layers = sum(kind == "full_attention" for kind in kinds)
    blocks = (Block(full, feed, full_layers), Block(delta, feed, count - full_layers))
    return ModelShape(
        name,
        f.size("hidden_size"),
        f.size("vocab_size"),
        tuple(b for b in blocks if b.times),
        f.flag("tie_word_embeddings", False),
        gated_queries=f.flag("attn_output_gate", True),
    )
