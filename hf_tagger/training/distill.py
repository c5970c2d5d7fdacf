"""The steps of a distillation: what a smaller student starts from, and how it learns from a trained tagger."""

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hf_tagger.catalog.batching.collate import Collator
from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.evaluation.calibration import without_calibration
from hf_tagger.evaluation.protocols import open_tagger
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.runtime import model_fingerprint
from hf_tagger.training.arguments import DistillSettings, PhaseSettings
from hf_tagger.training.augment import OwnNames, image_augmenter, text_augmenter
from hf_tagger.training.backbones import TextBackbone, VisionBackbone
from hf_tagger.training.batches import Batches
from hf_tagger.training.context import RunContext
from hf_tagger.training.data import TrainingData
from hf_tagger.training.distill_loss import DistillationLoss, principal_axes
from hf_tagger.training.phases import Training
from hf_tagger.training.settings import DistillationSettings
from hf_tagger.training.starting_model import new_model, prepare_model
from hf_tagger.training.teacher import TeacherStore, ViewCollator, is_stored, store_outputs

TEACHER = "teacher"
LAYER_NUMBER = re.compile(r"((?:^|\.)(?:layers?|h)\.)(\d+)(?=\.)")
# What a student can take over beside the towers. The kernel head depends on what the towers see: it is fitted anew.
PARTS = ("encoder.text_projection", "encoder.image_projection", "encoder.proxies", "encoder.fusion", "tag_head",
         "late_weights", "lexical_head", "logit_fusion")


def open_teacher(settings: DistillSettings) -> tuple[TaggerModel, TaggerProcessor]:
    """The teacher and its processor, adapters merged. Raises ConfigError where there is no such model."""
    tagger = open_tagger(settings.distillation.teacher, torch.device("cpu"))
    return tagger.model.requires_grad_(False), tagger.processor


def teachers_attributes(run: RunContext, teacher: TaggerModel, found: list[dict]) -> list[dict]:
    """The attributes of the student are its teacher's, not those `found` in the catalogue: products without labels are
    learned from as well. Raises ConfigError as `check_attributes`."""
    attributes = without_calibration(teacher.config.attributes)
    run.log.say(check_attributes(found, attributes))
    return attributes


def new_student(run: RunContext, data: TrainingData, teacher: TaggerModel,
                teacher_processor: TaggerProcessor) -> tuple[TaggerModel, TaggerProcessor, list[str]]:
    """The student, its processor, and the names of the parts that `copy_fitting` has copied. Raises ConfigError as
    `check_student`."""
    settings = run.settings
    with run.log.step("student") as step:
        layers = check_student(settings, teacher, teacher_processor)
        text = vision = None
        if settings.model.text_backbone == TEACHER:
            text = text_backbone_of(teacher, teacher_processor, layers)
        if settings.model.vision_backbone == TEACHER:
            config, tower = teacher.config, teacher.encoder.vision_tower.timm_model
            vision = VisionBackbone(config.vision_config.architecture, tower.state_dict(), tuple(config.image_mean),
                                    tuple(config.image_std))
        student, processor = new_model(run, data, text=text, vision=vision)
        if settings.distillation.hidden and not cuts_alike(processor, teacher_processor):
            raise ConfigError("distillation.hidden compares token by token, and the student cuts texts otherwise than "
                              "the teacher: give it text_backbone: teacher, its text_prefix and max_length, or set "
                              "distillation.hidden: 0")
        copied = copy_fitting(student, teacher)
        prepare_model(run, data, student, processor)
        sizes = [sum(weight.numel() for weight in model.parameters()) for model in (student, teacher)]
        step.result = (f"{sizes[0]:,} parameters, its teacher {sizes[1]:,}\n"
                       f"copied from the teacher beside its towers: {', '.join(copied) or 'nothing'}")
    return student, processor, copied


def collate_as_taught(data: TrainingData, processor: TaggerProcessor, teacher_processor: TaggerProcessor,
                      view: int) -> Collator:
    """Collates products as they look in a view, for the student's `processor` or the teacher's own."""
    settings = data.run.settings
    return ViewCollator(
        processor, data.vocabulary.attributes, view, settings.seed,
        teacher_processor.image_size if teacher_processor.reads_images else None,
        text_augmenter(settings.training.text_augmentation, OwnNames(data.vocabulary.attributes)),
        image_augmenter(settings.training.image_augmentation), allow_urls=data.catalog.schema.allow_urls)


