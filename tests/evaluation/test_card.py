import csv
import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.calibration import fit_calibration
from hf_tagger.evaluation.card import write_card
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.report import ReportData, write_report
from hf_tagger.evaluation.results import ProtocolResult, write_results
from hf_tagger.evaluation.settings import CalibrationSettings
from tests.evaluation.splits import a_split

TEMPLATE = Path(__file__).parents[2] / "model_cards" / "template.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards") / "shop-tagger"
    folder.mkdir()
    (folder / "provenance.json").write_text(json.dumps({
        "data_fingerprint": "300:abc", "rows": {"total": 300, "refused": 2}, "git_revision": "f00", "seconds": 5400,
        "versions": {"torch": "2.15"}, "processes": 1, "machine": {"cpu": "Some CPU", "cores": 2, "gpu": None}}))
    (folder / "vocabulary.json").write_text(json.dumps({"rows_per_language": {"de": 200, "pt-br": 90, "": 8}}))
    (folder / "training_config.yaml").write_text(yaml.safe_dump({
        "catalog": {"source": {"path": "/home/somebody/shop.csv"}, "schema": {"text": ["title"], "images": "photo"}}}))
    attributes, _ = fit_calibration(a_split(300, 0), CalibrationSettings())
    split = a_split(200, 1)
    split.about = [{"text": "t", "language": "de", "photos": 1, "kept": {}} for _ in range(200)]
    results = [ProtocolResult.of(name, split.decided(attributes), resamples=20) for name in ("all", "text only")]
    baselines = {"rules": {"all": ProtocolResult.of("all", a_split(200, 2), resamples=0).plain()}}
    about = {"split": "test", "dataset": "shop", "model": "m", "catalogue": "c"}
    data = ReportData.of("x", about, results, None, baselines)
    write_report(folder / "evaluation", data)
    command = ["hf_tagger evaluate", "/home/somebody/shop-tagger", "shop.yaml"]
    write_card(TEMPLATE, folder / "README.md", data, str(folder), command, folder / "evaluation")
    return folder, (folder / "README.md").read_text(encoding="utf-8"), data


def test_the_hub_can_read_its_metadata_and_results(written):
    folder, _, data = written
    card = ModelCard.load(folder / "README.md")
    assert card.data.language == ["de", "pt"] and "product-tagging" in card.data.tags
    results = {(result.dataset_config, result.metric_type): result for result in card.data.eval_results}
    assert set(results) == {(protocol, metric) for protocol in ("all", "text only")
                            for metric in ("micro_f1", "macro_f1", "subset_accuracy")}  # fmt: skip
    one = results["all", "macro_f1"]
    assert one.metric_value == pytest.approx(data.results[0].values["macro_f1"], abs=1e-4)
    assert (one.dataset_name, one.dataset_split, one.dataset_revision) == ("shop", "test", "300:abc")


def test_it_says_what_the_house_asks_of_a_card(written):
    _, text, data = written
    for heading in ("How to use it", "Intended use", "Results", "Against baselines", "Calibration", "Weak tags",
                    "Training data", "Training", "Limitations", "Environmental cost"):  # fmt: skip
        assert f"## {heading}\n" in text
    assert 'pipeline("product-tagging", model="shop-tagger")' in text
    assert "`300:abc`" in text and "total 300" in text and "de 200, pt-br 90" in text and "torch 2.15" in text
    assert "1.50 hours on 2 cores of Some CPU" in text and "rules" in text
    value = data.results[0].summary["colour/accuracy"]
    low, high = (f"{value[bound]:.3f}".removeprefix("0") for bound in ("low", "high"))
    assert f"[{low}, {high}]" in text
    weak = [row for row in data.results[0].per_tag if row["support"] >= 3 and row["f1"] < 0.5]
    assert weak and all(f"- {row['attribute']}: {row['tag']} (F1 " in text for row in weak)
    assert "{{" not in text and "{%" not in text and "\n\n\n" not in text
    rows = [line for line in text.splitlines() if line.startswith("| colour |")]
    assert len(rows) == 3 and "|\n\n|" not in text, "tables must not fall apart"


