"""As test_editing.py, of feeds, JSON lines and spreadsheets."""

import io
import itertools
import json
import zipfile
from unittest import mock
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hf_tagger.catalog.editing.json_lines import JsonDocument, JsonLinesFile
from hf_tagger.catalog.editing.patches import Digest, Unwritable, write_undo
from hf_tagger.catalog.editing.spreadsheet import Spreadsheet
from hf_tagger.catalog.editing.table import ParquetTable, restore_values
from hf_tagger.catalog.editing.xml_feed import XmlFeed
from hf_tagger.catalog.formats import json_values
from hf_tagger.catalog.formats.documents import read_json_document, read_xml
from hf_tagger.catalog.reading.readers import read_rows
from hf_tagger.catalog.strict import ConfigError
from tests.catalog.test_documents import write_xlsx
from tests.catalog.test_editing import OPTIONS, changed_bytes

FEED = b'''<?xml version="1.0" encoding="utf-8"?>
<!-- made up --><rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>
  <item>
    <g:id>1</g:id>
    <title>Plain <b>title</b></title><g:title><![CDATA[Red & blue]]></g:title>
    <g:color>Red &amp; blue</g:color>
    <g:product_type>A &gt; B</g:product_type>
    <g:product_type>C</g:product_type>
    <g:material/>
  </item>
  <item><g:id>2</g:id><g:title>T\xc3\xb6pfe</g:title></item>
  <item></item>
</channel></rss>'''


def edited_feed(path, new):
    feed = XmlFeed(str(path))
    feed.add_columns({"custom_label_0": False})
    return changed_bytes(path, (patch for row in feed.rows() for patch in feed.patches(row, new.get(row.number, {}))))


def test_an_element_with_nothing_in_it_is_not_one_without_an_end(tmp_path):
    path = tmp_path / "feed.xml"
    path.write_bytes(FEED.replace(b"<g:material/>", b"<g:material></g:material>\n    <g:pattern></g:pattern>"))
    after = edited_feed(path, {1: {"material": "Linen", "custom_label_0": "new", "pattern": "Dots"},
                               3: {"custom_label_0": "empty"}})
    assert (b"    <g:material>Linen</g:material>\n    <g:pattern>Dots</g:pattern>\n"
            b"    <g:custom_label_0>new</g:custom_label_0>\n  </item>") in after
    assert b"<item><g:custom_label_0>empty</g:custom_label_0></item>" in after
    path.write_bytes(after)
    assert edited_feed(path, {1: {"custom_label_0": ""}}).count(b"<g:custom_label_0></g:custom_label_0>") == 1


def read_feed(path):
    return [values for _, values, _ in read_xml(str(path))]


def test_elements_of_a_feed_are_changed_and_nothing_else(tmp_path):
    path = tmp_path / "feed.xml"
    path.write_bytes(FEED)
    assert edited_feed(path, {}) == FEED
    feed = XmlFeed(str(path))
    first = next(feed.rows())
    assert [feed.value(first, name) for name in ("id", "title", "color", "product_type", "material", "size")] == [
        "1", "Red & blue", "Red & blue", '["A > B", "C"]', "", None]
    first = {"title": "<x>", "color": "a & b", "product_type": '["A > B", "D", "E"]', "material": "wool",
             "custom_label_0": "new"}
    new = edited_feed(path, {1: first, 2: {"color": "Blue"}, 3: {"color": "Red"}})
    wanted = FEED
    for before, after in (
        (b"<![CDATA[Red & blue]]>", b"<![CDATA[<x>]]>"), (b"Red &amp; blue", b"a &amp; b"),
        (b">C</g:product_type>", b">D</g:product_type>\n    <g:product_type>E</g:product_type>"),
        (b"<g:material/>", b"<g:material>wool</g:material>\n    <g:custom_label_0>new</g:custom_label_0>"),
        (b"pfe</g:title>", b"pfe</g:title><g:color>Blue</g:color>"),
        (b"<item></item>", b"<item><g:color>Red</g:color></item>"),
    ):
        assert wanted.count(before) == 1
        wanted = wanted.replace(before, after)
    assert new == wanted
    path.write_bytes(new)
    assert [values.get("color") for values in read_feed(path)] == ["a & b", "Blue", "Red"]


XML_TEXT = st.text(st.sampled_from("ab<&>\"' \n\té髙😀]"), max_size=6)


