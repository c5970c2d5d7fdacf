"""What requests get for an answer, over real HTTP, from a server on a tiny model."""

import base64
import json
import re
import socket
import threading
import time

import pytest
from transformers import pipeline

import hf_tagger  # noqa: F401 (registers the pipeline)
from hf_tagger.deployment.engines import open_engine
from hf_tagger.model.handler import PARAMETERS, REQUEST_KEYS
from hf_tagger.runtime import OnnxTagger
from tests.deployment.serving import ask, base64_jpeg, form, jpeg, same, send, serving
from tests.tiny_tagger import tiny_model, tiny_processor
from tests.tiny_writer import add_tiny_decoder


@pytest.fixture(scope="module")
def port(exported):
    with serving(open_engine(exported, threads=1), products=16, body_mb=0.1) as port:
        yield port


def test_answers_as_the_runtime_does_each_request_with_its_own_options(port, exported):
    tagger = OnnxTagger(exported, threads=1)
    wanted = tagger({"title": "red mug", "image": jpeg("Red", "Mug")}, threshold=0)
    assert len(wanted) > 2
    product = {"title": "red mug", "image": base64_jpeg("Red", "Mug")}
    status, tags, _ = ask(port, product, threshold=0)
    assert status == 200
    same(tags, wanted)
    body, kind = form([("title", "red mug"), ("image", jpeg("Red", "Mug")), ("parameters", '{"threshold": 0}')])
    same(send(port, body, kind)[1], wanted)
    same(ask(port, {**product, "image": "data:image/jpeg;base64," + product["image"]}, threshold=0)[1], wanted)

    options = [{}, {"top_k": 1, "threshold": 0}, {"attributes": ["colour"]}, {"threshold": 0}] * 3
    answers = [None] * len(options)

    def client(number):
        answers[number] = ask(port, ["blue dress", product], **options[number])

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(options))]
    for group in (threads[:6], threads[6:]):  # 6 x 2 products are fewer than may wait
        for thread in group:
            thread.start()
        for thread in group:
            thread.join()
    for wanted, (status, found, _) in zip(options, answers, strict=True):
        assert status == 200
        same(found[0], tagger("blue dress", **wanted))
        same(found[1], tagger({"title": "red mug", "image": jpeg("Red", "Mug")}, **wanted))


def test_a_bad_product_of_a_list_takes_no_other_with_it(port):
    damaged = base64.b64encode(jpeg()[:200]).decode()
    status, answers, _ = ask(port, ["red mug", {"title": "mug", "image": damaged}, {"titel": "mug"}, 7, "blue mug"])
    assert status == 200
    assert [isinstance(answer, list) for answer in answers] == [True, False, False, False, True]
    assert "image 0" in answers[1]["error"] and 'Did you mean "title"' in answers[2]["error"]
    assert "int is not a product" in answers[3]["error"] and not any("item" in answers[row]["error"] for row in (1, 3))
    assert ask(port, [])[:2] == (200, [])


@pytest.mark.parametrize(("inputs", "parameters", "message"), [
    ({"titel": "mug"}, {}, "unknown key 'titel'"),
    ({"title": "mug", "audio": "/etc/hostname"}, {}, "unknown key 'audio'"),
    ({"title": "mug", "audio": {"path": "/etc/hostname"}}, {}, "unknown key 'audio'"),
    ({"title": 5}, {}, "title must be a str, got int"),
    ({}, {}, "neither text nor a photo"),
    ({"title": "x" * 50_001}, {}, "shorten it"),
    ({"image": "not a photo"}, {}, "not base64"),
    ({"image": ["a"]}, {}, "must be a base64 string, got list"),
    ({"images": "a"}, {}, "images must be a list"),
    ({"image": "http://127.0.0.1/a.jpg"}, {}, "fetches none"),
    (None, {}, "NoneType is not a product"),
    ("mug", {"topk": 3}, 'Did you mean "top_k"?'),
    ("mug", {"top_k": 0}, "whole number from 1"),
    ("mug", {"threshold": "high"}, "between 0 and 1"),
    ("mug", {"threshold": float("nan")}, "between 0 and 1"),
    ("mug", {"attributes": "colour"}, "attributes is a list"),
    ("mug", {"attributes": ["color"]}, 'Did you mean "colour"?'),
    ("mug", {"attributes": 5}, "attributes is a list"),
    ("mug", {"allow_urls": True}, "unknown parameter 'allow_urls'"),
    ("mug", {"free_form": True}, "unknown parameter 'free_form'"),  # not exported
])
def test_what_cannot_be_understood_is_said_with_422(port, inputs, parameters, message):
    status, answer, _ = ask(port, inputs, **parameters)
    assert status == 422 and message in answer["error"], answer


