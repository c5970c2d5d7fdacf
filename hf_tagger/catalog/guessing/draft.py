"""A catalogue that nobody has described -> the `catalog` section of a YAML file, with what was seen in comments."""

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import yaml

from hf_tagger.catalog.formats.dialect import Dialect, detect
from hf_tagger.catalog.guessing.attribute_guess import Guess
from hf_tagger.catalog.guessing.column_stats import ALL_UP_TO, THEN_EVERY, ColumnStats, Survey, photos_joined_by
from hf_tagger.catalog.guessing.languages import count_languages
from hf_tagger.catalog.guessing.names import PERSONAL, is_id_name
from hf_tagger.catalog.guessing.roles import guess_columns
from hf_tagger.catalog.photos import open_photo
from hf_tagger.catalog.profiles import Profile, recognise
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.reading.option_labels import labels_of, read_labels
from hf_tagger.catalog.reading.photo_folder import photos_in
from hf_tagger.catalog.reading.products import Layout
from hf_tagger.catalog.reading.readers import file_columns, read_objects, read_raw
from hf_tagger.catalog.reading.source import SourceConfig, catalogue_files
from hf_tagger.catalog.spellings import Merge
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.taxonomy import CATEGORIES, read_taxonomy

_FOLDERS = 200
_FOLDERS_OF = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


@dataclass
class Draft:
    """What was found out about a catalogue."""

    path: str
    survey: Survey
    guesses: list[Guess]
    system: Profile | None = None
    dialect: Dialect | None = None
    taxonomy: str | None = None  # its file
    splits: dict[str, str] = field(default_factory=dict)  # {split: its file}, where the export has them apart
    database: dict[str, str] = field(default_factory=dict)  # {key of the source: its value}
    languages: Counter[str | None] = field(default_factory=Counter)
    image_root: str | None = None
    warnings: list[str] = field(default_factory=list)

    def columns(self, role: str) -> list[Guess]:
        return sorted((guess for guess in self.guesses if guess.role == role), key=lambda guess: guess.place)

    @property
    def locales(self) -> list[str]:
        """Of the texts that are read."""
        return list(dict.fromkeys(guess.locale for guess in self.columns("text") if guess.locale))


def draft_catalog(path: str, label_files: list[str] = (), taxonomy: str | None = None, locale: str | None = None,
                  **database: str | None) -> Draft:
    """Looks through a catalogue: a file, a folder or glob of them, a dataset on the Hub, or a database.

    Args:
        label_files: what the codes in its cells mean (`option_labels`).
        taxonomy: file of a standard taxonomy whose nodes columns may name.
        locale: whose texts are read and whose labels are taken, such as en_US (None: the texts of all, the labels of
            the one that most texts are in).
        database: `table` or `query`, and `key`, as in `SourceConfig`.

    Raises ConfigError where there is none, or nothing in it that could be tagged.
    """
    source, survey = SourceConfig(path=path, **database), Survey()
    tree = read_taxonomy([taxonomy], CATEGORIES) if taxonomy else None
    if source.database("train") is not None:
        found, file, dialect, splits = None, "sql://", None, {}
        source.key = _survey_database(source, survey)
    elif source.hub_id("train") is not None:
        _survey_hub(source, survey)
        found, file, dialect, splits = None, "hf://", None, {}
    else:
        splits = _splits(path)
        files = catalogue_files(SourceConfig(path=splits.get("train", path)), "train")
        (file, format), found = files[0], _survey_files(files, survey)
        dialect = detect(file) if format in ("csv", "tsv") else None
    if not survey.products:
        raise ConfigError(f"{path}: no product in it{': ' + survey.refusal if survey.refusal else ''}")
    system, names = found or (None, {})
    draft = Draft(path, survey, guess_columns(survey, system, names, tree, locale), system, dialect, taxonomy, splits,
                  {key: value for key in ("table", "query", "key") if (value := getattr(source, key))})
    if not draft.columns("text") and not draft.columns("photo"):
        raise ConfigError(f"{path}: no column looks like a text or a photo. It has {', '.join(survey.columns)}.")
    _name_codes(draft, label_files)
    _look_at_texts(draft)
    _look_at_photos(draft, file if os.path.isdir(file) else os.path.dirname(
        file if os.path.isabs(path) or "://" in file else os.path.relpath(file)))
    if tree and not any("taxonomy" in guess.spec for guess in draft.columns("attribute")):
        draft.warnings.append(f"no column names categories of {taxonomy}: it is not used")
    if survey.full:
        draft.warnings.append(f"more than {len(survey.columns):,} columns: the others are not looked at")
    if survey.left_out:
        draft.warnings.append(f"several columns have one name, and none of them is read: {', '.join(survey.left_out)}")
    if survey.refused:
        draft.warnings.append(f"{survey.refused:,} rows cannot be read, such as {survey.refusal}")
    return draft


