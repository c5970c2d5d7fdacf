"""`hf_tagger init` on tables of which nothing is known but what is in them, its refusals, and `hf_tagger example`."""

import csv
import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_tagger.catalog.guessing import column_stats
from hf_tagger.catalog.strict import read_yaml
from hf_tagger.catalog.synthetic.pictures import encode_jpeg
from recipes import example, init
from tests.catalog.files import write_jsonl
from tests.recipes.init_runs import roles, started
from tests.tiny_tagger import photo

COLUMNS = ["Artikelnummer", "EAN", "Bezeichnung", "Beschreibung", "Preis", "Marke", "Kategorie", "Farbe", "Material",
           "Größe", "Bild", "Kontakt", "Telefon", "Aktiv", "Angelegt", "Modell-Nr"]  # fmt: skip


def german_shop(path, encoding="cp1252", delimiter=";", photos=0.6, rows=300):
    draw = random.Random(0)
    departments = {"Bekleidung": ["Hemden", "Hosen"], "Taschen": ["Rucksäcke", "Shopper"], "Wohnen": ["Vasen"]}
    materials = ["Leinen", "Baumwolle", "Wolle", "Leder"]
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(COLUMNS)
        for n in range(rows):
            department = draw.choice(list(departments))
            kind = draw.choice(departments[department])
            writer.writerow([
                f"A{n:05d}", 4_000_000_000_000 + n, f"{kind} {draw.choice(['Riva', 'Tolo', 'Nika'])} {n % 97}",
                f"Ein schönes Stück für jeden Tag und mit Liebe gemacht, Nummer {n}.", f"{draw.randint(5, 99)},90",
                draw.choice(["Acme", "Umbra"]), f"{department} > {kind}",
                draw.choice(["Rot", "Blau", "Grün", "grün", "k.A.", ""]),
                ", ".join(draw.sample(materials, draw.choice([1, 1, 2]))), draw.choice("SML"),
                f"{n}.jpg" if draw.random() < photos else "", f"info{n}@shop.example", f"+49 30 {1_000_000 + n}",
                draw.choice(["ja", "ja", "nein"]), "2024-01-02", f"M{n // 3}"])
    return path


@pytest.mark.parametrize(("encoding", "delimiter"), [("cp1252", ";"), ("utf-8-sig", ","), ("utf-16", "\t")])
def test_an_unknown_table_is_read_by_its_content(tmp_path, capsys, encoding, delimiter):
    path = german_shop(tmp_path / "plain.csv", encoding, delimiter)
    found, catalog = started(capsys, path, tmp_path / "my.yaml")
    assert found["system"] is None and found["languages"] == {"de": 300}
    assert {column: role for column, role in roles(found).items() if role} == {
        "Artikelnummer": "id", "Bezeichnung": "text", "Beschreibung": "text", "Bild": "photo", "Kontakt": "personal",
        "Telefon": "personal", "Kategorie": "attribute multi path", "Farbe": "attribute single column",
        "Material": "attribute multi delimited", "Größe": "attribute single column", "Modell-Nr": "group"}
    colour = next(column for column in found["columns"] if column["column"] == "Farbe")
    assert colour["spec"]["unknown_values"] == ["k.A."] and set(colour["spec"]["aliases"]) < {"grün", "Grün"}
    assert any("of the products without photo" in warning for warning in found["warnings"])
    records = [item for item in catalog.records("train") if isinstance(item, dict)]
    assert {tag for record in records for tag in record["tags"]["farbe"] or ()} in (
        {"Rot", "Blau", "Grün"}, {"Rot", "Blau", "grün"})
    assert {record["language"] for record in records} == {"de"}


def test_personal_data_is_never_written_as_something_to_read(tmp_path, capsys):
    started(capsys, german_shop(tmp_path / "plain.csv"), tmp_path / "my.yaml")
    schema = read_yaml(tmp_path / "my.yaml")["catalog"]["schema"]
    assert not {"Kontakt", "Telefon"} & set(json.dumps(schema, ensure_ascii=False).split('"'))


CARE = ["Wash at thirty degrees with like colours and dry it flat.",
        "Wash by hand and never bleach it, iron on low heat."]


