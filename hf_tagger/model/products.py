"""What goes into a tagger, products and options, for every backend alike: standard library, Pillow and numpy only."""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from numbers import Integral, Real
from typing import Any

import numpy as np
from PIL import Image

from .images import ImageError, stack_photos
from .saving import control_id
from .text import clean_text, did_you_mean

PRODUCT_KEYS = ("text", "title", "description", "language", "image", "images", "audio")
NO_RECOGNIZER = (
    'audio needs a speech recogniser: give the pipeline speech="openai/whisper-small", say (a folder or Hub id of any '
    "checkpoint for automatic speech recognition), or name one under `speech` in the model's config.json"
)
FLAGS = ("free_form", "constrained", "allow_urls", "allow_private_addresses")
FREE_FORM_OPTIONS = ("free_form", "language", "constrained", "max_tags", "min_score")


class ProductError(ValueError):
    """A product that cannot be tagged: the message names the item and the remedy."""


def read_product(product, reads_text: bool, reads_photos: bool, pixels: Callable, position: int | None = None,
                 on_error: str = "raise", transcribe: Callable[[Any], str] | None = None, **reading) -> dict[str, Any]:
    """One product -> {"text": str | None, "photos": [uint8 [H, W, 3], ...], "language": str | None}, or, to be
    skipped, {"error": str}. `pixels` opens and resizes a photo (see `images.read_pixels`, whose options `reading`
    holds); `transcribe` says what is said in a spoken description, and raises ProductError where it cannot. Messages
    name the `position`.

    Raises ProductError for neither text nor a photo that the model reads, an unreadable photo, audio that cannot be
    heard, a value of a wrong type, an unknown key.
    """
    try:
        text, sources = _read(product, reads_text, reads_photos, transcribe)
        photos = []
        for number, source in enumerate(sources):
            try:
                photos.append(pixels(source, **reading))
            except ImageError as error:
                raise ProductError(f"image {number}: {error}") from error
        language = product.get("language") if isinstance(product, Mapping) else None
        return {"text": text, "photos": photos, "language": language}
    except ProductError as error:
        message = str(error) if position is None else f"item {position}: {error}"
        if on_error == "skip":
            return {"error": message}
        raise ProductError(message) from error.__cause__


def _read(product, reads_text: bool, reads_photos: bool,
          transcribe: Callable[[Any], str] | None) -> tuple[str | None, list]:
    if isinstance(product, str):
        product = {"text": product}
    if not isinstance(product, Mapping):
        raise ProductError(
            f"{type(product).__name__} is not a product; pass a str, or a dict with {', '.join(PRODUCT_KEYS)}"
        )
    for key in product:
        if key not in PRODUCT_KEYS:
            raise ProductError(f"unknown key {key!r:.80}.{did_you_mean(key, PRODUCT_KEYS)} Leave out or rename what is "
                               "not known (of a dataset: select_columns; of a DataFrame: df[[\"title\", \"image\"]])")
    product = {key: value for key, value in product.items() if not _is_missing(value)}
    for key in ("text", "title", "description", "language"):
        if not isinstance(product.get(key), str | None):
            raise ProductError(f"{key} must be a str, got {type(product[key]).__name__}; convert or leave it out")
    if product.get("text") and (product.get("title") or product.get("description")):
        raise ProductError("got text beside title or description; pass the one or the others")
    image, images = product.get("image"), product.get("images")
    if images is not None and not isinstance(images, list | tuple):
        raise ProductError(f"images must be a list, got {type(images).__name__}; write a single photo as image")
    if image is not None and images:
        raise ProductError("got image beside images; put all photos into images")
    texts = [clean_text(product[key]) for key in ("text", "title", "description") if product.get(key)]
    sources = list(images or ([] if image is None else [image]))
    if spoken := product.get("audio") is not None:
        if transcribe is None:
            raise ProductError(NO_RECOGNIZER)
        texts += [clean_text(transcribe(product["audio"]))] if reads_text else []
    text = ". ".join(filter(None, texts)) or None
    if text is None and not sources:
        raise ProductError("no word was heard in the audio, and there is neither text nor a photo" if spoken else
                           "neither text nor a photo; give the product a text, title, description or image")
    if text is None and not reads_photos:
        raise ProductError("no text, and this model reads text only; give the product a text or title")
    if not sources and not reads_text:
        raise ProductError("no photo, and this model reads photos only; give the product an image")
    return text if reads_text else None, sources if reads_photos else []


