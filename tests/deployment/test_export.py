"""What is exported says what the model says, whatever a product has, and nothing else is taken for it."""

import copy
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, pipeline

import hf_tagger  # noqa: F401 (registers the pipeline)
from hf_tagger.deployment.export import ExportError, export_tagger
from hf_tagger.deployment.quantize import Quantizer, paired_scales, parts_that_gain, quantize_within
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.model.products import ProductError
from hf_tagger.runtime import MODEL, ArtefactError, OnnxTagger
from tests.tiny_tagger import SIZE, WORDS, photo, tiny_model, tiny_processor

ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": ["Red", "Blue"], "temperature": 1.5, "thresholds": [0.3, 0.6]},
    {"name": "category", "kind": "single", "tags": ["Mug", "Dress"], "decided_by": "text"},
    {"name": "features", "kind": "multi", "tags": ["Waterproof", "Handmade"], "thresholds": [0.4, 0.5],
     "calibration": {"slopes": [1.2, 0.8], "intercepts": [0.1, -0.2]}},
]
PRODUCTS = [
    {"title": "red mug", "image": photo("Red", "Mug")},
    {"title": "blue dress waterproof"},
    {"image": photo("Blue", "Dress")},
    {"title": "new handmade mug", "images": [photo("Red", "Mug", seed=1), photo("Blue", "Mug", seed=2)]},
    {"title": "red dress and blue mug", "image": photo("Red", "Dress", seed=3)},
]


def bert_tagger(architecture="test_resnet", **options):
    """A tagger with everything that a graph holds (residual sums and Relu, too, or what stands for these in another
    architecture) unless `options` of the config say otherwise, filled with random numbers: nothing may cancel out."""
    torch.manual_seed(0)
    text = AutoConfig.for_model("bert", vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2,
                                num_attention_heads=2, intermediate_size=64, max_position_embeddings=32, pad_token_id=0)
    vision = AutoConfig.for_model("timm_wrapper", architecture=architecture, do_pooling=True)
    weights = {"text": 1.0, "final": 1.0, "early": 0.5, "grid": 0.3, "histogram": 0.4}
    parts = {"vision_config": vision, "vision_stages": [0, 1, 2], "vision_grid": [2, 2], "colour_histogram": True,
             "lexical_buckets": 64, "name_match": True, "kernel_landmarks": 20, "kernel_dim": 8,
             "kernel_weights": weights} | options
    model = TaggerModel(TaggerConfig(attributes=ATTRIBUTES, text_config=text, hidden_size=16, **parts))
    processor = tiny_processor()
    model.name_tags(processor)
    kernel_tables = [*model.kernel_head.named_buffers(), *model.kernel_head.named_parameters()] if (
        model.kernel_head) else []
    for name, table in [*kernel_tables, *model.lexical_head.named_parameters()]:
        if not name.startswith("std_") and table.is_floating_point():
            table.data.normal_(std=0.3)
    return model.eval(), processor


class Traced:
    """What `torch.onnx.export` made of `bert_tagger()`, from the folder of an export, for tests of what comes after."""

    def __init__(self, folder):
        self.folder = folder

    def save(self, path, external_data):
        for end in ("", ".data"):
            shutil.copyfile(self.folder / f"{MODEL}{end}", f"{path}{end}")


def operators(folder):
    """How often the graph has each operator."""
    return Counter(node.op_type for node in onnx.load(folder / "model.onnx", load_external_data=False).graph.node)


def batch_of(tagger, products):
    pipe = pipeline("product-tagging", model=bert_tagger()[0], processor=tiny_processor(), device="cpu")
    return tagger.collate([pipe.preprocess(product) for product in products])


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [0], [1], [2], [1, 1], [2, 2, 2], [3, 2]])
def test_logits_of_any_mixture_of_modalities_are_the_models(saved, rows):
    model, processor = bert_tagger()
    tagger = OnnxTagger(saved / "onnx", threads=1)
    batch = batch_of(tagger, [PRODUCTS[row] for row in rows])
    with torch.no_grad():
        output = model(**{name: torch.from_numpy(value) for name, value in batch.items()})
    wanted = torch.cat([output.tag_logits, output.none_logits], dim=1).numpy()
    np.testing.assert_allclose(tagger.logits(**batch), wanted, atol=1e-4)


