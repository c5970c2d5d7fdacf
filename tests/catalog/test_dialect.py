"""How a text file is written is found from its bytes."""

import gzip
from dataclasses import astuple

import pytest

from hf_tagger.catalog.formats.dialect import detect, find_encoding, likeliest_encoding

TEXTS = {
    "cp1252": ["Grüne Bluse;Grün", "Robe d’été;Rouge", "Größe M;Weiß", "Prix 30 €", "Café", "Camiseta de niño;Añil",
               "Blå skjorte til mænd", "Röd tröja", "Maglietta più leggera", "Calção de banho", "Fläche 2 m²", "Nº 5"],
    "cp1250": ["Zielona bluzka;Żółty", "Modré šaty;žlutá", "Férfi ing, őszi színű", "Rochie roşie", "Pánské tričko"],
    "cp1254": ["Kırmızı elbise;yeşil gömlek"],
    "cp1251": ["Платье женское;Красный", "Синяя рубашка", "Сукня жіноча"],
    "cp1253": ["Κόκκινο φόρεμα"],
    "cp932": ["商品名,色\n麻のシャツ,青", "革のバッグ,茶色", "ワンピース,赤", "ﾊﾞｯｸﾞ,黒"],
    "gb18030": ["连衣裙,红色\n女士衬衫,蓝色", "皮包,棕色", "陶瓷杯,白色"],
    "cp949": ["원피스,빨강\n여성 셔츠,파랑", "면 셔츠,흰색"],
    "cp950": ["連衣裙,紅色\n女士襯衫,藍色", "陶瓷杯,白色"],
}  # fmt: skip


@pytest.mark.parametrize(("encoding", "text"), [(name, text) for name, texts in TEXTS.items() for text in texts])
def test_the_encoding_of_a_few_words(encoding, text):
    assert text.encode(encoding).decode(likeliest_encoding(text.encode(encoding))) == text


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_what_is_not_ascii_may_come_late(tmp_path, name):
    data = b"id;name\n" + b"1;plain\n" * 400_000 + "2;Größe\n".encode("cp1252")
    (tmp_path / name).write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
    assert find_encoding(str(tmp_path / name)) == "cp1252"


def test_a_few_bad_lines_do_not_make_another_encoding_of_a_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("id;name\n1;Größe\n2;Weiß\n3;été\n".encode() + "4;Größe\n".encode("cp1252"))
    assert find_encoding(str(path)) == "utf-8"


def test_no_character_is_cut_in_two_between_chunks(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"id\n" + b"x" * ((1 << 20) - 4) + "é\n".encode() * 10)
    assert find_encoding(str(path)) == "utf-8"


@pytest.mark.parametrize(("data", "expected"), [
    ("\ufeffid,name\r\n1,x\r\n".encode(), ("utf-8-sig", b"\xef\xbb\xbf", ",", False, ("id", "name"), 1)),
    ("id\tname\n1\t\"x\"\n".encode("utf-16"), ("utf-16", b"\xff\xfe", "\t", True, ("id", "name"), 1)),
    ("id;größe\n1;x\n".encode("cp1252"), ("cp1252", b"", ";", False, ("id", "größe"), 1)),
    (b"sep=;\r\nid;name\r\n1;x\r\n", ("utf-8", b"", ";", False, ("id", "name"), 2)),
    (b"Export of 2024,,\n\nid,name,colour\n1,x,Red\n", ("utf-8", b"", ",", False, ("id", "name", "colour"), 3)),
    (b"\xef\xbb\xbf\nid|name|a\n1|2|3\n", ("utf-8-sig", b"\xef\xbb\xbf", "|", False, ("id", "name", "a"), 2)),
    (b"TemplateType=x\tVersion=1\t\nSeller SKU\tName\tColour\nitem_sku\titem_name\tcolor_name\nA\tB\tC\n",
     ("utf-8", b"", "\t", False, ("item_sku", "item_name", "color_name"), 3)),
    (b'"a, b","c\nd"\n1,"2"\n', ("utf-8", b"", ",", True, ("a, b", "c\nd"), 2)),
    (b"", ("utf-8", b"", ",", False, (), 0)),
])  # fmt: skip
def test_detect(tmp_path, data, expected):
    (tmp_path / "a.csv").write_bytes(data)
    found = detect(str(tmp_path / "a.csv"))
    assert astuple(found) == expected
