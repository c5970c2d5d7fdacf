import pytest
import torch
from torch import nn
from transformers import pipeline

import hf_tagger  # noqa: F401
from hf_tagger.model.pipeline_tagger import CRITIC, ProductTaggingPipeline
from hf_tagger.model.reranking import TagSetCritic
from hf_tagger.training.checkpoint import write_safetensors
from tests.tiny_tagger import tiny_model, tiny_processor


def critic_of(own, pairs=((0, 0),) * 2):
    """A critic of tags that gain `own` whatever the product, and whose pairs are worth `pairs`."""
    critic = TagSetCritic(3, len(own), len(own))
    critic.names.copy_(torch.eye(len(own)))
    for part in (critic.tag, critic.left, critic.right):
        nn.init.zeros_(part.weight)
    nn.init.zeros_(critic.prior.bias)
    with torch.no_grad():
        critic.prior.weight.copy_(torch.tensor([own], dtype=torch.float))
        critic.left.weight[: len(own)] = torch.eye(len(own))
        critic.right.weight[: len(own)] = torch.tensor(pairs, dtype=torch.float)
    return critic


def test_a_tag_gains_by_itself_and_by_its_company():
    critic = critic_of([1.0, -2.0], pairs=[[9.0, 5.0], [5.0, 9.0]])
    gains = critic(torch.zeros(2, 3), torch.tensor([[1, 1], [1, 0]]))
    assert gains.tolist() == [[6.0, 3.0], [1.0, 3.0]], "no tag keeps company with itself"


def test_tags_whose_removal_raises_the_score_go_one_by_one():
    # Without the second tag the first one gains: only the worse of the two may go.
    critic = critic_of([1.0, 0.5], pairs=[[0.0, -3.0], [-3.0, 0.0]])
    kept = critic.keep(torch.zeros(3, 3), torch.tensor([[True, True], [False, True], [False, False]]))
    assert kept.tolist() == [[True, False], [False, True], [False, False]]


def test_a_saved_critic_judges_alike():
    critic = TagSetCritic(3, 4, 5).eval()
    again = TagSetCritic.from_tensors(critic.state_dict())
    pooled, tags = torch.randn(2, 3), torch.ones(2, 4)
    assert torch.equal(critic(pooled, tags), again(pooled, tags))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tagger")
    model = tiny_model()
    model.tag_head.bias.weight.data[[0, 2]] = 5.0  # a tag of each
    ProductTaggingPipeline(model, processor=tiny_processor()).save_pretrained(folder)
    critic = TagSetCritic(16, 6, 6)
    critic.names.copy_(torch.eye(6))
    nn.init.zeros_(critic.tag.weight)
    nn.init.zeros_(critic.left.weight)
    with torch.no_grad():
        critic.prior.weight.copy_(torch.tensor([[1.0, 1.0, -1.0, -1.0, 1.0, 1.0]]))
        critic.prior.bias.zero_()
    write_safetensors(folder / CRITIC, critic.state_dict())
    return folder


def test_the_pipeline_asks_the_critic_when_told_to(folder, tmp_path):
    tagger = pipeline("product-tagging", model=str(folder))
    plain, judged = tagger("red mug"), tagger("red mug", critic=True)
    assert {tag["attribute"] for tag in plain} >= {"category", "colour"}
    assert judged == [tag for tag in plain if tag["attribute"] != "category"]
    assert pipeline("product-tagging", model=str(folder), critic=True)("red mug") == judged
    tagger.model.config.critic = True
    assert tagger("red mug") == judged and tagger("red mug", critic=False) == plain
    tagger.save_pretrained(tmp_path)
    assert pipeline("product-tagging", model=str(tmp_path))("red mug") == judged


def test_without_a_critic_the_error_says_how_to_get_one():
    tagger = ProductTaggingPipeline(tiny_model(), processor=tiny_processor())
    with pytest.raises(ValueError, match="train with augmentation.critic"):
        tagger("red mug", critic=True)
    with pytest.raises(ValueError, match="pass critic or threshold"):
        tagger("red mug", critic=True, threshold=0.1)
