from hf_tagger.training.decoder import _tags


def test_a_tag_is_spoken_in_the_languages_of_its_products():
    spoken = {}
    records = [{"language": language, "tags": {"colour": colours, "brand": ["Kahla"]}, "free_form": {"words": words}}
               for language, colours, words in (("de", ["rot", "Beige"], ["Becher"]), ("en", ["Beige"], None),
                                                (None, ["red"], []), ("en", None, ["mug", "cup"]))]
    assert list(_tags(records, ["colour"], spoken)) == ["Becher", "mug", "cup"]
    assert spoken == {"rot": {"de"}, "Beige": {"de", "en"}, "red": {None}}
