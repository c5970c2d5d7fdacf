"""The try-it tab: tags a text, a photo, a spoken description or a product of the catalogue."""

import gradio as gr
from PIL import Image

from hf_tagger.model.images import ImageError, load_image
from hf_tagger.model.products import ProductError
from hf_tagger.review.predictions import CatalogPredictions, Product
from hf_tagger.review.views import PHOTO_SIDE, tags_view


def try_it_tab(predictions: CatalogPredictions, speech: str | None) -> None:
    """`speech`: checkpoint of a speech recogniser; None: no microphone."""
    tagger = predictions.tagger
    config = tagger.model.config
    speech = speech or config.speech
    with gr.Row():
        with gr.Column(min_width=300):
            product = gr.Textbox(label="Product of the catalogue", max_lines=1, elem_id="try-product",
                                 placeholder="Its id, or its number (the first is 1), and Enter")
            text = gr.Textbox(label="Text", lines=4, placeholder="Title and description, in any language",
                              elem_id="try-text", visible=config.text_config is not None)
            photo = gr.Image(label="Photo", type="pil", sources=["upload", "clipboard", "webcam"], height=260,
                             elem_id="try-photo", visible=config.vision_config is not None)
            audio = gr.Audio(label="Spoken description", sources=["microphone", "upload"], type="filepath",
                             elem_id="try-audio", visible=speech is not None and config.text_config is not None)
            language = gr.Dropdown(config.decoder["languages"] if config.decoder else [], label="Free-form tags in",
                                   visible=config.decoder is not None)
            button = gr.Button("Tag it", variant="primary", elem_id="try-button")
        with gr.Column(min_width=300):
            result = gr.HTML(elem_id="try-result", apply_default_css=False)

    def look_up(wanted: str) -> tuple:
        """(text, photo, trouble)"""
        found = find_product(predictions, wanted.strip())
        if found is None:
            trouble = f"None of the {len(predictions.products):,} products read so far has the id {wanted.strip()!r}."
            return gr.skip(), gr.skip(), tags_view([], [], trouble=trouble)
        return found.text or "", first_photo(found, predictions.allow_urls), ""

    def tag(text: str, photo, audio: str | None, language: str | None):
        try:
            with predictions.lock:
                heard = tagger.transcribe(audio, speech) if audio else ""
                product = {"text": ". ".join(filter(None, (text.strip(), heard))) or None, "image": photo,
                           "language": language or None}
                tags = tagger({key: value for key, value in product.items() if value is not None},
                              free_form=config.decoder is not None)
            return tags_view(config.attributes, tags, heard)
        except (ProductError, ValueError) as error:
            return tags_view([], [], trouble=str(error).removeprefix("item 0: "))

    inputs = [text, photo, audio, language]
    options = {"api_visibility": "private", "concurrency_limit": 1}
    button.click(tag, inputs, result, **options)
    text.submit(tag, inputs, result, **options)
    product.submit(look_up, product, [text, photo, result], **options)


def find_product(predictions: CatalogPredictions, wanted: str) -> Product | None:
    """By its id, else by its number among the products, from 1."""
    row = predictions.row_of.get(wanted)
    if row is None and wanted.isdecimal() and 0 < int(wanted) <= len(predictions.products):
        row = int(wanted) - 1
    return None if row is None else predictions.products[row]


def first_photo(product: Product, allow_urls: bool) -> Image.Image | None:
    """The first photo that can be read."""
    for source in product.images:
        try:
            return load_image(source, min_size=(PHOTO_SIDE, PHOTO_SIDE), allow_urls=allow_urls)
        except ImageError:
            continue
    return None
