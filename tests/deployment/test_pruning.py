"""What pruning cuts out is what mattered least, and what is left is smaller and opens like any other model."""

import pytest
import torch

from hf_tagger.deployment.pruning import Importance, PruningError, measure_importance, prune_text_tower
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.towers import text_layers
from tests.random_tagger import PHOTOS, TEXTS, batch, outputs, tagger
from tests.tiny_tagger import tiny_model

IDS = {"ids": [str(number) for number in range(len(TEXTS))]}


def summed(outputs, batch):
    return outputs.encoder_logits.square().sum()


def importance_of(model, **options):
    return measure_importance(model, [batch(**options) | {"ids": IDS["ids"][: len(options.get("texts", TEXTS))]}],
                              summed)


def silence_head(layer, head, size):
    with torch.no_grad():
        layer.attention.output.dense.weight[:, head * size : (head + 1) * size] = 0


def test_parts_that_add_nothing_have_no_importance():
    model = tagger()
    first, second = text_layers(model.encoder.text_tower)
    size = first.attention.self.attention_head_size
    silence_head(first, 1, size)
    silence_head(second, 0, size)
    with torch.no_grad():
        second.output.dense.weight[:, 5] = 0
    found = importance_of(model)
    assert found.heads[0, 1] == found.heads[1, 0] == found.neurons[1, 5] == 0
    assert (found.heads[[0, 1], [0, 1]] > 0).all() and (found.layers > 0).all()
    assert (found.neurons > 0).sum() == found.neurons.numel() - 1
    # Nothing stays behind on the model.
    assert not any(layer._forward_hooks or layer.output.dense._forward_pre_hooks for layer in (first, second))


def test_importance_is_the_slope_by_a_gate_on_the_head_summed_without_sign():
    model, texts = tagger(), [text for text in TEXTS if text]
    photos = [photo for text, photo in zip(TEXTS, PHOTOS, strict=True) if text]
    found = importance_of(model, texts=texts, photos=photos)
    layer = text_layers(model.encoder.text_tower)[1]
    columns = slice(0, layer.attention.self.attention_head_size)
    weight, step = layer.attention.output.dense.weight.detach().clone(), 1e-3

    def losses(scale):
        with torch.no_grad():
            layer.attention.output.dense.weight[:, columns] = weight[:, columns] * scale
            return outputs(model, batch(texts, photos))["encoder_logits"].square().sum(1)

    slopes = (losses(1 + step) - losses(1 - step)) / (2 * step)
    assert found.heads[1, 0].item() == pytest.approx(slopes.abs().mean().item(), rel=0.05)


def test_a_head_and_neurons_that_add_nothing_can_go_without_a_trace(tmp_path):
    model = tagger()
    layers = text_layers(model.encoder.text_tower)
    for layer, head in zip(layers, (1, 0), strict=True):
        silence_head(layer, head, layer.attention.self.attention_head_size)
        with torch.no_grad():
            layer.output.dense.weight[:, 20:] = 0
    before = outputs(model, batch())
    found = importance_of(model)
    weights = sum(parameter.numel() for parameter in model.parameters())
    prune_text_tower(model, found, heads=1, neurons=20)
    assert sum(parameter.numel() for parameter in model.parameters()) < weights
    model.save_pretrained(tmp_path)
    loaded = TaggerModel.from_pretrained(tmp_path)
    assert loaded.config.text_heads == 1 and loaded.config.text_config.intermediate_size == 20
    for after in (outputs(model, batch()), outputs(loaded, batch())):
        torch.testing.assert_close(after["tag_logits"], before["tag_logits"], rtol=1e-4, atol=1e-4)


def test_the_layers_that_matter_stay_in_their_order(tmp_path):
    model = tagger()
    first, second = text_layers(model.encoder.text_tower)
    found = Importance(torch.tensor([0.1, 0.7]), torch.ones(2, 2), torch.ones(2, 32))
    assert prune_text_tower(model, found, layers=1) == [1]
    assert text_layers(model.encoder.text_tower) == [second]
    model.save_pretrained(tmp_path)
    loaded = TaggerModel.from_pretrained(tmp_path)
    assert loaded.config.text_config.num_hidden_layers == 1
    torch.testing.assert_close(outputs(loaded, batch())["tag_logits"], outputs(model, batch())["tag_logits"])


@pytest.mark.parametrize("keep, message", [({"layers": 3}, "has 2 layers: keep from 1 to 2, not 3"),
                                           ({"heads": 0}, "not 0"), ({"neurons": 99}, "has 32 neurons")])  # fmt: skip
def test_what_cannot_be_kept_is_said(keep, message):
    with pytest.raises(PruningError, match=message):
        prune_text_tower(tagger(), Importance(torch.ones(2), torch.ones(2, 2), torch.ones(2, 32)), **keep)


def test_towers_of_another_build_and_products_without_text_are_refused():
    with pytest.raises(PruningError, match="tagger_recurrent text tower is not built like BERT's"):
        importance_of(tiny_model())
    with pytest.raises(PruningError, match="reads no text"):
        importance_of(tagger(text=None))
    with pytest.raises(PruningError, match="there is none"):
        importance_of(tagger(), texts=[None], photos=PHOTOS[:1])
