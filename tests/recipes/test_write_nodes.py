"""Nodes of a standard taxonomy go back into the shop's own file as ids, paths or names."""

import json

import pytest
import yaml

from hf_tagger.catalog.settings import CatalogSettings, open_catalog
from hf_tagger.catalog.strict import build
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes import tag_catalog
from tests.tiny_tagger import trained_tagger

NODE, VALUE = "gid://shopify/TaxonomyCategory/", "gid://shopify/TaxonomyValue/"
CATEGORIES = f"""# Shopify Product Taxonomy - Categories: 2031-02
{NODE}qx     : Goods, all
{NODE}qx-1   : Goods, all > Handmade
{NODE}qx-1-1 : Goods, all > Handmade > Waterproof
"""
COLOURS = {"version": "2031-02", "attributes": [{"id": "gid://shopify/TaxonomyAttribute/5", "name": "Color",
                                                "handle": "color", "values": [
    {"id": f"{VALUE}{number}", "name": name, "handle": name} for number, name in ((51, "Red"), (52, "Blue"))]}]}
TRAINED_ON = "Handle,Title,Body (HTML),Product Category,Color\n" + "".join(
    f"{number},red mug,,Waterproof,{colour}\n" for number, colour in enumerate(["Red", "Blue"] * 4))
METAFIELD = "Color (product.metafields.shopify.color-pattern)"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """What a training on nodes leaves: the vocabulary is read as it is there, the weights are those of words."""
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "categories.txt").write_text(CATEGORIES)
    (folder / "attributes.json").write_text(json.dumps(COLOURS))
    (folder / "train.csv").write_text(TRAINED_ON)
    schema = {"id": "Handle", "text": ["Title"], "attributes": {
        "category": {"column": "Product Category", "taxonomy": "categories", "kind": "multi"},
        "colour": {"column": "Color", "taxonomy": "Color"}}}  # fmt: skip
    catalog = {"source": {"files": {"train": str(folder / "train.csv")}}, "schema": schema,
               "taxonomy": [str(folder / "categories.txt"), str(folder / "attributes.json")]}
    opened = open_catalog(build(CatalogSettings, catalog), folder)
    category, colour = Vocabulary.scan(opened.records("train"), opened.schema, opened.names).attributes
    tagger, processor = trained_tagger()
    # The tagger knows Red, Blue, Mug, Dress, Waterproof and Handmade, in this order; every product is one of the goods.
    assert set(category["tags"]) == {"Goods, all", "Handmade", "Waterproof"} and set(colour["tags"]) == {"Red", "Blue"}
    words = {"name": "kind", "kind": "single", "tags": ["Mug", "Dress"]}
    parents = {"Waterproof": category["parents"]["Waterproof"]}
    tagger.config.attributes = [colour | {"tags": ["Red", "Blue"]}, words,
                                category | {"tags": ["Waterproof", "Handmade"], "counts": [7, 7],
                                            "parents": parents}]
    ProductTaggingPipeline(tagger, processor=processor).save_pretrained(folder / "model")
    (folder / "model" / "training_config.yaml").write_text(yaml.safe_dump({"catalog": catalog}))
    (folder / "categories.txt").unlink()  # what is needed is in the model
    return folder / "model"


@pytest.fixture
def run(model, tmp_path, capsys, fresh_accelerate):
    def run(export, content, *arguments):
        """(the file with tags in it, what was printed)"""
        export, output = tmp_path / export, tmp_path / f"tagged_{export}"
        export.write_text(content)
        told = []
        for source, to in ((export, output), (output, tmp_path / f"again_{export.name}")):
            status = tag_catalog.main([str(model), str(source), "--output", str(to), "--attributes", "category,colour",
                                       *arguments])
            printed = capsys.readouterr()
            assert status == 0, printed.err
            told.append(printed.out)
        assert (tmp_path / f"again_{export.name}").read_text() == output.read_text()
        written = output.read_text()
        provenance = (tmp_path / f"{output.name}.provenance.jsonl").read_text()
        assert tag_catalog.main(["--undo", f"{output}.undo.jsonl"]) == 0 and output.read_text() == content
        return written, told[0], list(map(json.loads, provenance.splitlines()))

    return run