@given(st.lists(st.tuples(XML_TEXT, st.booleans()), min_size=1, max_size=5),
       st.sampled_from(["utf-8", "iso-8859-1", "windows-1251"]), st.integers(20, 200))
@OPTIONS
def test_an_element_edited_reads_as_its_new_value(tmp_path, texts, encoding, at_once):
    from hf_tagger.catalog.editing import xml_elements

    path = tmp_path / "feed.xml"
    items = "".join(f"<item><id>{n}</id><color>{escape(text)}</color></item>" + "\n" * cut
                    for n, (text, cut) in enumerate(texts))
    content = f'<?xml version="1.0" encoding="{encoding}"?><rss>{items}<item/></rss>'
    path.write_bytes(content.encode(encoding, "xmlcharrefreplace"))
    before = xml_elements._AT_ONCE
    try:
        xml_elements._AT_ONCE = at_once  # tags are cut in two
        new = edited_feed(path, {n: {"color": text[::-1].strip() + "髙"} for n, (text, _) in enumerate(texts, start=1)})
    finally:
        xml_elements._AT_ONCE = before
    colours = [values["color"] for values in read_feed(path) if "color" in values]
    path.write_bytes(new)
    assert [values["color"] for values in read_feed(path) if "color" in values] == [
        (text[::-1].strip() + "髙").strip() for text, _ in texts]
    assert len(colours) == len(texts)


def test_a_feed_that_ends_amid_a_product_keeps_its_end_and_one_with_entities_is_refused(tmp_path):
    path = tmp_path / "feed.xml"
    path.write_bytes(FEED[:-30])
    new = edited_feed(path, {2: {"color": "Blue"}})
    assert new == FEED[:-30].replace(b"pfe</g:title>", b"pfe</g:title><g:color>Blue</g:color>")
    path.write_bytes(FEED.replace(b"<rss", b'<!DOCTYPE rss [<!ENTITY x "y">]><rss'))
    with pytest.raises(ConfigError, match="declares an entity of its own"):
        edited_feed(path, {})


def edited_rows(file, new, columns=()):
    """The file's bytes with `new` {row number: {column: value}}."""
    file.add_columns(dict.fromkeys(columns, False))

    def patches():
        yield from file.header_patches()
        for row in file.rows():
            yield from file.patches(row, new.get(row.number, {}))

    changed = Digest(io.BytesIO())
    for _ in file.write(patches(), Digest(None), changed):
        pass
    return changed.file.getvalue()


KEYS = st.sampled_from(["id", "tags", 'a"b', "é"])
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                      lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2))


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=4), st.booleans(),
       st.sampled_from([None, (",", ":"), (" , ", " :  ")]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
       st.sampled_from(['["a", "é"]', "a", "", '["x"]']), st.sampled_from(["tags", "new"]), st.data())
@OPTIONS
def test_a_value_of_a_json_line_is_changed_alone(tmp_path, rows, ascii_only, separators, encoding, value, column, data):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(row, separators=separators, ensure_ascii=ascii_only) for row in rows]
    text = "\r\n".join([lines[0], "", "not json", *lines[1:]]) + data.draw(st.sampled_from(["", "\n"]))
    content = text.encode(encoding)
    path.write_bytes(content)
    file = JsonLinesFile(str(path))
    assert edited_rows(file, {}) == content
    wanted = after_edit(rows[0].get(column), value)
    assume(wanted is not None)
    new = edited_rows(file, {1: {column: value}}).decode(encoding)
    assert new.partition("\n")[2] == text.partition("\n")[2]
    assert list(json.loads(new.partition("\n")[0]).items()) == list((rows[0] | {column: wanted}).items())
    if rows[0].get(column) is None and column not in rows[0] and rows[0]:
        assert new.startswith(lines[0][:-1])


def after_edit(was, value):
    """What a value of a file is where `value` is put; None of one that is not changed."""
    listed = json.loads(value) if value.startswith("[") else value
    objects = isinstance(was, list) and any(isinstance(item, dict | list) for item in was)
    texts = [text for item in was if (text := str(item).strip())] if isinstance(was, list) else None
    if isinstance(was, dict):
        return None
    if was and texts is not None and isinstance(listed, list):
        return was + listed[len(texts):] if listed[:len(texts)] == texts else None if objects else listed
    return listed


