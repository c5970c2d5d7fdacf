import json

import torch

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.model.reranking import TagSetCritic
from recipes.lab.rerank_samples import main, merits
from tests.tiny_writer import writing_tagger


def test_the_critic_of_a_trained_tagger_chooses_among_what_it_writes(tmp_path, capsys):
    model, processor = writing_tagger()
    ProductTaggingPipeline(model, processor=processor).save_pretrained(tmp_path / "model")
    (tmp_path / "config.yaml").write_text("catalog: {synthetic: {rows: 60, picture_size: 32, languages: [de, en]}}\n")
    arguments = [*map(str, (tmp_path / "config.yaml", tmp_path / "model")), "--critic", str(tmp_path / "critic")]
    assert main([*arguments, "--splits", "test", "--samples", "2"]) == 0
    found = json.loads(capsys.readouterr().out)["test"]
    written = {way: scores["written"] for way, scores in found.items() if way not in ("products", "closed") and
               "written" in scores}
    assert {"greedy", "critic", "heads"} <= set(written) and max(written.values()) == written["best there is"]


def test_a_set_is_worth_its_tags_and_each_pair_once():
    model, processor = writing_tagger()
    critic = TagSetCritic(16, 6, 6)
    critic.names.copy_(torch.eye(6))
    for part in (critic.tag, critic.prior, critic.left):
        torch.nn.init.zeros_(part.weight)
    torch.nn.init.zeros_(critic.prior.bias)
    with torch.no_grad():
        critic.left.weight[0] = critic.right.weight[0] = 1.0  # any two tags are worth 1
    tags = [{"label": tag, "attribute": attribute["name"], "log_probability": -1.0}
            for attribute in model.config.attributes for tag in attribute["tags"]]
    found = merits(ProductTaggingPipeline(model, processor=processor), critic, torch.zeros(16), torch.full((6,), 0.5),
                   [tags[:3], tags[:2], []], [tags[0]["label"]])
    assert found["critic"] == [3.0, 1.0, 0.0] and found["critic without pairs"] == found["heads"] == [0.0] * 3