@pytest.mark.parametrize(("body", "kind", "status"), [
    (b"{", "application/json", 400),
    (b"[" * 100_000, "application/json", 400),
    (b"\xff", "application/json", 400),
    (b"mug", "text/plain", 415),
    (b"title=mug", "application/x-www-form-urlencoded", 415),
    (b"mug", None, 415),
    (b'{"inputs": "mug", "parameter": {}}', "application/json", 422),
    (b'{"inputs": "mug", "parameters": []}', "application/json", 200),
    (b'{"inputs": "mug", "parameters": [1]}', "application/json", 422),
    (b'"mug"', "application/json", 422),
    (b"no form", "multipart/form-data; boundary=frontier", 400),
    (b"no form", "multipart/form-data", 400),
    (*form([("image", "photos/1.jpg")]), 422),
    (*form([("text", b"mug")]), 422),
    (*form([("text", "mug"), ("text", "dress")]), 422),
    (*form([("text", "mug"), ("parameters", "{")]), 400),
    (b" " * 105_000, "application/json", 413),
    (iter([b" " * 60_000] * 2), "application/json", 413),  # chunked: no length is told
    (json.dumps({"inputs": ["mug"] * 17}), "application/json", 413),
])
def test_malformed_requests_get_the_status_that_says_why(port, body, kind, status):
    found, answer, _ = send(port, body, kind)
    assert found == status, answer
    if status != 200:
        assert set(answer) == {"error"}
    assert ask(port, "mug")[0] == 200


def test_no_file_is_ever_opened_for_a_request(port, tmp_path):
    (tmp_path / "mug").write_bytes(jpeg())
    path = str(tmp_path / "mug")
    for given in (path, path.replace("/", "/" * 4), {"path": path}, {"bytes": None, "path": path}, f"file://{path}"):
        status, answer, _ = ask(port, {"title": "mug", "image": given})
        assert status == 422 and "base64" in answer["error"]
    (tmp_path / "abcd").write_bytes(jpeg())  # a path that is base64, too
    status, answer, _ = ask(port, {"title": "mug", "image": "abcd"})
    assert status == 422 and "not an image in a known format" in answer["error"]


def test_where_urls_are_allowed_they_lead_into_no_private_network(exported):
    with serving(open_engine(exported, threads=1), allow_urls=True) as port:
        status, answer, _ = ask(port, {"title": "mug", "image": "http://127.0.0.1:1/mug.jpg"})
        assert status == 422 and "is not a public internet address" in answer["error"]
        assert "base64" in ask(port, {"title": "mug", "image": "file:///etc/hostname"})[1]["error"]


