"""A photo is found wherever other systems say it is, and nowhere else."""

import unicodedata

import fsspec
import pytest

from hf_tagger.catalog import photos
from hf_tagger.catalog.photos import RemoteFile, missing_photos, open_photo
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.model.images import ImageError, load_image
from tests.catalog.files import photo


def opened(value, root, allow_urls=False):
    return open_photo(value, "photo", str(root), allow_urls)


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("write", [
    str, lambda path: f"/{path}", lambda path: f"./{path}", lambda path: path.replace("/", "\\"),
    lambda path: "\\" + path.replace("/", "\\"), lambda path: path.replace(" ", "%20"),
    lambda path: "/" + path.replace(" ", "%20").replace("/", "\\"), lambda path: unicodedata.normalize("NFD", path),
    lambda path: unicodedata.normalize("NFC", path), lambda path: "/" + path.replace("é", "%C3%A9"),
    lambda path: path + " ", str.upper, lambda path: unicodedata.normalize("NFD", path.replace("/", "\\")).title(),
])  # fmt: skip
def test_a_path_is_found_as_other_systems_write_it(tmp_path, stored, write):
    path = unicodedata.normalize(stored, "m/b/Chemise été 1.jpg")
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(photo())
    assert load_image(opened(write("m/b/Chemise été 1.jpg"), tmp_path)).size == (8, 8)


def test_a_name_that_looks_quoted_is_itself_first(tmp_path):
    for name in ("a%20b.png", "a b.png"):
        (tmp_path / name).write_bytes(photo())
    assert opened("a%20b.png", tmp_path) == f"{tmp_path}/a%20b.png"
    assert opened("nowhere.png", tmp_path) == f"{tmp_path}/nowhere.png"


@pytest.mark.parametrize(("value", "reason"), [
    ("../a.png", "outside_root"), ("x\\..\\..\\a.png", "outside_root"), ("%2e%2e/a.png", "outside_root"),
    ("/../a.png", "outside_root"), ({"bytes": None, "path": "../a.png"}, "outside_root"),
    ({"bytes": "{outside}", "path": None}, "not there"), ({"bytes": None, "path": "{outside}"}, "not there"),
    ({"bytes": 5, "path": None}, "wrong_type"), ({"path": "s3://bucket/a.png"}, "wrong_type"),
    ({"bytes": "http://127.0.0.1/a.png"}, "wrong_type"),
    ("http://127.0.0.1/a.png", "url_refused"), ("simplecache::http://127.0.0.1/a.png", "url_refused"),
    ("s3://bucket/a::http://127.0.0.1/a.png", "url_refused"), ("blockcache::s3://bucket/a.png", "url_refused"),
    ("zip://a.png::memory://a.zip", "url_refused"), ("file:///etc/a.png", "url_refused"),
    ("ftp://127.0.0.1/a.png", "url_refused"), ("github://a:b@main/a.png", "url_refused"),
    ("HTTPS://127.0.0.1/a.png", "url_refused"), ("://a.png", "url_refused"),
])  # fmt: skip
def test_a_cell_leads_nowhere_else(tmp_path, value, reason):
    (tmp_path / "root").mkdir()
    outside = tmp_path / "a.png"
    outside.write_bytes(photo())
    if isinstance(value, dict):
        value = {key: item.format(outside=outside) if isinstance(item, str) else item for key, item in value.items()}
    if reason == "not there":
        with pytest.raises(ImageError, match=f"{tmp_path}/root/"):
            load_image(opened(value, tmp_path / "root"))
        return
    with pytest.raises(RowError) as refused:
        opened(value, tmp_path / "root")
    assert refused.value.reason == reason


def test_beside_a_catalogue_in_a_store_no_local_file_and_no_chain_is_opened():
    fsspec.filesystem("memory").pipe("/shop/m/1.png", photo())
    for value in ("/m/1.png", "m\\1.png", "m/1.png"):
        if "\\" not in value:
            assert load_image(opened(value, "memory://shop")).size == (8, 8)
    assert isinstance(opened("/etc/passwd", "memory://shop"), RemoteFile)
    with pytest.raises(RowError, match="a photo is a path"):
        opened("x::file:/etc/a.png", "memory://shop")


def test_a_remote_photo_is_bounded(monkeypatch):
    monkeypatch.setattr(photos, "MAX_BYTES", 1000)
    fsspec.filesystem("memory").pipe("/shop/big.png", photo() + b"x" * 2000)
    with pytest.raises(ImageError, match="more than 1000 bytes"):
        load_image(opened("memory://shop/big.png", ""))


def test_files_that_are_not_there_are_taken_out_and_told(tmp_path):
    (tmp_path / "1.png").write_bytes(photo())
    record = {"number": 3, "id": "a", "file": "shop.csv", "text": None, "images": [f"{tmp_path}/1.png", b"x", "gone"]}
    (refusal,) = missing_photos(record)
    assert record["images"] == [f"{tmp_path}/1.png", b"x"]
    assert (refusal.reason, refusal.fatal, refusal.photos_lost) == ("not_found", False, False)
    (refusal,) = missing_photos(record | {"images": ["gone"]})
    assert (refusal.fatal, refusal.photos_lost) == (True, True) and "image_root" in refusal.detail


def test_a_name_in_a_shops_media_is_an_address_that_is_fetched_where_that_is_allowed():
    root = "https://static.example/media"
    assert opened("50_1~mv2.jpg", root, allow_urls=True) == f"{root}/50_1~mv2.jpg"
    assert opened("https://other.example/a.jpg", root, allow_urls=True) == "https://other.example/a.jpg"
    with pytest.raises(RowError, match="set allow_urls: true"):
        opened("50_1~mv2.jpg", root)
    with pytest.raises(RowError, match="leads out of the photo folder"):
        opened("../secret.jpg", root, allow_urls=True)
    with pytest.raises(RowError):
        opened("ftp://other.example/a.jpg", root, allow_urls=True)
