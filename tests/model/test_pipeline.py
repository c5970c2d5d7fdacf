import copy
import io
import itertools
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import datasets
import numpy as np
import pandas
import pyarrow
import pytest
import torch
from transformers import AutoModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_tagger.model import pipeline_tagger
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.pipeline_tagger import ProductError
from hf_tagger.training.build import with_lora
from hf_tagger.training.lora import save_adapter
from hf_tagger.training.settings import LoraSettings
from tests.tiny_tagger import photo, tiny_model, tiny_processor, trained_tagger


@pytest.fixture(scope="module")
def tagger():
    model, processor = trained_tagger()
    return pipeline("product-tagging", model=model, processor=processor, device="cpu")


@pytest.fixture(scope="module")
def folder(tagger, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tagger.save_pretrained(path)
    return path


def tagger_of_all_sources():
    """Whose lexical head and kernel head say something of every product, if nothing sensible."""
    model, processor = tiny_model(lexical_buckets=64, name_match=True, kernel_landmarks=3,
                                  kernel_weights={"text": 1.0, "final": 1.0}), tiny_processor()
    model.name_tags(processor)
    with torch.no_grad():
        for tensor in [*model.lexical_head.parameters(), *model.kernel_head.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.1)
    return pipeline("product-tagging", model=model.eval(), processor=processor, device="cpu")


def labels(tags):
    return {tag["label"] for tag in tags}


def scores(results):
    return [{tag["label"]: pytest.approx(tag["score"], abs=1e-5) for tag in tags} for tags in results]


def encoded(image, format="PNG"):
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


PRODUCTS = [
    "red mug",
    {"image": photo("Blue", "Dress")},
    {"title": "blue mug", "image": photo("Blue", "Mug")},
    {"text": "waterproof red dress", "images": [photo("Red", "Dress"), photo("Red", "Dress", seed=5)]},
    {"title": "red", "description": "dress", "language": "en"},
]
TAGS = [{"Red", "Mug"}, {"Blue", "Dress"}, {"Blue", "Mug"}, {"Waterproof", "Red", "Dress"}, {"Red", "Dress"}]


def test_text_photo_or_both_give_tags_best_first(tagger):
    for product, expected in zip(PRODUCTS, TAGS, strict=True):
        tags = tagger(product)
        assert labels(tags) == expected
        assert [tag["score"] for tag in tags] == sorted((tag["score"] for tag in tags), reverse=True)
    tags = {tag.pop("label"): tag for tag in tagger("red mug")}
    score = tags["Mug"].pop("score")
    assert isinstance(score, float) and 0.5 < score < 1
    assert tags["Mug"] == {"attribute": "category", "source": "vocabulary"}


def test_a_photo_may_come_in_any_form(tagger, tmp_path):
    image = photo("Blue", "Dress")
    (tmp_path / "dress.png").write_bytes(encoded(image))
    path = str(tmp_path / "dress.png")
    sources = [image, path, tmp_path / "dress.png", encoded(image), np.asarray(image), open(path, "rb")]
    sources += [{"bytes": encoded(image), "path": None}, {"bytes": None, "path": path}]
    expected = scores([tagger({"image": image})])
    for source in sources:
        assert scores([tagger({"image": source})]) == expected == scores([tagger({"images": [source]})])


def test_shop_text_is_cleaned_as_in_training(tagger):
    assert tagger("<p>red&nbsp;<b>mug</b></p>\u200b") == tagger("red mug")
    assert tagger({"title": "red ", "description": " <br>mug"}) == tagger("red. mug")


@pytest.mark.parametrize("container", [list, tuple])
def test_a_list_gives_a_list(tagger, container):
    results = tagger(container(PRODUCTS))
    assert isinstance(results, list) and [labels(tags) for tags in results] == TAGS
    assert tagger(container()) == []


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (2, 1), (3, 4), (64, 0)])
def test_neither_batches_nor_threads_change_results(tagger, batch_size, num_workers):
    alone = [tagger(product) for product in PRODUCTS]
    assert scores(tagger(PRODUCTS * 3, batch_size=batch_size, num_workers=num_workers)) == scores(alone * 3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_generator_is_streamed_in_order_and_read_only_a_little_ahead(tagger, num_workers):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield ["red mug", "blue dress"][number % 2]

    results = tagger(endless(), batch_size=4, num_workers=num_workers)
    assert not taken
    assert [labels(tags) for tags in itertools.islice(results, 6)] == [{"Red", "Mug"}, {"Blue", "Dress"}] * 3
    assert len(taken) <= 3 * 4
    results.close()


def test_datasets_are_streamed(tagger, tmp_path):
    rows = {"title": ["red mug", None, "blue dress"], "image": [None, encoded(photo("Blue", "Mug")), None]}
    rows["image"] = [data and {"bytes": data, "path": None} for data in rows["image"]]
    dataset = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    expected = [{"Red", "Mug"}, {"Blue", "Mug"}, {"Blue", "Dress"}]
    for products in (
        dataset,
        dataset.to_iterable_dataset(),
        dataset.cast_column("image", datasets.Image(decode=False)),
        torch.utils.data.Subset(dataset, [0, 1, 2]),
    ):
        results = tagger(products, batch_size=2)
        assert not isinstance(results, list)
        assert [labels(tags) for tags in results] == expected
    texts = KeyDataset(dataset.select([0, 2]), "title")
    assert [labels(tags) for tags in tagger(texts)] == [expected[0], expected[2]]


def test_top_k_threshold_and_attributes(tagger):
    everything = tagger("waterproof red mug", threshold=0)
    assert len(everything) == 6
    assert tagger("waterproof red mug", threshold=0, top_k=2) == everything[:2]
    assert tagger("waterproof red mug", threshold=0.7) == [tag for tag in everything if tag["score"] >= 0.7]
    assert tagger("waterproof red mug", threshold=1.0) == []
    assert labels(tagger("waterproof red mug", attributes=["colour", "features"])) == {"Red", "Waterproof"}
    assert [len(tags) for tags in tagger(PRODUCTS, top_k=1)] == [1] * len(PRODUCTS)


def test_options_of_the_pipeline_hold_until_a_call_says_otherwise(tagger):
    narrow = pipeline("product-tagging", model=tagger.model, processor=tagger.processor, top_k=1, attributes=["colour"])
    assert labels(narrow("red mug")) == {"Red"}
    assert labels(narrow("red mug", top_k=None, attributes=None)) == {"Red", "Mug"}


def test_thresholds_of_the_model_decide_by_default(folder):
    fitted = pipeline("product-tagging", model=str(folder))
    everything = {tag["label"]: tag["score"] for tag in fitted("waterproof red mug", threshold=0)}
    for attribute in fitted.model.config.attributes:
        attribute["thresholds"] = [everything[tag] + 1e-3 for tag in attribute["tags"]]
    assert fitted("waterproof red mug") == []
    for attribute in fitted.model.config.attributes:
        attribute["thresholds"] = [everything[tag] - 1e-3 for tag in attribute["tags"]]
    assert labels(fitted("waterproof red mug")) == {"Red", "Mug", "Waterproof", "Handmade"}


def test_without_thresholds_none_of_the_tags_may_be_likelier_than_each(folder):
    untrained = pipeline("product-tagging", model=str(folder))
    colours = attribute_slices(untrained.model.config.attributes)[0]
    output = {"scores": torch.full((6,), 0.4), "chosen": None}
    output["scores"][colours] = torch.tensor([0.2, 0.3])
    chosen = untrained.model.predicted_tags(output["scores"][None])[0]
    assert labels(untrained.postprocess((output["scores"], chosen, []))) == {"Mug"}


def truncated():
    return encoded(photo(size=200), "JPEG")[:-300]


BAD_PRODUCTS = [
    ({}, "neither text nor a photo; give"),
    ("  <br> ", "neither text nor a photo"),
    ({"title": None, "image": None, "images": []}, "neither text nor a photo"),
    ({"language": "en"}, "neither text nor a photo"),
    (None, "NoneType is not a product; pass a str, or a dict with text, title"),
    (7, "int is not a product"),
    (photo(), "Image is not a product"),
    (["red mug"], "list is not a product"),
    ({"titel": "red mug"}, 'unknown key .titel.. Did you mean "title"'),
    ({"title": "red mug", "price": 3}, "unknown key 'price'. Known: text, title.*Leave out or rename"),
    ({"title": 3}, "title must be a str, got int"),
    ({"title": b"red mug"}, "title must be a str, got bytes"),
    ({"text": "red mug", "title": "red mug"}, "got text beside title"),
    ({"image": "missing.jpg"}, "image 0: cannot open 'missing.jpg'.*check the path"),
    ({"title": "red mug", "images": [photo(), b"no photo"]}, "image 1: image bytes is not an image in a known format"),
    ({"image": truncated()}, "image 0: image bytes cannot be decoded.*upload the photo again"),
    ({"image": b""}, "image 0: image bytes: zero bytes"),
    ({"image": 3.5}, "image 0: float is not an image; pass a PIL image"),
    ({"images": "a.jpg"}, "images must be a list, got str; write a single photo as image"),
    ({"image": photo(), "images": [photo()]}, "got image beside images"),
    ({"image": "https://example.org/a.jpg"}, "image 0: .*URLs are fetched only with allow_urls=True"),
]


@pytest.mark.parametrize(("product", "message"), BAD_PRODUCTS)
def test_bad_products_raise_what_is_wrong_where_and_the_remedy(tagger, product, message):
    if not isinstance(product, list):
        with pytest.raises(ProductError, match=f"^item 0: {message}"):
            tagger(product)
    for batch_size in (1, 8):
        with pytest.raises(ProductError, match=f"^item 2: {message}"):
            tagger(["red mug", "blue mug", product], batch_size=batch_size)


def test_bad_products_are_skipped_in_their_place(tagger):
    bad = [product for product, _ in BAD_PRODUCTS]
    mixed = [entry for product in bad for entry in ("red mug", product)]
    results = list(tagger(iter(mixed), on_error="skip", batch_size=5))
    assert [labels(tags) for tags in results[::2]] == [{"Red", "Mug"}] * len(bad)
    assert [set(result) for result in results[1::2]] == [{"error"}] * len(bad)
    assert results[1]["error"].startswith("item 1: neither text nor a photo")
    assert tagger({}, on_error="skip") == {"error": results[1]["error"].replace("item 1", "item 0")}


@pytest.mark.parametrize("single_use", [b"bytes", bytearray(3), np.zeros((4, 4, 3), np.uint8), torch.zeros(3, 4, 4)])
def test_what_can_be_iterated_is_not_always_many_products(tagger, single_use):
    with pytest.raises(ProductError, match="item 0: .* is not a product"):
        tagger(single_use)


def test_errors_of_the_program_are_not_taken_for_bad_products(tagger):
    def broken():
        yield "red mug"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(tagger(broken(), on_error="skip"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attributes": ["color"]}, ValueError, 'no attribute .color.. Did you mean "colour"'),
        ({"attributes": "colour"}, ValueError, r"write attributes=\['colour'\]"),
        ({"top_k": 0}, ValueError, "top_k"),
        ({"threshold": 1.5}, ValueError, "threshold"),
        ({"on_error": "ignore"}, ValueError, '"raise" or "skip"'),
        ({"treshold": 0.5}, TypeError, 'no option .treshold.. Did you mean "threshold"'),
    ],
)
def test_wrong_options_are_refused_at_once(tagger, options, error, message):
    with pytest.raises(error, match=message):
        tagger(iter(["red mug"]), **options)
    with pytest.raises(error, match=message):
        pipeline("product-tagging", model=tagger.model, processor=tagger.processor, **options)


def test_urls_are_fetched_only_if_allowed_and_private_addresses_only_if_these_are(tagger, tmp_path):
    photo("Blue", "Dress").save(tmp_path / "dress.png")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        product = {"image": f"http://127.0.0.1:{server.server_port}/dress.png"}
        with pytest.raises(ProductError, match="item 0: image 0: .*allow_urls=True"):
            tagger(product)
        with pytest.raises(ProductError, match="not a public internet address"):
            tagger(product, allow_urls=True)
        assert labels(tagger(product, allow_urls=True, allow_private_addresses=True)) == {"Blue", "Dress"}
        server.shutdown()


def test_a_model_with_one_tower_says_what_it_misses():
    text_only = pipeline("product-tagging", model=tiny_model(image=False), processor=tiny_processor())
    assert len(text_only({"text": "red mug", "image": "not read.jpg"}, threshold=0)) == 6
    with pytest.raises(ProductError, match="item 0: no text, and this model reads text only"):
        text_only({"image": photo()})
    photo_only = pipeline("product-tagging", model=tiny_model(text=False), processor=tiny_processor())
    assert len(photo_only({"text": "red mug", "image": photo()}, threshold=0)) == 6
    with pytest.raises(ProductError, match="item 0: no photo, and this model reads photos only"):
        photo_only("red mug")


def test_saved_folder_opens_as_the_same_pipeline(tagger, folder):
    again = pipeline("product-tagging", model=str(folder))
    assert again(PRODUCTS, threshold=0) == tagger(PRODUCTS, threshold=0)
    assert (folder / "processor_config.json").exists()


def test_half_precision(folder):
    half = pipeline("product-tagging", model=str(folder), dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16
    assert [labels(tags) for tags in half(PRODUCTS)] == TAGS


def test_bfloat16_autocast_where_the_hardware_has_it(tagger, monkeypatch):
    found = {}
    for has_it in (True, False):
        monkeypatch.setattr(pipeline_tagger, "bf16_is_fast", lambda device, has_it=has_it: has_it)
        assert [labels(tags) for tags in tagger(PRODUCTS)] == TAGS
        found[has_it] = tagger(PRODUCTS, threshold=0)
    assert found[True] != found[False]


def test_adapter_folder_opens_as_a_pipeline_with_the_adapter_merged(tagger, folder, tmp_path, monkeypatch):
    # Adapter and merged weights round differently in bfloat16.
    monkeypatch.setattr(pipeline_tagger, "bf16_is_fast", lambda device: False)
    adapted = with_lora(AutoModel.from_pretrained(folder), LoraSettings(rank=2))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    save_adapter(adapted, tmp_path, base=folder)
    expected = pipeline("product-tagging", model=adapted, processor=tagger.processor)(PRODUCTS, threshold=0)

    merged = pipeline("product-tagging", model=str(tmp_path))
    assert scores(merged(PRODUCTS, threshold=0)) == scores(expected) != scores(tagger(PRODUCTS, threshold=0))
    assert not [name for name, _ in merged.model.named_modules() if "lora" in name or "modules_to_save" in name]
    merged.save_pretrained(tmp_path / "merged")
    again = pipeline("product-tagging", model=str(tmp_path / "merged"))
    assert scores(again(PRODUCTS, threshold=0)) == scores(expected)


@pytest.mark.parametrize("table", ["pandas", "pyarrow"])
def test_a_table_is_its_rows(tagger, table):
    rows = [{"title": "red mug", "description": "stoneware"}, {"title": "blue dress", "description": None}]
    wanted = tagger([{key: value for key, value in row.items() if value} for row in rows])
    if table == "pyarrow":
        assert tagger(pyarrow.Table.from_pylist(rows)) == wanted
        return
    frame = pandas.DataFrame(rows)
    assert tagger(frame) == tagger(frame.to_dict("records")) == wanted
    assert tagger(pandas.DataFrame({"title": ["red mug"], "description": [float("nan")]})) == tagger(["red mug"])
    assert tagger(frame.iloc[0]) == wanted[0] and tagger(frame["title"]) == tagger(["red mug", "blue dress"])
    assert tagger(frame, top_k=np.int64(1)) == [tags[:1] for tags in wanted]
    with pytest.raises(ProductError, match="item 0: unknown key 'sku'.*of a DataFrame"):
        tagger(frame.assign(sku="1"))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_tags_as_the_original(tagger, copied):
    assert copied(tagger)("red mug", threshold=0) == tagger("red mug", threshold=0)
