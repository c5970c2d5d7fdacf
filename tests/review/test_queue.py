import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.verdicts import Verdict
from hf_tagger.review.predictions import CatalogPredictions, Prediction, read_predictions
from hf_tagger.review.queue import Filters, ReviewQueue
from hf_tagger.review.session import Session
from hf_tagger.review.views import bar_view
from tests.review.shop import ROWS, make_desk, records, wait
from tests.tiny_tagger import ATTRIBUTES


def prediction(*scores, pooled=None):
    scores = np.array(scores, np.float32)
    return Prediction(scores, scores >= 0.5, pooled=None if pooled is None else np.array(pooled, np.float32))


@pytest.fixture
def queue(tagger, desk, tmp_path):
    """Of P1 to P4: sure, torn between colours, torn between categories, and of a rare kind."""
    known = [prediction(1, 0, 1, 0, 0, 0, pooled=[1, 0]), prediction(.55, .45, 1, 0, 0, 0, pooled=[1, .1]),
             prediction(1, 0, .5, .45, 0, 0, pooled=[0, 1]), prediction(1, 0, 1, 0, .95, 0, pooled=[-1, 0])]
    known = {sku: found for (sku, *_), found in zip(ROWS, known, strict=True)}
    return make_desk(tagger, tmp_path, desk.store, known=known).queue


def rows(queue, reviewer="ana", **filters):
    found, skip = [], set()
    while (row := queue.next(reviewer, Filters(**filters), skip)) is not None:
        found.append(row)
        skip.add(row)
    return found


def test_the_strategy_orders(queue):
    assert rows(queue, strategy="catalogue") == [0, 1, 2, 3]
    assert rows(queue, strategy="margin")[0] == 2
    assert rows(queue, strategy="label_cost")[:2] == [2, 1]
    assert rows(queue, attribute="colour")[0] == 1
    assert rows(queue, attribute="category")[0] == 2
    assert rows(queue, strategy="k_center") == [1, 3, 2, 0]  # from the middle, then always the farthest
    assert sorted(rows(queue, strategy="entropy")) == sorted(rows(queue, strategy="mix")) == [0, 1, 2, 3]


def test_products_are_spread_where_their_vectors_are_known(queue):
    assert "k_center" in queue.strategies
    assert "k_center" not in ReviewQueue(queue.predictions, queue.log, has_vectors=False).strategies


def test_filters_that_a_browser_has_kept_are_taken_as_far_as_there_are_such(queue):
    kept = vars(Filters("colour", "de", "low", "mine", "rare_tags"))
    assert queue.kept_filters(kept) == Filters(**kept)
    for wrong in (None, [], "x", {"attribute": "fabric", "show": 3, "strategy": "k_centre", "confidence": None}):
        assert queue.kept_filters(wrong) == Filters()


def test_filters_by_language_and_confidence(queue):
    assert rows(queue, language="de", strategy="catalogue") == [2, 3]
    assert rows(queue, confidence="middle", strategy="catalogue") == [1, 2]
    assert rows(queue, confidence="middle", strategy="catalogue", attribute="colour") == [1]
    assert rows(queue, confidence="high", strategy="catalogue") == [0, 3]
    assert rows(queue, confidence="low") == []


def test_filters_by_who_has_judged(queue, desk):
    products = desk.predictions.products
    for row, reviewer, decision in ((0, "ana", "accept"), (1, "ben", "accept"), (2, "ana", "accept"),
                                    (2, "ben", "reject")):
        desk.store.add(Verdict(products[row].id, products[row].fingerprint, "colour", "Red", decision, reviewer, "v1"))
    desk.store.add(Verdict(products[3].id, "older", "colour", "Red", "accept", "ana", "v1"))
    queue.log.follow()
    plain = {"strategy": "catalogue"}
    assert rows(queue, show="open", **plain) == [1, 3]
    assert rows(queue, show="new", **plain) == [3]
    assert rows(queue, show="second", **plain) == [1]
    assert rows(queue, show="mine", **plain) == [0, 2, 3]
    assert rows(queue, show="disputed", **plain) == [2]
    assert rows(queue, show="stale", **plain) == [3]
    assert rows(queue, show="open", attribute="category", **plain) == [0, 1, 2, 3]
    assert queue.progress("ana", Filters()) == (2, 4)


def test_the_page_predicts_what_the_pipeline_tags(tagger, desk):
    products = [{"text": product.text, "images": product.images} for product in desk.predictions.products]
    for row, tags in enumerate(tagger(products)):
        found = desk.predictions.of(row)
        known = [tag for entry in ATTRIBUTES for tag in entry["tags"]]
        assert {known[place] for place in np.flatnonzero(found.chosen)} == {tag["label"] for tag in tags}
        best = max(tags, key=lambda tag: tag["score"])
        assert found.scores.max() == pytest.approx(best["score"], abs=2e-2)


