"""The review page, written and then used in a real browser where there is one."""

import base64
import html
import io
import re
import shutil
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_tagger.catalog.reading.labels import Labels
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import build
from hf_tagger.evaluation.label_issues import LabelIssues, Suspect
from hf_tagger.evaluation.pages import csp_hash
from hf_tagger.evaluation.review import write_review, write_suspects
from tests.catalog.files import photo

ATTRIBUTES = [{"name": "colour", "kind": "single", "tags": ["Red", "Blue", 'Off "white"']},
              {"name": "features", "kind": "multi", "tags": ["New", "Old"]}]  # fmt: skip
SCHEMA = build(CatalogSchema, {"id": "id", "text": "title", "attributes": {
    "colour": {}, "features": {"kind": "multi", "format": "list"}}})  # fmt: skip
SUSPECTS = [
    Suspect(2, "colour", ("Red",), ('Off "white"',), 0.9),
    Suspect(0, "features", ("New", "Old"), (), 0.8),
    Suspect(1, "colour", (), ("Blue",), 0.7),
    Suspect(0, "colour", ("Red",), ("Blue",), 0.6),
    Suspect(3, "colour", ("Blue",), ("Red",), 0.5),
]
IDS = ["1", "</script><b>,2", "3", "4"]


def record(product, text="Mug", images=()):
    return {"id": product, "text": text, "language": "en", "images": list(images)}


@pytest.fixture
def page(tmp_path):
    issues = LabelIssues(SUSPECTS, {"colour": {"Mauve": 2, "": 1}, "features": {}}, {"colour": 4, "features": 4},
                         {"colour": 2.6, "features": 1.0})  # fmt: skip
    records = [record("1", "<img src=x onerror=alert(1)> mug", [photo("red", (600, 300))]), record(IDS[1]),
               record("3", None, ["no/such/photo.jpg", photo()]), record("4"), record("5")]  # fmt: skip
    path = tmp_path / "review.html"
    write_review(path, issues, IDS, ATTRIBUTES, records, most=4, title="Shop & labels")
    return path


def test_the_page_shows_the_most_suspicious_with_their_photos_small(page):
    text = page.read_text()
    assert text.count("<article") == 4 and "Shop &amp; labels" in text
    photos = [Image.open(io.BytesIO(base64.b64decode(data))) for data in
              re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)]  # fmt: skip
    assert [image.size for image in photos] == [(8, 8), (240, 120), (240, 120)]
    assert "Mauve (2), none (1)" in text and "4 of 5 suspected labels" in text


def test_texts_and_ids_of_the_catalogue_stay_text(page):
    text = page.read_text()
    assert "<img src=x" not in text and "&lt;img src=x" in text
    assert text.count("</script>") == 1


def test_the_parquet_file_holds_ranks_and_tags(tmp_path):
    write_suspects(tmp_path / "suspects.parquet", LabelIssues(SUSPECTS, {}, {}, {}), IDS)
    rows = pq.read_table(tmp_path / "suspects.parquet").to_pylist()
    assert [(row["rank"], row["id"], row["suggested"]) for row in rows[:2]] == [(1, "3", ['Off "white"']), (2, "1", [])]
    assert np.allclose([row["score"] for row in rows], [0.9, 0.8, 0.7, 0.6, 0.5])


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no chromium to open the page in")


def used(page, actions):
    """The page's count and its corrections, read back, after these actions on its `articles`."""
    script = f"""
      const articles = document.querySelectorAll("article");
      const press = (number, choice) => articles[number].querySelector(`[data-choice=${{choice}}]`).click();
      {actions}
      const result = document.createElement("pre");
      result.id = "result";
      result.textContent = document.getElementById("count").textContent + "\\n" + csv();
      document.body.append(result);
    """
    driven = page.with_name("driven.html")
    text = page.read_text().replace("</body>", f"<script>{script}</script></body>")
    driven.write_text(text.replace("script-src ", f"script-src {csp_hash(script)} "))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
               "--disable-background-networking", "--disable-component-update",
               f"--user-data-dir={page.with_name('profile')}", "--dump-dom", driven.as_uri()]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    counted, _, table = html.unescape(re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)[1]).partition("\n")
    corrected = page.with_name("corrected.csv")
    corrected.write_text(table)
    return counted, Labels(corrected, SCHEMA).tags


@needs_browser
def test_what_is_chosen_on_the_page_is_a_file_of_corrections(page):
    counted, tags = used(page, """press(0, "take"); press(2, "keep"); press(3, "take"); press(3, "take");
        press(1, "other"); articles[1].querySelector("input[value=Old]").click();""")
    # The second press of a choice takes it back.
    assert counted == "3 of 4 looked at, 2 to correct"
    assert tags == {"3": {"colour": ['Off "white"']}, "1": {"features": ["Old"]}}


@needs_browser
def test_not_known_is_an_answer_and_an_id_with_markup_survives(page):
    _, tags = used(page, """press(2, "other"); [...articles[2].querySelectorAll("input")].at(-1).click();""")
    assert tags == {IDS[1]: {"colour": None}}


@needs_browser
def test_no_other_script_runs_on_the_page(page):
    counted, _ = used(page, """const other = document.createElement("script");
        other.textContent = 'document.getElementById("count").textContent = "taken over";';
        document.body.append(other);""")
    assert counted == "0 of 4 looked at, 0 to correct"
