"""A run that trains a smaller student to say what a trained tagger says."""

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from hf_tagger.catalog.collate import Collator
from hf_tagger.catalog.strict import ConfigError, build, did_you_mean, override, read_yaml
from hf_tagger.evaluation.protocols import open_tagger
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.runtime import model_fingerprint
from hf_tagger.training.arguments import PhaseSettings, RunSettings
from hf_tagger.training.augment import image_augmenter, text_augmenter
from hf_tagger.training.backbones import TextBackbone, VisionBackbone
from hf_tagger.training.build import build_model
from hf_tagger.training.distill_loss import DistillationLoss, DistillationSettings, principal_axes
from hf_tagger.training.run import FinetuneRun
from hf_tagger.training.teacher import TaughtLoader, TeacherStore, ViewCollator, is_stored, store_outputs

TEACHER = "teacher"
LAYER_NUMBER = re.compile(r"((?:^|\.)(?:layers?|h)\.)(\d+)(?=\.)")
FITTED = ("temperature", "calibration", "thresholds")


@dataclass
class DistillSettings(RunSettings):
    """A run of `recipes/distill.py`: one of `recipes/finetune.py` with a teacher. `model` describes the student; its
    `text_backbone` and `vision_backbone` may also be "teacher": the teacher's own tower, trained as it is."""

    distillation: DistillationSettings | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.distillation is None:
            raise ValueError("distillation.teacher must name the model to learn from")
        if self.start_from or self.model.decoder is not None or self.augmentation is not None:
            raise ValueError("distillation trains the closed tags of a new student: leave start_from, model.decoder "
                             "and augmentation out, and add a decoder to the student later")
        if self.gate.folds:
            raise ValueError("gate.folds fits heads again without the teacher: set gate.folds: 0")
        for phase in self.phases:
            if phase.cached_views > self.distillation.views:
                raise ValueError(f"phase {phase.name!r} has {phase.cached_views} cached_views, the teacher is asked "
                                 f"about {self.distillation.views}: raise distillation.views")


def load_distillation(config: str | Path, arguments: list[str]) -> tuple[DistillSettings, dict]:
    """As `arguments.load_run`."""
    data = override(read_yaml(config), arguments)
    return build(DistillSettings, data), data


class DistillRun(FinetuneRun):
    """What differs from any fine-tuning: what the student starts from, and that the teacher's answers come with every
    batch. Its tags are the teacher's; products of which the catalogue knows no tags are learned from all the same."""

    def prepare_catalog(self) -> None:
        tagger = open_tagger(self.settings.distillation.teacher, torch.device("cpu"))
        self.teacher, self.teacher_processor = tagger.model.requires_grad_(False), tagger.processor
        super().prepare_catalog()

    def _check_evaluation(self) -> None:
        attributes = [{key: value for key, value in entry.items() if key not in FITTED}
                      for entry in self.teacher.config.attributes]
        self.say(check_attributes(self.vocabulary.attributes, attributes))
        self.vocabulary = replace(self.vocabulary, attributes=attributes)
        super()._check_evaluation()

    def _new_model(self, attributes: list[dict]) -> None:
        settings, teacher = self.settings, self.teacher
        layers = check_student(settings, teacher, self.teacher_processor)
        text = vision = None
        if settings.model.text_backbone == TEACHER:
            text = text_backbone_of(teacher, self.teacher_processor, layers)
        if settings.model.vision_backbone == TEACHER:
            vision = vision_backbone_of(teacher)
        texts = (record["text"] for record in self._records("train") if record["text"])
        self.model, self.processor = build_model(settings.model, attributes, texts, settings.seed, text, vision)
        self.same_pieces = cuts_alike(self.processor, self.teacher_processor)
        if settings.distillation.hidden and not self.same_pieces:
            raise ConfigError("distillation.hidden compares token by token, and the student cuts texts otherwise than "
                              "the teacher: give it text_backbone: teacher, its text_prefix and max_length, or set "
                              "distillation.hidden: 0")
        self.copied = copy_fitting(self.model, teacher, self.same_pieces)
        self.say(f"copied from the teacher beside its towers: {', '.join(self.copied) or 'nothing'}")
        for name, model in (("teacher", teacher), ("student", self.model)):
            self.say(f"{name}: {sum(weight.numel() for weight in model.parameters()):,} parameters")
        self.store = self._ask_teacher()
        self.distillation = self._loss(attributes)
        del self.teacher

    def _fit_words(self, attributes: list[dict]) -> None:
        if "words" in self.copied:
            self.model.words.requires_grad_(False)
        else:
            super()._fit_words(attributes)

    def _ask_teacher(self) -> TeacherStore:
        settings, training = self.settings.distillation, self.settings.training
        folder, states = Path(settings.folder or self.folder / TEACHER), bool(settings.hidden)
        asked = [model_fingerprint(settings.teacher), self.vocabulary.fingerprint, settings.views, states,
                 self.settings.seed, asdict(training.text_augmentation), asdict(training.image_augmentation)]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        if self.accelerator.is_main_process and not is_stored(folder, key):
            device = self.accelerator.device
            reader = replace(training.loader, batch_size=self.settings.evaluation.batch_size, bucket_batches=8)
            views = (replace(self._loader("train", self._seen_by(self.teacher_processor, view), reader), rank=0,
                             world_size=1).epoch() for view in range(settings.views))
            store_outputs(self.teacher.to(device), views, folder, key, states, self.accelerator.autocast)
        self.accelerator.wait_for_everyone()
        return TeacherStore(folder)

    def _seen_by(self, processor, view: int) -> Collator:
        training, photos = self.settings.training, self.teacher_processor
        return ViewCollator(
            processor, self.vocabulary.attributes, view, self.settings.seed,
            photos.image_size if photos.reads_images else None, text_augmenter(training.text_augmentation),
            image_augmenter(training.image_augmentation), allow_urls=self.catalog_settings.schema.allow_urls)

    def _view_collator(self, view: int) -> Collator:
        return self._seen_by(self.processor, view)

    def _loss(self, attributes: list[dict]) -> DistillationLoss:
        settings, sample, axes = self.settings.distillation, self.store.sample(), {}
        parts = {"pooled": (sample.pooled[:, 0], self.model.config.hidden_size, "model.hidden_size")}
        if settings.hidden:
            width = self.model.config.text_config.hidden_size
            parts["hidden"] = (sample.states[sample.mask], width, "the width of model.text_backbone")
        for name, (vectors, width, key) in parts.items():
            try:
                axes[name] = principal_axes(vectors.float(), width) if getattr(settings, name) else None
            except ValueError as error:
                raise ConfigError(f"{key}: {error}; lower it, or set distillation.{name}: 0") from error
        return DistillationLoss(attributes, settings, axes["pooled"], axes.get("hidden"))

    def _phase_loader(self, phase: PhaseSettings) -> TaughtLoader:
        if phase.cached_views:
            return TaughtLoader(super()._phase_loader(phase).epoch, self.store)
        loader = replace(self.settings.training.loader,
                         batch_size=phase.batch_size or self.settings.training.loader.batch_size)

        def batches(epoch: int, skip_batches: int):
            view = epoch % self.store.views
            seen = self._loader("train", self._view_collator(view), loader, shuffle=True,
                                repeat_factors=self._repeat_factors())
            for batch in seen.epoch(epoch, skip_batches):
                yield batch | {"views": [view] * len(batch["ids"])}

        return TaughtLoader(batches, self.store)

    def report(self) -> dict[str, dict[str, float]]:
        results = super().report()
        if self.accelerator.is_main_process and self.settings.distillation.folder is None:
            shutil.rmtree(self.folder / TEACHER, ignore_errors=True)
        return results