def test_a_client_that_goes_away_while_it_sends_leaves_nothing_behind(port):
    with socket.create_connection(("127.0.0.1", port)) as client:
        head = "POST /tags HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        client.sendall(head.encode() + b"{")
        until = time.monotonic() + 10
        while "hf_tagger_waiting_bytes 16385.0" not in send(port, None, None, "GET", "/metrics")[1]:
            assert time.monotonic() < until
    while "hf_tagger_waiting_bytes 0.0" not in send(port, None, None, "GET", "/metrics")[1]:
        assert time.monotonic() < until


def gated_engine(exported):
    """An engine whose model runs only while the gate is open, and breaks on one text."""
    engine = open_engine(exported, threads=1)
    engine.gate, engine.sizes, run = threading.Event(), [], engine.tag

    def tag(products, options):
        engine.gate.wait(30)
        engine.sizes.append(len(products))
        if any(product["text"] == "broken" for product in products):
            raise RuntimeError("the model broke")
        return run(products, options)

    engine.tag = tag
    return engine


def test_a_full_queue_says_503_and_when_to_try_again_then_batches_what_waited(exported):
    engine = gated_engine(exported)
    answers = []
    with serving(engine, waiting_mb=0.125, batch_size=4) as port:  # six requests of one product
        threads = [threading.Thread(target=lambda: answers.append(ask(port, "mug"))) for _ in range(6)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 20
        while "hf_tagger_waiting_products 6" not in send(port, None, None, "GET", "/metrics")[1]:
            assert time.monotonic() < until
            time.sleep(0.02)
        status, answer, headers = ask(port, "mug")
        assert status == 503 and "try again" in answer["error"] and int(headers["Retry-After"]) > 0
        assert send(port, None, None, "GET", "/health")[0] == 200
        engine.gate.set()
        for thread in threads:
            thread.join()
        assert [status for status, *_ in answers] == [200] * 6
        assert max(engine.sizes) > 1 and sum(engine.sizes) == 6 and max(engine.sizes) <= 4
        assert ask(port, "mug")[0] == 200
        metrics = send(port, None, None, "GET", "/metrics")[1]
        assert 'hf_tagger_requests_total{status="200"} 7.0' in metrics
        assert 'hf_tagger_requests_total{status="503"} 1.0' in metrics
        assert "hf_tagger_batch_products_sum 7.0" in metrics and "hf_tagger_waiting_products 0.0" in metrics


def test_a_product_that_breaks_the_model_breaks_no_other(exported):
    engine = gated_engine(exported)
    engine.gate.set()
    with serving(engine) as port:
        status, answers, _ = ask(port, ["red mug", "broken", "blue mug"])
        assert status == 200 and [isinstance(answer, list) for answer in answers] == [True, False, True]
        assert answers[1]["error"] == "tagging it failed: RuntimeError"
        assert ask(port, "broken")[0] == 500


def test_describes_itself(port):
    status, described, _ = send(port, None, None, "GET", "/openapi.json")
    content = described["paths"]["/tags"]["post"]["requestBody"]["content"]
    body = content["application/json"]["schema"]["properties"]
    product = body["inputs"]["oneOf"][1]["properties"]
    assert status == 200 and set(product) == set(REQUEST_KEYS)
    assert set(body["parameters"]["properties"]) == {"top_k", "threshold", "attributes"}
    assert set(content) == {"application/json", "multipart/form-data"}
    assert "503" in described["paths"]["/tags"]["post"]["responses"]
    assert send(port, None, None, "GET", "/docs")[0] == 200


def test_a_torch_model_writes_tags_too(tmp_path):
    model, processor = tiny_model().eval(), tiny_processor()
    add_tiny_decoder(model, processor)
    pipe = pipeline("product-tagging", model=model, processor=processor, device="cpu")
    pipe.save_pretrained(tmp_path)
    product = {"title": "red mug", "image": base64_jpeg("Red", "Mug")}
    given = {"title": "red mug", "image": jpeg("Red", "Mug")}
    engine = open_engine(tmp_path)
    with serving(engine) as port:
        for options in ({}, {"threshold": 0, "top_k": 2}, {"free_form": True}, {"free_form": True, "max_tags": 1}):
            status, tags, _ = ask(port, product, **options)
            assert status == 200
            same(tags, pipe(given, **options))
        assert ask(port, product, free_form=True, language="xx")[0] == 422
        assert ask(port, product, num_beams=500)[0] == 422
        assert "'critic'" in ask(port, product, critic=True)[1]["error"]
        described = send(port, None, None, "GET", "/openapi.json")[1]["paths"]["/tags"]["post"]["requestBody"]
    parameters = described["content"]["application/json"]["schema"]["properties"]["parameters"]["properties"]
    assert set(parameters) == set(PARAMETERS)
    runs = []
    engine.tagger.forward = lambda *arguments, **options: runs.append(options) or type(pipe).forward(
        engine.tagger, *arguments, **options)
    prepared = [engine.preprocess(given) for _ in range(3)]
    engine.tag(prepared, [{"top_k": 1}, {"free_form": True}, {"threshold": 0.2}])
    assert len(runs) == 2  # closed tags of whatever options share a run


def test_attributes_named_again_and_again_count_once(tmp_path):
    model, processor = tiny_model().eval(), tiny_processor()
    add_tiny_decoder(model, processor)
    pipeline("product-tagging", model=model, processor=processor, device="cpu").save_pretrained(tmp_path)
    engine = open_engine(tmp_path)
    with serving(engine) as port:
        name = engine.tagger.model.config.decoder["attributes"][0]
        status, once, _ = ask(port, "red mug", free_form=True, attributes=[name])
        assert status == 200
        asked, write = [], engine.tagger.tag_batch
        engine.tagger.tag_batch = lambda batch, *given, **options: asked.append(options) or write(
            batch, *given, **options)
        start = time.perf_counter()
        same(ask(port, "red mug", free_form=True, attributes=[name] * 2000)[1], once)
        assert time.perf_counter() - start < 5 and len(asked) == 1
        assert ask(port, "red mug", free_form="no")[0] == 422


def test_the_page_about_requests_needs_nothing_from_elsewhere(port):
    status, page, headers = send(port, None, None, "GET", "/docs")
    assert status == 200 and "curl" in page and not re.search(r"(src|href)=.(https?:)?//", page)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