def _survey_files(files: list[tuple[str, str]], survey: Survey) -> tuple[Profile, dict[str, str]] | None:
    """The system whose export they are, and its columns."""
    file, format = files[0]
    columns = file_columns(file, format, None, None)
    found = recognise(columns) if format != "parquet" else None
    twice = {column for column in columns if columns.count(column) > 1}
    columns = [column for column in columns if column.strip() and column not in twice]
    survey.left_out += sorted(filter(str.strip, twice))
    wanted, layout = dict.fromkeys(columns, "init"), None
    if found is not None:
        wanted |= dict.fromkeys(found[1].values(), "init")
        layout = Layout(found[0], columns, wanted, file, discover=True, repeats=format in ("xml", "jsonl"))
        wanted = layout.columns
    for file, format in files:
        read = read_raw(file, format, wanted, None, None) if layout or format in ("csv", "tsv", "parquet") else (
            read_objects(file, format, None))
        for _, values, error in layout.products(read) if layout else read:
            if values is not None:
                survey.add(values)
            else:
                survey.refused += 1
                survey.refusal = survey.refusal or f"{os.path.basename(file)}: {error}"
    return found


def _survey_hub(source: SourceConfig, survey: Survey) -> None:
    from hf_tagger.catalog.reading.stream import open_hub, read_hub

    _, columns, _ = open_hub(source.path, None, None, "train")
    for _, values, _ in read_hub(source, "train", columns):
        survey.add(values)


def _survey_database(source: SourceConfig, survey: Survey) -> str:
    """Reads the table in the order of its key: the one that is declared, else the first column with an id's name, else
    its first column."""
    from hf_tagger.catalog.reading.sql import read_sql, table_columns

    url = source.database("train")
    columns = table_columns(url, source)
    key = source.key or next((column for column in columns if is_id_name(column)), columns[0])
    for _, values, error in read_sql(url, source, columns, key):
        if values is not None:
            survey.add(values)
        else:
            survey.refused += 1
            survey.refusal = survey.refusal or str(error)
    return key


def _splits(path: str) -> dict[str, str]:
    """Of a file train.csv, those that stand beside it: validation.csv, test.csv; of a folder of photos, those in it."""
    if os.path.isdir(path):
        there = {split: folder for split, names in _FOLDERS_OF.items() for name in names
                 if os.path.isdir(folder := os.path.join(path, name)) and any(True for _ in photos_in(folder))}
        return there if "train" in there and len(there) > 1 else {}
    folder, name = os.path.split(path)
    if not name.startswith("train.") or "://" in path:
        return {}
    beside = {split: os.path.join(folder, name.replace("train", split, 1)) for split in ("validation", "test")}
    return {"train": path} | {split: file for split, file in beside.items() if os.path.isfile(file)}


def _name_codes(draft: Draft, label_files: list[str]) -> None:
    """Tags that are codes get their labels as names, in the first of the texts' locales that the file has."""
    for file in label_files:
        locale, named = read_labels(file, draft.locales)
        for attribute, labels in named.items():
            for guess in draft.columns("attribute"):
                if guess.column == attribute or (not attribute and guess.name in ("category", "categories")):
                    known = labels_of(guess.tags, labels)
                    guess.merges = [Merge(code, label, guess.tags[code], guess.tags[code])
                                    for code, label in known.items()]
                    guess.spec["aliases"] = known
                    guess.tags = Counter({known.get(tag, tag): count for tag, count in guess.tags.items()})
                    guess.why = f"{guess.why}; {len(known):,} labels of {os.path.basename(file)}" + (
                        f" ({locale})" if locale else "")