def ask_teacher(run: RunContext, data: TrainingData, teacher: TaggerModel,
                teacher_processor: TaggerProcessor) -> TeacherStore:
    """The teacher's outputs for all training products; it runs unless `distillation.folder` holds them already."""
    settings, training = run.settings.distillation, run.settings.training
    folder, states = Path(settings.folder or run.folder / TEACHER), bool(settings.hidden)
    asked = [model_fingerprint(settings.teacher), data.vocabulary.fingerprint, settings.views, states,
             run.settings.seed, asdict(training.text_augmentation), asdict(training.image_augmentation)]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    with run.log.step("teacher's answers") as step:
        step.result = f"in {folder}"
        if run.accelerator.is_main_process and not is_stored(folder, key):
            collate = partial(collate_as_taught, data, teacher_processor, teacher_processor)
            batches = Batches(data, teacher, teacher_processor, collate)
            views = (batches.view(view, whole=True) for view in range(settings.views))
            store_outputs(teacher.to(run.accelerator.device), views, folder, key, states, run.accelerator.autocast)
        run.accelerator.wait_for_everyone()
    return TeacherStore(folder)


def forget_answers(run: RunContext) -> None:
    """Deletes the outputs that `ask_teacher` stored in the model folder."""
    if run.accelerator.is_main_process and run.settings.distillation.folder is None:
        shutil.rmtree(run.folder / TEACHER, ignore_errors=True)


def distillation_loss(settings: DistillationSettings, student: TaggerModel, answers: TeacherStore) -> DistillationLoss:
    """Raises ConfigError where the student's vectors are wider than the teacher's."""
    sample, axes = answers.sample(), {}
    parts = {"pooled": (sample.pooled[:, 0], student.config.hidden_size, "model.hidden_size")}
    if settings.hidden:
        width = student.config.text_config.hidden_size
        parts["hidden"] = (sample.states[sample.mask], width, "the width of model.text_backbone")
    for name, (vectors, width, key) in parts.items():
        try:
            axes[name] = principal_axes(vectors.float(), width) if getattr(settings, name) else None
        except ValueError as error:
            raise ConfigError(f"{key}: {error}; lower it, or set distillation.{name}: 0") from error
    return DistillationLoss(student.config.attributes, settings, axes["pooled"], axes.get("hidden"))


class TaughtBatches:
    """The loader of a phase whose batches bring the teacher's outputs as `teacher`; epochs take the views in turn."""

    def __init__(self, training: Training, answers: TeacherStore, phase: PhaseSettings):
        self.batches, self.answers, self.phase = training.batches, answers, phase
        self.stored = training.features.of_phase(phase) if phase.cached_views else None

    def epoch(self, epoch: int = 0, skip_batches: int = 0) -> Iterator[dict[str, Any]]:
        view = epoch % self.answers.views
        loader = self.stored or self.batches.training(self.phase, self.batches.view_collator(view))
        for batch in loader.epoch(epoch, skip_batches):
            if batch["ids"]:
                views = batch.get("views", [view] * len(batch["ids"]))
                batch["teacher"] = self.answers.batch(batch["ids"], views)
            yield batch


def check_attributes(found: list[dict], attributes: list[dict]) -> str:
    """A sentence on the tags `found` in the catalogue that the teacher, with these `attributes`, does not know: no
    student learns them. Raises ConfigError for an attribute that the teacher lacks, or has as another kind.
    """
    known = {entry["name"]: entry for entry in attributes}
    strange: dict[str, list[str]] = {}
    for entry in found:
        name = entry["name"]
        if name not in known:
            raise ConfigError(f"catalog.schema.attributes: the teacher has no attribute {name!r}."
                              f"{did_you_mean(name, known)} A student has its teacher's attributes: leave it out")
        if entry["kind"] != known[name]["kind"]:
            raise ConfigError(f"catalog.schema.attributes.{name}: {entry['kind']} here, {known[name]['kind']} in the "
                              "teacher")
        strange[name] = sorted(set(entry["tags"]) - set(known[name]["tags"]))
    named = [f"{name} {len(tags)} ({tags[0]} ...)" for name, tags in strange.items() if tags]
    return f"tags of the catalogue that the teacher does not know: {'; '.join(named) or 'none'}"


