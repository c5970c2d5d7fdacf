import re
from pathlib import Path

import pytest
import yaml

from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.training.arguments import DistillSettings, RunSettings, load_run

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
SHOP = {
    "source": {"path": "shop.csv"},
    "schema": {"text": "title", "attributes": {"colour": {"kind": "single"}}},
}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"catalog": SHOP, "seed": 3, "phases": [{"name": "heads", "train": ["heads"]}, {}]}))
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_loads_and_opens_with_its_command(path):
    settings, data = load_run(path, [], DistillSettings if path.stem.startswith("distill_") else RunSettings)
    assert data["output_dir"] == settings.output_dir
    command = path.read_text(encoding="utf-8").splitlines()[0]
    recipe = re.match(r"# (?:accelerate launch|python) (recipes/\w+\.py)( |$)", command)
    assert (CONFIGS.parents[1] / recipe[1]).exists()
    # Numbers such as 1e-3 are text to YAML 1.1: they must have been read as numbers all the same.
    assert all(isinstance(phase.learning_rate, float) for phase in settings.phases)


def test_what_is_not_given_has_its_default(config):
    settings, data = load_run(config, [])
    assert settings.seed == 3 and settings.lora.rank == 8 and settings.training.loader.batch_size == 32
    assert settings.catalog.schema.attributes["colour"].kind == "single"
    assert [phase.name for phase in settings.phases] == ["heads", "fine-tune"]
    assert data["seed"] == 3


def test_any_key_can_be_overridden(config):
    settings, data = load_run(config, [
        "--training.loader.batch_size", "64", "--lora=null", "--phases.0.learning_rate", "1e-4", "--save_adapter",
        "--model.image_size", "[224, 168]", "--training.loss.logit_adjustment_tau", "0.2",
        "--phases.1.cached_views=0",
    ])  # fmt: skip
    assert settings.training.loader.batch_size == 64 and settings.lora is None and settings.save_adapter is True
    assert settings.phases[0].learning_rate == 1e-4 and settings.model.image_size == (224, 168)
    assert settings.training.loss.logit_adjustment_tau == 0.2
    assert data["training"]["loader"]["batch_size"] == 64, "the resolved configuration is what is saved"


