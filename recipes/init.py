"""Write the YAML file for a shop's export, with what was seen in it as comments.

    hf_tagger init products_export.csv                       # writes products_export.yaml
    hf_tagger init feed.xml --output my.yaml
    hf_tagger init shop.db --table products --output my.yaml   # or postgresql://…
    hf_tagger init photos/                                   # nothing but photos: their folders are classes
    hf_tagger init akeneo.csv --labels options.csv --locale de_DE
    hf_tagger init feed.tsv --taxonomy taxonomy.txt          # cells are ids or paths of Google's or Shopify's taxonomy
    hf_tagger init exports/ --json                           # the same for programs, on stdout
    hf_tagger finetune my.yaml

EXPORT is what a shop's system exports (Shopify, WooCommerce, Google Merchant Center, Magento, Akeneo, BigCommerce,
PrestaShop, Etsy, Wix, Squarespace, Square, Ecwid and Odoo are known by their columns), or any table: csv, tsv, xlsx,
JSON, JSON-LD, XML, parquet, webdataset, a folder or glob of these or of photos, a dataset on the Hub, a table of a
database. Encoding, delimiter, which columns are texts, photos, id, group, language and tags, how lists and paths are
written, and spellings of one tag are found from names and cells; nothing is asked. A table says what each column was
taken for, and what looks wrong. Columns of personal data are never read.

One pass, with memory that does not grow with the file. Counts are of the first 50,000 products and of every 20th after
these; the file says so.
"""

import argparse
import json
import os
import re
import sys
import textwrap
from pathlib import Path

from hf_tagger import UserError, cli
from hf_tagger.catalog.reading.source import SourceConfig, check_files, format_of, is_database

ROLES = ("id", "group", "language", "text", "photo", "attribute", "taxonomy")


@cli.recipe
def main(arguments: list[str]) -> None:
    options = parse(arguments)
    output = Path(options.output or f"{name_of(options.export)}.yaml")
    if output.exists():
        raise UserError(f"{output} is there already, and is not written over: name another --output")
    options.export = as_database(options.export)
    database = {"table": options.table, "query": options.query, "key": options.key}
    if is_database(options.export) and not (options.table or options.query):
        database["table"] = only_table(options.export)
    check_files(SourceConfig(path=options.export, **database))
    from hf_tagger.catalog.guessing.draft import as_yaml, draft_catalog

    draft = draft_catalog(options.export, options.labels, options.taxonomy, options.locale, **database)
    text = as_yaml(draft, f"runs/{output.stem}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    if options.json:
        print(json.dumps(plain(draft, str(output)), ensure_ascii=False, indent=1))
        return
    print(table(draft))
    cli.say(f"{draft.survey.products:,} products of {draft.system.title if draft.system else options.export}\n"
            f"wrote {output}; now: hf_tagger finetune {output}")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("export", metavar="EXPORT", help="the file, or a folder or glob of files")
    parser.add_argument("--output", metavar="FILE", help="default: the export's name with .yaml, here")
    parser.add_argument("--labels", metavar="FILE", action="append", default=[],
                        help="what codes in cells mean: Akeneo's export of options, categories or families, or a table "
                             "of ids and names of categories; may be repeated")
    parser.add_argument("--locale", help="of an export in several (Akeneo's name-en_US, Magento's store views): whose "
                                         "texts and labels are taken; default: all texts, and labels in the locale of "
                                         "most texts")
    parser.add_argument("--taxonomy", metavar="FILE",
                        help="Shopify's categories.txt or Google's taxonomy, whose ids or paths a column holds")
    parser.add_argument("--table", help="of a database: the table with the rows")
    parser.add_argument("--query", help="of a database, in place of --table: a SELECT")
    parser.add_argument("--key", help="of a database: the column in whose order rows are read; default: the id's")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    return parser.parse_args(arguments)


def as_database(export: str) -> str:
    """A file of SQLite's as its URL; anything else as it is."""
    if os.path.isfile(export):
        with open(export, "rb") as file:
            return f"sqlite:///{export}" if file.read(15) == b"SQLite format 3" else export
    return export


def only_table(url: str) -> str:
    """The table of a database that has one. Raises UserError, naming them, for another."""
    from hf_tagger.catalog.reading.sql import table_names

    names = table_names(url)
    if len(names) != 1:
        raise UserError(f"say which --table of the database, or give a --query: it has {', '.join(names) or 'none'}")
    return names[0]


def name_of(export: str) -> str:
    """What the run is called: the file's name without its suffixes."""
    name = Path(export).name
    while Path(name).suffix and format_of(export):
        name = Path(name).stem
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name).strip("-") or "my-shop"


def table(draft) -> str:
    """How the file is read; a line per column that is: what it is taken for, its tags, how many products have it, and
    why; below, those that are not read, and warnings."""
    read = [(guess.column[:40], guess.role, f"{len(guess.tags):,}" if guess.tags else "", f"{guess.coverage:.0%}",
             textwrap.shorten(guess.why, 70, placeholder="…"))
            for role in ROLES for guess in draft.columns(role)]
    rows = [("column", "role", "tags", "filled", "because"), *read]
    wide, roles, tags, filled = (max(map(len, column)) for column in list(zip(*rows, strict=True))[:4])
    how = [f"{draft.system.title} (profile: {draft.system.name})"] if draft.system else []
    how += [f"encoding {draft.dialect.encoding}, delimiter {draft.dialect.delimiter!r}"] if draft.dialect else []
    lines = [f"read as {'; '.join(how)}", ""] * bool(how)
    lines += [f"{column:<{wide}}  {role:<{roles}}  {count:>{tags}}  {share:>{filled}}  {why}"
             for column, role, count, share, why in rows]
    left_out: dict[str, list[str]] = {}
    for guess in draft.guesses:
        if guess.role in ("", "personal"):
            left_out.setdefault(re.split("[;,:]? such as |; ", guess.why)[0], []).append(guess.column)
    lines += ["", "Not read:"] * bool(left_out)
    for why, columns in left_out.items():
        lines += textwrap.wrap(f"{why}: {', '.join(columns)}", 118, initial_indent="  ", subsequent_indent="    ")
    warnings = [f"{guess.column}: {warning}" for guess in draft.guesses for warning in guess.warnings]
    return "\n".join([*lines, "", *(f"! {warning}" for warning in [*draft.warnings, *warnings])]).rstrip()


def plain(draft, output: str) -> dict:
    return {"output": output, "products": draft.survey.products, "looked_at": draft.survey.looked_at,
            "refused_rows": draft.survey.refused, "system": draft.system and draft.system.name,
            "encoding": draft.dialect and draft.dialect.encoding,
            "delimiter": draft.dialect and draft.dialect.delimiter,
            "languages": {language or "undetermined": count for language, count in draft.languages.items()},
            "warnings": draft.warnings,
            "columns": [{"column": guess.column, "role": guess.role or None, "why": guess.why,
                         "filled": round(guess.coverage, 4), "attribute": guess.name, "spec": guess.spec,
                         "tags": len(guess.tags), "warnings": guess.warnings} for guess in draft.guesses]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