def collate(texts: Sequence[str | None], photos: Sequence[Sequence[np.ndarray]], encode: Callable | None = None,
            photo_format: Mapping[str, Any] | None = None, lexical: Callable | None = None) -> dict[str, np.ndarray]:
    """Texts and resized photos, an entry per product -> the arrays of `TaggerProcessor`, but for those that no product
    has anything for.

    Args:
        photos: uint8 [H, W, 3] each, any number per product.
        encode: texts -> (token ids, attention mask), each [B, L]; None where no text is read.
        photo_format: `size`, `mean`, `std` as of `stack_photos`; None where no photo is read.
        lexical: the `LexicalFeatures` of the model's lexical head; None where it has none.
    """
    batch = {}
    if encode is not None and any(texts):
        batch |= tokenize(texts, encode)
        batch |= {} if lexical is None else lexical(texts)
    if photo_format is not None and any(map(len, photos)):
        batch |= stack_photos(photos, **photo_format)
    return batch


def tokenize(texts: Sequence[str | None], encode: Callable) -> dict[str, np.ndarray]:
    """`input_ids`, `attention_mask` int64 [B, L]; a product without text attends to nothing."""
    ids, mask = encode([text or "" for text in texts])
    there = np.array([bool(text) for text in texts])
    return {"input_ids": np.asarray(ids, np.int64), "attention_mask": np.asarray(mask, np.int64) * there[:, None]}


def check_names(options: Iterable[str], allowed: Iterable[str]) -> None:
    """Raises TypeError for an option that is not among `allowed`."""
    for name in options:
        if name not in allowed:
            hint = " The critic of tag sets gained nowhere: leave it out." if name == "critic" else did_you_mean(
                name, allowed)
            raise TypeError(f"product-tagging has no option {name!r:.80}.{hint}")


def check_options(options: Mapping[str, Any], allowed: Iterable[str], attributes: Sequence[str]) -> None:
    """Raises TypeError for an option that is not among `allowed`, ValueError for a value out of range or an attribute
    that the model does not have."""
    check_names(options, allowed)
    check_count("top_k", options.get("top_k"))
    check_score("threshold", options.get("threshold"))
    for name in FLAGS:
        if options.get(name) not in (None, True, False):
            raise ValueError(f"{name} is true or false, got {options[name]!r:.80}")
    for name in wanted_attributes(options):
        if name not in attributes:
            raise ValueError(f"the model has no attribute {name!r:.80}.{did_you_mean(name, attributes)}")
    if options.get("on_error", "raise") not in ("raise", "skip"):
        raise ValueError(f'on_error must be "raise" or "skip", got {options["on_error"]!r:.80}')


def check_free_form(options: Mapping[str, Any], decoder: dict[str, Any]) -> None:
    """Raises ValueError for options of free-form tags out of range, or an attribute or language that the decoder was
    not trained on."""
    for name in wanted_attributes(options):
        control_id(decoder, attribute=name)
    if options.get("language") is not None:
        control_id(decoder, language=options["language"])
    check_count("max_tags", options.get("max_tags"))
    check_score("min_score", options.get("min_score"))


def wanted_attributes(options: Mapping[str, Any]) -> Collection[str]:
    """The option `attributes`. Raises ValueError for anything but a list of names."""
    wanted = options.get("attributes")
    wanted = () if wanted is None else wanted
    if not isinstance(wanted, list | tuple | set) or not all(isinstance(name, str) for name in wanted):
        raise ValueError(f"attributes is a list of names: write attributes=[{wanted!r:.80}]")
    return wanted


def check_count(name: str, value: Any) -> None:
    """Raises ValueError for an option that is neither None nor a whole number from 1."""
    if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{name} must be a whole number from 1, got {value!r:.80}")


