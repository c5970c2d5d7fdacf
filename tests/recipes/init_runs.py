"""Runs of `hf_tagger init`, for the tests of it."""

import json

from hf_tagger.catalog.settings import CatalogSettings, open_catalog
from hf_tagger.catalog.strict import build, read_yaml
from recipes import init


def started(capsys, export, output, *options):
    """What init found, and the catalogue of the YAML file that it wrote."""
    assert init.main([str(export), "--output", str(output), "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    settings = read_yaml(output)
    assert set(settings) == {"output_dir", "catalog"}
    return found, open_catalog(build(CatalogSettings, settings["catalog"]), output.parent)


def roles(found):
    def described(column):
        if column["role"] != "attribute":
            return column["role"]
        spec = column["spec"]
        return f"attribute {spec.get('kind', 'single')} {spec.get('format', 'column')}"

    return {column["column"]: described(column) for column in found["columns"]}
