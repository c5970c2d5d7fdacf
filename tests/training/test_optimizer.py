import pytest
import torch
from torch import nn
from transformers import AutoConfig

from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.training.optimizer import OPTIMIZERS, add_l1_gradient, parameter_groups, tower_of
from hf_tagger.training.settings import OptimizerSettings
from tests.tiny_tagger import ATTRIBUTES


def tagger():
    text = AutoConfig.for_model("bert", vocab_size=30, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
                                intermediate_size=32)  # fmt: skip
    vision = AutoConfig.for_model("timm_wrapper", architecture="test_vit", do_pooling=True)
    return TaggerModel(TaggerConfig(attributes=ATTRIBUTES, text_config=text, vision_config=vision, hidden_size=16))


@pytest.mark.parametrize(("name", "tower"), [
    ("encoder.text_tower.encoder.layer.0.output.dense.weight", "text"),
    ("encoder.vision_tower.timm_model.stem.0.weight", "vision"),
    ("encoder.text_projection.1.weight", None),
    ("encoder.text_token_projection.weight", None),
    ("tag_head.query.weight", None),
])  # fmt: skip
def test_parameters_belong_to_a_tower_or_to_the_heads(name, tower):
    assert tower_of(name) == tower


def test_heads_and_towers_have_rates_of_their_own_and_vectors_never_decay():
    model = tagger()
    groups = parameter_groups(model, 1.0, 0.1)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    decay = {id(parameter): group.get("weight_decay", 0.01) for group in groups for parameter in group["params"]}
    named = dict(model.named_parameters())
    assert len(rate) == len(named) == sum(len(group["params"]) for group in groups)
    assert rate[id(named["tag_head.query.weight"])] == 1.0
    for name in ("text_tower.encoder.layer.0.output.dense", "vision_tower.timm_model.blocks.5.mlp.fc1"):
        assert rate[id(named[f"encoder.{name}.weight"])] == 0.1
    assert decay[id(named["tag_head.query.bias"])] == 0 and decay[id(named["tag_head.query.weight"])] == 0.01


def test_frozen_parameters_are_left_out():
    model = tagger()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = ".layer.1." in name
    assert {group["lr"] for group in parameter_groups(model, 1.0, 0.1)} == {0.1}


@pytest.mark.parametrize(("name", "kind"), [
    ("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD),
    ("adagrad", torch.optim.Adagrad)])  # fmt: skip
def test_optimisers_by_name_get_their_options(name, kind):
    settings = OptimizerSettings(name=name, momentum=0.7, betas=(0.8, 0.9), weight_decay=0.25)
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": 0.5}]
    optimizer = OPTIMIZERS[name](groups, settings)
    assert type(optimizer) is kind
    options = optimizer.param_groups[0]
    assert options["lr"] == 0.5 and options["weight_decay"] == 0.25
    assert options.get("momentum", 0.7) == 0.7 and options.get("betas", (0.8, 0.9)) == (0.8, 0.9)


def test_the_l1_term_pulls_matrices_towards_zero_and_leaves_vectors_alone():
    model = nn.Linear(3, 2)
    groups = parameter_groups(model, 1.0, 1.0)
    optimizer = OPTIMIZERS["sgd"](groups, OptimizerSettings(name="sgd", weight_decay=0.0))
    model.weight.grad, model.bias.grad = torch.ones(2, 3), torch.ones(2)
    add_l1_gradient(optimizer, 0.1)
    torch.testing.assert_close(model.weight.grad, 1 + 0.1 * model.weight.detach().sign())
    assert torch.equal(model.bias.grad, torch.ones(2))