def test_words_past_the_window_of_the_text_tower_count_in_both_backends(saved):
    model, processor = bert_tagger()
    tagger = OnnxTagger(saved / "onnx", threads=1)
    texts = ["new " * 60 + last for last in ("waterproof", "new", "!")]
    logits = tagger.logits(**tagger.collate([{"text": text, "photos": []} for text in texts]))
    with torch.no_grad():
        output = model(**processor(text=texts))
    np.testing.assert_allclose(logits, torch.cat([output.tag_logits, output.none_logits], dim=1).numpy(), atol=1e-4)
    assert np.abs(logits[0] - logits[1]).max() > 0.01


def test_the_pipeline_gives_the_same_tags_with_either_backend(saved):
    plain = pipeline("product-tagging", model=str(saved), device="cpu")
    plain.autocast = lambda: torch.autocast("cpu", enabled=False)
    exported = pipeline("product-tagging", model=str(saved), backend="onnx", device="cpu")
    alone = OnnxTagger(saved / "onnx")
    for options in ({}, {"top_k": 2}, {"threshold": 0.0, "attributes": ["colour", "features"]}):
        for product, wanted in zip(PRODUCTS, plain(PRODUCTS, **options), strict=True):
            for got in (exported(product, **options), alone(product, **options)):
                assert [tag["label"] for tag in got] == [tag["label"] for tag in wanted]
                assert [tag["score"] for tag in got] == pytest.approx([tag["score"] for tag in wanted], abs=1e-5)
    assert list(exported(iter(PRODUCTS), batch_size=2)) == exported(PRODUCTS, batch_size=2)


def test_int8_computes_in_integers_and_stays_near(saved):
    found = operators(saved / "onnx_int8")
    assert found["MatMulIntegerToFloat"] and found["QuantizeLinear"]
    exact, rough = (OnnxTagger(saved / name, threads=1) for name in ("onnx", "onnx_int8"))
    for rows in (PRODUCTS, PRODUCTS[1:2], PRODUCTS[2:3]):  # both towers, and each alone
        batch = batch_of(exact, rows)
        difference = np.abs(exact.logits(**batch) - rough.logits(**batch)).max()
        assert 0 < difference < 0.5


