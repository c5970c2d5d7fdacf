"""Everything a training run can be told, as plain dataclasses: their fields are the YAML keys."""

from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import ClassVar, Literal

from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.catalog.settings import CatalogSettings, LoaderSettings
from hf_tagger.catalog.strict import ConfigError, build, override, read_yaml
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
    """Towers, fusion and heads; the keys without a comment are fields of `TaggerConfig`."""

    RENAMED: ClassVar[dict[str, str]] = {"words": "lexical", "exemplars": "kernel"}
    REMOVED: ClassVar[dict[str, str]] = {
        "fusion: gated": "write fusion: concat, the default",
        "tag_head": "leave it out, tags are always scored by their names, which a linear layer does no better"}

    # See `training.backbones` for the spellings; null: no such tower. What is "auto" is read off the catalogue, see
    # `training.defaults`.
    text_backbone: str | None = "auto"
    vision_backbone: str | None = "auto"
    vision_weights: str | None = None  # a safetensors file for a `timm:` backbone
    text_prefix: str | None = None  # put before each text, for encoders trained with one; null: the backbone's own
    max_length: int | Literal["auto"] = "auto"  # tokens that the text tower reads; the lexical head reads all
    image_size: tuple[int, int] | Literal["auto"] = "auto"  # height and width in pixels
    text_pooling: Literal["mean", "cls"] = "mean"
    vision_stages: list[int] | Literal["auto"] = "auto"
    vision_grid: list[int] | Literal["auto"] = "auto"
    colour_histogram: bool | Literal["auto"] = "auto"
    fusion: Literal["concat", "attention", "late"] = "concat"
    fusion_layers: int = 1
    fusion_heads: int = 8
    hidden_size: int = 512
    dropout: float = 0.1
    modality_dropout: dict[str, float] = field(default_factory=lambda: {"text": 0.2, "image": 0.1})
    lexical: LexicalSettings = field(default_factory=LexicalSettings)
    kernel: KernelSettings = field(default_factory=KernelSettings)
    decoder: DecoderSettings | None = None  # null: a model that writes no free-form tags
    speech: str | None = None


@dataclass
class PhaseSettings:
    """One stretch of training."""

    REMOVED: ClassVar[dict[str, str]] = {
        "layer_decay": "leave it out, all layers of a tower learn at tower_learning_rate; frozen lets some be"}

    name: str = "fine-tune"
    # What moves: heads (fusion and tag head), text, vision (the towers), decoder. The decoder alone learns on the model
    # as it is: closed tags stay as they are.
    train: list[Part] = field(default_factory=lambda: ["heads", "text", "vision"])
    frozen: list[str] = field(default_factory=list)  # regular expressions of the names of tower weights that stay
    # Run the frozen towers once per product and view, then train on the stored features (0: not stored). View 0 is the
    # product as it is, the others are augmented. Not with text or vision in `train`. For a decoder the token states are
    # stored as well, about 50 to 150 KB of disk per product and view.
    cached_views: int = 0
    epochs: int = 3  # passes over the training split
    max_steps: int = 0  # stops earlier; 0: no limit
    learning_rate: float = 1e-3  # peak rate of the heads
    tower_learning_rate: float = 3e-4  # peak rate of the towers
    scheduler: str = "cosine"  # a name that `transformers.get_scheduler` knows
    warmup_ratio: float = 0.05  # share of the steps spent warming up
    batch_size: int | None = None  # in place of the loader's
    evaluate_every: int = 1  # epochs between validations; 0: only at the end of the phase

    def __post_init__(self):
        if self.cached_views and {"text", "vision"} & set(self.train):
            raise ValueError(f"phase {self.name!r}: cached_views freezes the towers, so train must be of heads and "
                             "decoder")
        if not self.train or self.epochs < 1:
            raise ValueError(f"phase {self.name!r} trains nothing: give train and epochs >= 1")

    @property
    def moves_towers(self) -> bool:
        """Whether features of the towers change in this phase, or may."""
        return not self.cached_views and self.train != ["decoder"]


