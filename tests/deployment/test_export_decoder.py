"""Free-form tags of an exported tagger are those that torch writes greedily, in every mode, and torch is not needed."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import pipeline

import hf_tagger  # noqa: F401 (registers the pipeline)
from hf_tagger.deployment.export import export_tagger
from hf_tagger.deployment.quantize import Quantizer
from hf_tagger.evaluation.parity import failure, written_parity
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.decoder import FreeFormTagger
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.model.saving import EOS
from hf_tagger.runtime import ArtefactError, OnnxTagger, model_fingerprint
from tests.deployment.test_export import ATTRIBUTES, PRODUCTS, batch_of, bert_tagger
from tests.tiny_tagger import photo
from tests.tiny_writer import add_tiny_decoder, teach_to_write

OPTIONS = [
    {"free_form": True},
    {"free_form": True, "language": "de", "max_tags": 2},
    {"free_form": True, "attributes": ["colour", "category"], "language": "en", "threshold": 1.0, "min_score": 0.0},
    {"free_form": True, "constrained": True, "threshold": 1.0, "min_score": 0.2},
    {"free_form": True, "constrained": True, "attributes": ["category"], "max_tags": 1, "max_new_tokens": 20,
     "threshold": 1.0, "min_score": 0.0},
    {"free_form": True, "top_k": 2, "max_new_tokens": 5, "num_beams": 1, "do_sample": False},
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a model that has learned to write, with its exports."""
    folder = tmp_path_factory.mktemp("writer")
    # What test_export.py exports already is left out.
    model, processor = bert_tagger("test_efficientnet", vision_stages=[], vision_grid=[], colour_histogram=False,
                                   kernel_landmarks=0)
    add_tiny_decoder(model, processor, calibration=[0.5, 1.0], min_score=0.0)
    teach_to_write(model, processor, steps=120)
    pipeline("product-tagging", model=model, processor=processor, device="cpu").save_pretrained(folder)
    export_tagger(model, processor, folder / "onnx", model_fingerprint(folder))
    exported = OnnxTagger(folder / "onnx", threads=1)
    Quantizer(folder / "onnx", [exported.feed(**batch_of(exported, PRODUCTS))]).write(folder / "onnx_int8")
    return folder


@pytest.fixture(scope="module")
def plain(saved):
    tagger = pipeline("product-tagging", model=str(saved), device="cpu")
    tagger.autocast = lambda: torch.autocast("cpu", enabled=False)
    return tagger


def told(tags):
    return [(tag["label"], tag["attribute"], tag["source"]) for tag in tags]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_tags_in_the_same_order_with_the_same_scores(saved, plain, options):
    products = [*PRODUCTS, {"title": "blue mug", "language": "de", "image": photo("Blue", "Mug", seed=5)}]
    wanted = plain(products, **options)
    assert any(tag["source"] == "generated" for tags in wanted for tag in tags)
    alone = OnnxTagger(saved / "onnx", threads=1)
    backend = pipeline("product-tagging", model=str(saved), backend="onnx", device="cpu")
    for found in (alone(products, **options), backend(products, **options),
                  [alone(product, **options) for product in products]):
        assert [told(tags) for tags in found] == [told(tags) for tags in wanted]
        for got, expected in zip(found, wanted, strict=True):
            assert [tag["score"] for tag in got] == pytest.approx([tag["score"] for tag in expected], abs=1e-4)


def test_near_duplicates_are_told_by_the_same_vectors(saved, plain):
    torch_writer, label = FreeFormTagger(plain.model, plain.processor), "red handmade mug"
    wanted = torch_writer._vector(label).numpy()
    np.testing.assert_allclose(OnnxTagger(saved / "onnx").writer._vector(label), wanted, atol=1e-6)
    rough = OnnxTagger(saved / "onnx_int8").writer._vector(label)
    assert 0.999 < float(rough @ wanted) < 1, "the table of the text tower is stored in int8"
    for name in ("onnx", "onnx_int8"):
        assert not OnnxTagger(saved / name).writer._vector("unheard-of").any()


def test_int8_writes_with_a_decoder_in_float32(saved, plain):
    found = OnnxTagger(saved / "onnx_int8")(PRODUCTS, free_form=True, threshold=1.0, min_score=0.0)
    wanted = plain(PRODUCTS, free_form=True, threshold=1.0, min_score=0.0)
    assert sum(told(tags) == told(expected) for tags, expected in zip(found, wanted, strict=True)) >= 4
    for name in ("memory.onnx", "decoder.onnx", "decoder.onnx.data"):
        assert (saved / "onnx_int8" / name).read_bytes() == (saved / "onnx" / name).read_bytes()


def test_the_report_tells_how_often_the_same_is_written(saved, plain):
    same, other = OnnxTagger(saved / "onnx"), OnnxTagger(saved / "onnx")
    other.writer.decoder["min_score"] = 0.73  # as if the less likely ones were not written
    found = written_parity(plain, {"same": same, "other": other}, PRODUCTS, batch_size=3)
    assert found["same"]["products"] == len(PRODUCTS) and found["same"]["max_score_difference"] < 1e-4
    assert found["same"]["same_sets"] == found["same"]["same_lists"] == 1 > found["other"]["same_sets"]
    report = {"max_logit_difference": 0.0, "model_rounding": 0.0, "macro_f1_drop": 0.0,
              "macro_f1_drop_at_least": 0.0}
    assert failure("float32", report | {"written": found["same"]}) is None
    assert "free-form tags of" in failure("float32", report | {"written": found["other"]})


