"""Files that say what codes mean: Akeneo's exports of attribute options (`code;attribute;label-en_US`), of categories
(`code;parent;label-en_US`) and of families; any other table of codes and names (`id,name`)."""

from collections.abc import Iterable, Sequence

from hf_tagger.catalog.profiles import pattern_regex
from hf_tagger.catalog.reading.readers import file_columns, read_raw
from hf_tagger.catalog.reading.source import SourceConfig, catalogue_files
from hf_tagger.catalog.strict import ConfigError

_LABEL = pattern_regex("label-{locale}")
_CODES, _NAMES = ("code", "id", "category id"), ("label", "name", "category name")


def read_labels(path: str, locales: Sequence[str] = ()) -> tuple[str | None, dict[str, dict[str, str]]]:
    """(the locale of the labels, {attribute, or "" for categories: {code: its label}}).

    Args:
        locales: such as en_US: the first of these that the file has is taken; none: the file's own first one.

    Raises ConfigError for a file that is no such export, or has labels of other locales only.
    """
    (file, format), *_ = catalogue_files(SourceConfig(path=path), "train")
    columns = file_columns(file, format, None, None)
    spelt = {column.casefold(): column for column in columns}
    spoken = {match["locale"]: column for column in columns if (match := _LABEL.fullmatch(column))}
    code = next((spelt[name] for name in _CODES if name in spelt), None)
    plain = next((spelt[name] for name in _NAMES if name in spelt), None)
    if code is None or not (spoken or plain):
        raise ConfigError(f"{path}: labels need a column code and columns such as label-en_US, or the columns id and "
                          f"name; it has {', '.join(columns)}.")
    locale = next((one for one in locales or spoken if one in spoken), None)
    if spoken and locale is None:
        raise ConfigError(f"{path} has no labels of {', '.join(locales)}, but of {', '.join(spoken)}: choose one by "
                          f"--locale that the texts have, too.")
    wanted = {code: "labels", spoken.get(locale, plain): "labels"}
    wanted |= {column: "labels" for column in columns if column == "attribute"}
    everywhere = "family" if "attribute_as_label" in columns else ""
    labels: dict[str, dict[str, str]] = {}
    for _, row, _ in read_raw(file, format, wanted, None, None):
        if row is not None:
            code, label, *attribute = (str(row[column] or "").strip() for column in wanted)
            if code and label:
                labels.setdefault(attribute[0] if attribute else everywhere, {})[code] = label
    return locale, labels


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