def _look_at_texts(draft: Draft) -> None:
    stats = [draft.survey.columns[guess.column] for guess in draft.columns("text")]
    texts = [text for column in stats for text in column.texts]
    longest: dict[str | None, ColumnStats] = {}
    for guess, column in zip(draft.columns("text"), stats, strict=True):
        if guess.locale not in longest or column.words > longest[guess.locale].words:
            longest[guess.locale] = column
    draft.languages = count_languages(text for column in longest.values() for text in column.texts)
    if len(draft.locales) > 1:
        draft.warnings.append(f"texts in {', '.join(draft.locales)}: all that a product has are read, in this order. "
                              f"For one alone: --locale {draft.locales[0]}")
    personal = sum(PERSONAL.search(text) is not None for text in texts)
    if personal:
        draft.warnings.append(f"{personal / len(texts):.1%} of the texts hold an e-mail address or phone number")


def _look_at_photos(draft: Draft, folder: str) -> None:
    """The folder in which the photos lie, if they are files; how many products have one."""
    columns = draft.columns("photo")
    if not columns:
        draft.warnings.append("no photos")
        return
    without = 1 - max(guess.coverage for guess in columns)
    if without > 0.1:
        draft.warnings.append(f"{without:.0%} of the products without photo")
    names = [name for guess in columns for name in draft.survey.columns[guess.column].photos if "://" not in name]
    if names and draft.system is not None and draft.system.image_root:
        draft.image_root = draft.system.image_root
        return
    if not names or "://" in folder or folder in ("hf:", "sql:"):
        return
    folders = [folder or ".", *sorted(entry.path for entry in os.scandir(folder or ".") if entry.is_dir())[:_FOLDERS]]
    there = {one: sum(_is_there(name, one) for name in names) for one in folders}
    best = max(there, key=there.get)
    if there[best] < len(names):
        draft.warnings.append(f"{len(names) - there[best]:,} of {len(names):,} photos looked for are not there (in "
                              f"{best})" + ": set image_root" * (there[best] < len(names) / 2))
    if there[best] and best != folders[0]:
        draft.image_root = best


def _is_there(photo: str, folder: str) -> bool:
    try:
        return os.path.isfile(open_photo(photo, "", folder, False))
    except RowError:
        return False


def as_yaml(draft: Draft, output_dir: str) -> str:
    """The file that finetune takes."""
    survey, dialect = draft.survey, draft.dialect
    seen = f"{survey.products:,} products"
    if survey.sampled:
        seen += f"; counts are of {survey.looked_at:,} of them: the first {ALL_UP_TO:,}, then every {THEN_EVERY}th"
    lines = [f"# hf_tagger finetune THIS_FILE. Guessed from {draft.path} ({seen}).",
             "# Read it through: a guess may be wrong."]
    lines += [f"# ! {_line(warning)}" for warning in draft.warnings]
    lines += [f"output_dir: {_value(output_dir)}", "catalog:", "  source:"]
    if len(draft.splits) > 1:
        lines += ["    files:", *(f"      {split}: {_value(file)}" for split, file in draft.splits.items())]
    else:
        lines.append(f"    path: {_value(draft.path)}")
    lines += [f"    {key}: {_value(value)}" for key, value in draft.database.items()]
    if draft.system is not None:
        lines.append(f"    profile: {draft.system.name}  # {draft.system.title}, by its columns")
    if dialect is not None:
        lines.append(f"    # {dialect.encoding}, {dialect.delimiter!r} between cells: found again when it is read")
        if not dialect.encoding.startswith("utf"):
            lines.append(f"    encoding: {dialect.encoding}  # by its letters")
    cut = ", ".join(f"{split}: 0.1" for split in ("validation", "test") if split not in draft.splits)
    if cut:
        lines.append(f"    fractions: {{{cut}}}  # by a hash of the id, or group: products stay there")
    if any("taxonomy" in guess.spec for guess in draft.columns("attribute")):
        lines.append(f"  taxonomy: {_value(draft.taxonomy)}")
    elif draft.columns("taxonomy"):
        lines.append(f"  # taxonomy: FILE  # {draft.columns('taxonomy')[0].warnings[0]}, or name it here")
    lines += ["  schema:"]
    for role, key, many in (("id", "id", False), ("group", "group", False), ("text", "text", True),
                            ("photo", "images", True), ("language", "language_column", False)):
        guesses = draft.columns(role) if many else draft.columns(role)[:1]
        if guesses and many:
            lines.append(f"    {key}:")
            lines += [_commented(f"      - {_value(guess.column)}", guess) for guess in guesses]
        lines += [_commented(f"    {key}: {_value(guess.column)}", guess) for guess in guesses if not many]
    photos = [photo for guess in draft.columns("photo") for photo in survey.columns[guess.column].photos]
    if draft.image_root:
        lines.append(f"    image_root: {_value(draft.image_root)}  # where the photos lie")
    if any(photo.startswith(("http://", "https://")) for photo in [*photos, draft.image_root or ""]):
        lines.append("    allow_urls: true  # photos are fetched from where they are")
    joined = {guess.column: by for guess in draft.columns("photo") if (by := _joined_by(survey.columns[guess.column]))}
    if joined and draft.system is None:
        column, by = next(iter(joined.items()))
        lines.append(f"    image_delimiter: {_quoted(by)}  # several photos in a cell of {column}")
    lines += _language_lines(draft)
    lines.append("    attributes:")
    for guess in draft.columns("attribute"):
        lines += _attribute_lines(guess)
    for guess in draft.columns("taxonomy"):
        lines += [f"      # {line.removeprefix('      ')}" for line in _attribute_lines(guess)]
    if not draft.columns("attribute"):
        needs = "".join(f" {guess.column} holds {guess.warnings[0]}." for guess in draft.columns("taxonomy"))
        raise ConfigError(f"{draft.path}: no column looks like tags.{needs} It has {', '.join(survey.columns)}.")
    left_out = [guess for guess in draft.guesses if guess.role in ("", "personal")]
    if left_out:
        lines.append("# Not read:")
        lines += [f"#   {_line(guess.column)}: {_line(guess.why)}" for guess in left_out]
    return "\n".join(lines) + "\n"


