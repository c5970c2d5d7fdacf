"""The `augmentation` section of a run: extra training vectors for rare tags."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

Method = Literal["none", "resampling", "noise", "mixup", "residual_transfer", "pseudo_labels", "gan",
                 "semi_supervised_gan"]


@dataclass
class GanSettings:
    """
    Args:
        steps: generator steps; critic_steps: critic steps for each (`method: gan`).
        latent: width of the noise; hidden: width of the hidden layers of generator and critic.
        learning_rate: of both.
        gradient_penalty: weight of the critic's gradient penalty (WGAN-GP).
        classification: weight of the trained tag head's loss on the generated vectors.
        unlabelled: weight of the loss that separates products without known tags from generated vectors
            (`semi_supervised_gan`).
        check_every: steps between checks for divergence and mode collapse.
        min_diversity: spread of generated vectors of one tag, relative to that of real ones, below which the generator
            counts as collapsed.
    """

    steps: int = 600
    critic_steps: int = 2
    latent: int = 32
    hidden: int = 256
    learning_rate: float = 5e-4
    gradient_penalty: float = 10.0
    classification: float = 0.3
    unlabelled: float = 0.3
    check_every: int = 50
    min_diversity: float = 0.05


@dataclass
class AugmentationSettings:
    """
    Args:
        method: where extra vectors come from: none, resampling, noise, mixup (of products that share a tag),
            residual_transfer (rare tags borrow the spread of frequent ones), pseudo_labels (unlabelled products),
            gan (conditional WGAN-GP), semi_supervised_gan. The default did best of those that need no unlabelled
            products in recipes/lab/benchmark_rare_tags.py.
        logit_adjustment_tau: of the loss by which the tag head is retrained (`training.losses`).
        attributes: those whose tags get extra vectors (none named: all).
        rare: a tag with at most so many training products is rare; the others lend residuals.
        min_examples: lowest number of training products with a known tag of an attribute.
        epochs, batch_size, learning_rate, weight_decay: of retraining the tag head.
        weight: of the loss on extra vectors, relative to that on real ones.
        power: tags are drawn in proportion to (their products) ** -power; -1: as often as they occur.
        recombine: share of generated tag sets in which the tags of one attribute come from another product.
        noise: standard deviations of Gaussian noise; confidence: least probability of a pseudo-label.
        critic: also train a critic of tag sets and save it beside the model, for `pipeline(..., critic=True)`. It is
            used by default only if it raises micro- and macro-F1 on validation.
        max_rows: most products to learn from; those with rare tags come first.
    """

    RENAMED: ClassVar[dict[str, str]] = {"balance": "logit_adjustment_tau"}

    method: Method = "residual_transfer"
    logit_adjustment_tau: float = 1.0
    attributes: list[str] = field(default_factory=list)
    rare: int = 20
    min_examples: int = 50
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    weight: float = 1.0
    power: float = -1.0
    recombine: float = 0.3
    noise: float = 0.6
    confidence: float = 0.5
    critic: bool = False
    max_rows: int = 200_000
    gan: GanSettings = field(default_factory=GanSettings)
