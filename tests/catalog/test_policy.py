"""Which tags a product's cells get."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_tagger.catalog.attributes import AttributeSpec
from hf_tagger.catalog.editing.policy import Policy, Rules, Tag, Target
from hf_tagger.catalog.editing.targets import find_targets
from hf_tagger.catalog.formats.cells import CellSyntax, split
from hf_tagger.catalog.profiles import Write, profile
from hf_tagger.catalog.strict import ConfigError

LIST = CellSyntax(",")
COLOURS = frozenset({"red", "blue", "dark, grey"})


def target(**changes):
    given = {"attribute": "colour", "column": "Tags", "how": "append", "syntax": LIST, "single": False,
             "vocabulary": COLOURS}
    return Target(**given | changes)


def merged(cell, labels, target=None, product="p", **options):
    """(the cell afterwards, {what: [tags]})"""
    target = target or Target("colour", "Tags", "append", LIST, False, COLOURS)
    rules = Rules(**{name: options.pop(name) for name in list(options) if name in Rules.__dataclass_fields__})
    policy = Policy([target], rules, **options)
    tags = [Tag(target.attribute, label, 0.9 - place / 10) for place, label in enumerate(labels)]
    values, changes = policy.merge(product, {target.column: cell}, tags)
    said = {}
    for change in changes:
        said.setdefault(change.what if change.what != "refused" else change.why, []).append(change.label)
    return values.get(target.column, cell), said


@pytest.mark.parametrize(("cell", "after"), [
    ("", "Red, Blue"), ("  ", "Red, Blue"), ("sale, linen", "sale, linen, Red, Blue"),
    ("sale,linen", "sale,linen,Red,Blue"),
    ("sale ", "sale, Red, Blue"), ("RED, sale", "RED, sale, Blue"), ("red,Blue", "red,Blue"),
    ('["sale", "Red"]', '["sale", "Red", "Blue"]'), ("a, a", "a, a, Red, Blue"),
])  # fmt: skip
def test_tags_are_added_to_those_there_as_they_are_written(cell, after):
    assert merged(cell, ["Red", "Blue"])[0] == after


def test_replace_takes_only_the_models_own_tags_and_nothing_where_it_abstains():
    assert merged("sale, blue, linen", ["Red"], replace=True) == (
        "sale, linen, Red", {"added": ["Red"], "dropped": ["blue"]})
    assert merged("sale, blue", [], replace=True) == ("sale, blue", {})
    assert merged("blue", ["Blue"], replace=True) == ("blue", {"unchanged": ["Blue"]})
    own = target(how="cell", syntax=CellSyntax(), single=True)
    assert merged("azure", ["Red"], own, replace=True)[0] == "Red"
    assert merged("azure", ["Red"], own) == ("azure", {"the cell has another": ["Red"]})


def test_an_attribute_of_one_tag_gets_no_second_one():
    single = target(single=True)
    assert merged("sale, blue", ["Red"], single) == ("sale, blue", {"the cell has another": ["Red"]})
    assert merged("sale, blue", ["Red"], single, replace=True)[0] == "sale, Red"
    assert merged("sale", ["Red"], single)[0] == "sale, Red"


def test_options_leave_tags_out():
    assert merged("sale", ["Red"], only_empty=True) == ("sale", {})
    assert merged("", ["Red"], only_empty=True)[0] == "Red"
    assert merged("", ["Red", "Blue"], at_most=1) == ("Red", {"added": ["Red"]})
    assert merged("", ["Red", "Blue"], min_score=0.85)[0] == "Red"
    for wrong in ({"at_most": 0}, {"min_score": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Rules(**wrong)


def test_what_a_person_removed_does_not_come_back_and_what_one_confirmed_is_not_dropped():
    verdicts = {("p", "colour", "Red"): False, ("p", "colour", "Blue"): True}
    assert merged("sale", ["Red"], verdicts=verdicts) == ("sale", {"a person removed it": ["Red"]})
    assert merged("sale", ["Red"], verdicts=verdicts, product="q")[0] == "sale, Red"
    grey = [Tag("colour", "Grey", 0.9)]
    policy = Policy([target(vocabulary=COLOURS | {"grey"})], Rules(replace=True), verdicts=verdicts)
    assert policy.merge("p", {"Tags": "BLUE, red"}, grey)[0] == {"Tags": "BLUE, Grey"}


def test_limits_of_the_system_are_kept_and_told():
    assert merged("a, b", ["Red", "Blue"], target(tags=3)) == (
        "a, b, Red", {"added": ["Red"], "more than 3 tags": ["Blue"]})
    assert merged("a", ["Red", "Blue"], target(tag_characters=3))[0] == "a, Red"
    assert merged("", ["Red", "Blue"], target(characters=5, how="cell"))[0] == "Red"
    assert merged("", ["dark, grey"]) == ("", {"the list cannot hold it": ["dark, grey"]})
    assert merged("x", ["dark, grey"], target(syntax=CellSyntax(",", escape="\\")))[0] == "x, dark\\, grey"
    assert merged("", ["黒"], takes=str.isascii) == ("", {"not in the file's encoding": ["黒"]})


def test_a_cell_that_a_spreadsheet_would_compute_is_defused_as_the_system_does():
    assert merged("", ["-50 %", "Red"], formula_escape="'")[0] == "'-50 %, Red"
    assert merged("'-50 %", ["-50 %", "Red"], formula_escape="'")[0] == "'-50 %, Red"
    assert merged("", ["-50 %"])[0] == "-50 %"
    assert merged("__EMPTY__VALUE__", ["Red"], empty_value="__EMPTY__VALUE__")[0] == "Red"


def test_pairs_keep_the_others_and_paths_say_a_node_by_its_last_one():
    pair = target(how="pair", code="color", syntax=CellSyntax("|", glue="|"), column="additional_attributes")
    assert merged("care=Cold, dry,color=Blue,size=S", ["Red", "Blue"], pair)[0] == (
        "care=Cold, dry,color=Blue|Red,size=S")
    assert merged("", ["Red"], pair)[0] == "color=Red"
    assert merged('care="Cold, dry",size="S"|"M"', ["Red", "Blue"], pair)[0] == (
        'care="Cold, dry",size="S"|"M",color="Red"|"Blue"')
    assert merged("size=S", ["a,b=c"], pair) == ("size=S", {"the list cannot hold it": ["a,b=c"]})
    path = target(nodes=CellSyntax(">", glue=" > "), parents={"Tees": "Men", "Men": "All", "Hats": "All"},
                  syntax=CellSyntax(",", escape="\\"))
    assert merged("Sale", ["All", "Men", "Tees"], path)[0] == "Sale, All > Men > Tees"
    assert merged("All>Men>Tees", ["All", "Men"], path) == ("All>Men>Tees", {"unchanged": ["Men"]})
    assert merged("", ["Tees", "Hats", "Men", "All"], path, at_most=1)[0] == "All > Men > Tees"


TAGS = st.lists(st.sampled_from(["Red", "Blue", "dark, grey", "-50 %", "=x", "a|b", "黒"]), unique=True)
SYNTAXES = st.sampled_from([LIST, CellSyntax(",", escape="\\"), CellSyntax(",", quote='"'), CellSyntax("|", glue="|"),
                            CellSyntax(), CellSyntax(json=True)])


@given(st.lists(st.text("abRed, |='-\\\"\n[]", max_size=6), max_size=3).map(", ".join), TAGS, SYNTAXES, st.data())
@settings(max_examples=400, deadline=None)
def test_a_second_run_changes_nothing_and_no_tag_that_was_there_is_lost(cell, tags, syntax, data):
    single = data.draw(st.booleans())
    made = target(how=data.draw(st.sampled_from(["append", "cell", "column"])), syntax=syntax, single=single,
                  tags=data.draw(st.sampled_from([None, 3])), characters=data.draw(st.sampled_from([None, 12])),
                  vocabulary=frozenset(["red", "blue", "dark, grey"]))
    options = {"replace": data.draw(st.booleans()), "only_empty": data.draw(st.booleans()),
               "at_most": data.draw(st.sampled_from([None, 1])),
               "formula_escape": data.draw(st.sampled_from([None, "'"])), "takes": str.isascii}
    tags = tags[:1] if single else tags
    once, said = merged(cell, tags, made, **options)
    assert merged(once, tags, made, **options)[0] == once
    if not options["replace"] and not syntax.json:
        bare = cell.removeprefix("'") if options["formula_escape"] and cell[1:2] in tuple("=+-@\t\r") else cell
        after = once.removeprefix("'") if options["formula_escape"] and once[1:2] in tuple("=+-@\t\r") else once
        assert split(after, syntax)[:len(split(bare, syntax))] == split(bare, syntax)
    assert ("added" in said or "dropped" in said) == (once != cell)


def entry(name, tags=("Red", "Blue"), kind="single", **more):
    return {"name": name, "kind": kind, "tags": list(tags), **more}


def test_profiles_say_where_attributes_go_and_the_command_goes_first():
    shopify = profile("shopify")
    header = ["Handle", "Title", "Body (HTML)", "Type", "Tags", "Product Category", "Fabric"]
    attributes = [entry("colour"), entry("product_type"), entry("category"),
                  entry("Category", kind="multi", parents={"Red": "Blue"})]
    found, notes = find_targets(attributes, header, {}, shopify)
    assert [(one.attribute, one.column, one.how, one.tags) for one in found] == [
        ("colour", "Tags", "append", 250), ("product_type", "Type", "cell", None),
        ("category", "Tags", "append", 250),  # of bare names, no path can be made
        ("Category", "Product Category", "cell", None)]  # fmt: skip
    # Metafields and attributes of the system's go where the catalogue has them, options of variants do not.
    columns = {"fit": "Fit (product.metafields.custom.fit)", "gender": "Google Shopping / Gender",
               "shade": "option:Shade", "fabric": "Fabric"}
    specs = {name: AttributeSpec(column=column) for name, column in columns.items()}
    found, _ = find_targets([entry(name) for name in specs], [*header, *list(columns.values())[:2]], specs, shopify)
    assert [one.column for one in found] == [columns["fit"], columns["gender"], "Tags", "Tags"]
    specs = {"words": AttributeSpec(column="Tags", kind="multi", format="delimited")}
    (words,), _ = find_targets([entry("words", kind="multi")], header, specs, shopify)
    assert (words.column, words.how, words.tags, words.tag_characters) == ("Tags", "append", 250, 255)
    asked = {"colour": Write("Fabric", "cell"), "*": Write("My column", "column")}
    found, _ = find_targets(attributes[:2], header, {}, shopify, asked)
    assert [(one.column, one.how) for one in found] == [("Fabric", "cell"), ("My column", "column")]
    with pytest.raises(ConfigError, match="no column 'Fabrik'.*Did you mean \"Fabric\""):
        find_targets(attributes, header, {}, shopify, {"colour": Write("Fabrik", "cell")})
    with pytest.raises(ConfigError, match="write.color: the model has no such attribute. Did you mean \"colour\""):
        find_targets(attributes, header, {}, shopify, {"color": Write("Tags")})


def test_labels_of_google_are_given_out_and_a_table_gets_its_own_columns():
    google = profile("google")
    header = ["id", "title", "description", "link", "image_link", "custom_label_0"]
    found, _ = find_targets([entry("a"), entry("color"), entry("b")], header, {}, google)
    assert [(one.column, one.characters) for one in found] == [
        ("custom_label_0", 100), ("color", 100), ("custom_label_1", 100)]
    found, _ = find_targets([entry("a"), entry("c"), entry("fit"), entry("b")], [*header, "size", "custom_label_1"], {
        "fit": AttributeSpec(column="size"), "b": AttributeSpec(column="custom_label_1")}, google)
    assert [(one.column, one.characters) for one in found] == [
        ("custom_label_0", 100), ("custom_label_2", 100), ("size", None), ("custom_label_1", 100)]
    specs = {"a": AttributeSpec(column="farbe"), "b": AttributeSpec(column="tags", kind="multi", format="delimited")}
    found, _ = find_targets([entry("a"), entry("b", kind="multi"), entry("c", ["x, y"], "multi")],
                            ["farbe", "tags"], specs)
    assert [(one.column, one.how, one.syntax.delimiter) for one in found] == [
        ("farbe", "cell", None), ("tags", "append", ","), ("c", "column", ";")]


def test_labels_of_codes_go_back_as_codes():
    aliases = {"rd": "Red", "r2": "Red"}
    specs = {"color": AttributeSpec(column="color", kind="multi", format="delimited", aliases=aliases)}
    header = ["sku", "categories", "family", "color"]
    (color,), _ = find_targets([entry("color", kind="multi")], header, specs, profile("akeneo"))
    assert merged("bl", ["Red", "Blue"], color)[0] == "bl, rd, Blue"
    assert merged("r2", ["Red"], color) == ("r2", {"unchanged": ["Red"]})
    assert merged("bl,rd", ["Blue"], color, replace=True)[0] == "bl, Blue"
    # Of BigCommerce's categories, and where another form of the export has none of its own, or only in other words.
    bigcommerce = profile("bigcommerce")
    specs = {"categories": AttributeSpec(column="Categories", kind="multi", format="delimited", delimiter=";", glue=";",
                                         aliases={"23": "Red", "24": "Blue"})}
    modern = ["Item", "ID", "Name", "Options", "Categories", "Search Keywords"]
    (categories,), _ = find_targets([entry("categories", kind="multi")], modern, specs, bigcommerce)
    assert merged("19;23", ["Red", "Blue"], categories)[0] == "19;23;24"
    for name, other in (("category", modern), ("categories", ["Product ID", "Name", "Category Details"]),
                        ("category", ["Product ID", "Name", "Category Details"])):
        (target,), _ = find_targets([entry(name, kind="multi", parents={"Red": "Blue"})], other, {}, bigcommerce)
        assert target.column == "Search Keywords"
