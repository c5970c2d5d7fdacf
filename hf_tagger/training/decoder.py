"""Gives a model a decoder for free-form tags, with a tokenizer trained on the catalogue's tags."""

from collections.abc import Iterable

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
    closed = [entry["name"] for entry in model.config.attributes]
    derived = [entry["name"] for entry in vocabulary.attributes if schema.free_form.takes(entry["name"])]
    sources = [*schema.free_form.columns, *derived]
    known = (tag for entry in model.config.attributes for tag in entry["tags"])
    try:
        tokenizer = train_tag_tokenizer(_tags(known, records), languages, sources, settings.vocab_size)
    except ValueError as error:
        raise ConfigError(f"model.decoder.vocab_size: {error}") from error
    specs = [schema.attribute(name) for name in closed if name in vocabulary.languages]
    aliases = {spelling: tag for spec in [*specs, *schema.free_form.columns.values()]
               for spelling, tag in spec.aliases.items()}
    shape = {name: getattr(settings, name) for name in SHAPE}
    model.add_decoder(
        {"vocab_size": len(tokenizer), "languages": languages, "attributes": sources, "aliases": aliases,
         "tag_languages": tag_languages(vocabulary, derived) if len(languages) > 1 else {}, **shape},
        tokenizer,
    )
    processor.set_tag_tokenizer(tokenizer)


def tag_languages(vocabulary: Vocabulary, attributes: Iterable[str]) -> dict[str, str]:
    """{tag: language} of the attributes' tags that only products of one language have; products of unknown language
    leave it open."""
    found: dict[str, set[str]] = {}
    for name in attributes:
        for language, counts in vocabulary.languages.get(name, {}).items():
            for tag in counts:
                found.setdefault(tag, set()).add(language)
    return {tag: next(iter(given)) for tag, given in found.items() if len(given) == 1 and "" not in given}


def _tags(known: Iterable[str], records: Iterable[Record]) -> Iterable[str]:
    yield from known
    for record in records:
        for tags in record["free_form"].values():
            yield from tags or ()
