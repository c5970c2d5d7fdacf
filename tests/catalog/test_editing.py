"""A shop's file is changed cell by cell: everything else is byte for byte what it was."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hf_tagger.catalog.editing import byte_lines
from hf_tagger.catalog.editing.delimited import DelimitedFile
from hf_tagger.catalog.editing.patches import (
    Digest,
    Patch,
    UndoError,
    Unwritable,
    apply,
    read_undo,
    undo_patches,
    write_patched,
    write_undo,
)
from hf_tagger.catalog.formats import dialect, text_files
from hf_tagger.catalog.reading.readers import read_rows

COLUMNS = {"id": "id", "tags": "tags"}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "cp932", "gb18030"]
ALPHABET = {"cp1252": 'ab ,;"\t\r\n=éü€', "cp932": 'ab ,;"\t\r\n髙①ソ表'}
OPTIONS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def opened(path, **options):
    return DelimitedFile(str(path), COLUMNS, **{"delimiter": None, "encoding": "utf-8-sig"} | options)


def changed_bytes(path, patches) -> bytes:
    changed = Digest(io.BytesIO())
    for _ in apply(patches, io.BytesIO(Path(path).read_bytes()), Digest(None), changed):
        pass
    return changed.file.getvalue()


def edited(path, new, columns=(), **options) -> bytes:
    """The file's bytes with `new` {row number: {column: value}}."""
    file = opened(path, **options)
    file.add_columns(dict.fromkeys(columns, False))

    def patches():
        yield from file.header_patches()
        for row in file.rows():
            yield from file.patches(row, new.get(row.number, {}))

    return changed_bytes(path, patches())


def filled(values):
    """A cell that a short row lacks reads as an empty one."""
    return values and {name: value or "" for name, value in values.items()}


def read(path, columns=COLUMNS, **options):
    options = {"delimiter": None, "encoding": "utf-8-sig"} | options
    return [(number, values, error and error.reason) for number, values, error in read_rows(
        str(path), "csv", dict.fromkeys(columns, "x"), **options)]