HEADER = f"Handle,Title,Body (HTML),Product Category,Tags,{METAFIELD}\n"


@pytest.mark.parametrize(("deep", "inner"), [
    (f"{NODE}qx-1-1", f"{NODE}qx-1"), ("qx-1-1", "qx-1"),
    ('"Goods, all > Handmade > Waterproof"', '"Goods, all > Handmade"'),
])  # fmt: skip
def test_a_shopify_export_keeps_its_way_to_say_nodes(run, deep, inner):
    rows = (f"a,red mug waterproof handmade,,{deep},,\nb,blue mug handmade,,,new,\nc,red mug waterproof handmade,,,,\n"
            f"d,blue mug handmade,,{deep},,\ne,red mug waterproof handmade,,{inner},,\n")
    written, printed, provenance = run("a.csv", HEADER + rows)
    assert written == HEADER + (
        f'a,red mug waterproof handmade,,{deep},Red,\nb,blue mug handmade,,{inner},"new, Blue",\n'
        f"c,red mug waterproof handmade,,{deep},Red,\nd,blue mug handmade,,{deep},Blue,\n"
        f"e,red mug waterproof handmade,,{inner},Red,\n")
    assert "1 tags not written: the cell has another" in printed  # a person chose the inner node of e
    assert provenance[0]["taxonomies"] == {"category": "Shopify categories 2031-02", "colour": "Shopify Color 2031-02"}
    assert [(line["id"], line["tag"], line["node"]) for line in provenance
            if line.get("what") == "added" and line["attribute"] == "category"] == [
        ("b", "Handmade", f"{NODE}qx-1"), ("c", "Waterproof", f"{NODE}qx-1-1")]
    replaced, _, _ = run("b.csv", HEADER + rows, "--replace", "--attributes", "category")
    assert replaced == HEADER + rows.replace(f"e,red mug waterproof handmade,,{inner}",
                                             f"e,red mug waterproof handmade,,{deep}").replace(
        "handmade,,,new", f"handmade,,{inner},new").replace("c,red mug waterproof handmade,,", f"c,red mug waterproof "
                                                                                              f"handmade,,{deep}")


def test_where_a_column_is_empty_ids_are_written_and_a_key_says_otherwise(run):
    rows = "a,red mug waterproof handmade,,,,\n"
    written, _, _ = run("a.csv", HEADER + rows)
    assert written == HEADER + f"a,red mug waterproof handmade,,{NODE}qx-1-1,Red,\n"
    written, _, _ = run("b.csv", HEADER + rows, "--catalog.write.category.column", "Product Category",
                        "--catalog.write.category.nodes", "path", "--catalog.write.colour.column", METAFIELD,
                        "--catalog.write.colour.nodes", "id")
    assert written == HEADER + f'a,red mug waterproof handmade,,"Goods, all > Handmade > Waterproof",,{VALUE}51\n'


def test_other_tables_and_documents_take_nodes_too(run, model):
    schema = {"id": "sku", "text": ["title"], "attributes": {"colour": {"column": "hue", "taxonomy": "Color"}}}
    (model.parent / "plain.yaml").write_text(yaml.safe_dump({
        "schema": schema, "taxonomy": str(model.parent / "attributes.json")}))
    config = ["--config", str(model.parent / "plain.yaml")]
    written, _, _ = run("a.csv", f"sku,title,hue\n1,red mug waterproof handmade,\n2,blue mug,{VALUE}52\n3,blue mug,\n",
                        *config)
    assert written == (f"sku,title,hue,category\n1,red mug waterproof handmade,{VALUE}51,{NODE}qx-1-1\n"
                       f"2,blue mug,{VALUE}52,\n3,blue mug,{VALUE}52,\n")
    rows = [{"sku": 1, "title": "red mug handmade", "hue": ""}, {"sku": 2, "title": "blue mug", "hue": "blue"}]
    written, _, _ = run("a.json", json.dumps(rows), *config)
    assert json.loads(written) == [rows[0] | {"hue": "Red", "category": [f"{NODE}qx-1"]}, rows[1]]