def check_score(name: str, value: Any) -> None:
    """Raises ValueError for an option that is neither None nor a number between 0 and 1."""
    if value is not None and (not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= 1):
        raise ValueError(f"{name} is a score between 0 and 1, got {value!r:.80}")


def check_needless(options: Mapping[str, Any], further: Sequence[str]) -> None:
    """Raises TypeError for an option of free-form tags, or a `further` one, that is given where none are asked for."""
    given = [name for name in (*FREE_FORM_OPTIONS[1:], *further) if options.get(name) is not None]
    if given:
        raise TypeError(f"{given[0]} is about free-form tags: it needs free_form=True")


def tag_stream(inputs, prepare: Callable, tag: Callable, num_workers: int, batch_size: int) -> Iterator:
    """`tag(prepared products)` of batch after batch, in the order of `inputs`. While one batch is tagged, threads
    prepare the next. What `prepare(position, product)` could not read, {"error": ...}, passes by."""

    def finish(products):
        whole = [product for product in products if "error" not in product]
        tagged = iter(tag(whole) if whole else ())
        for product in products:
            yield product if "error" in product else next(tagged)

    numbered = enumerate(_items(inputs))
    if num_workers == 0:
        while chunk := list(islice(numbered, batch_size)):
            yield from finish([prepare(*item) for item in chunk])
        return
    pool, ahead = ThreadPoolExecutor(num_workers), deque()
    try:
        while chunk := list(islice(numbered, batch_size)):
            ahead.append([pool.submit(prepare, *item) for item in chunk])
            if len(ahead) > 1:
                yield from finish([future.result() for future in ahead.popleft()])
        while ahead:
            yield from finish([future.result() for future in ahead.popleft()])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def tag_inputs(tagger, inputs, options: Sequence[Mapping[str, Any]], num_workers: int, batch_size: int):
    """What a tagger's call gives: a list or tuple of products, or a table of them, a list; a stream an iterator; a
    single product its tags. `options`: those of the tagger's `preprocess`, of its `tag_batch` and of its
    `postprocess`."""
    reading, running, listing = options

    def prepare(position, product):
        return tagger.preprocess(product, position=position, **reading)

    def tag(products):
        output = tagger.tag_batch(tagger.collate(products), [product["language"] for product in products], **running)
        return [tagger.postprocess(row, **listing) for row in zip(*output, strict=True)]

    inputs = _plain(inputs)
    if isinstance(inputs, list | tuple):
        return list(tag_stream(inputs, prepare, tag, num_workers, batch_size))
    if _is_stream(inputs):
        return tag_stream(inputs, prepare, tag, num_workers, batch_size)
    return next(tag_stream([inputs], prepare, tag, 0, 1))


def _plain(inputs):
    """Rows of a table as a list of products, and a row of one as a product: of pandas, polars and pyarrow, none of
    which is imported for it."""
    library = type(inputs).__module__.partition(".")[0]
    if library == "pandas" and hasattr(inputs, "columns"):
        return inputs.to_dict("records")
    if library == "pandas" and hasattr(inputs, "index"):  # a column, or a row
        return inputs.to_dict() if any(name in PRODUCT_KEYS for name in inputs.index) else list(inputs)
    if library == "polars" and hasattr(inputs, "to_dicts"):
        return inputs.to_dicts()
    return inputs.to_pylist() if library == "pyarrow" and hasattr(inputs, "to_pylist") else inputs


def _is_missing(value) -> bool:
    """Whether it is what a table has where there is nothing."""
    return isinstance(value, float) and value != value or type(value).__name__ in ("NAType", "NaTType")


def _is_stream(inputs) -> bool:
    """Whether `inputs` is many products; a single thing that happens to be iterable (bytes, an image) is not."""
    if isinstance(inputs, str | bytes | bytearray | Mapping | os.PathLike | Image.Image | np.ndarray):
        return False
    if type(inputs).__module__ == "torch":  # a tensor
        return False
    return isinstance(inputs, Iterable) or (hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"))


def _items(inputs) -> Iterator:
    # Map-style torch datasets have no __iter__, and not all of them end with an IndexError.
    return iter(inputs) if isinstance(inputs, Iterable) else (inputs[number] for number in range(len(inputs)))