ITEMS = st.dictionaries(KEYS, VALUES, max_size=4) | st.builds(
    lambda row, type: {"@type": type} | row, st.dictionaries(KEYS, VALUES, max_size=2),
    st.sampled_from(["Product", "Organization", ["Thing", "Product"]])) | st.builds(
    lambda row: {"@type": "ListItem", "position": 1, "item": row}, st.dictionaries(KEYS, VALUES, max_size=2))


@given(st.lists(ITEMS, min_size=1, max_size=4), st.booleans(), st.sampled_from([None, 0, 1, "\t"]),
       st.sampled_from(["utf-8", "utf-8-sig"]),
       st.sampled_from(["{}", '{{"@context": "é", "meta": {{"n": [{{}}, 1]}}, "products": {}, "z": [1]}}']),
       st.sampled_from(['["a", "é"]', "a", "", '["x"]']), st.sampled_from(["tags", "new"]), st.integers(1, 40),
       st.data())
@OPTIONS
def test_a_value_of_a_json_document_is_changed_alone(tmp_path, items, ascii_only, indent, encoding, around, value,
                                                     column, at_once, data):
    path = tmp_path / "a.json"
    texts = [json.dumps(item, indent=indent, ensure_ascii=ascii_only) for item in items]
    parts = [part.encode() for part in around.format("[\0]").split("\0")]
    parts[0] = "".encode(encoding) + parts[0]
    content = parts[0] + b" ,\r\n".join(text.encode() for text in texts) + b"\n" + parts[1]
    path.write_bytes(content)
    with mock.patch.object(json_values, "_AT_ONCE", at_once):  # values are cut in two
        file = JsonDocument(str(path))
        rows = list(file.rows())
        assert [(row.number, row.values) for row in rows] == [
            (number, values) for number, values, _ in read_json_document(str(path))]
        assert edited_rows(file, {}) == content
        places = [place for place, item in enumerate(items) if item.get("@type") != "Organization"]
        assume(places)
        number = data.draw(st.integers(1, len(places)))
        was = rows[number - 1].values
        wanted = after_edit(was.get(column), value)
        assume(wanted is not None)
        new = edited_rows(file, {number: {column: value}})
    texts[places[number - 1]] = None
    cut = texts.index(None)
    before = parts[0] + b"".join(text.encode() + b" ,\r\n" for text in texts[:cut])
    after = b"".join(b" ,\r\n" + text.encode() for text in texts[cut + 1:]) + b"\n" + parts[1]
    assert new.startswith(before) and new.endswith(after)
    changed = json.loads(new[len(before):len(new) - len(after)])
    changed = changed["item"] if changed.get("@type") == "ListItem" else changed
    assert list(changed.items()) == list((was | {column: wanted}).items())


def test_a_changed_document_keeps_its_indents_and_one_that_breaks_off_its_end(tmp_path):
    path = tmp_path / "a.json"
    content = b'''{"products": [
  {
    "id": 1,
    "tags": [
      "new"
    ],
    "sizes": [{"name": "S"}]
  },
  {"id":2,"tags":[]}, {}, {"id": 3, "ta'''
    path.write_bytes(content)
    new = edited_rows(JsonDocument(str(path)), {1: {"tags": '["new", "red"]', "colour": "Red"}, 2: {"tags": '["blue"]'},
                                                3: {"tags": "x"}, 4: {"tags": "y"}})
    assert new == content.replace(b'"new"\n', b'"new",\n      "red"\n').replace(
        b'"S"}]\n', b'"S"}],\n    "colour": "Red"\n').replace(b"[]", b'["blue"]').replace(b"{}", b'{"tags":"x"}')
    path.write_text(json.dumps({"name": "mug", "sizes": {}}, indent=2))
    new = edited_rows(JsonDocument(str(path)), {1: {"keywords": '["red", "new"]'}}).decode()
    assert new == '{\n  "name": "mug",\n  "sizes": {},\n  "keywords": ["red", "new"]\n}'
    path.write_bytes(content)
    with pytest.raises(Unwritable, match="a list of objects"):
        edited_rows(JsonDocument(str(path)), {1: {"sizes": '["M"]'}})
    path.write_bytes(b'[{"id": 1, "tags": "\xff"}, {"id": 2}]')
    assert edited_rows(JsonDocument(str(path)), {2: {"tags": "x"}}) == path.read_bytes()


