"""Files that say what codes mean: Akeneo's exports of attribute options (`code;attribute;label-en_US`) and of
categories (`code;parent;label-en_US`)."""

from collections.abc import Iterable

from hf_tagger.catalog.profiles import pattern_regex
from hf_tagger.catalog.reading.readers import file_columns, read_raw
from hf_tagger.catalog.reading.source import SourceConfig, catalogue_files
from hf_tagger.catalog.strict import ConfigError, did_you_mean

_LABEL = pattern_regex("label-{locale}")


def read_labels(path: str, locale: str | None = None) -> dict[str, dict[str, str]]:
    """{attribute, or "" for categories: {code: its label}}. `locale`: such as en_US; default: the file's first one.

    Raises ConfigError for a file that is no such export, or has no labels of this locale.
    """
    (file, format), *_ = catalogue_files(SourceConfig(path=path), "train")
    columns = file_columns(file, format, None, None)
    locales = {match["locale"]: column for column in columns if (match := _LABEL.fullmatch(column))}
    if "code" not in columns or not locales:
        raise ConfigError(f"{path}: labels need a column code and columns such as label-en_US; it has "
                          f"{', '.join(columns)}.")
    if locale is not None and locale not in locales:
        raise ConfigError(f'{path} has no labels of the locale "{locale}".{did_you_mean(locale, locales)}')
    wanted = {"code": "labels", locales[locale or next(iter(locales))]: "labels"}
    wanted |= {column: "labels" for column in columns if column == "attribute"}
    labels: dict[str, dict[str, str]] = {}
    for _, row, _ in read_raw(file, format, wanted, None, None):
        if row is not None:
            code, label, *attribute = (str(row[column] or "").strip() for column in wanted)
            if code and label:
                labels.setdefault(attribute[0] if attribute else "", {})[code] = label
    return labels


def labels_of(codes: Iterable[str], labels: dict[str, str]) -> dict[str, str]:
    """{code: label} of these codes. Where two codes have one label, the second keeps its code behind it: what is
    written back has to be told apart."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for code in codes:
        if label := labels.get(code):
            found[code] = label if label.casefold() not in taken else f"{label} ({code})"
            taken.add(found[code].casefold())
    return found
