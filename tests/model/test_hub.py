"""What is pushed to the Hub and pulled from it, also where hf_tagger cannot be imported: the folder's own code must do.

Two processes do all of it, for what takes long is importing torch and transformers."""

import pytest

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from tests.fake_hub import FakeHub
from tests.processes import run_python
from tests.tiny_tagger import photo, trained_tagger
from tests.tiny_writer import writing_tagger

PUSH = """
import json, sys
from transformers import pipeline
import hf_tagger

tagger, writer = (pipeline("product-tagging", model=folder) for folder in sys.argv[1:])
tagger.push_to_hub("shop/tagger", handler=True)
writer.push_to_hub("shop/writer")
print(json.dumps(pipeline("product-tagging", model="shop/tagger")("red mug")))
"""

WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["hf_tagger"] = None  # importing it is an error from here on
sys.modules["ftfy"] = None
from transformers import AutoModel, AutoProcessor, pipeline

photo, folder, tagger_id, writer_id = sys.argv[1:]
tagged = []
for name in (folder, tagger_id):
    tagger = pipeline("product-tagging", model=name, trust_remote_code=True)
    tagged.append(tagger(["red mug", {"image": photo}, {}], on_error="skip"))
    model = AutoModel.from_pretrained(name, trust_remote_code=True)
    batch = AutoProcessor.from_pretrained(name, trust_remote_code=True)(text=["red mug"])
    assert model.tag_scores(*(model(**batch)[key] for key in ("tag_logits", "none_logits"))).shape == (1, 6)
writer = pipeline("product-tagging", model=writer_id, trust_remote_code=True)
print(json.dumps([tagged, writer("red mug", free_form=True, language="de")]))
"""


@pytest.fixture(scope="module")
def taggers():
    return [ProductTaggingPipeline(model, processor=processor) for model, processor in
            (trained_tagger(), writing_tagger())]  # fmt: skip


def scores(results):
    return [{tag["label"]: pytest.approx(tag["score"], abs=1e-5) for tag in tags} for tags in results]


def test_push_to_hub_and_back_also_where_hf_tagger_cannot_be_imported(taggers, tmp_path):
    tagger, writer = taggers
    folders = [tmp_path / name for name in ("tagger", "writer")]
    for each, folder in zip(taggers, folders, strict=True):
        each.save_pretrained(folder)
    photo("Blue", "Dress").save(tmp_path / "dress.png")
    expected = tagger(["red mug", {"image": photo("Blue", "Dress")}])
    with FakeHub() as hub:
        pushed = run_python(PUSH, *folders, **hub.env, HF_HOME=str(tmp_path / "push"))
        assert scores([pushed]) == scores(expected[:1])
        wanted = {"config.json", "model.safetensors", "pipeline_tagger.py", "handler.py", "README.md"}
        assert wanted <= set(hub.repos["shop/tagger"])
        assert "tag_tokenizer/tokenizer.json" in hub.repos["shop/writer"]
        tagged, written = run_python(WITHOUT_THE_PACKAGE, tmp_path / "dress.png", folders[0], "shop/tagger",
                                     "shop/writer", **hub.env, HF_HOME=str(tmp_path / "pull"))  # fmt: skip
    for result in tagged:
        assert scores(result[:2]) == scores(expected)
        assert result[2]["error"].startswith("item 2: neither text nor a photo")
    assert [tag["label"] for tag in written] == [tag["label"] for tag in
                                                 writer("red mug", free_form=True, language="de")]  # fmt: skip
    assert {tag["label"] for tag in written if tag["source"] == "generated"} == {"rot", "Becher"}