def _attribute_lines(guess: Guess) -> list[str]:
    spec = ({"column": guess.column} if guess.column != guess.name else {}) | guess.spec
    aliases = spec.pop("aliases", {})
    lines = [_commented(f"      {_value(guess.name)}:", guess)]
    lines += [f"        {key}: {_value(value)}" for key, value in spec.items()]
    if guess.coverage < 0.995:
        empty = f"{1 - guess.coverage:.0%} empty"
        lines.append(f"        when_missing: unknown  # {empty}: nobody looked. Write none if that says: no tag fits")
    if aliases:
        lines.append("        aliases:  # {other spelling: tag}")
        lines += [f"          {_value(merge.spelling)}: {_value(merge.tag)}  # {merge.count:,} and {merge.tag_count:,}"
                  for merge in guess.merges]
    return lines or ["        {}"]


def _language_lines(draft: Draft) -> list[str]:
    found = draft.languages
    told = {language: count for language, count in found.items() if language}
    if draft.columns("language") or not told:
        return []
    shares = ", ".join(f"{language} {count / found.total():.0%}" for language, count in found.most_common(5)
                       if language)
    lines = [f"    # Languages, by small words and scripts: {shares}, undetermined {found[None] / found.total():.0%}"]
    first = max(told, key=told.get)
    if told[first] > 0.95 * sum(told.values()) and told[first] > 0.5 * found.total():
        lines.append(f"    language: {_value(first)}")
    return lines


def _joined_by(column: ColumnStats) -> str | None:
    """What stands between several photos in a cell."""
    found = Counter(by for text in column.texts if (by := photos_joined_by(text)))
    return found.most_common(1)[0][0] if found and found.total() > 0.02 * len(column.texts) else None


def _commented(line: str, guess: Guess) -> str:
    said = "; ".join([guess.why, *(f"! {warning}" for warning in guess.warnings)])
    return f"{line}  # {_line(said)}"


def _value(value: Any) -> str:
    """On one line, as YAML has it."""
    if isinstance(value, str):
        plain = yaml.safe_dump(value, allow_unicode=True, width=10**9).removesuffix("\n").removesuffix("\n...")
        return json.dumps(value, ensure_ascii=False) if "\n" in plain else plain
    if isinstance(value, list):
        return f"[{', '.join(map(_quoted, value))}]"
    return json.dumps(value)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _line(text: str) -> str:
    return " ".join(text.split())
