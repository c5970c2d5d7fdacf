
import pytest
import torch

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.protocols import open_tagger, seen_through, standard_protocols
from hf_tagger.evaluation.settings import Protocol
from tests.catalog.files import catalog, shirts_schema, write_jsonl

TEXT_ONLY, PHOTO_ONLY = Protocol(without=["image"]), Protocol(without=["text"])


def test_the_three_standard_protocols_are_always_there_under_the_names_given_to_them():
    assert standard_protocols({}) == {"all": Protocol(), "text only": TEXT_ONLY, "photo only": PHOTO_ONLY}
    masked = Protocol(text=["masked"])
    found = standard_protocols({"masked": masked, "blind": TEXT_ONLY})
    assert found == {"all": Protocol(), "blind": TEXT_ONLY, "photo only": PHOTO_ONLY, "masked": masked}


def test_a_model_of_one_modality_has_one_standard_protocol():
    assert standard_protocols({"as it is": Protocol()}, image=False) == {"as it is": Protocol()}


def test_a_protocol_reads_other_columns_of_the_same_catalogue(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": "1", "title": "red shirt", "masked": "shirt", "colour": "Red"}])
    shop = catalog(path, shirts_schema())
    texts = [next(seen_through(shop, protocol).records("train"))["text"]
             for protocol in (None, PHOTO_ONLY, Protocol(text=["masked"]))]  # fmt: skip
    assert texts == ["red shirt", "red shirt", "shirt"]


@pytest.mark.parametrize("name", ["./none", "none", "a/b/c"])
def test_a_model_that_is_not_there_is_no_hub_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="there is no model folder"):
        open_tagger(name, torch.device("cpu"))