@dataclass
class TrainingSettings:
    """What all phases share."""

    loader: LoaderSettings = field(default_factory=LoaderSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    text_augmentation: TextAugmentation = field(default_factory=TextAugmentation)
    image_augmentation: ImageAugmentation = field(default_factory=ImageAugmentation)
    gradient_accumulation: int = 1  # batches per optimiser step and process
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"  # auto: bf16 where the hardware multiplies in it
    embeddings: bool = False  # also train word embeddings where a text tower is trained in full
    repeat_threshold: float = 0.0  # tags in fewer than this share of the rows are oversampled; 0: never
    early_stopping: int = 0  # validations without improvement of `metric` before a phase ends; 0: never
    metric: str = "macro_f1"  # validation metric that chooses the best weights (micro_f1, colour/macro_f1 ...)
    checkpoint_steps: int = 0  # optimiser steps between checkpoints; 0: only at the end of epochs
    log_with: list[str] = field(default_factory=list)  # accelerate trackers ("tensorboard", ...)
    log_every: int = 10  # optimiser steps between what trackers get
    compile: bool = False  # torch.compile the model
    # Of each process on a CPU; null: OMP_NUM_THREADS if you have set it, else its share of the cores.
    threads: int | None = None
    keep_freed_memory: bool = True  # faster steps on a CPU, for more memory held; see `training.memory`

    def __post_init__(self):
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")


@dataclass
class RunSettings:
    """A whole run: what `recipes/finetune.py` reads from its YAML file and command line."""

    RENAMED: ClassVar[dict[str, str]] = {"gate": "logit_fusion"}

    catalog: CatalogSettings
    # A model folder or Hub id of ours to go on from, with its backbones, tags and heads; of `model`, only `decoder` is
    # then read. Kernel head and logit fusion are fitted anew where a phase moves heads or towers.
    start_from: str | None = None
    output_dir: str = "runs/tagger"  # the model folder; its `checkpoints` holds the last one and the best weights
    seed: int = 0  # of weights, batches and augmentation
    # Minutes for a run, see `training.budget`; null: no limit. "auto": 20 on a CPU if no phase moves the towers, else
    # no limit.
    budget: float | Literal["auto"] | None = "auto"
    model: ModelSettings = field(default_factory=ModelSettings)
    lora: LoraSettings | None = field(default_factory=LoraSettings)  # null: a tower that moves is trained in full
    phases: list[PhaseSettings] = field(default_factory=list)  # []: chosen, see `training.defaults`
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    augmentation: AugmentationSettings | None = None  # makes up for rare tags once the towers have settled
    logit_fusion: LogitFusionSettings = field(default_factory=LogitFusionSettings)
    # Temperatures and thresholds, fitted on validation at the end; null: scores stay as they are.
    calibration: CalibrationSettings | None = field(default_factory=CalibrationSettings)
    save_adapter: bool = False  # also write `adapter`, the changes alone, and `base`, what they change

    def __post_init__(self):
        if self.budget not in (None, "auto") and self.budget <= 0:
            raise ValueError(f"budget: minutes above 0, or null, got {self.budget}")
        moving = [phase.name for phase in self.phases if phase.moves_towers]
        if self.logit_fusion.folds not in (0, "auto") and (moving or self.start_from):
            raise ValueError("logit_fusion.folds fits heads again on frozen features: "
                             + (f"give phase {moving[0]!r} cached_views, or " if moving else "with start_from, ")
                             + "set logit_fusion.folds: 0")
        if self.start_from and replace(self.model, decoder=None) != ModelSettings():
            raise ValueError("model: with start_from, the model is the one there; only model.decoder may be given")
        decodes = any("decoder" in phase.train for phase in self.phases)
        if self.model.decoder is not None and self.phases and not decodes:
            raise ValueError("phases: model.decoder is given, but no phase trains it: write train: [..., decoder]")
        if decodes and self.model.decoder is None:
            raise ValueError("phases: a phase trains the decoder, but model.decoder is not given")

    def check_paths(self) -> None:
        """Raises ConfigError for a path at which there is nothing, before what takes seconds to import."""
        self.catalog.check_paths()
        if self.start_from:
            check_model(self.start_from)

    def going_on(self, start_from: str | Path, output_dir: str | Path, phases: list[PhaseSettings],
                 lora: LoraSettings | None = None) -> "RunSettings":
        """The settings of a run in which a model of this run is trained further."""
        return replace(self, start_from=str(start_from), output_dir=str(output_dir), model=ModelSettings(),
                       phases=phases, lora=lora, augmentation=None, save_adapter=False,
                       logit_fusion=replace(self.logit_fusion, folds=0))

    @property
    def moves_closed_tags(self) -> bool:
        """Whether more than a decoder on a trained model is trained."""
        return not self.start_from or any(set(phase.train) != {"decoder"} for phase in self.phases)

    @property
    def first_decoder_phase(self) -> int:
        """The place of the first of those last phases that train the decoder alone."""
        alone = sum(1 for _ in takewhile(lambda phase: set(phase.train) == {"decoder"}, reversed(self.phases)))
        return len(self.phases) - alone


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
        if self.logit_fusion.folds not in (0, "auto"):
            raise ValueError("logit_fusion.folds fits heads again without the teacher: set it to 0")
        for phase in self.phases:
            if phase.cached_views > self.distillation.views:
                raise ValueError(f"phase {phase.name!r} has {phase.cached_views} cached_views, the teacher is asked "
                                 f"about {self.distillation.views}: raise distillation.views")

    def check_paths(self) -> None:
        super().check_paths()
        check_model(self.distillation.teacher)


def load_run(
    config: str | Path, arguments: list[str], kind: type[RunSettings] = RunSettings
) -> tuple[RunSettings, dict]:
    """A run from a YAML file and `--key.sub value` overrides, and the plain data that it was built from.

    Raises ConfigError, naming the key and the nearest known one, for anything that does not fit.
    """
    data = override(read_yaml(config), arguments)
    if isinstance(data.get("phases"), dict):
        raise ConfigError(f"phases: {config} has none, so that they are chosen for the catalogue: give them all, or "
                          "change those in the training_config.yaml of an earlier run")
    return build(kind, data), data
