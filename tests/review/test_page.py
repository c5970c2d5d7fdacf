"""The page in a real browser, as a reviewer uses it."""

import http.client
import re
import shutil
import sqlite3
from urllib.parse import urlparse

import pytest
from playwright.sync_api import Error, expect, sync_playwright

from hf_tagger.feedback.proposals import approved
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.review import app as review
from hf_tagger.review.page import launch
from hf_tagger.review.predictions import CatalogPredictions
from tests.review.shop import write_shop
from tests.tiny_whisper import RATE, save_tiny_whisper, tone

soundfile = pytest.importorskip("soundfile")

# Two processes of tests share the cores: a page may take long to load.
PATIENCE = 60_000  # milliseconds
expect.set_options(timeout=PATIENCE)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium on the path: apt-get install chromium")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"{BROWSER} does not start: {error}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shop(tagger, tmp_path_factory):
    folder = write_shop(tmp_path_factory.mktemp("shop"))
    tagger.save_pretrained(folder / "model")
    (folder / "whisper").mkdir()
    save_tiny_whisper(folder / "whisper")
    return folder


@pytest.fixture
def address(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(review, "PATIENCE", 0.2)
    app = review.build_app(str(shop / "model"), str(shop / "shop.yaml"), str(tmp_path / "feedback.db"),
                           speech=str(shop / "whisper"))
    yield launch(app, block=False, quiet=True)
    app.close()


@pytest.fixture
def page(browser, address):
    """The page, opened by a browser that must find everything on this machine."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    expect(page.locator(".bar")).to_contain_text("of 4 judged")
    yield page
    elsewhere = [url for url in asked if urlparse(url).scheme not in ("data", "blob")
                 and urlparse(url).hostname != "127.0.0.1"]
    context.close()
    assert (elsewhere, complaints) == ([], [])


def chip(page, tag):
    return page.locator(f'.chip[data-tag="{tag}"]')


def sign_in(page, name="ana"):
    page.fill("#reviewer textarea, #reviewer input", name)
    page.keyboard.press("Enter")
    expect(page.locator(".bar")).to_contain_text("0 of 4 judged")


def stored(tmp_path, *columns):
    with FeedbackStore(tmp_path / "feedback.db") as store:
        return [tuple(getattr(verdict, name) for name in columns) for verdict in store.verdicts()]


def open_product(page, product):
    """Steps through the queue until it is there."""
    for _ in range(4):
        if page.locator(".product").get_attribute("data-product") == product:
            return
        shown = page.locator(".product").get_attribute("data-product")
        page.keyboard.press("n")
        expect(page.locator(".product")).not_to_have_attribute("data-product", shown)
    raise AssertionError(f"{product} is not in the queue")


def test_a_product_is_tagged_and_corrected_and_all_is_there_after_a_reload(page, tmp_path):
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.keyboard.press("a")
    expect(page.locator(".trouble")).to_contain_text("Say who you are first")
    assert stored(tmp_path, "tag") == []
    sign_in(page)
    open_product(page, "P2")
    for tag, key in (("Blue", "a"), ("Dress", "r"), ("Dress", "r"), ("Dress", "a"), ("Waterproof", "u")):
        chip(page, tag).locator(".label").click()
        page.keyboard.press(key)
    expect(chip(page, "Waterproof")).to_have_class(re.compile("unsure"))
    page.keyboard.press("/")
    page.keyboard.type("handm")
    expect(page.get_by_role("option").first).to_contain_text("Handmade features")
    page.keyboard.press("Enter")
    expect(chip(page, "Handmade")).to_have_class(re.compile("add"))
    said = [("Blue", "accept"), ("Dress", "reject"), ("Dress", "withdraw"), ("Dress", "accept"),
            ("Waterproof", "unsure"), ("Handmade", "add")]
    assert stored(tmp_path, "product", "reviewer", "tag", "decision") == [("P2", "ana", *one) for one in said]

    page.reload()
    expect(page.locator(".product")).to_have_attribute("data-product", "P2")
    expect(page.locator(".bar")).to_contain_text("1 of 4 judged")
    for tag, decision in dict(said).items():
        expect(chip(page, tag)).to_have_class(re.compile(decision))
    page.keyboard.press("z")
    expect(page.locator(".notice")).to_contain_text("Taken back: Handmade")
    expect(chip(page, "Handmade")).not_to_have_class(re.compile("add"))


def test_what_the_database_does_not_take_is_not_shown_as_stored(page, tmp_path):
    sign_in(page)
    other = sqlite3.connect(tmp_path / "feedback.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    page.keyboard.press("a")
    expect(page.locator(".trouble")).to_contain_text("locked")
    expect(page.locator(".trouble")).to_contain_text("Nothing that was stored before is lost")
    assert page.locator('.chip [aria-pressed="true"]').count() == 0
    other.execute("ROLLBACK")
    page.keyboard.press("1")
    page.keyboard.press("a")
    expect(page.locator('.chip [aria-pressed="true"]')).to_have_count(1)
    judged = page.locator('.chip:has([aria-pressed="true"])').get_attribute("data-tag")
    assert stored(tmp_path, "tag", "decision") == [(judged, "accept")]


def test_keys_that_are_faster_than_the_page_are_heard_but_never_judge_what_was_not_seen(page, tmp_path):
    sign_in(page)
    open_product(page, "P1")
    page.evaluate("""() => { for (const key of ['1', 'a', '2', 'r', 'Enter', 'Enter'])
        document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true })); }""")
    expect(page.locator(".trouble")).to_contain_text("your last key was not counted")
    assert stored(tmp_path, "product", "decision") == [("P1", "accept"), ("P1", "reject")]


def test_filters_are_there_after_a_reload_and_after_the_server_was_started_again(browser, shop, tmp_path):
    def serve(port=None):
        app = review.build_app(str(shop / "model"), str(shop / "shop.yaml"), str(tmp_path / "feedback.db"))
        return app, launch(app, port=port, block=False, quiet=True)

    def choose(page, field, label):
        page.click(f"#{field} input")
        page.click(f'[role=option][aria-label="{label}"]')

    app, address = serve()
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    sign_in(page)
    page.click("#filters button")
    choose(page, "attribute", "colour")
    choose(page, "language", "de")
    expect(page.locator(".bar")).not_to_contain_text("of 4 judged")
    bar = page.locator(".bar").inner_text()
    app.close()
    app, address = serve(urlparse(address).port)
    try:
        page.keyboard.press("Escape")
        page.keyboard.press("n")  # in the page that stayed open
        expect(page.locator(".bar")).to_contain_text(bar)
        page.reload()
        expect(page.locator(".bar")).to_contain_text(bar)
        page.click("#filters button")
        for field, value in (("attribute", "colour"), ("language", "de"), ("show", "to judge")):
            expect(page.locator(f"#{field} input")).to_have_value(value)
    finally:
        app.close()


def test_texts_of_a_catalogue_stay_texts(page):
    sign_in(page)
    open_product(page, "P4")
    expect(page.locator(".product .text")).to_have_text("red dress {{value}} ${1+1}")


def test_a_new_word_is_proposed_and_approved_and_then_belongs_to_the_vocabulary(page, tagger, tmp_path):
    sign_in(page)
    page.keyboard.press("/")
    page.keyboard.type("Teal")
    expect(page.get_by_role("option")).to_have_count(4)  # one of three attributes, or none decided
    page.get_by_role("option").last.click()
    expect(chip(page, "Teal")).to_contain_text("proposed")
    page.get_by_role("tab", name="New tags").click()
    row = page.locator('#proposed [data-tag="Teal"]')
    row.get_by_text("approve").click()
    expect(page.locator("#proposed .trouble")).to_contain_text("approve it for one")
    row.get_by_role("combobox").select_option("colour")
    row.get_by_text("approve").click()
    expect(row.locator('[data-ruling="approve"]')).to_have_attribute("aria-pressed", "true")
    with FeedbackStore(tmp_path / "feedback.db") as store:
        assert approved(store, tagger.model.config.attributes) == {"colour": ["Teal"]}


def test_products_of_an_export_are_reviewed_and_tried(browser, shop, tmp_path):
    with (tmp_path / "export.csv").open("w") as file:
        file.write("Handle,Title,Body (HTML),Image Src,Tags\n")
        for number in range(1, 4):
            file.write(f"item-{number},{('red mug', 'blue dress', '')[number - 1]},,P{number}.png,new\n")
            file.write(f"item-{number},,,P4.png,\n")  # a further photo
    for number in range(1, 5):
        shutil.copy(shop / f"P{number}.png", tmp_path)
    app = review.build_app(str(shop / "model"), str(tmp_path / "export.csv"), str(tmp_path / "feedback.db"))
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(launch(app, block=False, quiet=True))
    expect(page.locator(".bar")).to_contain_text("of 3 judged")
    page.get_by_role("tab", name="Try it").click()
    for wanted, text, tags in (("item-2", "blue dress", ("Blue", "Dress")), ("3", "", ("Blue", "Mug")),
                               ("1", "red mug", ("Red", "Mug"))):
        page.fill("#try-product input, #try-product textarea", wanted)
        page.keyboard.press("Enter")
        expect(page.locator("#try-text textarea")).to_have_value(text)
        expect(page.locator("#try-photo img")).to_be_visible()
        page.click("#try-button")
        for tag in tags:
            expect(page.locator("#try-result")).to_contain_text(tag)
    page.fill("#try-product input, #try-product textarea", "item-9")
    page.keyboard.press("Enter")
    expect(page.locator("#try-result .trouble")).to_contain_text("None of the 3 products read so far has the id")
    page.close()
    app.close()


def test_a_text_and_a_spoken_description_are_tried(page, tmp_path):
    page.get_by_role("tab", name="Try it").click()
    page.fill("#try-text textarea", "blue mug")
    page.click("#try-button")
    expect(page.locator("#try-result")).to_contain_text("Blue")
    expect(page.locator("#try-result")).to_contain_text("Mug")
    page.fill("#try-text textarea", "")
    page.click("#try-button")
    expect(page.locator("#try-result .trouble")).to_contain_text("neither text nor a photo")
    soundfile.write(tmp_path / "mug.wav", tone(440), RATE)
    page.get_by_label("Upload file").last.click()  # of the microphone; the first is the photo's
    page.set_input_files("#try-audio input[type=file]", tmp_path / "mug.wav")
    page.wait_for_selector("#try-audio .waveform-container")
    page.click("#try-button")
    expect(page.locator("#try-result")).to_contain_text("Heard: “red mug”")
    expect(page.locator("#try-result")).to_contain_text("Mug")


def get(address, path="/", **headers):
    url = urlparse(address)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def test_the_page_answers_to_its_own_names_alone_and_says_what_browsers_may_do(address):
    port = urlparse(address).port
    for name in (f"localhost:{port}", f"127.0.0.1:{port}", "localhost"):
        response = get(address, Host=name)
        assert response.status == 200
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    for name in (f"attacker.example:{port}", "127.0.0.1.attacker.example", "", "localhost:x"):
        for path in ("/", "/config", "/gradio_api/queue/join"):
            assert get(address, path, Host=name).status == 421


def test_reviewers_log_in_and_their_verdicts_carry_that_name(browser, shop, tmp_path, monkeypatch):
    predictions, started = [], CatalogPredictions.start
    monkeypatch.setattr(CatalogPredictions, "start", lambda self: predictions.append(self) or started(self))

    def start(port=None):
        app = review.build_app(str(shop / "model"), str(shop / "shop.yaml"), str(tmp_path / "feedback.db"))
        return app, launch(app, port=port, people=[("ben", "a long password")], logins=tmp_path / "people.txt",
                           block=False, quiet=True)

    app, address = start()
    try:
        assert get(address, "/config").status == 401
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.locator("input[type=password]").fill("a long password")
        page.locator("input:not([type=password]), textarea").first.fill("ben")
        page.get_by_role("button", name="Login").click()
        expect(page.locator(".bar")).to_contain_text("of 4 judged")
        expect(page.locator("#reviewer textarea, #reviewer input")).to_be_disabled()
        expect(page.locator("#reviewer textarea, #reviewer input")).to_have_value("ben")
        open_product(page, "P2")
        chip(page, "Blue").locator(".label").click()
        page.keyboard.press("a")
        expect(page.locator(".bar")).to_contain_text("1 of 4 judged")
        assert {name for name, in stored(tmp_path, "reviewer")} == {"ben"}

        app.close()
        app, _ = start(app.server_port)  # the page that is open goes on
        while "P2" not in predictions[-1].row_of:
            page.wait_for_timeout(50)
        for _ in range(20):  # a click is refused, and the page says so, until it has found the server again
            chip(page, "Blue").locator(".label").click()
            page.keyboard.press("u")
            try:
                expect(chip(page, "Blue")).to_have_class(re.compile("unsure"), timeout=3_000)
                break
            except AssertionError:
                continue
        expect(chip(page, "Blue")).to_have_class(re.compile("unsure"))
        expect(page.locator(".product")).to_have_attribute("data-product", "P2")
        page.reload()
        expect(page.locator(".bar")).to_contain_text("1 of 4 judged")
        expect(page.locator("#reviewer textarea, #reviewer input")).to_have_value("ben")
        assert stored(tmp_path, "reviewer", "product", "tag", "decision")[-1] == ("ben", "P2", "Blue", "unsure")
    finally:
        app.close()