@st.composite
def files(draw):
    """(bytes, delimiter, encoding, rows) of a file as some system may write it."""
    encoding = draw(st.sampled_from(ENCODINGS))
    delimiter = draw(st.sampled_from(",;\t|"))
    line_end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    cell = st.text(st.sampled_from(ALPHABET.get(encoding, 'ab ,;"\t\r\n=é髙😀\u2028')), max_size=8)
    rows = draw(st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=6))
    file = io.StringIO(newline="")
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(file, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerow(["id", "title", "tags"])
    for number, row in enumerate(rows):
        writer.writerow([f"p{number}", *row[1:]])
        file.write(draw(st.sampled_from(["", "", line_end])))
    text = file.getvalue()
    if draw(st.booleans()):
        text = text.rstrip("\r\n")
    above = draw(st.sampled_from(["", "", f"sep={delimiter}{line_end}", line_end]))
    return (above + text).encode(encoding), delimiter, encoding, rows


@given(files())
@OPTIONS
def test_nothing_edited_is_the_same_bytes_and_each_row_has_the_readers_number(tmp_path, made):
    data, delimiter, encoding, _ = made
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    assert edited(path, {}, delimiter=delimiter, encoding=encoding) == data
    file = opened(path, delimiter=delimiter, encoding=encoding)
    found = [(row.number, row.cells and {name: file.value(row, name) for name in COLUMNS}) for row in file.rows()]
    assert found == [(number, values) for number, values, _ in read(path, delimiter=delimiter, encoding=encoding)]


@given(files(), st.data())
@OPTIONS
def test_one_cell_edited_changes_its_bytes_alone_and_reads_as_the_new_value(tmp_path, made, data):
    content, delimiter, encoding, rows = made
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    options = {"delimiter": delimiter, "encoding": encoding}
    before = read(path, **options)
    assume(all(values for _, values, _ in before))  # a stray quote says how lines around it are read
    number = data.draw(st.integers(1, len(before)))
    value = data.draw(st.text(st.sampled_from(ALPHABET.get(encoding, 'ab ,;"\t\r\n=é髙')), max_size=8))
    file = opened(path, **options)
    (row,) = [row for row in file.rows() if row.number == number]
    try:
        patches = file.patches(row, {"tags": value})
    except Unwritable:
        assume(False)
    old = file.value(row, "tags") or ""
    assert len(patches) == (old != value)
    new = changed_bytes(path, patches)
    if patches:
        (patch,) = patches
        quoted = content[patch.start:patch.stop].decode(file.encoding)
        assert quoted.strip(delimiter).replace('"', "") == old.replace('"', "")
        assert new[:patch.start] == content[:patch.start]
        assert new[patch.start + len(patch.new):] == content[patch.stop:]
    path.write_bytes(new)
    after = read(path, **options)
    assert [filled(values) for _, values, _ in after] == [
        filled(values) and {**filled(values), **({"tags": value} if n == number else {})} for n, values, _ in before]


@given(files())
@OPTIONS
def test_a_column_more_leaves_every_cell_that_was_there(tmp_path, made):
    content, delimiter, encoding, _ = made
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    options = {"delimiter": delimiter, "encoding": encoding}
    before = read(path, **options)
    assume(all(values for _, values, _ in before))
    try:
        new = edited(path, {1: {"colour": "a,;b"}}, ["colour"], **options)
    except Unwritable:
        assume(False)
    path.write_bytes(new)
    columns = [*COLUMNS, "colour"]
    assert [filled(values) for _, values, _ in read(path, columns, **options)] == [
        {**filled(values), "colour": "a,;b" if n == 1 else ""} for n, values, _ in before]


def test_rows_that_cannot_be_read_come_back_as_they_were(tmp_path):
    path = tmp_path / "a.csv"
    content = b'id,title,tags\n1,ok,a\n2,"open,b\n3,\xff\xfe,c\n4,too,many,cells,here\n5,short\n\n6,"good\n""one""",d'
    path.write_bytes(content)
    new = edited(path, {number: {"tags": "x, y"} for number in range(1, 8)})
    assert new == (b'id,title,tags\n1,ok,"x, y"\n2,"open,b\n3,\xff\xfe,"x, y"\n4,too,many,cells,here\n5,short,"x, y"\n'
                   b'\n6,"good\n""one""","x, y"')


def test_bytes_of_other_cells_stay_where_two_of_them_mean_one_character(tmp_path):
    path = tmp_path / "a.csv"
    twice = b"\xfa\x5b" if b"\xfa\x5b".decode("cp932").encode("cp932") != b"\xfa\x5b" else b"\x81\xca"
    assert twice.decode("cp932").encode("cp932") != twice
    path.write_bytes(b"id,title,tags\n1," + twice + "ソ".encode("cp932") + b",a\n")
    new = edited(path, {1: {"tags": "表,b"}}, encoding="shift_jis")
    assert new == b"id,title,tags\n1," + twice + "ソ".encode("cp932") + b',"' + "表".encode("cp932") + b',b"\n'


def test_the_files_own_style_is_kept(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'"id";"title";"tags"\r\n"1";"x";""\r\n"2";"y";\r\n')
    assert edited(path, {1: {"tags": "a"}, 2: {"tags": "b"}}, ["colour"]) == (
        b'"id";"title";"tags";"colour"\r\n"1";"x";"a";""\r\n"2";"y";"b";""\r\n')


def test_what_an_encoding_lacks_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("id,tags\n1,é\n".encode("cp1252"))
    with pytest.raises(Unwritable, match="'黒' is not in cp1252"):
        edited(path, {1: {"tags": "黒"}}, encoding="cp1252")


def test_a_line_beyond_all_bounds_ends_where_it_ends(monkeypatch):
    monkeypatch.setattr(dialect, "MAX_LINE", 1)
    monkeypatch.setattr(byte_lines, "_AT_ONCE", 16)
    for length in range(20, 80):  # some of these end with what is read at once
        lines = byte_lines.byte_lines(io.BytesIO(b"x" * length + b"\r\ny\n"), "utf-8", b"")
        assert [(line.start, line.size) for line in lines] == [(0, length + 2), (length + 2, 2)]


def test_a_line_without_end_is_passed_over_and_the_next_one_changed(tmp_path, monkeypatch):
    for module in (dialect, text_files):
        monkeypatch.setattr(module, "MAX_LINE", 1000)
    monkeypatch.setattr(byte_lines, "_AT_ONCE", 512)
    for encoding in ("utf-8", "utf-16-le"):
        path = tmp_path / "a.csv"
        content = "id,tags\n1,a\n" + "x" * 50_000 + "\r\n2,b\r\n"
        path.write_bytes(content.encode(encoding))
        assert edited(path, {3: {"tags": "c"}}, encoding=encoding).decode(encoding) == content[:-3] + "c\r\n"


@given(st.binary(max_size=60), st.data())
@OPTIONS
def test_an_undo_file_gives_the_bytes_back(tmp_path, content, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6).filter(lambda cuts: len(cuts) % 2 == 0)))
    patches = [(*pair, data.draw(st.binary(max_size=4))) for pair in zip(cuts[::2], cuts[1::2], strict=True)]
    changed, original = Digest(io.BytesIO()), Digest(None)
    (tmp_path / "a.csv").write_bytes(content)
    steps = write_patched(str(tmp_path / "a.csv"), [Patch(*patch) for patch in patches], original, changed)
    path = tmp_path / "a.undo.jsonl"
    write_undo(path, steps, original, changed, {"file": "a.csv"})
    first, last = read_undo(path)
    assert first["file"] == "a.csv" and last["changed"] == changed.sha256.hexdigest()
    restored = Digest(io.BytesIO())
    for _ in apply(undo_patches(path), io.BytesIO(changed.file.getvalue()), Digest(None), restored):
        pass
    assert restored.file.getvalue() == content and restored.sha256.hexdigest() == last["original"]


def test_an_undo_file_that_was_cut_off_is_refused(tmp_path):
    path = tmp_path / "a.undo.jsonl"
    path.write_text(json.dumps({"undo": 1, "file": "a.csv"}) + "\n" + json.dumps({"at": 0, "length": 1, "was": "x"}))
    with pytest.raises(UndoError, match="no whole undo file"):
        read_undo(path)
