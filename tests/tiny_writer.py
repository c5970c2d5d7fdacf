"""The tiny tagger with a decoder, trained until it writes the tags of drawn mugs and dresses."""

import copy
import functools
import random

import torch

from hf_tagger.catalog.batching.collate import padded
from hf_tagger.catalog.batching.targets import TargetEncoder
from hf_tagger.catalog.free_form import TargetSettings
from hf_tagger.model.saving import first_control_id
from hf_tagger.training.losses import SequenceLoss
from hf_tagger.training.tag_tokenizer import train_tag_tokenizer
from tests.tiny_tagger import ATTRIBUTES, photo, trained_tagger

LANGUAGES, SOURCES = ["de", "en"], ["colour", "category", "keywords"]
GERMAN = {"Red": "rot", "Blue": "blau", "Mug": "Becher", "Dress": "Kleid"}


def add_tiny_decoder(model, processor, **options):
    tags = [tag for attribute in ATTRIBUTES for tag in attribute["tags"]]
    tags += ["coffee mug", "party dress", *GERMAN.values()]
    tokenizer = train_tag_tokenizer(tags * 5, LANGUAGES, SOURCES, vocab_size=450)
    torch.manual_seed(0)
    model.add_decoder({"vocab_size": len(tokenizer), "d_model": 32, "layers": 2, "heads": 2, "ffn_dim": 64,
                       "dropout": 0.0, "max_length": 32, "languages": LANGUAGES, "attributes": SOURCES,
                       "aliases": {"crimson": "Red"}, "tag_languages": dict.fromkeys(GERMAN, "en"), **options},
                      tokenizer)  # fmt: skip
    processor.set_tag_tokenizer(tokenizer)


def writing_tagger():
    """(model, processor): tags in English or German, and as a keyword "coffee mug" or "party dress". Trained once in a
    process; each caller gets a copy."""
    return copy.deepcopy(_writing_tagger())


@functools.cache
def _writing_tagger(steps=180):
    model, processor = trained_tagger()
    add_tiny_decoder(model, processor)
    teach_to_write(model, processor, steps)
    return model.eval(), processor


def teach_to_write(model, processor, steps):
    encode = TargetEncoder(processor.tag_tokenizer, model.config, TargetSettings(order="sorted", attribute_prompt=0.5))
    loss, draw = SequenceLoss(first_control_id(model.config.decoder)), random.Random(0)
    parameters = [*model.decoder.parameters(), *model.decoder_memory.parameters(),
                  *model.encoder.text_token_projection.parameters(), *model.encoder.image_token_projection.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    texts, photos, products = [], [], []
    for number in range(16):
        colour, category = ATTRIBUTES[0]["tags"][number & 1], ATTRIBUTES[1]["tags"][number >> 1 & 1]
        texts.append(f"{colour} {category}".lower() if number < 12 else None)
        photos.append([photo(colour, category, seed=number)] if number >= 4 else [])
        products.append((colour, category))
    batch = processor(text=texts, images=photos)
    # The towers are not taught, so they run once.
    inputs = [batch.pop(name) for name in ("input_ids", "attention_mask", "pixel_values", "pixel_mask")]
    with torch.no_grad():
        features = model.encoder.run_towers(*inputs, output_states=True)
    for _ in range(steps):
        rows = []
        for colour, category in products:
            language = draw.choice(LANGUAGES)
            written = {"colour": [colour], "category": [category]}
            if language == "de":
                written = {name: [GERMAN[tag] for tag in tags] for name, tags in written.items()}
            else:
                written["keywords"] = [{"Mug": "coffee mug", "Dress": "party dress"}[category]]
            rows.append(encode(written, language, draw))
        labels = padded(rows)
        part = loss(model(**batch, features=features, labels=labels).logits, labels)
        part.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