def check_student(settings: DistillSettings, teacher: TaggerModel, processor) -> list[int] | None:
    """The layers of the teacher that the student's text tower starts from, None where it starts from another backbone.

    Raises ConfigError for a student that this teacher cannot teach.
    """
    model, distillation = settings.model, settings.distillation
    for name, backbone in (("text", model.text_backbone), ("vision", model.vision_backbone)):
        if backbone is not None and getattr(teacher.config, f"{name}_config") is None:
            raise ConfigError(f"model.{name}_backbone: the teacher has no {name} tower, so it says nothing that the "
                              f"student's could learn from: set it to null")
    if distillation.hidden and not any("text" in phase.train for phase in settings.phases):
        raise ConfigError("distillation.hidden teaches the text tower, which no phase trains: write train: [..., text]")
    if model.text_backbone != TEACHER:
        if distillation.text_layers is not None:
            raise ConfigError("distillation.text_layers chooses among the teacher's layers: it needs "
                              "model.text_backbone: teacher")
        return None
    if model.text_prefix != processor.text_prefix:
        raise ConfigError(f"model.text_prefix is {model.text_prefix!r}, the teacher's text tower was trained with "
                          f"{processor.text_prefix!r}")
    return spaced_layers(distillation.text_layers, teacher.config.text_config.num_hidden_layers)


def spaced_layers(wanted: int | None, count: int) -> list[int]:
    """So many of `count` layers (None: all), from the first to the last at equal distances."""
    wanted = count if wanted is None else wanted
    if not 1 <= wanted <= count:
        raise ConfigError(f"distillation.text_layers: the teacher has {count} layers, not {wanted}")
    return [round(place * (count - 1) / max(1, wanted - 1)) for place in range(wanted)]


def text_backbone_of(teacher: TaggerModel, processor, layers: list[int]) -> TextBackbone:
    """The teacher's text tower with these of its layers. Raises ConfigError where it has no layers to leave out."""
    config = copy.deepcopy(teacher.config.text_config)
    weights = teacher.encoder.text_tower.state_dict()
    if len(layers) < config.num_hidden_layers:
        place = {layer: number for number, layer in enumerate(layers)}
        if not any(LAYER_NUMBER.search(name) for name in weights):
            raise ConfigError(f"distillation.text_layers: a {config.model_type} text tower has no layers that could be "
                              "left out")
        weights = {LAYER_NUMBER.sub(lambda match: f"{match[1]}{place[int(match[2])]}", name, count=1): weight
                   for name, weight in weights.items()
                   if not (found := LAYER_NUMBER.search(name)) or int(found[2]) in place}
        config.num_hidden_layers = len(layers)
    return TextBackbone(config, copy.deepcopy(processor.tokenizer), weights)


def cuts_alike(processor, other) -> bool:
    """Whether two processors cut every text into the same tokens."""
    if not (processor.reads_text and other.reads_text):
        return False
    same = (processor.text_prefix, processor.max_length) == (other.text_prefix, other.max_length)
    return same and processor.tokenizer.get_vocab() == other.tokenizer.get_vocab()


def copy_fitting(student: TaggerModel, teacher: TaggerModel) -> list[str]:
    """Starts each of the student's `PARTS` whose tensors have the shapes of the teacher's from those; returns their
    names."""
    mine, theirs = (dict(model.named_modules()) for model in (student, teacher))
    alike = {"lexical_head": student.config.lexical_features == teacher.config.lexical_features,
             "logit_fusion": student.config.sources == teacher.config.sources}
    copied = [name for name in PARTS if name in mine and name in theirs and alike.get(name, True)
              and _shapes(mine[name]) == _shapes(theirs[name])]
    for name in copied:
        mine[name].load_state_dict(theirs[name].state_dict())
    return copied


def _shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
