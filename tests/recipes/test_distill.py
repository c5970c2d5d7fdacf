"""A student of a tiny teacher: what it starts from, what it learns, and what it cannot be."""

from pathlib import Path

import pytest
import torch
from transformers import pipeline

from hf_tagger.catalog.strict import read_yaml
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.training import distill as training_distill
from hf_tagger.training.arguments import DistillSettings, load_run
from hf_tagger.training.loop import TrainingLoop
from recipes import distill, finetune
from tests.catalog.files import write_parquet
from tests.recipes.titles import catalogue, rows
from tests.shops import write_config

pytestmark = pytest.mark.usefixtures("own_precision")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with a teacher of text, and catalogues with and without tags."""
    folder = tmp_path_factory.mktemp("shop")
    for name, labelled in (("labelled", True), ("unlabelled", False)):
        write_parquet(folder / f"{name}.parquet", list(rows(72, labelled)))
    write_parquet(folder / "validation.parquet", list(rows(36)))
    config = write_config(
        folder / "teacher.yaml", catalogue(folder, "labelled"),
        model={"text_backbone": "scratch:bert-tiny", "vision_backbone": None, "lexical": {"buckets": 256}},
        phases=[{"train": ["heads", "text"], "epochs": 12, "tower_learning_rate": 1e-3}],
        training={"text_augmentation": {}, "gradient_accumulation": 1, "checkpoint_steps": 0},
    )
    assert finetune.main([str(config), "--output_dir", str(folder / "teacher")]) == 0
    return folder


def distilled(shop, out, *arguments, train="unlabelled", **distillation):
    config = write_config(
        out.with_suffix(".yaml"), catalogue(shop, train),
        model={"text_backbone": "teacher", "vision_backbone": None, "lexical": {"buckets": 256}},
        distillation={"teacher": str(shop / "teacher"), "text_layers": 1, "hidden": 1.0, **distillation},
        phases=[{"train": ["heads", "text"], "epochs": 12, "learning_rate": 3e-3, "tower_learning_rate": 2e-3,
                 "evaluate_every": 0}],
        training={"text_augmentation": {"word_dropout": 0.2}, "gradient_accumulation": 1, "checkpoint_steps": 0},
    )
    return distill.main([str(config), "--output_dir", str(out), *arguments])


def test_a_student_learns_from_products_without_tags(shop, tmp_path, capsys):
    # A teacher whose encoder has learned little beside its words has no vectors worth copying.
    assert distilled(shop, tmp_path / "student", "--phases.0.epochs", "20", pooled=0.0, hidden=0.0) == 0
    teacher, student = (TaggerModel.from_pretrained(path) for path in (shop / "teacher", tmp_path / "student"))
    assert student.config.text_config.num_hidden_layers == 1 < teacher.config.text_config.num_hidden_layers
    tagger = pipeline("product-tagging", model=str(tmp_path / "student"))
    # The words were copied: what has been learned, all that the teacher says, the encoder alone must say.
    batch = tagger.collate([tagger.preprocess(row["title"]) for row in rows(72)])
    with torch.no_grad():
        wanted = teacher.eval()(**batch).tag_logits
        got = student.eval()(**batch).encoder_logits
        start = TaggerModel(student.config).eval()(**batch).encoder_logits
    for where in (slice(0, 3), slice(3, 6)):
        agreed = [(logits[:, where].argmax(1) == wanted[:, where].argmax(1)).float().mean() for logits in (start, got)]
        assert agreed[0] < 0.7 and agreed[1] > 0.95
    assert "unknown 72" in capsys.readouterr().out


def test_the_words_and_what_else_fits_are_the_teachers(shop, tmp_path, capsys):
    assert distilled(shop, tmp_path / "student", "--phases.0.epochs", "1") == 0
    teacher, student = (TaggerModel.from_pretrained(path) for path in (shop / "teacher", tmp_path / "student"))
    for name, tensor in teacher.lexical_head.state_dict().items():
        assert torch.equal(tensor, student.lexical_head.state_dict()[name]), name
    assert "lexical_head" in capsys.readouterr().out.partition("beside its towers: ")[2].splitlines()[0]


def test_a_teacher_is_asked_once_for_several_students(shop, tmp_path, monkeypatch):
    asked, store_outputs = [], training_distill.store_outputs
    monkeypatch.setattr(training_distill, "store_outputs", lambda *given: asked.append(1) or store_outputs(*given))
    folder = str(tmp_path / "answers")
    for name in ("one", "two"):
        assert distilled(shop, tmp_path / name, "--phases.0.epochs", "1", folder=folder) == 0
    assert len(asked) == 1
    assert distilled(shop, tmp_path / "three", "--phases.0.epochs", "1", "--seed", "4", folder=folder) == 0
    assert len(asked) == 2
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "three")]
    assert weights[0] == weights[1] != weights[2]


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(shop, tmp_path, monkeypatch):
    assert distilled(shop, tmp_path / "whole", "--phases.0.epochs", "2") == 0
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_asked_to_stop", lambda self: self.progress.step == 13)
        assert distilled(shop, tmp_path / "stopped", "--phases.0.epochs", "2") == 130
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    assert distilled(shop, tmp_path / "stopped", "--phases.0.epochs", "2", "--resume") == 0
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1]


@pytest.mark.parametrize("change, message", [
    (("--distillation.text_layers", "9"), "the teacher has 2 layers, not 9"),
    (("--model.text_prefix", "query: "), "model.text_prefix"),
    (("--model.vision_backbone", "scratch:test_resnet"), "the teacher has no vision tower"),
    (("--model.text_backbone", "scratch:gru"), "text_layers chooses among the teacher's layers"),
    (("--model.max_length", "8"), "the student cuts texts otherwise than the teacher"),
    (("--model.hidden_size", "64"), "model.hidden_size: the student's vectors (64) are wider than the teacher's (32)"),
    (("--phases.0.train", "[heads]"), "distillation.hidden teaches the text tower"),
    (("--logit_fusion.folds", "3"), "logit_fusion.folds"),
    (("--distillation.teacher", "nowhere"), "nowhere"),
    (("--catalog.schema.attributes.size", "{kind: single, tags: [S], column: colour}"), "no attribute 'size'"),
    (("--catalog.schema.attributes.type.kind", "multi"), "multi here, single in the teacher"),
])
def test_what_no_student_can_be_is_said_before_anything_is_trained(shop, tmp_path, capsys, change, message):
    assert distilled(shop, tmp_path / "student", *change) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "student" / "model.safetensors").exists()


def test_the_configurations_are_read():
    configs = sorted(Path(distill.__file__).parent.glob("configs/distill_*.yaml"))
    assert len(configs) >= 2
    for config in configs:
        settings, data = load_run(config, [], DistillSettings)
        assert settings.distillation.teacher and read_yaml(config) == data
        assert config.read_text().startswith(f"# accelerate launch recipes/distill.py recipes/configs/{config.name}")