def check_attributes(found: list[dict], attributes: list[dict]) -> str:
    """What of a catalogue's attributes the student of a teacher with these `attributes` will not learn, in a sentence.

    Raises ConfigError for an attribute that the teacher does not know, or knows as another kind.
    """
    known = {entry["name"]: entry for entry in attributes}
    strange = {}
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
    """The layers that the student's text tower starts from, None where it is not the teacher's.

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


def spaced_layers(wanted: int | list[int] | None, count: int) -> list[int]:
    """So many of `count` layers, from the first to the last at equal distances; or the ones given, checked."""
    if wanted is None:
        return list(range(count))
    if isinstance(wanted, int):
        if not 1 <= wanted <= count:
            raise ConfigError(f"distillation.text_layers: the teacher has {count} layers, not {wanted}")
        return [round(place * (count - 1) / max(1, wanted - 1)) for place in range(wanted)]
    if not wanted or sorted(set(wanted)) != wanted or not 0 <= wanted[0] <= wanted[-1] < count:
        raise ConfigError(f"distillation.text_layers: give rising numbers from 0 to {count - 1}, got {wanted}")
    return wanted


def text_backbone_of(teacher: TaggerModel, processor, layers: Sequence[int]) -> TextBackbone:
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


def vision_backbone_of(teacher: TaggerModel) -> VisionBackbone:
    """The teacher's vision tower; the student may look at photos of another size."""
    config = teacher.config
    return VisionBackbone(config.vision_config.architecture, teacher.encoder.vision_tower.timm_model.state_dict(),
                          tuple(config.image_mean), tuple(config.image_std))


def cuts_alike(processor, other) -> bool:
    """Whether two processors cut every text into the same tokens."""
    if not (processor.reads_text and other.reads_text):
        return False
    same = (processor.text_prefix, processor.max_length) == (other.text_prefix, other.max_length)
    return same and processor.tokenizer.get_vocab() == other.tokenizer.get_vocab()


def copy_fitting(student: TaggerModel, teacher: TaggerModel, same_pieces: bool) -> list[str]:
    """Starts every part of the student outside its towers that has the same tensors as the teacher's from those;
    returns the parts' names. Exemplars are remembered as the towers see them: those are fitted anew."""
    copied = []
    for name in ("encoder.text_projection", "encoder.image_projection", "encoder.proxies", "encoder.fusion", "tag_head",
                 "late_weights", "words", "evidence_gate"):
        mine, theirs = (_part(model, name) for model in (student, teacher))
        if mine is None or theirs is None:
            continue
        shapes = [{key: tensor.shape for key, tensor in part.state_dict().items()} for part in (mine, theirs)]
        if shapes[0] != shapes[1] or (name == "words" and not _same_words(student, teacher, same_pieces)):
            continue
        if name == "evidence_gate" and not _same_sources(student, teacher):
            continue
        mine.load_state_dict(theirs.state_dict())
        copied.append(name)
    return copied


def _part(model: TaggerModel, name: str):
    for step in name.split("."):
        model = getattr(model, step, None)
    return model


def _same_words(student: TaggerModel, teacher: TaggerModel, same_pieces: bool) -> bool:
    ngrams = [(list(model.config.lexical_char_ngrams), model.config.lexical_word_ngrams)
              for model in (student, teacher)]
    return same_pieces and ngrams[0] == ngrams[1]


def _same_sources(student: TaggerModel, teacher: TaggerModel) -> bool:
    return (student.words is None, student.exemplars is None) == (teacher.words is None, teacher.exemplars is None)