def test_free_form_tags_need_no_torch(saved):
    code = ("import sys; from hf_tagger.runtime import OnnxTagger; "
            f"tags = OnnxTagger({str(saved / 'onnx')!r})('red mug', free_form=True, language='en', threshold=1.0, "
            "min_score=0.0); assert tags and {tag['source'] for tag in tags} == {'generated'}, tags; "
            "assert not {'torch', 'transformers'} & set(sys.modules)")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_what_is_not_exported_or_not_known_is_refused_by_name(saved):
    alone = OnnxTagger(saved / "onnx")
    backend = pipeline("product-tagging", model=str(saved), backend="onnx", device="cpu")
    for tagger in (alone, backend):
        for options in ({"num_beams": 3}, {"do_sample": True}, {"temperature": 0.7}):
            with pytest.raises(ValueError, match=f"greedy search only: {next(iter(options))} needs the torch pipeline"):
                tagger("red mug", free_form=True, **options)
        with pytest.raises(ValueError, match="not trained on the language 'fr'; it knows: de, en"):
            tagger("red mug", free_form=True, language="fr")
        with pytest.raises(ValueError, match="the attribute 'features'; it knows: colour, category, keywords"):
            tagger("red mug", free_form=True, attributes=["features"])
        with pytest.raises(ValueError, match="max_tags must be a whole number"):
            tagger("red mug", free_form=True, max_tags=0)
        with pytest.raises(TypeError, match="num_beams is about free-form tags"):
            tagger("red mug", num_beams=1)
        with pytest.raises(TypeError, match="language is about free-form tags: it needs free_form=True"):
            tagger("red mug", language="de")
    with pytest.raises(TypeError, match='no option .max_tag.. Did you mean "max_tags"'):
        alone("red mug", free_form=True, max_tag=1)


def test_a_damaged_decoder_is_refused(saved, tmp_path):
    shutil.copytree(saved / "onnx", tmp_path / "copy")
    data = bytearray((tmp_path / "copy" / "decoder.onnx.data").read_bytes())
    data[50] ^= 1
    (tmp_path / "copy" / "decoder.onnx.data").write_bytes(data)
    with pytest.raises(ArtefactError, match=r"decoder.onnx.data is not the file exported"):
        OnnxTagger(tmp_path / "copy")


@pytest.mark.parametrize("missing", ["text", "vision"])
def test_a_tagger_with_one_tower_writes_too(missing, tmp_path):
    model, processor = one_tower(missing, tmp_path / "model")
    export_tagger(model, processor, tmp_path / "onnx", "fingerprint")
    plain = pipeline("product-tagging", model=model, processor=processor, device="cpu")
    plain.autocast = lambda: torch.autocast("cpu", enabled=False)
    products = [{"image": photo("Red", "Mug")}, {"images": [photo("Blue", "Mug"), photo("Red", "Dress")]}]
    products = products if missing == "text" else ["red mug", "new blue dress and mug"]
    exported = OnnxTagger(tmp_path / "onnx", threads=1)
    batch = exported.collate([exported.preprocess(product) for product in products])
    with torch.no_grad():
        output = model(**plain.collate([plain.preprocess(product) for product in products]))
    logits = torch.cat([output.tag_logits, output.none_logits], dim=1).numpy()
    np.testing.assert_allclose(exported.logits(**batch), logits, atol=1e-4)
    options = {"free_form": True, "constrained": True, "threshold": 1.0, "min_score": 0.0}
    wanted = plain(products, **options)
    assert [told(tags) for tags in exported(products, **options)] == [told(tags) for tags in wanted]
    assert any(tag["source"] == "generated" for tags in wanted for tag in tags)
    label = "Red" if missing == "text" else "red mug"
    vectors = FreeFormTagger(model, processor)._vector(label).numpy(), exported.writer._vector(label)
    np.testing.assert_allclose(*vectors, atol=1e-6)


def one_tower(missing, folder):
    """As it comes back from `folder`. The one that reads text has an attribute in codes, as many tags need them."""
    model, processor = bert_tagger()
    config = model.config
    towers = {"vision_config": config.vision_config, "text_config": None}
    if missing == "vision":
        config.text_config.num_hidden_layers = 1
        towers = {"text_config": config.text_config, "name_match": True, "vision_config": None, "lexical_buckets": 64,
                  "tag_codes": {ATTRIBUTES[0]["name"]: 6}}
    torch.manual_seed(1)
    model = TaggerModel(TaggerConfig(attributes=ATTRIBUTES, hidden_size=16, **towers))
    processor = TaggerProcessor(*((processor.image_processor, None) if missing == "text" else
                                  (None, processor.tokenizer)), max_length=16)  # fmt: skip
    if missing == "vision":
        model.name_tags(processor)
        for table in model.lexical_head.parameters():
            table.data.normal_(std=0.3)
    add_tiny_decoder(model, processor, layers=1)
    model.decoder.stack.embed_tokens.weight.data[EOS] = 0.0  # or it would end before the first tag
    model.save_pretrained(folder)
    return TaggerModel.from_pretrained(folder).eval(), processor