def test_broken_photos_and_repeated_ids_do_not_stop_the_queue(tagger, tmp_path, desk):
    for name in ("P1", "P3"):
        (tmp_path / f"{name}.png").write_bytes(b"no photo")
    given = list(records(tmp_path))
    given[2]["text"] = None
    found = wait(CatalogPredictions(tagger, lambda: [*given, given[1]]))
    assert [product.id for product in found.products] == [row[0] for row in ROWS]
    assert found.repeated == {"P2"}
    desk.predictions = found
    assert "1 ids are on several rows (P2): the first product of each is shown" in bar_view(desk, Session())
    assert found.of(0).error is None and found.of(0).chosen.any()  # by its text
    assert "not an image" in found.of(2).error and 2 not in found.ready()


def test_a_catalogue_that_breaks_off_is_told_and_what_was_read_is_reviewed(tagger, tmp_path, desk):
    def breaks():
        yield next(records(tmp_path))
        raise OSError("the disk is gone")

    found = wait(CatalogPredictions(tagger, breaks))
    assert found.finished and found.error == "OSError: the disk is gone"
    assert len(found.products) == 1 and found.of(0).chosen.any()


def test_no_more_products_are_taken_than_wanted_and_known_ones_are_not_predicted_again(tagger, tmp_path, desk):
    known = {"P2": prediction(0, 1, 0, 1, 0, 0)}
    found = wait(CatalogPredictions(tagger, lambda: records(tmp_path), known=known, most=2))
    assert [product.id for product in found.products] == ["P1", "P2"]
    assert found.of(1) is known["P2"] and found.predicted == 2


def test_photos_that_came_as_bytes_keep_their_fingerprint(tagger, tmp_path, desk):
    given = next(records(tmp_path))
    data = (tmp_path / "P1.png").read_bytes()
    predictions = wait(CatalogPredictions(tagger, lambda: [given | {"images": [{"bytes": data, "path": None}]}]))
    assert predictions.products[0].fingerprint == desk.predictions.products[0].fingerprint
    assert isinstance(predictions.products[0].images[0], str)


def test_predictions_of_an_evaluation_are_read(tmp_path):
    tags = [(entry["name"], tag) for entry in ATTRIBUTES for tag in entry["tags"]]
    columns = {"id": ["P1", "P2", "P1"], "protocol": ["all", "all", "text only"],
               "colour.predicted": [["Red"], [], ["Blue"]], "category.predicted": [["Mug"], ["Dress"], []],
               "features.predicted": [[], ["Waterproof", "Handmade"], []],
               "scores": [[.9, .1, .8, .2, 0, 0], [.4, .4, .1, .9, .7, .8], [0, 1, 0, 0, 0, 0]]}
    table = pa.table(columns).replace_schema_metadata({"tags": json.dumps(tags)})
    pq.write_table(table, tmp_path / "predictions.parquet")
    found = read_predictions(tmp_path / "predictions.parquet", ATTRIBUTES)
    assert found["P1"].chosen.tolist() == [True, False, True, False, False, False]
    assert found["P2"].scores.tolist() == pytest.approx([.4, .4, .1, .9, .7, .8])
    assert found["P2"].chosen.tolist() == [False, False, False, True, True, True]
    with pytest.raises(ConfigError, match="a model with other tags"):
        read_predictions(tmp_path / "predictions.parquet", ATTRIBUTES[:2])
    pq.write_table(pa.table({"id": ["P1"]}), tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match="neither predictions.parquet"):
        read_predictions(tmp_path / "other.parquet", ATTRIBUTES)


def test_tags_of_a_tagged_catalogue_are_read(tmp_path):
    pq.write_table(pa.table({"id": ["P1"], "tags": [["Blue", "Mug"]], "scores": [[.7, .6]],
                             "attribute": [["colour", "category"]]}).append_column(
        "error", pa.array([None], pa.string())), tmp_path / "part-000-000000.parquet")
    found = read_predictions(tmp_path, ATTRIBUTES)
    assert found["P1"].scores.tolist() == pytest.approx([0, .7, .6, 0, 0, 0])
    assert found["P1"].chosen.tolist() == [False, True, True, False, False, False]
    with pytest.raises(ConfigError, match="no tag of this model"):
        read_predictions(tmp_path, ATTRIBUTES[1:])
    (tmp_path / "part-000-000000.parquet").unlink()
    with pytest.raises(ConfigError, match="no shard"):
        read_predictions(tmp_path, ATTRIBUTES)
