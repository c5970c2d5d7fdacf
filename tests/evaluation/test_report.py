import re
from html.parser import HTMLParser

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from hf_tagger.catalog.synthetic.pictures import encode_jpeg
from hf_tagger.evaluation import plots
from hf_tagger.evaluation.calibration import fit_calibration
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.report import ReportData, thumbnails, write_report
from hf_tagger.evaluation.results import ProtocolResult
from hf_tagger.evaluation.settings import CalibrationSettings
from tests.catalog.files import catalog, shirts_schema, write_parquet
from tests.evaluation.splits import a_split, some_predictions
from tests.tiny_tagger import photo

ABOUT = {"model": "runs/shop", "catalogue": "shop.yaml", "split": "train"}


class Page(HTMLParser):
    """Collects tags and text; fails on a tag closed out of turn."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    validation, split = a_split(300, 0), a_split(200, 1)
    attributes, _ = fit_calibration(validation, CalibrationSettings())
    split.about = [{"text": "<b>Bold</b> & “quoted”", "language": "de" if row % 2 else "en", "photos": 1, "kept": {}}
                   for row in range(200)]  # fmt: skip
    split = split.decided(attributes)
    rows = [{"id": str(row), "title": "shirt", "colour": "a", "image": encode_jpeg(photo(seed=row))}
            for row in range(200)]  # fmt: skip
    shop = catalog(write_parquet(folder / "shop.parquet", rows), shirts_schema(images="image"))
    main = ProtocolResult.of("all", split, resamples=20)
    baselines = {"rules": {"all": ProtocolResult.of("all", a_split(200, 2), resamples=20).plain()}}
    data = ReportData.of("How good is <shop>?", ABOUT, [main], shop, baselines)
    path = write_report(folder / "out", data)
    return folder / "out", path.read_text(encoding="utf-8"), data


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(page):
    _, text, _ = page
    parsed = Page(text)
    for tag, attributes in parsed.tags:
        source = attributes.get("src") or attributes.get("href") or attributes.get("xlink:href") or ""
        assert source.startswith(("data:", "#")) or not source, (tag, source)
    assert "default-src 'none'" in text
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    ids = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    links = {attributes["href"][1:] for tag, attributes in parsed.tags if tag == "a"}
    assert len(links) > 8 and links <= ids
    assert len(text) < 2_000_000


def test_what_shops_write_is_shown_as_text(page):
    _, text, _ = page
    assert "&lt;b&gt;Bold&lt;/b&gt; &amp;" in text and "<b>Bold" not in text and "How good is &lt;shop&gt;?" in text


def test_it_shows_baselines_calibration_slices_and_thresholds(page):
    _, text, data = page
    words = " ".join(Page(text).words)
    assert "rules" in words and "calibration error before" in words and "language" in words
    for entry in data.results[0].predictions.attributes:
        for tag, threshold in zip(entry["tags"], entry.get("thresholds") or [], strict=False):
            assert f"<td>{tag}</td><td>{threshold:.3f}".replace("0.", ".") in text
    shown = f"{data.results[0].values['micro_f1']:.3f}".removeprefix("0")
    assert f"<b>{shown}</b>" in text


def test_the_gallery_shows_each_products_own_photo(page):
    _, text, data = page
    wanted = {case.id for case in data.mistakes + data.uncertain}
    assert wanted and set(data.photos) == wanted and len(set(data.photos.values())) > 5
    assert text.count("<img ") == len(data.mistakes) + len(data.uncertain)
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in data.photos.values())


def test_figures_take_the_colours_of_the_page_and_are_also_pictures(page):
    folder, text, data = page
    assert text.count("<svg ") == sum(len(panels) for panels in data.figures.values()) >= 4
    svgs = re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL)
    assert all("var(--ink)" in svg and "var(--accent)" in svg and 'aria-label="' in svg for svg in svgs)
    assert not re.search(r"(fill|stroke): #(?!none)[0-9a-f]{6}", "".join(svgs).replace("#ffffff", ""))
    for name in ("reliability", "precision_recall"):
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert picture.width > 500 and np.asarray(picture.convert("L"))[0, 0] == 255


def test_without_photos_thresholds_or_training_counts_there_is_still_a_report(tmp_path):
    split = a_split(60, 3)
    split.about = [{"text": None, "language": None, "photos": 1, "kept": {}} for _ in range(60)]
    split.logits = None
    data = ReportData.of("plain", ABOUT, [ProtocolResult.of("all", split, resamples=0)])
    text = write_report(tmp_path, data).read_text()
    Page(text)
    assert data.uncalibrated is None and data.figures["f1_by_frequency"] == [] and "no photo" in text


def test_of_paths_the_hierarchical_f1_is_reported_and_of_each_language_its_own(tmp_path):
    path = {"name": "path", "kind": "multi", "tags": ["Men", "Tops", "Jeans"],
            "parents": {"Tops": "Men", "Jeans": "Men"}}
    # Stops at the inner node, is wrong about the leaf, is right; none of it is said of the last one.
    scores = np.array([[0.9, 0.1, 0.2], [0.9, 0.1, 0.8], [0.9, 0.9, 0.1], [0.1, 0.1, 0.1]], np.float32)
    given = [["Men", "Tops"], ["Men", "Tops"], ["Men", "Tops"], ["Men", "Jeans"]]
    about = [{"text": "t", "language": language, "photos": 0, "kept": {}} for language in ("de", "de", "en", "en")]
    found = Predictions([path], list("abcd"), [{"path": tags} for tags in given], scores, about=about).decided([path])
    result = ProtocolResult.of("all", found, resamples=0)
    plain = result.plain()
    # Nodes that are right, said and given: 1 + 1 + 2 + 0, 1 + 2 + 2 + 0, 4 x 2.
    assert plain["attributes"]["path"]["hierarchical_f1"]["value"] == pytest.approx(2 * 4 / (5 + 8))
    german, english = (plain["slices"]["language"][name]["micro_f1"]["value"] for name in ("de", "en"))
    assert (german, english) == (pytest.approx(2 * 2 / (3 + 4)), pytest.approx(2 * 2 / (2 + 4)))
    page = Page(write_report(tmp_path, ReportData.of("x", ABOUT, [result])).read_text())
    words = " ".join(" ".join(page.words).split())
    assert ".615 hierarchical" in words and "de 2 " in words and ".571" in words and ".667" in words


def test_thumbnails_skip_unreadable_photos(tmp_path):
    rows = [{"id": "1", "title": "a", "colour": "a", "image": b"broken"},
            {"id": "2", "title": "a", "colour": "a", "image": encode_jpeg(photo(size=400))}]  # fmt: skip
    shop = catalog(write_parquet(tmp_path / "shop.parquet", rows), shirts_schema(images="image"))
    found = thumbnails(shop, "train", {"1", "2", "3"})
    assert set(found) == {"2"} and len(found["2"]) < 20_000


def test_a_precision_recall_curve_passes_through_known_points():
    references, scores = np.array([[1], [0], [1], [0], [-100]]), np.array([[0.9], [0.8], [0.7], [0.1], [0.95]])
    panel = plots.precision_recall("x", references, scores, (0.5, 1.0))
    axes = matplotlib.figure.Figure().add_subplot()
    panel.draw(axes)
    x, y = axes.lines[0].get_data()
    assert list(zip(x.round(3), y.round(3), strict=True)) == [(0.5, 1.0), (1.0, 0.667)]


def test_tags_are_drawn_by_their_training_counts():
    rows = ProtocolResult.of("all", some_predictions(), resamples=0).per_tag
    rows = [row for row in rows if row["attribute"] == "uses"]
    axes = matplotlib.figure.Figure().add_subplot()
    plots.f1_by_frequency("uses", rows).draw(axes)
    points = axes.collections[-1].get_offsets()
    assert sorted(points[:, 0].tolist()) == [0.7, 3, 70, 80, 90], "a tag never seen stands at the left edge"
