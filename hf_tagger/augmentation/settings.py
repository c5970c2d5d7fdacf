"""The `augmentation` section of a run: extra training vectors for rare tags."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

Method = Literal["none", "residual_transfer", "pseudo_labels", "semi_supervised_gan"]


@dataclass
class GanSettings:
    REMOVED: ClassVar[dict[str, str]] = dict.fromkeys(
        ("steps", "critic_steps", "gradient_penalty", "classification"),
        "leave it out, it was of method: gan, which is no longer there")

    latent: int = 32  # width of the noise
    hidden: int = 256  # width of the hidden layers
    learning_rate: float = 5e-4
    # Weight of the loss that separates products without known tags from generated vectors.
    unlabelled: float = 0.3
    check_every: int = 50  # steps between checks for divergence and mode collapse
    # Spread of generated vectors of one tag, relative to that of real ones, below which the generator has collapsed.
    min_diversity: float = 0.05


@dataclass
class AugmentationSettings:
    RENAMED: ClassVar[dict[str, str]] = {"balance": "logit_adjustment_tau"}
    REMOVED: ClassVar[dict[str, str]] = dict.fromkeys(
        ("method: resampling", "method: noise", "method: mixup", "method: gan", "noise"),
        "write method: none, logit adjustment alone did better, or residual_transfer, which did best") | {
        "critic": "the critic of tag sets gained nowhere, leave it out"}

    # Where extra vectors come from: residual_transfer (rare tags borrow the spread of frequent ones), pseudo_labels
    # (unlabelled products), semi_supervised_gan. The default did best of those that need no
    # unlabelled products in recipes/lab/benchmark_rare_tags.py.
    method: Method = "residual_transfer"
    logit_adjustment_tau: float = 1.0  # of the loss by which the tag head is retrained (`training.losses`)
    attributes: list[str] = field(default_factory=list)  # those whose tags get extra vectors (none named: all)
    rare: int = 20  # a tag with at most so many training products is rare; the others lend residuals
    min_examples: int = 50  # lowest number of training products with a known tag of an attribute
    epochs: int = 20  # of retraining the tag head, as the next three
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    weight: float = 1.0  # of the loss on extra vectors, relative to that on real ones
    power: float = -1.0  # tags are drawn in proportion to (their products) ** -power; -1: as often as they occur
    recombine: float = 0.3  # share of generated tag sets whose tags of one attribute come from another product
    confidence: float = 0.5  # least probability of a pseudo-label
    max_rows: int = 200_000  # most products to learn from; those with rare tags come first
    gan: GanSettings = field(default_factory=GanSettings)
