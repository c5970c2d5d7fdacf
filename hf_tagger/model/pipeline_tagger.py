"""`pipeline("product-tagging")`: products in, their tags with scores out, one product or a stream of millions."""

import importlib
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Pipeline
from transformers.utils import cached_file, is_peft_available

from .decisions import best_first, list_tags
from .products import (
    FREE_FORM_OPTIONS,
    NO_RECOGNIZER,
    ProductError,
    check_free_form,
    check_names,
    check_needless,
    check_options,
    read_product,
    tag_inputs,
)
from .saving import carry, part

OPTIONS = (
    "top_k", "threshold", "attributes", "allow_urls", "allow_private_addresses", "on_error", "speech",
    "user_history", *FREE_FORM_OPTIONS,
)  # fmt: skip
GENERATION_OPTIONS = frozenset(GenerationConfig().to_dict()) - {"top_k"}
HANDLER = "handler.py"


class ProductTaggingPipeline(Pipeline):
    """Tags products by title and description (any language), photos, or only one of the two.

        tagger = pipeline("product-tagging", model="my-shop/tagger")
        tagger({"title": "Rotes Kleid", "image": "dress.jpg"})
        [{"label": "Dress", "score": 0.98, "attribute": "category", "source": "vocabulary"}, ...]

    Inputs: a str (the text), or a dict with any of `text` or `title` and `description`, `language` (the one that
    free-form tags are wanted in), `image` or `images`: PIL images, paths, bytes, undecoded `datasets` images, uint8
    arrays, or URLs with `allow_urls=True`; and `audio`, a spoken description, see `speech.transcribe`. What the
    model has no tower for is passed over. One product gives a list of tags; a list or tuple of products a list of
    those; any other iterable (generator, `datasets` or torch dataset) is streamed: an iterator that gives the results
    in the input's order.

    Options, for the pipeline or for one call:
        top_k: at most so many tags per product, the best ones.
        threshold: lowest score to be listed, for all tags alike, also for several tags of a `single` attribute (0 with
            `top_k` lists the best candidates). Default: the model's own thresholds, fitted on validation data, and of
            a `single` attribute the best tag.
        attributes: names of the attributes wanted. Default: all.
        allow_urls: fetch photos from http(s) URLs; at most 20 MiB and 10 seconds each.
        allow_private_addresses: let URLs reach loopback and private addresses.
        speech: who hears `audio`: folder or Hub id of a checkpoint for automatic speech recognition (Whisper, say), or
            such a pipeline; default: the config's `speech`. What is said joins the text.
        free_form: also list tags that the model's decoder writes (`source` "generated"), from the same encoder pass.
            One that is a closed tag carries its attribute, and is listed once.
        language: whose products' tags they are to be like, in place of the products' own language: in catalogues whose
            tags are in one language for all products, they are in that one.
        constrained: let the decoder write closed tags only.
        max_tags: at most so many written tags per product; with `attributes`, for each of these.
        min_score: lowest score of a written tag (default: `threshold`, else the model's own).
        Further options go to `generate`: num_beams, do_sample, temperature, max_new_tokens ... With `free_form`,
            `attributes` are also what the decoder is asked for, each on its own.
        user_history: what a shopper viewed or bought: products, or {"product" or "label" and "attribute", "weight",
            "time"}, see `personalization.read_events`; or a profile of `user_profile`. A product's tags are then
            ordered for this shopper, before `top_k` is applied; none is added, no score changed. Nothing of it is kept.
        on_error: "raise" `ProductError`, or "skip": the product's result is `{"error": message}`, and the rest goes on.
        batch_size: products per model run (default 32). A stream is read ahead by up to two batches.
        backend: "torch", or the name of the folder beside the model that recipes/export.py wrote ("onnx"), to run what
            was exported through onnxruntime, free-form tags by greedy search only. `hf_tagger.runtime`
            does the same without loading torch.
        num_workers: threads that read photos while the model runs (default 1; 0: none).
    """

    _load_processor = True
    _load_tokenizer = _load_image_processor = _load_feature_extractor = _load_video_processor = False
    _non_generation_params = ("top_k",)
    _push_handler = False

    def __init__(self, *args, backend: str = "torch", **kwargs):
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError("product-tagging needs the model's processor: pass processor=, or a folder that has one")
        self.model.eval()
        _merge_adapters(self.model)
        config = self.model.config
        self._modalities = config.text_config is not None, config.vision_config is not None
        self._free_form, self._recognizers = None, {}
        self._onnx = None if backend == "torch" else self._open_exported(backend)

    def _open_exported(self, backend: str):
        folder = self.model.name_or_path
        if not folder or not os.path.isdir(os.path.join(folder, backend)):
            raise ValueError(f"there is no folder {backend!r} in {folder or 'the model'}: backend is \"torch\", or the "
                             "name of a folder that recipes/export.py wrote beside the model")
        try:
            # By name at run time: what runs an exported model never ships with one.
            runtime = importlib.import_module("hf_tagger.runtime")
        except ImportError as error:
            raise ImportError(f"backend={backend!r} needs hf_tagger itself: pip install 'hf_tagger[onnx]'") from error
        exported = runtime.OnnxTagger(os.path.join(folder, backend), model=runtime.model_fingerprint(folder))
        self.model.to("meta")  # its configuration is all that is still needed
        return exported

    def autocast(self) -> torch.autocast:
        """bfloat16 where the device computes in it faster, unless the model has a precision of its own."""
        wanted = self.model.dtype == torch.float32 and bf16_is_fast(self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)

    def save_pretrained(self, save_directory: str | os.PathLike, handler: bool = False, **kwargs):
        """Saves the model, its processor and the code of both: all that the pipeline needs.

        Args:
            handler: also save `handler.py`, by which Hugging Face Inference Endpoints run the model. One beside the
                model that the pipeline was opened from is saved anyway.
        """
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)
        self.save_code(save_directory, handler)

    def save_code(self, folder: str | os.PathLike, handler: bool = False) -> None:
        """Saves the pipeline's own code for what the model in `folder` has: decoder, shoppers, speech."""
        config, handler = self.model.config, handler or self._push_handler
        beside = None if handler else self._file_beside(HANDLER)
        own = Path(beside).read_bytes() if beside else None
        used = {"decoder": config.decoder, "reranking": config.personalization,
                "speech": config.speech, "handler": handler or own}
        carry(self, folder, [name for name, wanted in used.items() if wanted])
        if own:
            Path(folder, HANDLER).write_bytes(own)

    def push_to_hub(self, *args, handler: bool = False, **kwargs):
        """As every `push_to_hub` of transformers; `handler` as in `save_pretrained`."""
        self._push_handler = handler
        try:
            return super().push_to_hub(*args, **kwargs)
        finally:
            self._push_handler = False

    def __call__(self, inputs, *, batch_size: int | None = None, num_workers: int | None = None, **options):
        batch_size = batch_size or self._batch_size or 32
        num_workers = next(given for given in (num_workers, self._num_workers, 1) if given is not None)
        parameters = self._sanitize_parameters(**options)
        stored = (self._preprocess_params, self._forward_params, self._postprocess_params)
        parameters = [{**old, **new} for old, new in zip(stored, parameters, strict=True)]
        history = parameters[2].pop("user_history", None)
        if history:
            parameters[2]["profile"] = self.user_profile(history)
        return tag_inputs(self, inputs, parameters, num_workers, batch_size)

    def answer(self, request: dict[str, Any]) -> list | dict[str, str]:
        """The tags that a decoded JSON request asks for, see `request`: what `handler.py` calls."""
        return part("handler", "answering requests").answer_request(self, request)

    def user_profile(self, history):
        """What `user_history` amounts to, a `ShopperProfile`, to be used for several calls, or kept with its `save`.

        Raises ValueError for an entry that is not understood or a model without a fitted gate, and `ProductError` for
        a product that cannot be read, unless the pipeline skips those.
        """
        reranking = part("reranking", "user_history")
        if isinstance(history, reranking.ShopperProfile):
            return history
        events = reranking.read_events(history)
        products = [event for event in events if "product" in event]
        plain = {"top_k": None, "threshold": None, "attributes": None, "free_form": False, "user_history": None}
        tagged = self([event["product"] for event in products], **plain) if products else []
        for event, tags in zip(products, tagged, strict=True):
            event["tags"] = [] if isinstance(tags, dict) else tags
        return reranking.shopper_profile(self.model, events)

    def _sanitize_parameters(self, **options):
        generation = {name: value for name, value in options.items() if name in GENERATION_OPTIONS}
        check_names([name for name in options if name not in generation], OPTIONS)
        if options.get("free_form", getattr(self, "_forward_params", {}).get("free_form")):
            self.model._check_decoder()
            check_free_form(options, self.model.config.decoder)
        else:
            check_needless(options, tuple(generation))
        known = [attribute["name"] for attribute in self.model.config.attributes]
        if options.get("free_form"):
            known += [name for name in self.model.config.decoder["attributes"] if name not in known]
        check_options({name: value for name, value in options.items() if name not in generation}, OPTIONS, known)
        groups = (("allow_urls", "allow_private_addresses", "on_error", "speech"),
                  (*FREE_FORM_OPTIONS, "attributes", "threshold"),
                  ("top_k", "threshold", "attributes", "user_history"))
        groups = [{name: options[name] for name in group if name in options} for group in groups]
        if generation:
            groups[1]["generation"] = generation
        return groups

    def check(self, options: dict[str, Any]) -> None:
        """Raises TypeError for an unknown option, ValueError for a value that is not understood."""
        self._sanitize_parameters(**options)

    def tag_batch(self, batch, languages, **options) -> tuple:
        """`collate`'s tensors and the products' languages -> scores and the tags chosen [B, T] each, and what is
        written of each product: what `postprocess` takes, row by row."""
        output = self.forward(batch, languages=languages, **options)
        return output["scores"], output["chosen"], output["written"]

    def preprocess(self, product, position: int | None = None, speech: str | Pipeline | None = None,
                   **reading) -> dict[str, Any]:
        """One product, as `read_product` gives it."""
        return read_product(product, *self._modalities, self.processor.pixels, position,
                            transcribe=partial(self.transcribe, speech=speech), **reading)

    def transcribe(self, audio, speech: str | Pipeline | None = None) -> str:
        """What is said in a spoken description, as it joins a product's text; `speech` as the option of that name.

        Raises ProductError where there is no recogniser, or nothing that it could hear.
        """
        speech = speech or self.model.config.speech
        if speech is None:
            raise ProductError(NO_RECOGNIZER)
        hearing = part("speech", "a spoken description")
        try:
            if isinstance(speech, str):
                speech = hearing.open_recognizer(speech, self.device, self._recognizers)
            return hearing.transcribe(speech, audio)
        except hearing.AudioError as error:
            raise ProductError(f"audio: {error}") from error

    def collate(self, products):
        """Products of `preprocess` -> the processor's tensors, or None if there is no product."""
        if not products:
            return None
        if self._onnx is not None:
            return self._onnx.collate(products)
        return self.processor.collate([product["text"] for product in products],
                                      [product["photos"] for product in products])

    def _file_beside(self, name: str) -> str | None:
        source = self.model.name_or_path
        return cached_file(source, name, _raise_exceptions_for_missing_entries=False) if source else None

    def _forward(self, batch, languages, free_form=False, language=None, attributes=None, threshold=None,
                 min_score=None, generation=None, **options):
        if self._onnx is not None:
            tagged = self._onnx.tag_batch(batch, languages, free_form, language, attributes, threshold, min_score,
                                          **options, **(generation or {}))
            return dict(zip(("scores", "chosen", "written"), tagged, strict=True))
        if "pixel_values" in batch:
            batch["pixel_values"] = batch["pixel_values"].to(self.model.dtype)
        with self.autocast():
            output = self.model(**batch, output_memory=free_form)
            scores = self.model.tag_scores(output.tag_logits, output.none_logits)
            written = [[] for _ in scores]
            if free_form:
                self._free_form = self._free_form or part("decoder", "free_form").FreeFormTagger(
                    self.model, self.processor)
                written = self._free_form(
                    output.memory, languages, scores.float().cpu().numpy(), attributes, language=language,
                    min_score=threshold if min_score is None else min_score, **options, **(generation or {}))
            chosen = self.model.predicted_tags(scores)
        return {"scores": scores, "chosen": chosen, "written": written, "pooled": output.pooled}

    def postprocess(self, outputs, top_k=None, threshold=None, attributes=None, profile=None) -> list[dict[str, Any]]:
        """Of one product the scores and the model's own choice, [T] each, and the written tags -> its tags, best first,
        or with a profile in the order of that shopper. A written tag that is among the chosen is not listed again."""
        scores, chosen = outputs[0].tolist(), outputs[1].tolist()
        listed = list_tags(self.model.config.attributes, scores, chosen, threshold, attributes)
        listed = best_first(listed, outputs[2])
        if profile is not None:
            listed.sort(key=lambda tag: -math.log(max(tag["score"], 1e-12)) - profile.of(tag))
        return listed[:top_k]


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself, so that autocast to it saves time."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch that we allow
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False


def _merge_adapters(model) -> None:
    """Folds adapters into the weights, in place, if `from_pretrained` loaded them for inference."""
    if is_peft_available() and getattr(model, "_hf_peft_config_loaded", False):
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import ModulesToSaveWrapper

        for name, module in list(model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                module.merge()
                model.set_submodule(name, module.get_base_layer())
            elif isinstance(module, ModulesToSaveWrapper):
                model.set_submodule(name, module.modules_to_save[module.active_adapter])
        model._hf_peft_config_loaded = False
        model._weight_conversions = None  # would save the weights under an adapter's names
        del model.peft_config


__all__ = ["ProductError", "ProductTaggingPipeline", "bf16_is_fast"]