def test_what_only_looks_like_tags_is_none_and_what_only_sounds_technical_is(tmp_path, capsys):
    cells = {
        "sku": lambda n: f"S{n}", "name": lambda n: f"Linen shirt number {n}",
        "photo title": lambda n: f"Linen shirt number {n}", "Upkeep": lambda n: CARE[n % 2],
        "Composition": lambda n: ["cotton,silk", "wool"][n % 2], "Curl pattern": lambda n: ["Loose", "Tight"][n % 2],
        "Product category/Display name": lambda n: f"All / Shop / {['Men', 'Women'][n // 2 % 2]}",
        "length_unit": lambda n: ["cm", "mm"][n % 2], "Strap": lambda n: f"{n % 4 + 3} cm",
        "Cloth": lambda n: ["260 GSM.", "180 gsm", "N/A"][n % 3],
        "route/id": lambda n: ["base.buy", "base.make"][n % 2],
        "Pot": lambda n: f"{n % 3},5x7 in", "related": lambda n: f"S{n % 5},S{n % 7}",
        "Vendors/Vendor/Name": lambda n: "AB"[n % 2], "property": lambda n: f"{n % 3:032x}|{n % 2:032x}",
        "parent_id": lambda n: f"{n // 2:032x}" * (n < 50),
        "Buyer": lambda n: ["Ada Loom", "Bo Weft"][n % 2],
        "Notes": lambda n: f"before more, call 0171/23456{n:02d}" * (n % 2),
    }
    (tmp_path / "a.csv").write_text("\n".join([";".join(cells), *(";".join(cell(n) for cell in cells.values())
                                                                 for n in range(60))]))
    found, catalog = started(capsys, tmp_path / "a.csv", tmp_path / "my.yaml")
    given = {column: role for column, role in roles(found).items() if role}
    assert given == {"sku": "id", "name": "text", "parent_id": "group", "Composition": "attribute multi delimited",
                     "Curl pattern": "attribute single column", "Buyer": "personal", "Notes": "personal",
                     "Product category/Display name": "attribute multi path"}
    assert next(catalog.records("train"))["tags"]["composition"] in (["cotton", "silk"], ["wool"])
    why = {column["column"]: column["why"].split(";")[0] for column in found["columns"]}
    assert (why["related"], why["property"], why["Upkeep"], why["length_unit"], why["photo title"]) == (
        "ids of products", "ids without names", "texts, not tags (add it to text to have it read)", "units",
        "the same as name")


def test_a_column_that_repeats_the_id_is_told(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"sku": f"S{n}", "code": f"S{n}", "title": f"Shirt number {n} of linen",
                                        "colour": ["Red", "Blue"][n % 2]}) + "\n" for n in range(50)))
    found, _ = started(capsys, path, tmp_path / "my.yaml")
    repeated = next(column for column in found["columns"] if column["column"] == "code")
    assert repeated["role"] is None and repeated["warnings"] == ["repeats the id (sku)"]