@pytest.mark.parametrize(("argument", "value", "message"), [
    ("--training.loader.batchsize", "64", 'Unknown key "training.loader.batchsize". Did you mean "batch_size"?'),
    ("--trainin.seed", "1", 'Unknown key "trainin". Did you mean "training"?'),
    ("--phases.0.learning_rates", "1", 'Unknown key "phases.0.learning_rates". Did you mean "learning_rate"?'),
    ("--model.lexical.bucket", "1", 'Unknown key "model.lexical.bucket". Did you mean "buckets"?'),
    ("--model.words.buckets", "1", '"model.words" is now "model.lexical".'),
    ("--model.lexical.names", "true", '"model.lexical.names" is now "model.lexical.name_match".'),
    ("--model.lexical.balance", "1", '"model.lexical.balance" is now "model.lexical.class_weight_power".'),
    ("--model.lexical.masked_view", "true", '"model.lexical.masked_view" is no longer there: a second set of weights'),
    ("--model.lexical.masked_weight", "1", '"model.lexical.masked_weight" is no longer there'),
    ("--model.exemplars.count", "9", '"model.exemplars" is now "model.kernel".'),
    ("--model.kernel.count", "9", '"model.kernel.count" is no longer there: write landmarks, half as many'),
    ("--model.kernel.balance", "1", '"model.kernel.balance" is now "model.kernel.class_weight_power".'),
    ("--model.kernel.prior_adjustment", "1",
     '"model.kernel.prior_adjustment" is now "model.kernel.logit_adjustment_tau".'),
    ("--model.kernel.weights", "{colour: 1.0}", "model.kernel: weights: there is no block 'colour'"),
    ("--gate.l2", "1", '"gate" is now "logit_fusion".'),
    ("--logit_fusion.balance", "1", '"logit_fusion.balance" is now "logit_fusion.class_weight_power".'),
    ("--logit_fusion.deference", "4", '"logit_fusion.deference" is no longer there: giving way for rare tags'),
    ("--logit_fusion.shared", "1", '"logit_fusion.shared" is no longer there: every attribute has weights of its own'),
    ("--training.loss.multi", "bce", '"training.loss.multi" is no longer there: leave it out; binary cross-entropy is'),
    ("--model.fusion", "sum", "model.fusion"),
    ("--model.fusion", "gated", '"model.fusion: gated" is no longer there: write fusion: concat, the default.'),
    ("--training.loss.balance", "0.5", '"training.loss.balance" is now "training.loss.logit_adjustment_tau".'),
    ("--augmentation.balance", "0.5", '"augmentation.balance" is now "augmentation.logit_adjustment_tau".'),
    ("--augmentation.method", "mixup", '"augmentation.method: mixup" is no longer there: write method: none, logit'),
    ("--augmentation.method", "gan", '"augmentation.method: gan" is no longer there: write method: none'),
    ("--augmentation.gan.steps", "9", '"augmentation.gan.steps" is no longer there: leave it out'),
    ("--augmentation.noise", "1", '"augmentation.noise" is no longer there'),
    ("--training.loss.single", "cross_entropy", '"training.loss.single" is no longer there: leave it out'),
    ("--lora.use_rslora", "true", '"lora.use_rslora" is no longer there: multiply lora.alpha'),
    ("--seed", "many", "seed"),
    ("--phases.1.cached_views", "2", "cached_views freezes the towers, so train must be of heads and decoder"),
    ("--phases.0.epochs", "0", "trains nothing"),
    ("--phases.0.train", "[head]", "phases.0.train"),
    ("--phases.0.layer_decay", "0.9", '"phases.0.layer_decay" is no longer there: leave it out, all layers of a tower'),
    ("--catalog.synthetic", "{rows: 100}", "give source and schema (your catalogue), or synthetic"),
    ("--lora.rank", "0", "lora.rank must be at least 1"),
])  # fmt: skip
def test_what_does_not_fit_is_an_error_that_names_the_key(config, argument, value, message):
    with pytest.raises(ConfigError) as error:
        load_run(config, [argument, value])
    assert message in str(error.value)


def test_heads_alone_may_train_on_cached_views(config):
    assert load_run(config, ["--phases.0.cached_views", "2"])[0].phases[0].cached_views == 2


def test_a_configuration_without_a_catalogue_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("catalog: {}\n")
    with pytest.raises(ConfigError, match="give source and schema"):
        load_run(path, [])
    path.write_text("")
    with pytest.raises(ConfigError, match='Missing key "catalog"'):
        load_run(path, [])


def test_files_that_are_absent_or_no_yaml_are_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no configuration file .*absent.yaml"):
        load_run(tmp_path / "absent.yaml", [])
    (tmp_path / "broken.yaml").write_text("a: [1,")
    with pytest.raises(ConfigError, match="broken.yaml is not valid YAML"):
        load_run(tmp_path / "broken.yaml", [])


def test_a_phase_that_is_yet_to_be_chosen_cannot_be_changed(tmp_path):
    (tmp_path / "my.yaml").write_text("catalog: {synthetic: {rows: 40}}")
    with pytest.raises(ConfigError, match="phases: .*my.yaml has none, .* training_config.yaml of an earlier run"):
        load_run(tmp_path / "my.yaml", ["--phases.0.epochs", "3"])


def test_a_logit_fusion_that_refits_heads_needs_frozen_towers():
    folds = {"logit_fusion": {"folds": 3}}
    with pytest.raises(ConfigError, match="logit_fusion.folds.*phase .fine-tune. cached_views"):
        build(RunSettings, {"catalog": SHOP, "phases": [{}]} | folds)
    heads = {"train": ["heads"], "cached_views": 1}
    assert build(RunSettings, {"catalog": SHOP, "phases": [heads]} | folds).logit_fusion.folds == 3
