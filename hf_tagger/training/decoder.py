"""Gives a model a decoder for free-form tags, with a tokenizer trained on the catalogue's tags."""

from collections.abc import Iterable
from itertools import chain

from hf_tagger.catalog.schema import CatalogSchema, Record
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.training.settings import DecoderSettings
from hf_tagger.training.tag_tokenizer import train_tag_tokenizer

SHAPE = ("d_model", "layers", "heads", "ffn_dim", "dropout", "max_length")


def add_decoder(
    model: TaggerModel,
    processor: TaggerProcessor,
    records: Iterable[Record],
    schema: CatalogSchema,
    vocabulary: Vocabulary,
    settings: DecoderSettings,
) -> None:
    """Trains a tag tokenizer on the free-form tags of `records` and the closed tags, and gives `model` a decoder.

    Raises ConfigError where the schema names no free-form tags, or the records have none.
    """
    if schema.free_form is None:
        raise ConfigError("model.decoder writes free-form tags: say in catalog.schema.free_form where to read them.")
    languages = sorted(language for language in vocabulary.rows_per_language if language)
    counted = [entry["name"] for entry in vocabulary.attributes]
    derived = [name for name in counted if schema.free_form.takes(name)]
    sources = [*schema.free_form.columns, *derived]
    closed = [tag for entry in model.config.attributes for tag in entry["tags"]]
    spoken: dict[str, set[str | None]] = {}
    try:
        tokenizer = train_tag_tokenizer(
            chain(closed, _tags(records, derived, spoken)), languages, sources, settings.vocab_size)
    except ValueError as error:
        raise ConfigError(f"model.decoder.vocab_size: {error}") from error
    specs = [schema.attribute(entry["name"]) for entry in model.config.attributes if entry["name"] in counted]
    aliases = {spelling: tag for spec in [*specs, *schema.free_form.columns.values()]
               for spelling, tag in spec.aliases.items()}
    # Products of unknown language leave it open.
    of_one = {tag: next(iter(given)) for tag, given in spoken.items() if len(given) == 1 and None not in given}
    shape = {name: getattr(settings, name) for name in SHAPE}
    model.add_decoder(
        {"vocab_size": len(tokenizer), "languages": languages, "attributes": sources, "aliases": aliases,
         "tag_languages": of_one if len(languages) > 1 else {}, **shape},
        tokenizer,
    )
    processor.set_tag_tokenizer(tokenizer)


def _tags(records: Iterable[Record], derived: Iterable[str], spoken: dict[str, set[str | None]]) -> Iterable[str]:
    """The free-form tags; the languages of products that have a tag of `derived`'s attributes are put into `spoken`."""
    for record in records:
        for tag in chain.from_iterable(record["tags"].get(name) or () for name in derived):
            spoken.setdefault(tag, set()).add(record["language"])
        for tags in record["free_form"].values():
            yield from tags or ()