def test_cells_of_a_sheet_are_changed_and_every_other_file_of_the_archive_stays(tmp_path):
    path = tmp_path / "a.xlsx"
    write_xlsx(path, [["My shop"], ["id", "title", "tags", "n"], [1.0, "a", None, 9.5], [], ["2", "b", "x", 12], ["3"]])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/media/image1.png", bytes(range(256)) * 9)
        archive.comment = b"of a shop"
    before = path.read_bytes()
    file = Spreadsheet(str(path))
    rows = {row.number: (file.value(row, "id"), file.value(row, "tags")) for row in file.rows()}
    assert rows == {1: ("1", ""), 2: ("", ""), 3: ("2", "x"), 4: ("3", "")}
    new = edited_rows(file, {1: {"tags": "red & blue"}, 3: {"tags": "", "colour": "Rot"}, 4: {"colour": " é"}},
                      ["colour"])
    path.write_bytes(new)
    with zipfile.ZipFile(path) as after, zipfile.ZipFile(io.BytesIO(before)) as was:
        assert after.testzip() is None and after.comment == b"of a shop" and after.namelist() == was.namelist()
        for name in was.namelist():
            assert (after.read(name) == was.read(name)) == (name != "xl/worksheets/sheet1.xml")
        sheet = was.read("xl/worksheets/sheet1.xml")
        sheet = sheet.replace(b'<c r="C5" t="inlineStr"><is><t>x</t></is></c>', b'<c r="C5"/>')
        added = [b'<c r="C3" t="inlineStr"><is><t xml:space="preserve">red &amp; blue</t></is></c>',
                 b'<c r="E5" t="inlineStr"><is><t xml:space="preserve">Rot</t></is></c>',
                 '<c r="E6" t="inlineStr"><is><t xml:space="preserve"> é</t></is></c>'.encode(),
                 b'<c r="E2" t="inlineStr"><is><t xml:space="preserve">colour</t></is></c>']
        found = after.read("xl/worksheets/sheet1.xml")
        for cell in added:
            assert found.count(cell) == 1
            found = found.replace(cell, b"")
        assert found == sheet
    read_back = [(n, values["tags"], values["colour"]) for n, values, _ in read_rows(
        str(path), "xlsx", dict.fromkeys(["tags", "colour"], "x"))]
    assert read_back == [(1, "red & blue", None), (3, None, "Rot"), (4, None, " é")]


def test_a_parquet_file_keeps_its_other_values_and_undo_gives_all_back(tmp_path):
    path, undo = tmp_path / "a.parquet", tmp_path / "undo.jsonl"
    columns = {"id": list(range(3000)), "tags": [["a"], None, []] * 1000, "photo": [b"x", None, b"y"] * 1000,
               "type": pa.array(["p", None, "q"] * 1000).dictionary_encode()}
    pq.write_table(pa.table(columns, metadata={"k": "v"}), path, compression="zstd", row_group_size=100)
    table = pq.read_table(path)
    new = {1: {"tags": '["a", "b"]', "type": "r", "colour": "Rot"}, 2000: {"tags": '["c"]'}, 3000: {"colour": "Blau"}}
    file = ParquetTable(str(path))
    rows = list(itertools.islice(file.rows(), 3))
    assert [file.value(row, "tags") for row in rows] == ['["a"]', None, "[]"]
    file.add_columns({"colour": False})
    changed, original = Digest((tmp_path / "b.parquet").open("wb")), Digest(None)
    patches = (patch for row in file.rows() for patch in file.patches(row, new.get(row.number, {})))
    write_undo(undo, file.write(patches, original, changed), original, changed, {})
    changed.file.close()
    found = pq.read_table(tmp_path / "b.parquet")
    wanted = table.to_pylist()
    for number, values in new.items():
        wanted[number - 1] |= {"tags": json.loads(values["tags"])} if "tags" in values else {}
    wanted[0] |= {"type": "r"}
    assert found.drop_columns("colour").to_pylist() == wanted
    assert found.drop_columns("colour").schema.equals(table.schema, check_metadata=True)
    assert [n for n, colour in enumerate(found["colour"].to_pylist()) if colour] == [0, 2999]
    with pytest.raises(Unwritable, match="a column of int64"):
        file.patches(rows[0], {"id": "x"})
    restored = Digest(io.BytesIO())
    restore_values(undo, str(tmp_path / "b.parquet"), ["colour"], restored)
    again = pq.read_table(pa.BufferReader(restored.file.getvalue()))
    assert again.to_pylist() == table.to_pylist() and again.schema.equals(table.schema, check_metadata=True)
