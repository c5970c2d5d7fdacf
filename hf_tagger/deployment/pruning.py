"""Pruning of the text tower: whole layers, attention heads and feed-forward neurons that matter least are cut out, so
that what is saved is smaller and quicker.

Importance is the expected size of the loss's slope by a gate on the part, where gates at 1 leave all as it is (Michel
et al. 2019, "Are Sixteen Heads Really Better than One?", arXiv 1905.10650; for neurons and layers likewise).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hf_tagger.catalog.batching.collate import model_inputs
from hf_tagger.deployment.vocabulary import PruningError
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.towers import narrow_attention, text_layers


@dataclass
class Importance:
    """Mean |slope| per product: layers [L], heads [L, heads], neurons [L, feed-forward width]."""

    layers: Tensor
    heads: Tensor
    neurons: Tensor


@contextmanager
def _gates(layers: list[nn.Module]) -> Iterator[dict[tuple[str, int], Tensor]]:
    """Puts a gate per product on every layer, head and neuron. Yields {(kind, layer): gates of the last forward}, all
    at 1."""
    found: dict[tuple[str, int], Tensor] = {}

    def on_input(module, inputs, key: tuple[str, int], parts: int):
        (states,) = inputs
        gate = found[key] = states.new_ones(len(states), parts, requires_grad=True)
        return (states.unflatten(-1, (parts, -1)) * gate[:, None, :, None]).flatten(-2)

    def on_layer(module, inputs, output, key: tuple[str, int]):
        gate = found[key] = output.new_ones(len(output), 1, requires_grad=True)
        return inputs[0] + gate[..., None] * (output - inputs[0])

    with ExitStack() as stack:
        for place, layer in enumerate(layers):
            heads, neurons = layer.attention.self.num_attention_heads, layer.output.dense.in_features
            for handle in (
                layer.attention.output.dense.register_forward_pre_hook(
                    partial(on_input, key=("heads", place), parts=heads)),
                layer.output.dense.register_forward_pre_hook(partial(on_input, key=("neurons", place), parts=neurons)),
                layer.register_forward_hook(partial(on_layer, key=("layers", place))),
            ):
                stack.callback(handle.remove)
        yield found


def measure_importance(
    model: TaggerModel, batches: Iterable[dict[str, Any]], loss: Callable[[Any, dict[str, Any]], Tensor]
) -> Importance:
    """Of every layer, head and neuron of the text tower.

    Args:
        batches: as a `Collator` makes them; loss: (`TaggerOutput`, batch) -> the loss summed over products.

    Raises PruningError for a tower that is not built like BERT's, and where no product has text and a known tag.
    """
    layers = _layers(model)
    total, products = {}, 0
    model.eval()
    with torch.enable_grad(), _gates(layers) as gates:
        for batch in batches:
            if not batch["ids"] or "input_ids" not in batch:
                continue
            gates.clear()
            outputs = model(**model_inputs(batch, model.device))
            slopes = torch.autograd.grad(loss(outputs, batch), list(gates.values()))
            for key, slope in zip(gates, slopes, strict=True):
                total[key] = total.get(key, 0) + slope.abs().sum(0)
            products += len(batch["ids"])
    found = {kind: torch.stack([total[kind, place] for place in range(len(layers))]) / products
             for kind in ("layers", "heads", "neurons")} if total else None
    if found is None or not any(values.any() for values in found.values()):
        raise PruningError("importance is measured on products with text and known tags, and there is none")
    return Importance(found["layers"][:, 0], found["heads"], found["neurons"])


@torch.no_grad()
def prune_text_tower(model: TaggerModel, importance: Importance, layers: int | None = None, heads: int | None = None,
                     neurons: int | None = None) -> list[int]:
    """Keeps, in place, the most important `layers`, and in each of them the most important `heads` and feed-forward
    `neurons` (None: all). Every layer keeps the same number, which is what a configuration can say. Returns the layers
    that stay.

    Raises PruningError for numbers below 1 or above what there is.
    """
    tower, found = model.encoder.text_tower, _layers(model)
    for name, wanted, there in (("layers", layers, len(found)), ("heads", heads, importance.heads.shape[1]),
                                ("neurons", neurons, importance.neurons.shape[1])):
        if wanted is not None and not 1 <= wanted <= there:
            raise PruningError(f"the text tower has {there} {name}: keep from 1 to {there}, not {wanted}")
    kept = _most_important(importance.layers, layers or len(found))
    tower.encoder.layer = nn.ModuleList(found[place] for place in kept)
    for place in kept:
        if heads is not None:
            narrow_attention(found[place], _most_important(importance.heads[place], heads))
        if neurons is not None:
            _narrow_feed_forward(found[place], _most_important(importance.neurons[place], neurons))
    for config in {id(part): part for part in (model.config.text_config, tower.config)}.values():
        config.num_hidden_layers = len(kept)
        config.intermediate_size = neurons or config.intermediate_size
    model.config.text_heads = heads or model.config.text_heads
    return kept


def _layers(model: TaggerModel) -> list[nn.Module]:
    if model.config.text_config is None:
        raise PruningError("this model reads no text: it has no text tower to prune")
    layers = text_layers(model.encoder.text_tower)
    if layers is None:
        raise PruningError(f"a {model.config.text_config.model_type} text tower is not built like BERT's: its layers, "
                           "heads and neurons are not known here")
    return layers


def _most_important(values: Tensor, count: int) -> list[int]:
    return sorted(values.argsort(descending=True, stable=True)[:count].tolist())


def _narrow_feed_forward(layer: nn.Module, kept: list[int]) -> None:
    first, second = layer.intermediate.dense, layer.output.dense
    first.weight, first.bias = nn.Parameter(first.weight[kept].clone()), nn.Parameter(first.bias[kept].clone())
    second.weight = nn.Parameter(second.weight[:, kept].clone())
    first.out_features = second.in_features = len(kept)
