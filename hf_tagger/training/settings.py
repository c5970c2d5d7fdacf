"""The parts of a training run's settings, one dataclass a section of the YAML file; `training.arguments` joins them.

Nothing here imports torch: a misspelt key is found before anything that takes seconds to import.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hf_tagger.catalog.free_form import TargetSettings

# Named here, computed in `training.losses` and `training.kernel`.
FEATURE_BLOCKS = ("text", "final", "early", "late", "grid", "histogram")


@dataclass
class LoraSettings:
    """Adapters on the towers, see `training.lora`."""

    REMOVED: ClassVar[dict[str, str]] = {"use_rslora": "multiply lora.alpha by the square root of lora.rank"}

    rank: int = 8  # width of the low-rank update
    alpha: float = 16.0  # the update is scaled by alpha / rank
    dropout: float = 0.05  # on the input of the update, in training
    # The tower's layers to adapt: "auto", or endings of their names (["query", "value"]); []: the tower stays frozen.
    text_targets: str | list[str] = "auto"
    vision_targets: str | list[str] = "auto"

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"lora.rank must be at least 1, got {self.rank}")
        for key in ("text_targets", "vision_targets"):
            value = getattr(self, key)
            if isinstance(value, str) and value != "auto":
                raise ValueError(f'lora.{key} must be "auto" or a list of layer names, got {value!r}')


@dataclass
class LossSettings:
    """Of `multi` attributes the asymmetric loss (arXiv 2009.14119), summed over the tags; of `single` ones the
    cross-entropy of a softmax over the tags and an explicit none."""

    RENAMED: ClassVar[dict[str, str]] = {"balance": "logit_adjustment_tau"}
    REMOVED: ClassVar[dict[str, str]] = {
        "single": "leave it out, it is always cross-entropy",
        "multi": "leave it out; binary cross-entropy is gamma_negative: 0, margin: 0",
        **dict.fromkeys(("focal_gamma", "focal_alpha"), "the asymmetric loss has gamma_negative and gamma_positive")}

    label_smoothing: float = 0.05  # share of the target spread over a `single` attribute's tags and none, in [0, 1)
    # Of `single` attributes: tau x log(training products of the tag) is added to each logit while training (Menon et
    # al. 2021, arXiv 2007.07314). 0 is plain cross-entropy. 1 trains as if all tags were equally frequent (balanced
    # softmax, Ren et al. 2020, arXiv 2007.10740): rare tags gain more than accuracy loses.
    logit_adjustment_tau: float = 1.0
    # Of `multi` attributes: focusing of negatives and of positives, and the probability below which a negative counts
    # nothing. All 0: binary cross-entropy.
    gamma_negative: float = 4.0
    gamma_positive: float = 0.0
    margin: float = 0.05

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        if not 0 <= self.logit_adjustment_tau <= 1:
            raise ValueError(f"loss.logit_adjustment_tau must lie in [0, 1], got {self.logit_adjustment_tau}")
        if not 0 <= self.margin < 1:
            raise ValueError(f"loss.margin must lie in [0, 1), got {self.margin}")
        for key in ("gamma_negative", "gamma_positive"):
            if 0 < getattr(self, key) < 1 or getattr(self, key) < 0:
                # x ** gamma has an infinite slope at 0 there
                raise ValueError(f"loss.{key} must be 0 or at least 1, got {getattr(self, key)}")


@dataclass
class OptimizerSettings:
    """See `training.optimizer`."""

    name: Literal["adamw", "adam", "sgd", "adagrad"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9  # of sgd
    weight_decay: float = 0.01  # of matrices, never of biases and norms; decoupled for adamw, else an L2 term
    l1: float = 0.0  # weight of an L1 term over the same matrices
    max_grad_norm: float = 1.0  # gradients are clipped to this norm; 0: never


@dataclass
class TextAugmentation:
    """Probabilities, see `training.augment`."""

    label_masking: float = 0.0  # all words of the product's own tags are taken out of its text
    word_dropout: float = 0.0  # each word is dropped
    typos: float = 0.0  # two letters of a word are swapped, or one is lost or doubled
    field_dropout: float = 0.0  # of several text columns (title, description), one at random is kept


@dataclass
class ImageAugmentation:
    """Probabilities unless it says otherwise, see `training.augment`."""

    crop: float = 0.8  # of a random resized crop
    crop_scale: float = 0.7  # smallest share of the photo's area that a crop keeps
    flip: float = 0.5  # horizontal
    rotation: float = 0.0  # largest angle in degrees, of half the photos; 0: never
    noise: float = 0.0  # Gaussian, of 2 % of the value range
    erasing: float = 0.0  # of a rectangle (arXiv 1708.04896)
    colour_jitter: float = 0.0  # of brightness, contrast, saturation and hue; colour is often a tag, so off


@dataclass
class LexicalSettings:
    """The lexical head, see `training.lexical`."""

    RENAMED: ClassVar[dict[str, str]] = {"names": "name_match", "balance": "class_weight_power"}
    REMOVED: ClassVar[dict[str, str]] = dict.fromkeys(
        ("masked_view", "masked_balance", "masked_weight"),
        "a second set of weights gained nothing once the kernel head speaks for texts that do not name their tags")

    buckets: int = 2**15  # size of the hashed feature table; 0: no words and n-grams
    char_ngrams: list[int] = field(default_factory=lambda: [3, 4, 5])  # lengths of letter n-grams
    word_ngrams: int = 1  # longest run of words
    name_match: bool = True  # whether tags gain by their names standing in the text
    inverse_l2: float = 10.0  # C, the inverse strength of the L2 term on the table
    name_l2: float = 3.0  # L2 term on the name weights, which all tags of an attribute share
    class_weight_power: float = 0.5  # classes of a `single` attribute weigh count ** -power
    max_rows: int = 1_000_000  # products it is fitted on, at most
    iterations: int = 60  # of L-BFGS per attribute, at most
    # What fitting may take, in GB. Attributes with too many tags for it are written in codes (see
    # `training.lexical_codes`), and no more products are read than fit into half of it.
    memory: float = 2.0
    code_width: int = 512  # of such codes
    epochs: int = 8  # of fitting in codes

    @property
    def bytes(self) -> float:
        return self.memory * 1e9

    def __post_init__(self):
        if self.memory <= 0:
            raise ValueError(f"lexical.memory must be above 0 GB, got {self.memory}")
        if self.code_width < 1 or self.epochs < 1:
            raise ValueError(f"lexical.code_width and lexical.epochs must be at least 1, got {self.code_width} and "
                             f"{self.epochs}")


@dataclass
class KernelSettings:
    """The kernel head, see `training.kernel`."""

    RENAMED: ClassVar[dict[str, str]] = {"balance": "class_weight_power", "prior_adjustment": "logit_adjustment_tau"}
    REMOVED: ClassVar[dict[str, str]] = {
        "count": "write landmarks, half as many: each product counts once, with its text whole and masked",
        "kernels": "write the first of them as weights: more kernels gained nothing"}

    # Products that others are compared with, at most, those with rare tags first (0: no kernel head). Memory of
    # fitting grows with their square.
    landmarks: int | Literal["auto"] = "auto"
    dim: int = 128  # width that each block of features is compressed to (principal axes)
    width: float = 0.8  # of the kernel, in units of 1 - cosine
    ridge: float = 0.04  # strength of the ridge
    class_weight_power: float = 0.3  # products weigh (their rarest tag's count) ** -power, on average over attributes
    # This times the log of a tag's share of the rows is taken off its logit (arXiv 2007.07314).
    logit_adjustment_tau: float = 0.4
    # Of the blocks text, final (the photo's pooled vector), early and late (its `vision_stages`), grid and histogram;
    # blocks that the model does not have are left out.
    weights: dict[str, float] = field(default_factory=lambda: {
        "text": 2.0, "final": 1.0, "late": 1.0, "early": 0.7, "grid": 0.7, "histogram": 0.6})

    def __post_init__(self):
        if unknown := set(self.weights) - set(FEATURE_BLOCKS):
            raise ValueError(f"weights: there is no block {sorted(unknown)[0]!r}, only {', '.join(FEATURE_BLOCKS)}")


@dataclass
class LogitFusionSettings:
    """How far each source of scores is trusted, see `training.logit_fusion`."""

    RENAMED: ClassVar[dict[str, str]] = {"balance": "class_weight_power"}
    REMOVED: ClassVar[dict[str, str]] = {
        "deference": "giving way for rare tags gained nothing on two catalogues",
        "shared": "every attribute has weights of its own"}

    l2: float = 1e-3  # strength, per product, of the pull towards equal trust in all sources
    class_weight_power: float = 0.5  # classes of a `single` attribute weigh count ** -power
    masked_weight: float = 0.25  # of products seen without the words of their tags; others weigh 1
    iterations: int = 60  # of L-BFGS at most
    # Where validation is small: also learn from training products, as the sources score them when fitted on the other
    # folds (0: validation alone). Needs towers that stay frozen.
    folds: int | Literal["auto"] = "auto"
    max_rows: int = 5000  # training products used for that, at most

    def __post_init__(self):
        if self.folds != "auto" and (self.folds == 1 or self.folds < 0):
            raise ValueError(f"logit_fusion.folds takes 0 or at least 2, got {self.folds}")


@dataclass
class DecoderSettings:
    """The decoder of free-form tags, see `training.decoder`."""

    REMOVED: ClassVar[dict[str, str]] = {"closed_weight": "closed tags' scores always have a say in what is written"}

    layers: int = 3
    d_model: int = 256
    heads: int = 4
    ffn_dim: int = 1024
    dropout: float = 0.1
    max_length: int = 64  # tokens of what it writes, prompt included
    vocab_size: int = 4000  # of the tag tokenizer, control tokens included
    weight: float = 1.0  # of its loss (per token) beside the closed tags' (per attribute)
    label_smoothing: float = 0.1  # share of a token's target spread over the tokenizer's vocabulary, in [0, 1)
    targets: TargetSettings = field(default_factory=TargetSettings)  # what is asked for in training, in which order

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        if self.weight <= 0:
            raise ValueError(f"weight must be positive, got {self.weight}; for no decoder write decoder: null")


@dataclass
class DistillationSettings:
    """What a student learns from its teacher, see `training.distill`. logits, pooled, hidden and labels are weights of
    the parts of its loss."""

    teacher: str  # a model folder or Hub id
    # With `text_backbone: teacher`: how many of its layers the student starts from, evenly spaced from the first to the
    # last; null: all.
    text_layers: int | None = None
    temperature: float = 2.0  # softens both sides' logits
    logits: float = 1.0  # the teacher's closed-tag probabilities (Hinton et al. 2015, arXiv 1503.02531)
    pooled: float = 1.0  # 1 - cosine of its fused vector, and of its projected text and photo vectors
    # Squared error of its text tower's last hidden states, token by token, relative to their size (after TinyBERT,
    # arXiv 1909.10351). Needs the teacher's tokenizer, and a phase that trains the tower.
    hidden: float = 0.0
    labels: float = 1.0  # the catalogue's own tags; unknown ones count nothing
    views: int = 2  # of each product that the teacher is asked about: as it is, then augmented
    # Where the teacher's answers are kept (default: `output_dir/teacher`, until the run is done). Students of the same
    # teacher, catalogue and augmentation may share one: the teacher then runs once.
    folder: str | None = None

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        weights = {name: getattr(self, name) for name in ("logits", "pooled", "hidden", "labels")}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(f"weights must not be negative, and one of them above 0: got {weights}")
        if self.views < 1:
            raise ValueError(f"views must be at least 1, got {self.views}")
