import json

import pytest

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes.lab.benchmark_language import Identifier, main, translated
from tests.tiny_writer import writing_tagger

WORDS = {"de": "schwarze Tasse aus Steingut mit Henkel", "fr": "tasse noire en faïence à anse dorée",
         "it": "tazza nera di ceramica con manico"}


def record(language, tags, number=0):
    return {"id": str(number), "text": f"{WORDS[language]}, {WORDS[language]}", "language": language,
            "free_form": {"keywords": tags, "colour": None}}


@pytest.fixture(scope="module")
def identifier():
    tags = [["mugs", "cups", word] for word in ("schwarze tasse", "tasse noire", "tazza nera")]
    train = [record(language, given, number) for number in range(40)
             for language, given in zip(WORDS, tags, strict=True)]
    return Identifier(train, list(WORDS), None, "en")


def test_what_products_of_all_languages_have_is_common_and_the_rest_told_by_its_letters(identifier):
    assert identifier.shared == {"mugs", "cups"}
    rows = [["Mugs", "Steingut mit Henkel"], ["tazza nera di ceramica"]]
    assert identifier.shares(rows, ["de", "de"]) == pytest.approx({"asked": 1 / 3, "common": 1 / 3, "other": 1 / 3})
    assert identifier.shares(rows, ["it", "it"])["asked"] == pytest.approx(1 / 3)


def test_its_errors_are_those_on_texts_and_on_common_tags_that_it_has_not_learned(identifier):
    assert identifier.held_out[0] in identifier.shared
    errors = identifier.errors([record("de", []), record("it", [])])
    assert set(errors) == {"common", "de", "it"} and errors["de"] == errors["it"] == 0
    assert identifier.errors([{**record("de", []), "language": "fr"}])["fr"] == 1


def test_in_another_language_a_made_up_product_has_the_same_tags_and_other_keywords():
    options = {"rows": 40, "picture_size": 0, "unknown": 0.0}
    found = {"id": "P0000000-0", "free_form": {"keywords": ["red mug"], "category": ["Mug"]}}
    (german,), (english,) = (translated(options, [found], language, None) for language in ("de", "en"))
    assert "schwarzes t-shirt" in german and "black t-shirt" in english and "mug" in german
    assert translated(None, [found], "de", ["keywords"]) == [["red mug"]]


def test_a_row_for_each_language(tmp_path, capsys):
    ProductTaggingPipeline(*writing_tagger()[:1], processor=writing_tagger()[1]).save_pretrained(tmp_path / "model")
    config = tmp_path / "config.yaml"
    config.write_text("catalog: {synthetic: {rows: 200, picture_size: 32, languages: [de, en]}}\n")
    assert main([str(config), str(tmp_path / "model"), "--split", "train", "--products", "6"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["products", "identifier", "people", "own", "de", "en"] and found["products"] == 6
    assert all(0 <= found[name]["f1@M"] <= 1 for name in ("own", "de", "en"))
