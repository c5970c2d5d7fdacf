"""`TaggerProcessor`: product texts and photos in, the tensors of `TaggerModel` out."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import BatchFeature, PreTrainedTokenizerFast, ViTImageProcessor
from transformers.processing_utils import ProcessorMixin

from .images import read_pixels
from .lexical_features import LexicalFeatures
from .products import collate, tokenize
from .saving import FORMAT, TRAIN_AGAIN, check_format

TAG_TOKENIZER = "tag_tokenizer"
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision")


class TaggerProcessor(ProcessorMixin):
    """
    Args:
        image_processor: a `ViTImageProcessor` whose `size`, `image_mean` and `image_std` are used; None for a text-only
            model. Photos are resized to exactly that size.
        tokenizer: the text tower's tokenizer; None for a photo-only model.
        text_prefix: put before every text, for encoders trained with one ("query: " for the E5 family).
        max_length: tokens after which a text is cut.
        modalities: of "text" and "image", those that the model reads; default: those a part is given for.
        lexical: arguments of the `LexicalFeatures` that the model's lexical head reads; None: it has none.
        writes_tags: whether a tag tokenizer is saved beside the other parts, in the folder `tag_tokenizer`.
        format_version: of the saved processor, see `saving.py`.

    `tag_tokenizer` is what a decoder's tokens mean, None for a model without one.
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        text_prefix: str = "",
        max_length: int = 64,
        modalities: Sequence[str] | None = None,
        lexical: dict[str, Any] | None = None,
        writes_tags: bool = False,
        format_version: int = FORMAT,
        **kwargs,
    ):
        self.text_prefix = text_prefix
        self.max_length = max_length
        given = [("text", tokenizer), ("image", image_processor)]
        self.modalities = list(modalities or [name for name, part in given if part is not None])
        # A saved processor must have both parts: a stand-in, never called, takes the place of the one not needed.
        image_processor = ViTImageProcessor() if image_processor is None else image_processor
        tokenizer = _no_tokenizer() if tokenizer is None else tokenizer
        super().__init__(image_processor, tokenizer, **kwargs)
        self.set_lexical(lexical)
        self.writes_tags, self.format_version = writes_tags, format_version
        self.tag_tokenizer = None

    def set_lexical(self, lexical: dict[str, Any] | None) -> None:
        """What the lexical head reads from now on, see `TaggerConfig.lexical_features`."""
        self.lexical = lexical
        self._lexical_features = None if lexical is None else LexicalFeatures(**lexical)

    def set_tag_tokenizer(self, tag_tokenizer: PreTrainedTokenizerFast) -> None:
        self.tag_tokenizer, self.writes_tags = tag_tokenizer, True

    def save_pretrained(self, save_directory, **kwargs):
        if self.tag_tokenizer is not None:
            self.tag_tokenizer.save_pretrained(os.path.join(save_directory, TAG_TOKENIZER))
        return super().save_pretrained(save_directory, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if processor.writes_tags:
            where = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
            subfolder = "/".join(filter(None, (kwargs.get("subfolder"), TAG_TOKENIZER)))
            tag_tokenizer = PreTrainedTokenizerFast.from_pretrained(
                pretrained_model_name_or_path, subfolder=subfolder, **where)
            processor.set_tag_tokenizer(tag_tokenizer)
        return processor

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path, **kwargs):
        """As every processor's. Raises ValueError for one saved in another format."""
        found, kwargs = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        check_format(found.get("format_version"), pretrained_model_name_or_path, TRAIN_AGAIN)
        return found, kwargs

    @property
    def reads_text(self) -> bool:
        return "text" in self.modalities

    @property
    def reads_images(self) -> bool:
        return "image" in self.modalities

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels that photos are resized to."""
        return self.image_processor.size["height"], self.image_processor.size["width"]

    @property
    def model_input_names(self) -> list[str]:
        text = ["input_ids", "attention_mask"] if self.reads_text else []
        return text + (["pixel_values", "pixel_mask"] if self.reads_images else [])

    def __call__(
        self,
        text: str | Sequence[str | None] | None = None,
        images: Sequence[Sequence[Any]] | None = None,
        **kwargs,
    ) -> BatchFeature:
        """
        Args:
            text: one text per product; None or "" where a product has none.
            images: per product a (possibly empty) list of photos, in any form `load_image` takes.

        Returns:
            `input_ids`, `attention_mask` int64 [B, L] (all-zero mask where there is no text), what the lexical head
            reads of the whole text (see `LexicalFeatures`), and `pixel_values` float32 [N, 3, H, W] of all photos,
            `pixel_mask` bool [B, I], which of them are whose (see `stack_photos`); what the model has no tower for, or
            no product has, is left out.

        Raises:
            ValueError: neither text nor images given, or their lengths differ.
            ImageError: a photo cannot be read.
        """
        if isinstance(text, str):
            text = [text]
        if text is None and images is None:
            raise ValueError("a product needs text or a photo: pass text=, images= or both")
        if text is not None and images is not None and len(text) != len(images):
            raise ValueError(f"{len(text)} texts for {len(images)} products' images")
        texts = [None] * len(images) if text is None else text
        photos = [[]] * len(texts)
        if images is not None and self.reads_images:
            photos = [[self.pixels(photo) for photo in row] for row in images]
        return BatchFeature(self.collate(texts, photos))

    def collate(self, texts: Sequence[str | None], photos: Sequence[Sequence[np.ndarray]]) -> dict[str, torch.Tensor]:
        """As `__call__`, of photos that `pixels` has resized."""
        photo_format = {"size": self.image_size, "mean": self.image_processor.image_mean,
                        "std": self.image_processor.image_std} if self.reads_images else None
        batch = collate(texts, photos, self.encode if self.reads_text else None, photo_format, self._lexical_features)
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def lexical_features(self, texts: Sequence[str | None]) -> dict[str, torch.Tensor]:
        """The lexical head's features of texts, any of which may be None; nothing for a model without one."""
        found = {} if self._lexical_features is None else self._lexical_features(texts)
        return {name: torch.from_numpy(array) for name, array in found.items()}

    def tokenize(self, texts: Sequence[str | None]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` int64 [B, L] of texts, each of which may be None."""
        return {name: torch.from_numpy(array) for name, array in tokenize(texts, self.encode).items()}

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and attention mask [B, L] of texts, the prefix before each, cut and padded."""
        encoded = self.tokenizer([self.text_prefix + text for text in texts], truncation=True, padding=True,
                                 max_length=self.max_length, return_tensors="np")
        return encoded["input_ids"], encoded["attention_mask"]

    def pixels(self, image: Any, **options) -> np.ndarray:
        """One photo, in any form `load_image` takes (with its `options`), resized to uint8 [H, W, 3]."""
        return read_pixels(image, self.image_size, **options)


def _no_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")))


__all__ = ["TaggerProcessor"]
