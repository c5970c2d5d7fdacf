"""A real tagger small enough to be trained within a test: it reads "red mug" and sees drawn mugs and dresses."""

import copy
import functools
import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import AutoConfig, PreTrainedTokenizerFast, ViTImageProcessor

from hf_tagger.catalog.synthetic.pictures import draw_product
from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor

WORDS = "[PAD] [UNK] red blue mug dress waterproof handmade new and".split()
ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": ["Red", "Blue"]},
    {"name": "category", "kind": "single", "tags": ["Mug", "Dress"]},
    {"name": "features", "kind": "multi", "tags": ["Waterproof", "Handmade"]},
]
SIZE = 32


def photo(colour="Red", category="Mug", size=SIZE, seed=0):
    return draw_product(category, colour, None, (), size, random.Random(seed))


def tiny_processor():
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    pixels = ViTImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return TaggerProcessor(pixels, tokenizer, max_length=16)


def tiny_model(text=True, image=True, **options):
    torch.manual_seed(0)
    text_config = RecurrentTextConfig(
        cell="gru", vocab_size=len(WORDS), embedding_size=16, hidden_size=32, dropout=0.0, initializer_range=0.5
    )
    vision_config = AutoConfig.for_model("timm_wrapper", architecture="test_convnext", do_pooling=True)
    config = TaggerConfig(
        attributes=ATTRIBUTES,
        text_config=text_config if text else None,
        vision_config=vision_config if image else None,
        hidden_size=16,
        dropout=0.0,
        **options,
    )
    return TaggerModel(config)


def trained_tagger():
    """(model, processor) that tags red and blue mugs and dresses rightly from text, photo or both. Trained once in a
    process; each caller gets a copy."""
    return copy.deepcopy(_trained_tagger())


@functools.cache
def _trained_tagger(steps=50):
    model, processor = tiny_model(), tiny_processor()
    texts, photos, labels = [], [], []
    for number in range(36):
        colour, category, waterproof, handmade = (number >> place & 1 for place in range(4))
        has_text, has_photo = number < 32, number >= 16
        words = [["red", "blue"][colour], ["mug", "dress"][category], "waterproof" * waterproof, "handmade" * handmade]
        texts.append(" ".join(words) if has_text else None)
        colour_tag, category_tag = ATTRIBUTES[0]["tags"][colour], ATTRIBUTES[1]["tags"][category]
        photos.append([photo(colour_tag, category_tag, seed=number)] if has_photo else [])
        labels.append([1 - colour, colour, 1 - category, category, waterproof, handmade])
    batch, labels = processor(text=texts, images=photos), torch.tensor(labels, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(steps):
        loss = nn.functional.binary_cross_entropy_with_logits(model(**batch).tag_logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), processor
