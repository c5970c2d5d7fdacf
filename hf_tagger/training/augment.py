"""Augmentation of a product's text and photos while training. Rates are probabilities per product and epoch."""

import random
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torchvision.transforms import v2

from hf_tagger.model.text import WORD, stem
from hf_tagger.training.settings import ImageAugmentation, TextAugmentation


class OwnNames:
    """A function record -> its tags and their other spellings, whose words stand for them in texts."""

    def __init__(self, attributes: Sequence[dict] = ()):
        self.aliases: dict[tuple[str, str], list[str]] = {}
        for entry in attributes:
            for spelling, tag in (entry.get("aliases") or {}).items():
                self.aliases.setdefault((entry["name"], tag), []).append(spelling)

    def __call__(self, record: dict) -> list[str]:
        return [spelling for name, given in record["tags"].items() for tag in given or ()
                for spelling in (tag, *self.aliases.get((name, tag), ()))]


def text_augmenter(settings: TextAugmentation, names: OwnNames | None = None) -> Callable[[dict], str | None]:
    """A function record -> text (None where nothing is left)."""
    return partial(_augment_text, settings, names or OwnNames())


def _augment_text(settings: TextAugmentation, names: OwnNames, record: dict) -> str | None:
    texts = record["texts"]
    if len(texts) > 1 and random.random() < settings.field_dropout:
        texts = [random.choice(texts)]
    text = ". ".join(texts)
    if random.random() < settings.label_masking:
        text = mask_labels(text, names(record))
    if settings.word_dropout or settings.typos:
        text = " ".join(_noisy_words(text.split(), settings))
    return text.strip() or None


def masked_text(names: OwnNames, record: dict) -> str | None:
    """A record's text without any word of its own tags; None where nothing is left."""
    return mask_labels(record["text"] or "", names(record)) or None


def mask_labels(text: str, tags: list[str]) -> str:
    """The text without any word of the given tags, whatever its case, plural or possessive. In languages written
    without spaces a tag is cut out wherever its characters stand."""
    stems = {stem(word) for tag in tags for word in WORD.findall(tag)}
    for tag in tags:
        if any(ord(character) > 0x2E7F for character in tag):
            text = text.replace(tag, " ")
    kept = WORD.sub(lambda match: "" if stem(match.group()) in stems else match.group(), text)
    return " ".join(kept.split())


def _noisy_words(words: list[str], settings: TextAugmentation) -> list[str]:
    kept = [word for word in words if random.random() >= settings.word_dropout] or words[:1]
    return [_typo(word) if len(word) > 2 and random.random() < settings.typos else word for word in kept]


def _typo(word: str) -> str:
    at = random.randrange(len(word) - 1)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2:]
    return random.choice([swapped, word[:at] + word[at + 1:], word[:at] + word[at] + word[at:]])


def image_augmenter(settings: ImageAugmentation) -> Callable[[np.ndarray], np.ndarray]:
    """A function uint8 [H, W, 3] -> uint8 [H, W, 3]."""
    return partial(_augment_image, settings)


def _augment_image(settings: ImageAugmentation, photo: np.ndarray) -> np.ndarray:
    height, width = photo.shape[:2]
    steps = (
        _sometimes(settings.crop, v2.RandomResizedCrop((height, width), scale=(settings.crop_scale, 1.0),
                                                       ratio=(0.8 * width / height, 1.25 * width / height)))
        + _sometimes(settings.flip, v2.RandomHorizontalFlip(p=1.0))
        + _sometimes(0.5 if settings.rotation else 0.0, v2.RandomRotation(settings.rotation or 1.0, fill=255))
        + _sometimes(settings.colour_jitter, v2.ColorJitter(0.2, 0.2, 0.2, 0.05))
        + _sometimes(settings.noise, _pixel_noise)
        + _sometimes(settings.erasing, v2.RandomErasing(p=1.0, scale=(0.02, 0.2)))
    )
    pixels = torch.from_numpy(photo.copy()).permute(2, 0, 1)
    for step in steps:
        pixels = step(pixels)
    return pixels.permute(1, 2, 0).contiguous().numpy()


def _sometimes(rate: float, transform) -> list:
    return [v2.RandomApply([transform], p=rate)] if rate else []


def _pixel_noise(pixels: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(pixels.shape) * (0.02 * 255)
    return (pixels + noise).round().clamp(0, 255).to(torch.uint8)