def test_what_convolutions_hand_on_stays_in_int8(saved, tmp_path):
    exact = OnnxTagger(saved / "onnx", threads=1)
    batch = batch_of(exact, PRODUCTS)
    # A copy: onnx reads no tables that have several links, and another test links these.
    source = shutil.copytree(saved / "onnx", tmp_path / "onnx")
    Quantizer(source, [exact.feed(**batch)], ["vision"]).write(tmp_path / "int8")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(tmp_path / "int8" / "model.onnx", options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx", load_external_data=False)
    computed = Counter(node.op_type for node in optimised.graph.node)
    original = operators(tmp_path / "onnx")
    assert original["Relu"] and original["Add"] and computed["QLinearConv"] == original["Conv"]
    assert not computed["Relu"] and computed["QLinearAdd"]
    assert 0 < np.abs(exact.logits(**batch) - OnnxTagger(tmp_path / "int8").logits(**batch)).max() < 0.5


@pytest.mark.parametrize(("activation", "parts"), [("Relu", ["text", "vision"]), ("Softplus", ["text"])])
def test_the_vision_tower_computes_in_int8_where_it_gains(saved, activation, parts, tmp_path):
    model = onnx.load(saved / "onnx" / "model.onnx", load_external_data=False)
    for node in model.graph.node:
        node.op_type = activation if node.op_type == "Relu" else node.op_type
    onnx.save(model, tmp_path / "model.onnx")
    assert parts_that_gain(tmp_path) == parts


def added_in_16_bits(inputs, weights):
    """inputs uint8 [K] times weights int8 [C, K] as processors without VNNI compute it (vpmaddubsw)."""
    products = np.pad(inputs.astype(int) * weights, ((0, 0), (0, weights.shape[1] % 2)))
    return (products[:, 0::2] + products[:, 1::2]).clip(-(2**15), 2**15 - 1).sum(1)


def multiplied_weights(folder):
    """int8 [C, K] of every linear layer and every convolution that multiplies pairs, in the order it reads them in."""
    graph = onnx.load(folder / "model.onnx").graph
    tables = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "MatMulIntegerToFloat":
            yield tables[node.input[1]].T
        elif node.op_type == "Conv" and not any(each.name == "group" and each.i > 1 for each in node.attribute):
            filters = tables[made_by[node.input[1]].input[0]]
            yield filters.transpose(0, 2, 3, 1).reshape(len(filters), -1)


def test_int8_says_the_same_where_pairs_are_added_in_16_bits(saved):
    assert added_in_16_bits(np.array([255, 255]), np.array([[127, 127]])) < 255 * (127 + 127)
    shapes = set()
    for weights in multiplied_weights(saved / "onnx_int8"):
        shapes.add(weights.shape[1])
        for channel in weights:  # the worst inputs: all that one sign has to say
            for inputs in (255 * (channel > 0), 255 * (channel < 0)):
                assert added_in_16_bits(inputs, channel[None]) == inputs @ channel.astype(int)
    assert {32, 27} <= shapes  # of the text tower and of the stem, whose last input has no neighbour


def test_weights_lose_no_more_than_pairs_take():
    weights = np.array([[100, 10, -100, 0.0], [1, 1, 1, -1], [3, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(paired_scales(weights)[:3], np.array([110, 2, 3]) / 127, rtol=1e-6)
    assert paired_scales(weights)[3] > 0
    assert paired_scales(np.ones((1, 3, 3, 3))) == np.float32(2 / 127)


def cancel(layer):
    """Two large numbers, of which only the difference counts."""
    layer.intermediate.dense.weight[1] = layer.intermediate.dense.weight.normal_()[0] + 0.01 * torch.randn(32)
    layer.output.dense.weight[:, 0] = 3000 * torch.randn(32)
    layer.output.dense.weight[:, 1] = -layer.output.dense.weight[:, 0]


def reach_far(layer):
    """One input much larger than all others, of no weight."""
    layer.intermediate.dense.weight.normal_()
    layer.intermediate.dense.bias[0] = 3000.0
    layer.output.dense.weight.normal_()[:, 0] = 0.0


def test_the_layer_that_int8_harms_most_goes_back_to_float32_and_an_input_that_reaches_far_hides_no_other(tmp_path):
    text = bert_tagger()[0].config.text_config  # of text alone, which is quicker
    model = TaggerModel(TaggerConfig(attributes=ATTRIBUTES, text_config=text, hidden_size=16)).eval()
    with torch.no_grad():
        model.tag_head.embeddings.weight.normal_()
        cancel(model.encoder.text_tower.encoder.layer[0])
        reach_far(model.encoder.text_tower.encoder.layer[1])
    source, texts = tmp_path / "onnx", [f"{first} {second}" for first in WORDS[2:] for second in WORDS[2:]]
    export_tagger(model, TaggerProcessor(None, tiny_processor().tokenizer, max_length=16), source, "fingerprint")
    exact = OnnxTagger(source, threads=1)
    feeds = [exact.feed(**exact.collate([{"text": text, "photos": []} for text in texts]))]
    arguments, said = (source, tmp_path / "int8", feeds, feeds, ["text"]), []
    quantize_within(*arguments, tolerance=0.05, say=said.append)
    rough = OnnxTagger(tmp_path / "int8", threads=1)
    assert rough.description["float32_layers"] == ["encoder.text_tower.encoder.layer.0"]
    shares = [float(found[1]) for text in said if (found := re.search(r"int8 changes (.*) % of the decisions", text))]
    assert shares[0] > 5 >= shares[-1], said
    assert "MatMulIntegerToFloat" in operators(tmp_path / "int8")
    wanted, got = (tagger.session.run(["logits"], feeds[0])[0] for tagger in (exact, rough))
    difference = np.abs(wanted - got).max() / wanted.std()
    assert 0 < difference < 0.2, difference
    quantize_within(*arguments, tolerance=1.0)
    assert OnnxTagger(tmp_path / "int8").description["float32_layers"] == []


def test_a_token_that_reaches_far_hides_no_other(tmp_path):
    random = np.random.default_rng(0)
    weights, read = (random.normal(size=size).astype(np.float32) for size in ((64, 8), (2, 64)))
    read[1] *= 1000
    make, name = onnx.helper, "encoder.text_tower.layer.0.weight"
    inputs, outputs = ([make.make_tensor_value_info(each, onnx.TensorProto.FLOAT, [2, size])]
                       for each, size in (("read", 64), ("output", 8)))
    graph = make.make_graph([make.make_node("MatMul", ["read", name], ["output"], "linear")], "tokens", inputs, outputs,
                            [onnx.numpy_helper.from_array(weights, name)])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 23)]), tmp_path / "model.onnx")
    rough = Quantizer(tmp_path, [{"read": read}], ["text"]).graph().SerializeToString()
    session = onnxruntime.InferenceSession(rough, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"read": read})[0][0], read[0] @ weights, atol=0.3)


