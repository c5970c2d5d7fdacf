"""The try-it tab: tags a text, a photo or a spoken description."""

import gradio as gr

from hf_tagger.model.products import ProductError
from hf_tagger.review.predictions import CatalogPredictions
from hf_tagger.review.views import tags_view


def try_it_tab(predictions: CatalogPredictions, speech: str | None) -> None:
    """
    Args:
        speech: checkpoint of a speech recogniser; None: no microphone.
    """
    tagger = predictions.tagger
    config = tagger.model.config
    speech = speech or config.speech
    with gr.Row():
        with gr.Column(min_width=300):
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
