"""`hf_tagger init` on exports in several languages, and on cells that hold codes."""

from recipes import init
from tests.recipes import shop_exports
from tests.recipes.init_runs import roles, started
from tests.recipes.test_init import SHADES, table


def several_locales(path):
    """Products in German or English or both, with codes of options, and some French."""
    columns = ["uuid", "sku", "categories", "enabled", "family", "name-de_DE", "name-en_US", "name-fr_FR",
               "description-de_DE-mobile", "description-en_US-mobile", "description-en_US-print", "image",
               "picture-print", "shade", "print-de_DE", "print-en_US", "PACK-groups", "X_SELL-products", "size-unit"]
    rows = [[f"u{n}", n, SHADES[n % 2].lower(), 1, "lamps", f"Mondlampe {n}" * (n % 3 == 0), f"Lamp {n}" * (n % 3 < 2),
             f"Lampe {n}" * (n % 9 == 8), f"Eine Lampe für das Haus und die Nacht {n}" * (n % 3 == 0),
             f"A lamp for the house {n}" * (n % 9 == 1), f"A lamp that glows like the moon, number {n}" * (n % 3 < 2),
             f"files/{n}/image/a.jpg" * (n % 2), f"files/{n}/picture/a.jpg" * (n % 2 == 0), SHADES[n % 3].lower(),
             ["Punkte", "Streifen"][n % 2], ["dots", "stripes"][n % 2], SHADES[n % 2], SHADES[n % 2], SHADES[n % 2]]
            for n in range(27)]
    return table(path, columns, rows, ";")


def test_a_product_has_the_texts_of_all_its_locales_the_fullest_of_its_channels_in_each(tmp_path, capsys):
    found, catalog = started(capsys, several_locales(tmp_path / "a.csv"), tmp_path / "a.yaml")
    given = {column: role for column, role in roles(found).items() if role}
    assert given == {"sku": "id", "name-en_US": "text", "name-de_DE": "text", "name-fr_FR": "text",
                     "description-en_US-print": "text", "description-de_DE-mobile": "text", "image": "photo",
                     "picture-print": "photo", "categories": "attribute multi delimited",
                     "shade": "attribute single column", "print-de_DE": "attribute single column",
                     "print-en_US": "attribute single column"}
    assert {column["column"]: column["why"] for column in found["columns"]}["description-en_US-mobile"] == (
        "description in another language or channel")
    assert any("en_US, de_DE, fr_FR: all that a product has" in warning for warning in found["warnings"])
    assert catalog.schema.text == ["name-en_US", "name-de_DE", "name-fr_FR", "description-en_US-print",
                                   "description-de_DE-mobile"]
    assert catalog.schema.language is None
    records = {record["id"]: record for split in catalog.splits for record in catalog.records(split)
               if isinstance(record, dict)}
    assert records["0"]["texts"] == ["Lamp 0", "Mondlampe 0", "A lamp that glows like the moon, number 0",
                                     "Eine Lampe für das Haus und die Nacht 0"]
    assert records["8"]["texts"] == ["Lampe 8"] and "2" in records  # has a photo alone


def test_one_locale_alone_is_read_where_it_is_asked_for(tmp_path, capsys):
    path = several_locales(tmp_path / "a.csv")
    (tmp_path / "options.csv").write_text("code;attribute;label-de_DE;label-en_US\nred;shade;Rot;Fire red\n"
                                          "blue;shade;Blau;Sky\ngreen;shade;;Moss\n")
    labels = ["--labels", str(tmp_path / "options.csv")]
    found, catalog = started(capsys, path, tmp_path / "a.yaml", "--locale", "de_DE", *labels)
    given = {column: role for column, role in roles(found).items() if role}
    assert {column for column in given if "_" in column} == {"name-de_DE", "description-de_DE-mobile", "print-de_DE"}
    shade = next(column for column in found["columns"] if column["column"] == "shade")
    assert shade["spec"]["aliases"] == {"red": "Rot", "blue": "Blau"}
    assert "2 labels of options.csv (de_DE)" in shade["why"]
    found, _ = started(capsys, path, tmp_path / "b.yaml", *labels)  # most texts are in English
    shade = next(column for column in found["columns"] if column["column"] == "shade")
    assert shade["spec"]["aliases"] == {"red": "Fire red", "blue": "Sky", "green": "Moss"}
    assert init.main([str(path), "--output", str(tmp_path / "c.yaml"), "--locale", "en_UK"]) == 2
    assert 'Did you mean "en_US"' in capsys.readouterr().err
    assert init.main([str(path), "--output", str(tmp_path / "c.yaml"), "--locale", "fr_FR", *labels]) == 2
    assert "no labels of fr_FR, but of de_DE, en_US" in capsys.readouterr().err
    plain = table(tmp_path / "plain.csv", ["sku", "name", "shade"], [[n, f"Lamp {n}", SHADES[n % 2]] for n in range(9)])
    assert init.main([str(plain), "--output", str(tmp_path / "c.yaml"), "--locale", "de_DE"]) == 2
    assert "whose columns name several" in capsys.readouterr().err


