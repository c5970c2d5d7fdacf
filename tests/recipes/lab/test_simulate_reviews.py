import numpy as np
import pytest
import yaml

from hf_tagger.catalog.synthetic.products import true_tags
from hf_tagger.feedback.review_state import settle
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes.lab import simulate_reviews
from tests.tiny_tagger import tiny_model, tiny_processor

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

SHOP = {"rows": 60, "picture_size": 0}


def test_reviewers_tell_the_truth_but_for_their_errors(tmp_path, capsys):
    model = tiny_model(image=False)
    ProductTaggingPipeline(model, processor=tiny_processor()).save_pretrained(tmp_path / "model")
    config = tmp_path / "shop.yaml"
    config.write_text(yaml.safe_dump({"catalog": {"synthetic": SHOP}, "loader": {"num_workers": 0}}))
    truth, shares = true_tags(**SHOP), []
    for error in ("0", "0.5"):
        feedback = tmp_path / f"feedback{error}.db"
        arguments = [str(tmp_path / "model"), str(config), str(feedback), "--products", "20", "--error", error]
        assert simulate_reviews.main(arguments) == 0
        with FeedbackStore(feedback) as store:
            holds = settle(store.verdicts()).holds
        assert len({product for product, _, _ in holds}) == 20
        shares.append(np.mean([yes == (tag in truth[product][name]) for (product, name, tag), yes in holds.items()]))
    assert shares[0] == 1 and 0.3 < shares[1] < 0.9
    config.write_text(yaml.safe_dump({"catalog": {"source": {"path": "x.csv"}, "schema": {
        "text": ["title"], "attributes": {"colour": {}}}}}))
    assert simulate_reviews.main([str(tmp_path / "model"), str(config), str(tmp_path / "f.db")]) == 2
    assert "only of a made-up catalogue" in capsys.readouterr().err