@pytest.mark.parametrize("values", [["Red", "Blue"], [["Red"], ["Blue", "Red"]]])
def test_parquet_and_lists(tmp_path, capsys, values):
    rows = [{"id": n, "title": f"Linen shirt number {n}", "colour": values[n % 2]} for n in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found, catalog = started(capsys, tmp_path / "a.parquet", tmp_path / "my.yaml")
    kind = "multi list" if isinstance(values[0], list) else "single column"
    assert roles(found)["colour"] == f"attribute {kind}"
    assert [record["tags"]["colour"] for record in catalog.records("train")][:1] != [None]


def test_a_hub_dataset_is_read_like_a_file(tmp_path, capsys, monkeypatch):
    rows = {"sku": [f"S{n}" for n in range(60)], "name": [f"Linen shirt number {n}" for n in range(60)],
            "colour": [n % 2 for n in range(60)]}
    features = datasets.Features(sku=datasets.Value("string"), name=datasets.Value("string"),
                                 colour=datasets.ClassLabel(names=["Red", "Blue"]))
    rows["facts"] = [[{"name": "Fit", "value": ["Slim", "Wide"][n % 2]}] for n in range(60)]
    features["facts"] = datasets.List({"name": datasets.Value("string"), "value": datasets.Value("string")})
    stored = datasets.Dataset.from_dict(rows, features=features).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", lambda path, *args, **options: stored)
    found, catalog = started(capsys, "shop/catalogue", tmp_path / "my.yaml")
    assert roles(found) == {"sku": "id", "name": "text", "colour": "attribute single column",
                            "facts:Fit": "attribute single column"}
    assert next(catalog.records("train"))["tags"]["fit"][0] in ("Slim", "Wide")
    assert next(c["tags"] for c in found["columns"] if c["column"] == "colour") == 2


def test_a_database_is_read_like_a_file(tmp_path, capsys):
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE products (row INTEGER, sku TEXT, name TEXT, colour TEXT)")
        database.executemany("INSERT INTO products VALUES (?, ?, ?, ?)", [
            (n, f"S{n:03d}", f"Linen shirt number {n}", ["Red", "Blue"][n % 2]) for n in range(60)])
        database.commit()
    found, catalog = started(capsys, f"sqlite:///{path}", tmp_path / "my.yaml", "--table", "products")
    assert roles(found) == {"sku": "id", "name": "text", "colour": "attribute single column", "row": None}
    assert (catalog.source.table, catalog.source.key) == ("products", "sku")
    assert sum(1 for split in ("train", "validation", "test") for _ in catalog.records(split)) == 60


def test_a_file_of_sqlite_is_a_database_and_its_only_table_is_taken(tmp_path, capsys):
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE products (sku TEXT, name TEXT, colour TEXT)")
        database.executemany("INSERT INTO products VALUES (?, ?, ?)", [
            (f"S{n:03d}", f"Linen shirt number {n}", ["Red", "Blue"][n % 2]) for n in range(60)])
        database.commit()
        found, catalog = started(capsys, path, tmp_path / "my.yaml")
        assert roles(found) == {"sku": "id", "name": "text", "colour": "attribute single column"}
        assert catalog.source.table == "products" and len(list(catalog.records("train"))) > 30
        database.execute("CREATE VIEW offers AS SELECT * FROM products")
        database.commit()
    assert init.main([str(path), "--output", str(tmp_path / "b.yaml")]) == 2
    assert "say which --table of the database, or give a --query: it has offers, products" in capsys.readouterr().err


def test_splits_in_files_of_their_own_stay_apart(tmp_path, capsys):
    for split, start in (("train", 0), ("test", 100)):
        german_shop(tmp_path / f"{split}.csv", rows=60 + start)
    _, catalog = started(capsys, tmp_path / "train.csv", tmp_path / "my.yaml")
    assert catalog.splits == ["train", "test", "validation"] and catalog.source.fractions == {"validation": 0.1}
    assert sum(1 for _ in catalog.records("test")) == 160


def test_nested_json(tmp_path, capsys):
    products = [{"id": n, "title": f"Linen shirt number {n}", "details": {"colour": ["Red", "Blue"][n % 2]},
                 "images": [{"src": f"https://x.example/{n}.jpg"}, {"src": f"https://x.example/{n}b.jpg"}]}
                for n in range(40)]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps({"products": products}))
    found, catalog = started(capsys, tmp_path / "a.json", tmp_path / "my.yaml")
    assert roles(found) == {"id": "id", "title": "text", "details.colour": "attribute single column",
                            "images.src": "photo"}
    assert all(len(record["images"]) == 2 for record in catalog.records("train"))


@pytest.mark.parametrize("by", [",", ";", "|", "\n", " ", ", "])
def test_several_photos_in_a_cell(tmp_path, capsys, by):
    photos = ["https://x.example/1.jpg", "https://x.example/i?2"]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["sku", "name", "photos", "shade"]] + [
            [f"S{n}", f"Linen shirt number {n}", by.join(photos[:n % 2 + 1]),
             f"['{['Red', 'Blue'][n % 2]}', \"men's\"]"] for n in range(60)])
    found, catalog = started(capsys, tmp_path / "a.csv", tmp_path / "my.yaml")
    assert roles(found) == {"sku": "id", "name": "text", "photos": "photo", "shade": "attribute multi list"}
    assert catalog.schema.image_delimiter == (by.strip() or by)
    assert {len(record["images"]) for record in catalog.records("train")} == {1, 2}
    assert {tag for record in catalog.records("train") for tag in record["tags"]["shade"]} == {"Red", "Blue", "men's"}


