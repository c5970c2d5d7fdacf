"""The parts of a training run's settings, one dataclass a section of the YAML file; `training.arguments` joins them.

Nothing here imports torch: a misspelt key is found before anything that takes seconds to import.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hf_tagger.catalog.free_form import TargetSettings

# Named here, computed in `training.losses` and `training.kernel`.
MULTI_LOSSES = ("asymmetric", "bce", "focal", "distribution_balanced")
FEATURE_BLOCKS = ("text", "final", "early", "late", "grid", "histogram")


@dataclass
class LoraSettings:
    """
    Args:
        rank: width of the low-rank update.
        alpha: the update is scaled by alpha / rank.
        dropout: on the input of the update, in training.
        text_targets, vision_targets: the tower's layers to adapt: "auto", or names as the tower has them, their endings
            being enough (["query", "value"]); [] leaves the tower as it is, frozen.
    """

    REMOVED: ClassVar[dict[str, str]] = {"use_rslora": "multiply lora.alpha by the square root of lora.rank"}

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
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
    """
    Args:
        multi: loss of `multi` attributes, summed over the tags: "asymmetric", "bce", "focal" or
            "distribution_balanced". That of `single` attributes is the cross-entropy of a softmax over the tags and an
            explicit none.
        label_smoothing: share of the target spread evenly over a `single` attribute's tags and none, in [0, 1).
        logit_adjustment_tau: of `single` attributes, in [0, 1]: tau x log(training products of the tag) is added to
            each logit while training (logit adjustment, Menon et al. 2021, arXiv 2007.07314; with 1 the balanced
            softmax of Ren et al. 2020, arXiv 2007.10740). 0 is plain cross-entropy, 1 trains as if every tag were
            equally frequent: rare tags gain more than accuracy loses.
        gamma_negative, gamma_positive, margin: focusing of negatives and positives and the probability margin of
            the asymmetric loss.
        focal_gamma, focal_alpha: focusing and weight of positives of the focal loss.
    """

    RENAMED: ClassVar[dict[str, str]] = {"balance": "logit_adjustment_tau"}
    REMOVED: ClassVar[dict[str, str]] = {"single": "leave it out, it is always cross-entropy"}

    multi: str = "asymmetric"
    label_smoothing: float = 0.0
    logit_adjustment_tau: float = 1.0
    gamma_negative: float = 4.0
    gamma_positive: float = 0.0
    margin: float = 0.05
    focal_gamma: float = 2.0
    focal_alpha: float = 0.25

    def __post_init__(self):
        if self.multi not in MULTI_LOSSES:
            raise ValueError(f"loss.multi: no loss is called {self.multi!r}, choose one of {sorted(MULTI_LOSSES)}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        if not 0 <= self.logit_adjustment_tau <= 1:
            raise ValueError(f"loss.logit_adjustment_tau must lie in [0, 1], got {self.logit_adjustment_tau}")
        if not 0 <= self.margin < 1:
            raise ValueError(f"loss.margin must lie in [0, 1), got {self.margin}")
        for key in ("gamma_negative", "gamma_positive", "focal_gamma"):
            if 0 < getattr(self, key) < 1 or getattr(self, key) < 0:
                # x ** gamma has an infinite slope at 0 there
                raise ValueError(f"loss.{key} must be 0 or at least 1, got {getattr(self, key)}")


@dataclass
class OptimizerSettings:
    """
    Args:
        name: adamw (decoupled decay), adam, sgd (with momentum) or adagrad; for the last three, `weight_decay` is an L2
            term.
        weight_decay: for matrices only; biases and norms never decay.
        l1: weight of an L1 term over the same matrices.
        max_grad_norm: gradients are clipped to this norm; 0 switches it off.
    """

    name: Literal["adamw", "adam", "sgd", "adagrad"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    weight_decay: float = 0.01
    l1: float = 0.0
    max_grad_norm: float = 1.0


@dataclass
class TextAugmentation:
    """
    Args:
        label_masking: all words of the product's own tags are taken out of its text, so that the rest of the text and
            the photo must do.
        word_dropout: each word is dropped with this probability.
        typos: each word suffers one swap, loss or doubling of letters with this probability.
        field_dropout: of a product with several text columns (title, description), only one random column is kept.
    """

    label_masking: float = 0.0
    word_dropout: float = 0.0
    typos: float = 0.0
    field_dropout: float = 0.0


@dataclass
class ImageAugmentation:
    """
    Args:
        crop: random resized crop; crop_scale: smallest share of the photo's area that it keeps.
        flip: horizontal flip.
        rotation: largest angle in degrees, applied with probability 0.5 (0: never).
        noise: Gaussian pixel noise of 2 % of the value range.
        erasing: random erasing (arXiv 1708.04896).
        colour_jitter: change of brightness, contrast, saturation and hue. Off unless asked for: colour is a tag.
    """

    crop: float = 0.5
    crop_scale: float = 0.6
    flip: float = 0.5
    rotation: float = 0.0
    noise: float = 0.0
    erasing: float = 0.0
    colour_jitter: float = 0.0


@dataclass
class LexicalSettings:
    """
    Args:
        buckets: size of the hashed feature table; 0: no words and n-grams.
        char_ngrams: lengths of the letter n-grams; word_ngrams: the longest runs of whole words.
        name_match: whether tags gain by their names standing in the text.
        inverse_l2: C, the inverse strength of the L2 term on the table.
        name_l2: L2 term on the name weights, which all tags of an attribute share.
        class_weight_power: classes of a `single` attribute weigh count ** -power.
        max_rows: products it is fitted on at most.
        iterations: of L-BFGS at most, per attribute.
    """

    RENAMED: ClassVar[dict[str, str]] = {"names": "name_match", "balance": "class_weight_power"}
    REMOVED: ClassVar[dict[str, str]] = dict.fromkeys(
        ("masked_view", "masked_balance", "masked_weight"),
        "a second set of weights gained nothing once the kernel head speaks for texts that do not name their tags")

    buckets: int = 2**15
    char_ngrams: list[int] = field(default_factory=lambda: [3, 4, 5])
    word_ngrams: int = 1
    name_match: bool = True
    inverse_l2: float = 10.0
    name_l2: float = 3.0
    class_weight_power: float = 0.5
    max_rows: int = 100_000
    iterations: int = 60


@dataclass
class KernelSettings:
    """
    Args:
        landmarks: products that others are compared with, at most (0: no kernel head); those with the rarest tags
            first. Memory grows with their square.
        dim: width that each block of features is compressed to (principal axes).
        width: of the kernel, in units of 1 - cosine.
        ridge: strength of the ridge.
        class_weight_power: products weigh (their rarest tag's count) ** -power, on average over attributes.
        logit_adjustment_tau: this times the log of a tag's share of the rows is taken off its logit (arXiv 2007.07314).
        kernels: weights of the blocks text, final (the photo's pooled vector), early and late (its `vision_stages`),
            grid and histogram, per kernel; blocks that the model does not have are left out. Each attribute is scored
            by the one, or the mean of all, with the least leave-one-out error.
    """

    RENAMED: ClassVar[dict[str, str]] = {"balance": "class_weight_power", "prior_adjustment": "logit_adjustment_tau"}
    REMOVED: ClassVar[dict[str, str]] = {
        "count": "write landmarks, half as many: each product counts once, with its text whole and masked"}

    landmarks: int = 0
    dim: int = 128
    width: float = 0.8
    ridge: float = 0.04
    class_weight_power: float = 0.3
    logit_adjustment_tau: float = 0.4
    kernels: list[dict[str, float]] = field(
        default_factory=lambda: [
            {"text": 1.0, "final": 1.0, "late": 1.0, "early": 0.5, "grid": 0.7, "histogram": 0.2},
            {"text": 0.3, "final": 0.3, "late": 0.4, "early": 1.0, "histogram": 1.2},
        ]
    )

    def __post_init__(self):
        for kernel in self.kernels:
            if unknown := set(kernel) - set(FEATURE_BLOCKS):
                raise ValueError(f"kernels: there is no block {sorted(unknown)[0]!r}, only {', '.join(FEATURE_BLOCKS)}")


@dataclass
class LogitFusionSettings:
    """
    Args:
        l2: strength, per product, of the pull towards equal trust in all sources.
        class_weight_power: classes of a `single` attribute weigh count ** -power.
        iterations: of L-BFGS at most.
        folds: where validation is small, add what sources say of training products that they were not fitted on: all
            are fitted anew on the rest of so many folds (0: validation alone). Needs towers that stay frozen.
        max_rows: training products that are looked at for it.
    """

    RENAMED: ClassVar[dict[str, str]] = {"balance": "class_weight_power"}
    REMOVED: ClassVar[dict[str, str]] = {
        "deference": "giving way for rare tags gained nothing on two catalogues",
        "shared": "every attribute has weights of its own"}

    l2: float = 1e-3
    class_weight_power: float = 0.5
    iterations: int = 60
    folds: int = 0
    max_rows: int = 5000

    def __post_init__(self):
        if self.folds == 1 or self.folds < 0:
            raise ValueError(f"logit_fusion.folds takes 0 or at least 2, got {self.folds}")


@dataclass
class DecoderSettings:
    """
    Args:
        layers, d_model, heads, ffn_dim, dropout: of the decoder.
        max_length: tokens of what it writes, prompt included.
        vocab_size: of the tag tokenizer, control tokens included.
        weight: of the decoder's loss (per token) beside the closed tags' (per attribute).
        closed_weight: where it writes closed tags only, this times the closed head's log-probabilities join its own.
        label_smoothing: share of a token's target spread evenly over the tokenizer's vocabulary, in [0, 1).
        targets: order of the tags and what is asked for, in training.
    """

    layers: int = 3
    d_model: int = 256
    heads: int = 4
    ffn_dim: int = 1024
    dropout: float = 0.1
    max_length: int = 64
    vocab_size: int = 4000
    weight: float = 1.0
    closed_weight: float = 0.0
    label_smoothing: float = 0.1
    targets: TargetSettings = field(default_factory=TargetSettings)

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        if self.weight <= 0:
            raise ValueError(f"weight must be positive, got {self.weight}; for no decoder write decoder: null")
        if self.closed_weight < 0:
            raise ValueError(f"closed_weight must not be negative, got {self.closed_weight}")


@dataclass
class DistillationSettings:
    """
    Args:
        teacher: a model folder or Hub id.
        text_layers: of `model.text_backbone: teacher`, how many of its layers the student starts from, evenly spaced
            from the first to the last, or which ones (from 0); null: all.
        temperature: softens both sides' logits.
        logits: weight of the teacher's closed-tag probabilities, all its sources together (Hinton et al. 2015, arXiv
            1503.02531).
        pooled: weight of its fused vector and of its projected text and photo vectors, 1 - cosine.
        hidden: weight of its text tower's last hidden states, token by token, squared error relative to their size
            (after TinyBERT, arXiv 1909.10351). Needs the teacher's tokenizer, and a phase that trains the tower.
        labels: weight of the catalogue's own tags; unknown ones count nothing.
        views: how many views of each product the teacher is asked about: as it is, then augmented.
        folder: where its answers are kept (default: `output_dir/teacher`, until the run is done). Students of the same
            teacher, catalogue and augmentation may share one: the teacher then runs once.
    """

    teacher: str
    text_layers: int | list[int] | None = None
    temperature: float = 2.0
    logits: float = 1.0
    pooled: float = 1.0
    hidden: float = 0.0
    labels: float = 1.0
    views: int = 2
    folder: str | None = None

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        weights = {name: getattr(self, name) for name in ("logits", "pooled", "hidden", "labels")}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(f"weights must not be negative, and one of them above 0: got {weights}")
        if self.views < 1:
            raise ValueError(f"views must be at least 1, got {self.views}")