def test_no_path_of_the_machine_is_in_it_and_every_figure_is_there(written):
    folder, text, _ = written
    assert "/home/" not in text and "shop.csv" in text and str(folder.parent) not in text
    figures = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(figures) == 2 and all((folder / figure).is_file() for figure in figures)


def test_a_card_elsewhere_names_no_figures_that_are_not_beside_it(written, tmp_path):
    folder, _, data = written
    path = tmp_path / "cards" / "shop.md"
    card = write_card(TEMPLATE, path, data, str(folder), ["evaluate.py"], folder / "evaluation")
    assert "![" not in card.text and path.is_file()
    with pytest.raises(ConfigError, match="no card template"):
        write_card(tmp_path / "none.md", tmp_path / "x.md", data, str(folder), [], folder)


def test_a_version_tells_its_lineage(written, tmp_path):
    folder, _, data = written
    lineage = {"version": 3, "parent": 1, "made_by": "heads", "at": "2026-07-01T00:00:00+00:00", "verdicts": 70,
               "scores": {"before": {"macro_f1": 0.5}, "after": {"macro_f1": 0.625}},
               "added_tags": {"colour": ["Teal"]}}
    (tmp_path / "lineage.json").write_text(json.dumps(lineage))
    text = write_card(TEMPLATE, tmp_path / "README.md", data, str(tmp_path), [], folder / "evaluation").text
    assert "Version 3, made from version 1 by learning from 70 settled verdicts" in text
    assert "| | version 1 | this version |\n|---|---|---|\n| macro_f1 | 0.5 | 0.625 |\n" in text
    assert "Tags added to colour: Teal." in text and "\n\n\n" not in text


def test_a_card_tells_no_credentials(written, tmp_path):
    folder, _, data = written
    config = {"catalog": {"source": {"path": "s3://key:s3cret@shop/products.parquet?token=s3cret"}}}
    (tmp_path / "training_config.yaml").write_text(yaml.safe_dump(config))
    command = ["evaluate.py", "--catalog.source.path", "s3://key:s3cret@shop/products.parquet"]
    text = write_card(TEMPLATE, tmp_path / "README.md", data, str(tmp_path), command, folder / "evaluation").text
    assert "s3://***@shop/products.parquet" in text and "s3cret" not in text


def shop_split(tags, attribute="colour"):
    """A split whose first attribute and its tags have these names."""
    attributes = [{"name": attribute, "kind": "single", "tags": tags},
                  {"name": "uses", "kind": "multi", "tags": ["u", "v", "rare"]}]
    split = a_split(60, 3)
    named = [{attribute: [tags["abc".index(tag)] for tag in given["colour"]], "uses": given["uses"]}
             for given in split.tags]
    split = Predictions(attributes, split.ids, named, logits=split.logits).decided(attributes)
    split.about = [{"text": "t", "language": "de", "photos": 1, "kept": {}} for _ in range(60)]
    return split


def test_what_shops_write_is_no_html_and_no_table_of_the_card(tmp_path):
    result = ProtocolResult.of("<script>", shop_split(["x", "<b>Red", "c"], "<img src=x> | colour"), resamples=0)
    about = {"split": "test", "dataset": "shop", "model": "m", "catalogue": "c"}
    data = ReportData.of("x", about, [result], None, {"<i>rules": {"<script>": result.plain()}})
    write_card(TEMPLATE, tmp_path / "README.md", data, "shop/tagger", ["hf_tagger evaluate"], tmp_path)
    body = (tmp_path / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    assert re.findall(r"<\w+", body.replace("<details", "").replace("<summary", "")) == []
    assert r"| &lt;img src=x&gt; \| colour | " in body and "&lt;i&gt;rules" in body


def test_a_tag_that_a_spreadsheet_would_compute_is_text(tmp_path):
    write_results(tmp_path, [ProtocolResult.of("all", shop_split(["=1+1", "+b", "c"]), resamples=0)], {})
    with open(tmp_path / "per_tag.csv", newline="", encoding="utf-8") as file:
        assert [row["tag"] for row in csv.DictReader(file)][:3] == ["'=1+1", "'+b", "c"]