def test_the_texts_of_magentos_store_views_are_read_with_their_language(tmp_path, capsys):
    columns = ["sku", "store_view_code", "attribute_set_code", "product_type", "name", "description",
               "additional_attributes"]
    rows = []
    for n in range(12):
        rows.append([f"S{n}", "", "Default", "simple", f"Moon lamp {n}", f"A lamp for the night {n}",
                     f"finish={SHADES[n % 2]}"])
        rows += [[f"S{n}", "de", "", "", f"Mondlampe {n}", "__EMPTY__VALUE__", "finish=Rot"]] * (n % 2)
        rows += [[f"S{n}", "fr", "", "", "", f"Une lampe pour la nuit et le jour {n}", ""]] * (n % 3 == 0)
    path = table(tmp_path / "a.csv", columns, rows)
    found, catalog = started(capsys, path, tmp_path / "a.yaml")
    assert catalog.schema.text == ["name", "name:de", "description", "description:fr"]
    assert any("texts in de, fr" in warning for warning in found["warnings"]) and found["products"] == 12

    def texts(catalog):
        return {record["id"]: record["texts"] for split in catalog.splits for record in catalog.records(split)}

    read = texts(catalog)
    assert read["S3"] == ["Moon lamp 3", "Mondlampe 3", "A lamp for the night 3", "Une lampe pour la nuit et le jour 3"]
    assert read["S1"] == ["Moon lamp 1", "Mondlampe 1", "A lamp for the night 1"]
    assert read["S2"] == ["Moon lamp 2", "A lamp for the night 2"]
    assert {tag for record in catalog.records("train") for tag in record["tags"]["finish"]} <= set(SHADES)
    found, catalog = started(capsys, path, tmp_path / "b.yaml", "--locale", "de")
    assert catalog.schema.text == ["name:de", "description"]
    assert texts(catalog)["S3"] == ["Mondlampe 3", "A lamp for the night 3"] and texts(catalog)["S2"] == read["S2"]
    assert init.main([str(path), "--output", str(tmp_path / "c.yaml"), "--locale", "it"]) == 2


def test_numbers_of_categories_get_their_names(tmp_path, capsys):
    path = shop_exports.bigcommerce_modern(tmp_path / "export.csv")
    (tmp_path / "categories.csv").write_text("Category ID,Category Name\n19,New\n20,Cups\n21,Frocks\n")
    found, catalog = started(capsys, path, tmp_path / "my.yaml", "--labels", str(tmp_path / "categories.csv"))
    spec = next(column["spec"] for column in found["columns"] if column["column"] == "Categories")
    assert spec["aliases"] == {"19": "New", "20": "Cups", "21": "Frocks"}
    tags = {tag for record in catalog.records("train") for tag in record["tags"]["categories"]}
    assert {"New", "Cups", "22"} < tags and not tags & {"19", "20"}


def test_codes_get_their_labels(tmp_path, capsys):
    path = shop_exports.akeneo(tmp_path / "export.csv")
    (tmp_path / "options.csv").write_text(
        "code;attribute;label-de_DE;label-en_US;sort_order\nblue;color;Blau;Deep blue;1\nred;color;Rot;Fire red;2\n"
        "grey;color;Grau;Deep blue;3\nstriped;print;Gestreift;Striped print;1\nnever;color;Nie;Never;4\n")
    (tmp_path / "categories.csv").write_text("code;parent;label-en_US\nshop;;The shop\nmug;shop;Mugs & cups\n")
    found, catalog = started(capsys, path, tmp_path / "my.yaml", "--labels", str(tmp_path / "options.csv"), "--labels",
                             str(tmp_path / "categories.csv"))
    aliases = {column["column"]: column["spec"].get("aliases") for column in found["columns"]}
    assert set(aliases["color"]) == {"blue", "red", "grey"} and aliases["color"]["red"] == "Fire red"
    assert {aliases["color"]["blue"], aliases["color"]["grey"]} in (
        {"Deep blue", "Deep blue (grey)"}, {"Deep blue", "Deep blue (blue)"})
    tags = {tag for record in catalog.records("train") for tag in record["tags"]["category"]}
    assert {"The shop", "Mugs & cups"} < tags and "shop" not in tags and "dress" in tags
    assert init.main([str(path), "--output", str(tmp_path / "b.yaml"), "--labels", str(path)]) == 2
    assert "labels need a column code" in capsys.readouterr().err
