"""The recipe on a tiny trained tagger: within the test where only files matter, in other processes where these do."""

import csv
import json
import shutil

import pyarrow.parquet as pq
import pytest
import yaml
from accelerate.state import AcceleratorState
from huggingface_hub import ModelCard
from transformers import pipeline

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes import evaluate_tagger
from tests.catalog.files import write_parquet
from tests.database_shop import write_database
from tests.processes import run_recipe
from tests.shops import SCHEMA, shop_rows
from tests.tiny_tagger import trained_tagger


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with a model, its training configuration and a catalogue of two splits."""
    folder = tmp_path_factory.mktemp("shop")
    model, processor = trained_tagger()
    ProductTaggingPipeline(model, processor=processor).save_pretrained(folder / "model")
    for split, (start, stop) in {"validation": (0, 60), "test": (60, 140)}.items():
        write_parquet(folder / f"{split}.parquet", shop_rows(start, stop))
    files = {split: str(folder / f"{split}.parquet") for split in ("validation", "test")}
    config = {"catalog": {"source": {"files": files}, "schema": SCHEMA},
              "training": {"loader": {"batch_size": 8, "num_workers": 0}},
              "evaluation": {"protocols": {"everything": {}, "half blind": {"without": ["text"]}}}}  # fmt: skip
    (folder / "model" / "training_config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def run_here(shop, capsys):
    """main() in this process: (exit status, printed, stderr)."""
    AcceleratorState._reset_state(True)

    def run(model, catalogue, *arguments):
        status = evaluate_tagger.main([str(shop / model), str(shop / catalogue), "--resamples", "50", *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    yield run
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def evaluated(shop):
    """What the recipe wrote, as a process started in another folder."""
    run_recipe("evaluate_tagger", "model", "model/training_config.yaml", "--slices", "brand", "--resamples", 100,
               "--card", "card.md", cwd=shop)  # fmt: skip
    return shop / "model" / "evaluation"


def test_the_standard_protocols_come_under_the_configurations_names_where_it_has_them(evaluated):
    metrics = json.loads((evaluated / "metrics.json").read_text())
    assert list(metrics["protocols"]) == ["everything", "text only", "half blind"]
    products = {name: result["products"] for name, result in metrics["protocols"].items()}
    rows = shop_rows(60, 140)
    assert products == {"everything": len(rows), "text only": sum(bool(row["title"]) for row in rows),
                        "half blind": sum(bool(row["image"]) for row in rows)}  # fmt: skip
    assert metrics["split"] == "test" and metrics["machine"]["cores"]


def test_every_metric_is_there_overall_per_attribute_per_slice_with_intervals(evaluated):
    result = json.loads((evaluated / "metrics.json").read_text())["protocols"]["everything"]
    assert {"micro_f1", "macro_f1", "weighted_f1", "map", "log_loss", "ece", "subset_accuracy", "f1@1", "f1@3",
            "f1@5"} == set(result["overall"])  # fmt: skip
    colour = result["attributes"]["colour"]
    ratios = ("precision", "recall", "f1")
    averages = {f"{average}_{name}" for average in ("micro", "macro", "weighted") for name in ratios}
    assert set(colour) == averages | {"accuracy", "log_loss", "coverage", "ece", "average_precision"}
    assert 0.8 < colour["accuracy"]["low"] <= colour["accuracy"]["value"] <= colour["accuracy"]["high"] <= 1
    assert set(result["slices"]) == {"language", "modalities", "brand"}
    assert set(result["slices"]["modalities"]) == {"text and photo", "text only", "photo only"}
    brands = {value: entry["products"] for value, entry in result["slices"]["brand"].items()}
    assert sum(brands.values()) == result["products"] and set(brands) == {"Acme", "(empty)"}
    assert result["slices"]["language"]["de"]["colour/accuracy"]["value"] > 0.8


def test_a_tag_the_model_never_saw_is_listed_and_missed(evaluated):
    result = json.loads((evaluated / "metrics.json").read_text())["protocols"]["everything"]
    teal = sum(row["colour"] == "Teal" for row in shop_rows(60, 140))
    assert result["unseen_tags"] == {"colour": {"Teal": teal}} and teal
    with open(evaluated / "per_tag.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["tag"] == "Teal"]
    assert [row["protocol"] for row in rows] == ["everything", "text only", "half blind"]
    assert float(rows[0]["f1"]) == 0 and int(rows[0]["support"]) == teal


def test_predictions_tell_what_was_given_and_what_the_pipeline_would_say(shop, evaluated):
    table = pq.read_table(evaluated / "predictions.parquet")
    rows = [row for row in table.to_pylist() if row["protocol"] == "everything"]
    given = {row["sku"]: row for row in shop_rows(60, 140)}
    assert {row["id"] for row in rows} == set(given)
    names = json.loads(table.schema.metadata[b"tags"])
    tagger = pipeline("product-tagging", model=str(shop / "model"))
    for row in rows[:12]:
        source = given[row["id"]]
        assert row["colour.given"] == [source["colour"]] and row["text"] == source["title"]
        assert row["category.given"] == (source["category"] and [source["category"]])
        product = {"title": source["title"], "image": source["image"]}
        tags = tagger({key: value for key, value in product.items() if value})
        for name in ("colour", "category", "features"):
            assert sorted(row[f"{name}.predicted"]) == sorted(t["label"] for t in tags if t["attribute"] == name)
        scores = {tuple(name): score for name, score in zip(names, row["scores"], strict=True)}
        for tag in tags:
            assert scores[tag["attribute"], tag["label"]] == pytest.approx(tag["score"], abs=1e-4)


def test_two_processes_count_every_product_once(shop, evaluated, tmp_path):
    run_recipe("evaluate_tagger", "model", "model/training_config.yaml", "--resamples", 0, "--output_dir", tmp_path,
               cwd=shop, processes=2)  # fmt: skip
    one, two = (pq.read_table(folder / "predictions.parquet").to_pylist() for folder in (evaluated, tmp_path))
    one, two = ({(row["id"], row["protocol"]): row for row in rows} for rows in (one, two))
    assert len(one) == len(two) and one.keys() == two.keys()
    for key, row in one.items():
        assert two[key]["scores"] == pytest.approx(row["scores"], abs=1e-4)


def test_calibrating_changes_the_stored_model_and_what_the_pipeline_says(shop, run_here, tmp_path):
    shutil.copytree(shop / "model", tmp_path / "model")
    own = "{colour: {objective: precision, target: 1.0}}"
    status, printed, _ = run_here(tmp_path / "model", "model/training_config.yaml", "--calibrate",
                                  "--calibration.attributes", own)  # fmt: skip
    assert status == 0 and "calibrated on" in printed
    attributes = json.loads((tmp_path / "model" / "config.json").read_text())["attributes"]
    colour, category, features = attributes
    assert colour["temperature"] > 0 and len(colour["thresholds"]) == 2
    assert "thresholds" not in category and len(features["thresholds"]) == 2
    fitted = json.loads((tmp_path / "model" / "evaluation" / "metrics.json").read_text())["calibration"]
    assert (tmp_path / "model" / "README.md").is_file()
    assert fitted["colour"]["objective"] == "precision" and fitted["features"]["log_loss_after"] >= 0
    config = tmp_path / "model" / "config.json"
    colour["thresholds"] = [1.1, 0.0]
    config.write_text(json.dumps(json.loads(config.read_text()) | {"attributes": attributes}))
    tags = pipeline("product-tagging", model=str(tmp_path / "model"))("red mug")
    assert "colour" not in {tag["attribute"] for tag in tags} and "category" in {tag["attribute"] for tag in tags}


def test_a_report_and_a_card_come_with_it(shop, evaluated):
    assert (evaluated / "report.html").read_text(encoding="utf-8").count("<svg ") == 6
    assert len(list((evaluated / "figures").glob("*.png"))) >= 2
    card = ModelCard.load(shop / "card.md")
    assert {result.dataset_config for result in card.data.eval_results} == {"everything", "text only", "half blind"}


def test_a_path_is_read_by_the_models_own_schema(shop, run_here, tmp_path):
    status, _, message = run_here("model", "test.parquet", "--output_dir", str(tmp_path))
    assert status == 0, message
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["protocols"]["everything"]["products"] == len(shop_rows(60, 140))


def test_a_database_gives_the_figures_of_the_file_that_it_was_made_of(shop, evaluated, run_here, tmp_path):
    url = write_database(tmp_path / "shop.db", shop_rows(60, 140))
    arguments = ["--resamples", "50", "--output_dir", str(tmp_path), "--catalog.source.table", "products"]
    assert evaluate_tagger.main([str(shop / "model"), url, *arguments]) == 0
    metrics, expected = (json.loads((folder / "metrics.json").read_text())["protocols"]["everything"]
                         for folder in (tmp_path, evaluated))
    assert (metrics["products"], metrics["overall"]["micro_f1"]["value"]) == (
        expected["products"], pytest.approx(expected["overall"]["micro_f1"]["value"]))
    status, _, message = run_here("model", "test.parquet", "--catalog.source.table", "products")
    assert status == 2 and "table, query and key are for a database" in message


def test_tags_in_another_spelling_are_the_models_own(shop, evaluated, run_here, tmp_path):
    rows = [row | {"colour": row["colour"].upper(), "category": (row["category"] or "").lower() or None}
            for row in shop_rows(60, 140)]  # fmt: skip
    path = write_parquet(tmp_path / "test.parquet", rows)
    assert run_here("model", path, "--output_dir", str(tmp_path))[0] == 0
    metrics, expected = (json.loads((folder / "metrics.json").read_text())["protocols"]["everything"]
                         for folder in (tmp_path, evaluated))
    assert metrics["overall"]["micro_f1"]["value"] == pytest.approx(expected["overall"]["micro_f1"]["value"])


@pytest.mark.parametrize("missing", ["image", "title"])
def test_where_a_modality_is_absent_its_protocol_is_left_out_and_said_so(run_here, tmp_path, missing):
    rows = [row | {missing: None} for row in shop_rows(60, 140) if row["title"] and row["image"]]
    test = write_parquet(tmp_path / "test.parquet", rows)
    status, printed, message = run_here("model", test, "--output_dir", str(tmp_path), "--card", str(tmp_path / "c.md"))
    assert status == 0, message
    scored = json.loads((tmp_path / "metrics.json").read_text())["protocols"]
    gone = {"image": ["half blind"], "title": ["text only"]}[missing]
    assert list(scored) == [name for name in ("everything", "text only", "half blind") if name not in gone]
    assert f'note: "{gone[0]}" is left out: no product of the split has what it looks at' in printed
    assert scored["everything"]["products"] == len(rows)


def test_encoding_and_delimiter_are_the_trainings_and_refused_rows_are_said_first(shop, run_here, tmp_path):
    shutil.copytree(shop / "model", tmp_path / "model")
    schema = {"id": "sku", "text": ["title"], "attributes": {"colour": {}, "category": {}}}
    source = {"path": "shop.csv", "encoding": "cp1252", "delimiter": "¦"}
    (tmp_path / "model" / "training_config.yaml").write_text(yaml.safe_dump({"catalog": {"source": source,
                                                                                         "schema": schema}}))
    lines = ["sku¦title¦colour¦category", *(f"{n}¦Tasse für {n}¦Red¦Mug" for n in range(20)), "20¦¦Red¦Mug", "21¦a"]
    (tmp_path / "new.csv").write_bytes("\n".join(lines).encode("cp1252"))
    status, printed, message = run_here(tmp_path / "model", tmp_path / "new.csv", "--output_dir", str(tmp_path / "out"))
    assert status == 0, message
    assert printed.splitlines()[-1] == "22 rows: 21 used, 1 set aside"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<p>22 rows: 21 used, 1 set aside:\n  1 × no_content" in page and "1 × short_row" in page
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["protocols"]["all"]["products"] == 21


def test_what_the_scores_leave_out_is_said(shop, run_here, tmp_path):
    attributes = ("{colour: {}, features: {kind: multi, format: list}, brand: {}, "
                  "category: {unknown_values: [Mug, Dress]}}")  # fmt: skip
    status, printed, _ = run_here("model", "model/training_config.yaml", "--output_dir", str(tmp_path),
                                  "--catalog.schema.attributes", attributes)  # fmt: skip
    notes = [line for line in printed.splitlines() if line.startswith("note: ")]
    assert status == 0 and len(notes) == 4
    assert "does not know them: the attributes brand" in notes[0] and "no product has a label: category" in notes[1]
    assert "colour: 1 never seen in training, so counted as missed: Teal (4)" in notes[2]
    assert "so 0.5: features; fit them with --calibrate" in notes[3]
    assert json.loads((tmp_path / "metrics.json").read_text())["protocols"]["everything"]["remarks"][0] in notes[0]


@pytest.mark.parametrize(("arguments", "message"), [
    (("nowhere", "model/training_config.yaml"), "there is no model folder"),
    ((".", "model/training_config.yaml"), "holds no model"),
    (("model", "missing.yaml"), "there is no configuration file"),
    (("model", "missing.parquet"), "No catalogue file at"),
    (("model", "model/training_config.yaml", "--evaluation.split", "tests"), 'no split "tests". Did you mean "test"'),
    (("model", "model/training_config.yaml", "--slices", "brnd"),
     'no column "brnd" (schema: keep). Did you mean "brand"'),
    (("model", "model/training_config.yaml", "--calibrate", "--evaluation.validation", "dev"), 'no split "dev"'),
    (("model", "model/training_config.yaml", "--calibrate", "--calibration", "null"), "calibration is null"),
    (("model", "model/training_config.yaml", "--baselines", "none.json"), "there is no file none.json"),
    (("model", "model/training_config.yaml", "--catalog.schema.attributes", "{brand: {}}"),
     "no product of the split has a label of any attribute of the model (colour, category, features)"),
])  # fmt: skip
def test_what_is_missing_is_said_in_one_line(run_here, arguments, message):
    status, printed, error = run_here(*arguments)
    said = [line for line in error.splitlines() if line.startswith("evaluate: ")]  # beside progress bars
    assert status == 2 and len(said) == 1 and message in said[0] and "Traceback" not in error