def test_bad_products_and_options_are_refused_as_by_the_pipeline(saved):
    tagger = OnnxTagger(saved / "onnx")
    with pytest.raises(ProductError, match='item 0: unknown key .titel.. Did you mean "title"'):
        tagger({"titel": "mug"})
    found = tagger([{"title": "red mug"}, {"image": b""}], on_error="skip")
    assert found[0][0]["source"] == "vocabulary" and "zero bytes" in found[1]["error"]
    with pytest.raises(TypeError, match='no option .topk.. Did you mean "top_k"'):
        tagger("mug", topk=1)
    with pytest.raises(ValueError, match="no attribute 'color'"):
        tagger("mug", attributes=["color"])


def test_a_damaged_or_foreign_artefact_is_refused(saved, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(saved / "onnx", copy)
    data = bytearray((copy / "model.onnx.data").read_bytes())
    data[100] ^= 1
    (copy / "model.onnx.data").write_bytes(data)
    with pytest.raises(ArtefactError, match="not the file exported"):
        OnnxTagger(copy)
    (copy / "model.onnx.data").unlink()
    with pytest.raises(ArtefactError, match="missing"):
        OnnxTagger(copy)
    with pytest.raises(ArtefactError, match="no exported tagger"):
        OnnxTagger(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(saved, other)
    config = json.loads((other / "config.json").read_text())
    config["attributes"][0]["temperature"] = 2.0
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtefactError, match="exported from another model"):
        pipeline("product-tagging", model=str(other), backend="onnx", device="cpu")
    with pytest.raises(ValueError, match="there is no folder 'onnxx'"):
        pipeline("product-tagging", model=str(saved), backend="onnxx", device="cpu")


def test_the_runtime_imports_neither_torch_nor_transformers(saved):
    code = ("import sys; from hf_tagger.runtime import OnnxTagger; "
            f"print(OnnxTagger({str(saved / 'onnx')!r})('red mug', top_k=1)[0]['label']); "
            "assert not {'torch', 'transformers'} & set(sys.modules)")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() in {tag for entry in ATTRIBUTES for tag in entry["tags"]}


def test_a_model_without_a_decoder_pays_nothing_for_one_and_says_so(saved):
    tagger = OnnxTagger(saved / "onnx")
    assert [output.name for output in tagger.session.get_outputs()] == ["logits"]
    assert not {"decoder", "label_vectors"} & tagger.description.keys() and not list((saved / "onnx").glob("decoder*"))
    with pytest.raises(ValueError, match="no decoder to write free-form tags with"):
        tagger("red mug", free_form=True)


def test_a_part_without_a_graph_is_named(tmp_path):
    with pytest.raises(ExportError, match="encoder.text_tower.rnn"):
        export_tagger(tiny_model(), tiny_processor(), tmp_path, "")


def test_photos_are_normalised_as_by_the_processor(saved):
    processor, tagger = tiny_processor(), OnnxTagger(saved / "onnx")
    noise = np.random.default_rng(0).integers(0, 256, (SIZE * 2, SIZE * 3, 3), dtype=np.uint8)
    [pixels] = tagger.preprocess({"image": noise})["photos"]
    np.testing.assert_array_equal(pixels, processor.pixels(noise))
    wanted = processor.collate([None, None], [[pixels], []])
    got = tagger.collate([{"text": None, "photos": [pixels]}, {"text": None, "photos": []}])
    np.testing.assert_array_equal(got["pixel_values"], wanted["pixel_values"].numpy())
    np.testing.assert_array_equal(got["pixel_mask"], wanted["pixel_mask"].numpy())


def test_a_copy_opens_the_folder_itself(saved):
    tagger = OnnxTagger(saved / "onnx", threads=1)
    for again in (pickle.loads(pickle.dumps(tagger)), copy.deepcopy(tagger)):
        assert again("red mug", threshold=0) == tagger("red mug", threshold=0)
