"""An untrained tagger with every part that a model can have, and products to show it."""

import torch
from transformers import AutoConfig

from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.modeling_tagger import TaggerModel
from tests.tiny_tagger import ATTRIBUTES, SIZE, WORDS, photo, tiny_processor

TEXTS = ["red mug", None, "blue waterproof dress", "new handmade red and blue dress", None]
SOURCES = {"lexical_buckets": 256, "name_match": True, "kernel_landmarks": 4, "kernel_dim": 8,
           "kernel_weights": {"text": 1.0, "final": 0.5}}
LEXICAL = TaggerConfig(attributes=ATTRIBUTES, text_config=RecurrentTextConfig(), **SOURCES).lexical_features
PHOTOS = [[photo("Red", "Mug")], [photo("Blue", "Mug", seed=1)], [], [photo(seed=2), photo("Blue", seed=3)], []]
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "img_size": SIZE, "window_size": 4}
TOWERS = {
    "test_resnet": {},
    "test_efficientnet": {},
    "test_convnext": {},
    "test_vit": {"img_size": SIZE},
    "swin_tiny_patch4_window7_224": SWIN,
}


def text_config(kind="bert"):
    if kind == "bert":
        return AutoConfig.for_model("bert", vocab_size=len(WORDS), pad_token_id=0, **BERT)
    return RecurrentTextConfig(cell=kind, vocab_size=len(WORDS), embedding_size=8, hidden_size=16)


def tagger(text="bert", architecture="test_resnet", **options):
    """A model with all sources of a tag's score whose weights, buffers included, are random enough to matter."""
    torch.manual_seed(0)
    vision = architecture and AutoConfig.for_model(
        "timm_wrapper", architecture=architecture, do_pooling=True, model_args=TOWERS[architecture]
    )
    sources = SOURCES if text else {name: value for name, value in SOURCES.items() if name.startswith("kernel")}
    options = {"attributes": ATTRIBUTES, "hidden_size": 16, "dropout": 0.0} | sources | options
    model = TaggerModel(TaggerConfig(text_config=text_config(text) if text else None, vision_config=vision, **options))
    if text:
        model.name_tags(tiny_processor())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point() and not name.endswith(("histogram.mean", "histogram.std")):
                buffer.add_(0.2 * torch.rand_like(buffer))
    return model.eval()


def batch(texts=TEXTS, photos=PHOTOS):
    """Rows with text, photos, both and neither (the last)."""
    return dict(lexical_processor()(text=texts, images=photos))


def lexical_processor():
    """Of a `tagger`."""
    processor = tiny_processor()
    processor.set_lexical(LEXICAL)
    return processor


@torch.no_grad()
def outputs(model, inputs, **options):
    return dict(model(**inputs, **options))