def test_a_feed_is_often_called_txt(tmp_path, capsys):
    lines = ["id\ttitle\tdescription\tlink\timage_link\tcolor\tproduct_type"] + [
        f"{n}\tLinen shirt {n}\tA shirt for the house\thttps://x.example/{n}\thttps://x.example/{n}.jpg\t"
        f"{['Red', 'Blue/Red'][n % 2]}\tMen > {['Shirts', 'Hats'][n // 2 % 2]}" for n in range(60)]
    (tmp_path / "feed.txt").write_text("\n".join(lines), encoding="utf-16")
    found, catalog = started(capsys, tmp_path / "feed.txt", tmp_path / "my.yaml")
    assert found["system"] == "google" and found["products"] == 60
    assert {tuple(record["tags"]["color"]) for record in catalog.records("train")} == {("Red",), ("Blue", "Red")}


def test_a_german_list_of_articles(tmp_path, capsys):
    """Seasons are no hierarchy, variants share descriptions, suppliers are known, and paths are those of Windows."""
    (tmp_path / "bilder").mkdir()
    kinds = ["Küche/Becher", "Küche/Töpfe", "Möbel/Stühle"]
    lines = ["Artikelnummer;Langtext;Bezeichnung;Warengruppe;Saison;Größe;Lieferant;Bild"]
    for n in range(240):
        (tmp_path / "bilder" / f"{n}.jpg").touch()
        lines.append(f"{n:05d};Modell {n // 8}: für Küche und Büro aus gutem Holz, 1.299,00 Euro;Artikel „{n}“;"
                     f"{kinds[n % 3]};{['Frühjahr/Sommer', 'Herbst/Winter'][n % 2]};{['38/40', '42/44'][n // 2 % 2]};"
                     f"{['Müller GmbH', 'Bäcker & Söhne'][n % 2]};bilder\\{n}.jpg")
    (tmp_path / "artikel.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    found, catalog = started(capsys, tmp_path / "artikel.csv", tmp_path / "my.yaml")
    assert roles(found) == {"Artikelnummer": "id", "Bezeichnung": "text", "Langtext": "text", "Bild": "photo",
                            "Warengruppe": "attribute multi path", "Saison": "attribute single column",
                            "Größe": "attribute single column", "Lieferant": None}
    assert found["warnings"] == [] and catalog.schema.text == ["Bezeichnung", "Langtext"]


FACTS = [{"Colour": ["Red", "Blue"][n % 2], "fit": ["Slim", "Wide"][n // 2 % 2], "Rating": f"{n % 50}.5"}
         for n in range(60)]


def _objects(facts, name="name", value="value"):
    return [{name: fact, value: said} for fact, said in facts.items()]


@pytest.mark.parametrize(("suffix", "given"), [
    ("jsonl", lambda facts: {"product": {"attributes": [*_objects(facts), {"name": "Care", "value": None}]}}),
    ("jsonl", lambda facts: {"product": {"attributes": [
        {"id": 1, "name": name, "visible": True, "options": [value]} for name, value in facts.items()]}}),
    ("jsonl", lambda facts: {"product": [{"attributes": _objects(facts, "attribute_code")}]}),
    ("parquet", lambda facts: {"product": {"attributes": _objects(facts, "key")}}),
    ("parquet", lambda facts: {"attributes": _objects(facts, "label")}), ("parquet", list),
    ("csv", lambda facts: {"attributes": json.dumps(_objects(facts))}),
    ("xml", lambda facts: "".join(f'<attributes name="{fact}">{said}</attributes>' for fact, said in facts.items())),
    ("xml", lambda facts: "".join(f"<attributes><PARAM_NAME>{fact}</PARAM_NAME><VAL>{said}</VAL></attributes>"
                                  for fact, said in facts.items())),
])  # fmt: skip
def test_names_with_values_in_a_list_are_attributes(tmp_path, capsys, suffix, given):
    rows = [{"sku": f"S{n}", "name": f"Linen shirt number {n}"} | (
        {"attributes": list(facts.items())} if given is list else given(facts) if suffix != "xml" else {
            "inside": given(facts)}) for n, facts in enumerate(FACTS)]
    path = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, rows)
    elif suffix == "xml":
        items = (f"<item><sku>{row['sku']}</sku><name>{row['name']}</name>{row['inside']}</item>" for row in rows)
        path.write_text(f"<shop>{''.join(items)}</shop>")
    elif suffix == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([rows[0], *(row.values() for row in rows)])
    else:
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        if given is list:
            columns["attributes"] = pa.array(columns["attributes"], pa.map_(pa.string(), pa.string()))
        pq.write_table(pa.table(columns), path)
    found, catalog = started(capsys, path, tmp_path / "my.yaml")
    base = "product.attributes" if "product" in rows[0] else "attributes"
    assert roles(found) == {"sku": "id", "name": "text", f"{base}:Colour": "attribute single column",
                            f"{base}:fit": "attribute single column", f"{base}:Rating": None}
    read = {record["id"]: record["tags"] for split in catalog.splits for record in catalog.records(split)}
    assert read == {f"S{n}": {"colour": [facts["Colour"]], "fit": [facts["fit"]]} for n, facts in enumerate(FACTS)}


def test_columns_inside_others_are_called_by_what_they_say(tmp_path, capsys):
    rows = [{"item": {"id": f"S{n}", "name": f"Linen shirt number {n}", "brand": {"name": ["Acme", "Ada"][n % 2]},
                      "shade": {"code": n % 2, "label": ["Red", "Blue"][n % 2]},
                      "categories": [{"id": 1, "name": ["Men", "Women"][n // 2 % 2], "path": "a/b"}]}}
            for n in range(60)]  # fmt: skip
    write_jsonl(tmp_path / "a.jsonl", rows)
    found, _ = started(capsys, tmp_path / "a.jsonl", tmp_path / "my.yaml")
    names = {column["column"]: column["attribute"] for column in found["columns"] if column["role"] == "attribute"}
    assert names == {"item.shade.label": "shade", "item.categories.name": "categories"}
    assert roles(found)["item.name"] == "text" and roles(found)["item.brand.name"] is None


@pytest.mark.parametrize("splits", [[], ["train", "val", "test"]])
def test_a_folder_of_photos_has_its_folders_for_classes(tmp_path, capsys, splits):
    for split in splits or [""]:
        for kind in ("mug", "shirt"):
            folder = tmp_path / "photos" / split / kind
            folder.mkdir(parents=True)
            for n in range(6):
                (folder / f"{n}.JPG").write_bytes(encode_jpeg(photo("Red", "Mug", seed=n)))
            (folder / ".hidden.jpg").write_bytes(b"")
    (tmp_path / "photos" / "notes.txt").write_text("mine")
    found, catalog = started(capsys, tmp_path / "photos", tmp_path / "my.yaml")
    assert roles(found) == {"id": "id", "image": "photo", "class": "attribute single column"}
    records = {split: list(catalog.records(split)) for split in catalog.splits}
    assert {len(found) for found in records.values()} == {12} if splits else sum(map(len, records.values())) == 12
    for record in (record for found in records.values() for record in found):
        assert record["id"].split("/")[0] == record["tags"]["class"][0] and len(record["images"]) == 1
        assert Path(record["images"][0]).is_file()


@pytest.mark.parametrize("system", ["schema_org", "shopify_json"])
def test_products_of_a_shop_in_json(tmp_path, capsys, system):
    colours = ["Red", "Blue"]
    if system == "schema_org":
        document = {"@context": "https://schema.org", "@graph": [{"@type": "Organization", "name": "Shop"}] + [
            {"@type": "Product", "sku": f"S{n}", "name": f"Linen shirt number {n}", "category": "Men > Shirts",
             "image": [{"@type": "ImageObject", "url": f"https://x.example/{n}.jpg"}], "color": colours[n % 2],
             "brand": {"@type": "Brand", "name": "Acme"}, "offers": {"@type": "Offer", "price": "9.90"},
             "additionalProperty": [{"@type": "PropertyValue", "name": "Fit", "value": ["Slim", "Wide"][n // 2 % 2]}]}
            for n in range(60)]}
        right = {"sku": "id", "name": "text", "image": "photo", "category": "attribute multi path",
                 "color": "attribute multi column", "property:Fit": "attribute multi column"}
    else:
        document = {"products": [
            {"id": 900 + n, "title": f"Linen shirt number {n}", "handle": f"shirt-{n}", "body_html": "<p>Airy</p>",
             "vendor": "Acme", "product_type": ["Shirts", "Bags"][n % 2], "tags": ["summer", "linen, raw"][: n % 2 + 1],
             "variants": [{"id": n, "option1": colours[0], "price": "9.90"}], "images": [
                 {"id": n, "src": f"https://x.example/{n}.jpg"}],
             "options": [{"name": "Color", "position": 1, "values": colours[: n % 2 + 1]}]} for n in range(60)]}
        right = {"id": "id", "title": "text", "body_html": "text", "images": "photo",
                 "product_type": "attribute single column", "tags": "attribute multi delimited",
                 "option:Color": "attribute multi column"}
    (tmp_path / "a.json").write_text(json.dumps(document))
    found, catalog = started(capsys, tmp_path / "a.json", tmp_path / "my.yaml")
    assert found["system"] == system and found["products"] == 60
    assert {column: role for column, role in roles(found).items() if role} == right
    records = list(catalog.records("train"))
    assert all(len(record["images"]) == 1 for record in records)
    if system == "shopify_json":
        assert {tag for record in records for tag in record["tags"]["tags"]} == {"summer", "linen, raw"}


def test_keys_without_end_are_not_all_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(column_stats, "_MOST_COLUMNS", 10)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(
        {"sku": f"S{n}", "name": f"Linen shirt number {n}", "colour": ["Red", "Blue"][n % 2], f"key{n}": n}) + "\n"
        for n in range(60)))
    found, _ = started(capsys, tmp_path / "a.jsonl", tmp_path / "my.yaml")
    assert len(found["columns"]) == 10 and roles(found)["colour"] == "attribute single column"
    assert "more than 10 columns: the others are not looked at" in found["warnings"]


def test_cells_that_would_be_something_else_in_yaml(tmp_path, capsys):
    lines = ["no: 1,title #,yes"] + [f"{n:03d},Linen shirt number {n} of all,{['no', 'on', '010'][n % 3]}"
                                     for n in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    found, catalog = started(capsys, tmp_path / "a.csv", tmp_path / "my.yaml")
    assert roles(found)["yes"] == "attribute single column" and roles(found)["title #"] == "text"
    assert {tag for record in catalog.records("train") for tag in record["tags"]["yes"] or ()} <= {"on", "010"}


def test_columns_without_a_name_of_their_own(tmp_path, capsys):
    lines = ["sku,,note,note,name,colour"] + [f"S{n},x,a,b,Linen shirt number {n},{['Red', 'Blue'][n % 2]}"
                                              for n in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    found, catalog = started(capsys, tmp_path / "a.csv", tmp_path / "my.yaml")
    assert roles(found) == {"sku": "id", "name": "text", "colour": "attribute single column"}
    assert any("several columns have one name" in warning and "note" in warning for warning in found["warnings"])
    assert next(catalog.records("train"))["tags"]["colour"]


def test_what_is_there_is_not_written_over(tmp_path, capsys):
    path = german_shop(tmp_path / "plain.csv", rows=30)
    (tmp_path / "my.yaml").write_text("mine")
    assert init.main([str(path), "--output", str(tmp_path / "my.yaml")]) == 2
    assert "not written over" in capsys.readouterr().err and (tmp_path / "my.yaml").read_text() == "mine"


@pytest.mark.parametrize(("content", "message"), [
    ("", "no product in it"), ("a,b\n1,2\n3,4\n", "no column looks like a text or a photo")])
def test_what_cannot_be_tagged_is_told_in_one_line(tmp_path, capsys, content, message):
    (tmp_path / "a.csv").write_text(content)
    assert init.main([str(tmp_path / "a.csv"), "--output", str(tmp_path / "my.yaml")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "my.yaml").exists()


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert init.main([str(tmp_path / "none.csv")]) == 2
    assert "No catalogue file at" in capsys.readouterr().err


def test_example(tmp_path, capsys):
    folder = tmp_path / "shop"
    assert example.main(["shopify", "--output_dir", str(folder), "--products", "12"]) == 0
    assert capsys.readouterr().out == f"{folder / 'products_export.csv'}\n"
    assert example.main(["shopify", "--output_dir", str(folder)]) == 2
    assert "not written over" in capsys.readouterr().err
    assert (folder / "photos").is_dir()
