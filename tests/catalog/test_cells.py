"""Several values in one cell: every system's own way of writing them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_tagger.catalog.formats.cells import (
    CellError,
    CellSyntax,
    join,
    join_pairs,
    json_list,
    set_pair,
    split,
    split_pairs,
)

WOO = CellSyntax(",", escape="\\")
GOOGLE = CellSyntax(",", quote='"')
BAR = CellSyntax("|")
PATH = CellSyntax(">", glue=" > ")
JSON = CellSyntax(json=True)
CODES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
SYNTAXES = [CellSyntax(), CellSyntax(","), CellSyntax(";"), WOO, GOOGLE, BAR, PATH, JSON]
VALUES = st.text(st.sampled_from('ab ,;|>"\\=[]é\n'), max_size=6)


@pytest.mark.parametrize(("syntax", "cell", "values"), [
    (CellSyntax(","), "summer, linen,,", ["summer", "linen"]),
    (WOO, r"Perfume\, Cologne, Gifts", ["Perfume, Cologne", "Gifts"]),
    (GOOGLE, 'Red, "Blue, dark", "24"" wide"', ["Red", "Blue, dark", '24" wide']),
    (GOOGLE, '24" wide, Red', ['24" wide', "Red"]),
    (BAR, "S|M", ["S", "M"]),
    (PATH, "Clothing > Shirts", ["Clothing", "Shirts"]),
    (CellSyntax("/", escape="\\"), r"Root/Bits \/ Pieces", ["Root", "Bits / Pieces"]),
    (JSON, '["Red", "Blue, dark"]', ["Red", "Blue, dark"]),
    (CellSyntax(","), '["Red", "Blue, dark"]', ["Red", "Blue, dark"]),
    (CellSyntax(), "Red, Blue", ["Red, Blue"]),
    (CellSyntax(","), "[new, old]", ["[new", "old]"]),
])  # fmt: skip
def test_split(syntax, cell, values):
    assert split(cell, syntax) == values


@pytest.mark.parametrize(("syntax", "values", "cell"), [
    (CellSyntax(","), ["summer", "linen"], "summer, linen"),
    (WOO, ["Perfume, Cologne", "Gifts"], r"Perfume\, Cologne, Gifts"),
    (GOOGLE, ["Red", "Blue, dark", '24" wide'], 'Red,"Blue, dark","24"" wide"'),
    (CellSyntax("/"), ["Blue", "Green"], "Blue/Green"),
    (PATH, ["Clothing", "Shirts"], "Clothing > Shirts"),
    (JSON, ["Red"], '["Red"]'),
    (JSON, [], ""),
])  # fmt: skip
def test_join(syntax, values, cell):
    assert join(values, syntax) == cell


@given(st.lists(VALUES), st.sampled_from(SYNTAXES))
def test_what_is_joined_splits_into_the_same_values_or_is_refused(values, syntax):
    try:
        cell = join(values, syntax)
    except CellError:
        return
    assert split(cell, syntax) == values


@given(st.lists(VALUES.map(str.strip).filter(bool)), st.sampled_from([JSON, GOOGLE]))
def test_json_lists_and_quotes_can_write_any_value(values, syntax):
    values = [value.replace("\n", "") for value in values if value.replace("\n", "").strip() == value]
    if syntax is JSON or not values or not values[0].startswith("["):
        assert split(join(values, syntax), syntax) == values


def test_what_cannot_be_written_is_named():
    with pytest.raises(CellError, match=r"'Blue, dark' cannot be written with ','"):
        join(["Red", "Blue, dark"], CellSyntax(","))


@pytest.mark.parametrize(("cell", "pairs"), [
    ("color=Blue,size=S|M", {"color": "Blue", "size": "S|M"}),
    ("care=Wash cold, hang,color=Blue", {"care": "Wash cold, hang", "color": "Blue"}),
    ('care="Wash, a=b",size="24"" wide"', {"care": "Wash, a=b", "size": '24" wide'}),
    ('care="Cold",fit="Slim ""fit"""|"Wide, long"', {"care": "Cold", "fit": 'Slim "fit"|Wide, long'}),
    ("spec={\"unit\": \"inch\", \"size\": 2},color=Red", {"spec": '{"unit": "inch", "size": 2}', "color": "Red"}),
    ("", {}),
])  # fmt: skip
def test_pairs_of_code_and_value(cell, pairs):
    assert split_pairs(cell) == pairs


@pytest.mark.parametrize(("cell", "value", "expected"), [
    ("care=Cold, hang,color=Blue,size=S|M", "Red", "care=Cold, hang,color=Red,size=S|M"),
    ("care= Cold ", "Red", "care= Cold ,color=Red"),
    ("", "Red", "color=Red"),
    ('care="Cold, a=b",color="Blue"', "Red|Sky", 'care="Cold, a=b",color="Red"|"Sky"'),
    ('care="Cold"', '24" wide', 'care="Cold",color="24"" wide"'),
])  # fmt: skip
def test_one_pair_is_set_and_the_others_stay_as_they_are_written(cell, value, expected):
    assert set_pair(cell, "color", value) == expected


def test_a_value_that_would_read_as_another_pair_is_refused():
    with pytest.raises(CellError, match="color: 'Red, size=S' cannot be written"):
        set_pair("care=Cold", "color", "Red, size=S")


@given(st.dictionaries(CODES, VALUES), CODES, VALUES)
def test_setting_a_pair_changes_no_other(pairs, code, value):
    try:
        cell = join_pairs(pairs)
        changed = set_pair(cell, code, value)
    except CellError:
        return
    assert split_pairs(changed) == pairs | {code: value}


def test_pairs_of_other_systems():
    assert split_pairs("Colour=Blue;Fit=Slim; wide", ";") == {"Colour": "Blue", "Fit": "Slim; wide"}
    assert split_pairs("Colour:Blue:1,Fabric:Wool:2:1", ",", ":") == {"Colour": "Blue", "Fabric": "Wool"}


@given(st.dictionaries(CODES, VALUES))
def test_pairs_are_read_back_as_they_are_written_or_refused(pairs):
    try:
        cell = join_pairs(pairs)
    except CellError:
        return
    assert split_pairs(cell) == pairs


@pytest.mark.parametrize(("cell", "items"), [
    ('["a", 2]', ["a", 2]), ("['a, b', \"men's\"]", ["a, b", "men's"]), ("['a' 'b'\n 'it\\'s']", ["a", "b", "it's"]),
    ("[]", []), ("['a',]", ["a"]), ("[some words]", None), ("['a', b]", None), ("['a'", None), ("['a']['b']", None),
    ("[" * 100_000, None), ("['" + "a" * 100_000, None), ("[" + "'a' " * 20_000, None), ("a", None), (None, None),
])  # fmt: skip
def test_lists_as_json_and_as_python_prints_them(cell, items):
    assert json_list(cell) == items
