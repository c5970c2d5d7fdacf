import pytest
import yaml

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.settings import Protocol, load_evaluation

SHOP = {"source": {"path": "train.csv"}, "schema": {"text": "title", "attributes": {"colour": {}}}}


@pytest.fixture
def write(tmp_path):
    def write(data, name="shop.yaml"):
        (tmp_path / name).write_text(data if isinstance(data, str) else yaml.safe_dump(data))
        return tmp_path / name

    return write


def test_of_a_training_configuration_only_what_matters_is_read(write):
    training = {"loader": {"num_workers": 3}, "of_a_later_version": 1}
    evaluation = {"protocols": {"blind": {"without": ["image"]}}}
    config = write({"catalog": SHOP, "training": training, "logit_fusion": {"x": 1}, "evaluation": evaluation})
    settings = load_evaluation(config, "model", ["--calibration.target", "0.8", "--loader.shuffle_buffer", "5"])
    assert settings.loader.num_workers == 3 and settings.loader.shuffle_buffer == 5
    assert settings.evaluation.protocols == {"blind": Protocol(without=["image"])}
    assert settings.calibration.target == 0.8 and settings.catalog.source.path == "train.csv"


def test_source_and_schema_alone_will_do(write):
    settings = load_evaluation(write(SHOP), "model", [])
    assert settings.catalog.schema.text == ["title"] and settings.evaluation.split == "test"


def test_a_path_is_the_test_split_seen_through_the_models_schema(write, tmp_path):
    write({"catalog": SHOP, "evaluation": {"split": "validation"}}, "training_config.yaml")
    settings = load_evaluation("new.csv", tmp_path, [])
    assert settings.catalog.source.files == {"test": "new.csv"} and settings.catalog.source.path is None
    assert settings.evaluation.split == "test" and "colour" in settings.catalog.schema.attributes


@pytest.mark.parametrize(("data", "arguments", "message"), [
    ({"catalog": SHOP}, ["--evaluation.splitt", "test"], 'Unknown key "evaluation.splitt". Did you mean "split"'),
    ({"catalog": SHOP}, ["--training.loader.batch_size", "2"], 'Unknown key "training"'),
    ({"catalogue": SHOP}, [], 'Missing key "catalog"'),
    ("catalog: [", [], "not valid YAML"),
    ("- 1", [], "expected keys and values"),
])  # fmt: skip
def test_what_does_not_fit_is_named(write, data, arguments, message):
    with pytest.raises(ConfigError, match=message):
        load_evaluation(write(data), "model", arguments)


@pytest.mark.parametrize(("config", "message"), [
    (None, "give a YAML file with source and schema"),
    ({"catalog": {"synthetic": {}}}, "made-up catalogue"),
])  # fmt: skip
def test_a_path_needs_a_model_that_knows_how_to_read_it(write, tmp_path, config, message):
    if config:
        write(config, "training_config.yaml")
    with pytest.raises(ConfigError, match=message):
        load_evaluation("new.csv", tmp_path, [])


def test_an_export_of_a_known_system_is_read_in_all_its_locales(write, tmp_path):
    export = write("sku;categories;family;name-en_US;name-de_DE;description-de_DE-print\n1;a;b;Lamp;;\n", "a.csv")
    settings = load_evaluation(export, str(tmp_path), [])
    assert settings.catalog.source.profile == "akeneo"
    assert settings.catalog.schema.text == ["name-en_US", "name-de_DE", "description-de_DE-print"]
