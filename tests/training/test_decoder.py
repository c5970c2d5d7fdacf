from types import SimpleNamespace

from hf_tagger.training.decoder import tag_languages


def test_a_tag_is_of_a_language_if_all_its_products_are():
    vocabulary = SimpleNamespace(languages={
        "colour": {"de": {"rot": 3, "Beige": 1}, "en": {"red": 2, "Beige": 4}, "": {"red": 1}},
        "keywords": {"de": {"Becher": 1}, "en": {"rot": 1}}, "brand": {"de": {"Kahla": 1}}})
    assert tag_languages(vocabulary, ["colour"]) == {"rot": "de"}
    assert tag_languages(vocabulary, ["colour", "keywords", "unknown"]) == {"Becher": "de"}
