import io
import pickle
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_tagger.model.images import ImageError, PixelBudget, load_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def halves(width=64, height=32, left=RED, right=BLUE):
    image = Image.new("RGB", (width, height), left)
    image.paste(right, (width // 2, 0, width, height))
    return image


def near(pixel, colour, tolerance=6):
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, colour, strict=True))


def reason(source, **options):
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    return caught.value.reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_every_source_of_every_format_gives_the_same_rgb_image(tmp_path, format):
    data = encode(halves(), format)
    path = tmp_path / f"photo.{format.lower()}"
    path.write_bytes(data)
    with open(path, "rb") as file:
        sources = [data, bytearray(data), path, str(path), file, {"bytes": data, "path": None}]
        sources += [{"bytes": None, "path": str(path)}, Image.open(io.BytesIO(data))]
        images = [load_image(source) for source in sources]
    for image in images:
        assert image.mode == "RGB" and image.size == (64, 32)
        assert near(image.getpixel((5, 16)), RED) and near(image.getpixel((58, 16)), BLUE)


def test_uint8_arrays_are_images_and_other_arrays_are_not():
    pixels = np.asarray(halves())
    assert load_image(pixels).getpixel((0, 0)) == RED
    assert load_image(pixels[:, :, 0]).getpixel((0, 0)) == WHITE
    assert reason(pixels.astype(np.float32) / 255) == "wrong_type"
    assert reason(pixels.transpose(2, 0, 1)) == "wrong_type"
    assert reason(pixels[:0]) == "empty"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(orientation, format):
    upright = halves(64, 32)
    upright.paste(GREEN, (0, 0, 16, 16))
    stored = upright.transpose({5: 5, 6: 2, 7: 6, 8: 4, 2: 0, 3: 3, 4: 1}[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
    image = load_image(encode(stored, format, exif=exif, **options))
    for shown in (image, load_image(image)):
        assert shown.size == (64, 32)
        assert near(shown.getpixel((4, 4)), GREEN) and near(shown.getpixel((4, 28)), RED)
        assert near(shown.getpixel((60, 16)), BLUE)


def test_cmyk_jpeg():
    assert near(load_image(encode(halves().convert("CMYK"), "JPEG")).getpixel((5, 16)), RED)


def test_transparency_is_laid_on_white():
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([*BLUE, *RED])
    palette.paste(1, (4, 0, 8, 8))
    image = load_image(encode(palette, "PNG", transparency=0))
    assert image.getpixel((0, 0)) == WHITE and image.getpixel((7, 0)) == RED

    image = load_image(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG"))
    assert image.getpixel((0, 0)) == WHITE

    image = load_image(encode(Image.new("LA", (8, 8), (0, 128)), "PNG"))
    assert near(image.getpixel((0, 0)), (127, 127, 127))

    image = load_image(encode(Image.new("RGB", (8, 8), GREEN), "PNG", transparency=GREEN))
    assert image.getpixel((0, 0)) == WHITE


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    deep = Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16))
    assert load_image(encode(deep, "PNG")).getpixel((0, 0)) == (128, 128, 128)
    assert load_image(encode(deep, "TIFF")).getpixel((0, 0)) == (128, 128, 128)
    assert load_image(deep.convert("I")).getpixel((0, 0)) == (128, 128, 128)
    assert load_image(Image.new("F", (8, 8), 0.5)).getpixel((0, 0)) == (128, 128, 128)
    assert load_image(encode(Image.new("1", (8, 8), 1), "PNG")).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
    assert near(load_image(data).getpixel((8, 8)), RED)


def test_jpeg_is_decoded_at_the_smallest_scale_that_is_large_enough():
    data = encode(halves(800, 400), "JPEG")
    assert load_image(data).size == (800, 400)
    assert load_image(data, min_size=(50, 100)).size == (100, 50)
    assert load_image(data, min_size=(51, 100)).size == (200, 100)
    assert load_image(data, min_size=(4000, 4000)).size == (800, 400)


def test_min_size_is_meant_for_the_upright_photo():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(halves(800, 400), "JPEG", exif=exif)
    assert load_image(data, min_size=(200, 100)).size == (100, 200)


def test_the_callers_image_is_left_as_it_was():
    opened = Image.open(io.BytesIO(encode(halves(800, 400), "JPEG")))
    load_image(opened, min_size=(50, 100))
    assert opened.size == (800, 400)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_truncated_photos_are_refused(format):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, format)
    assert reason(data[: len(data) // 2]) in ("truncated", "unreadable")
    assert reason(data[:10]) == "unreadable"


def test_a_truncated_jpeg_is_called_truncated(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(encode(halves(300, 300), "JPEG")[:-200])
    with pytest.raises(ImageError, match="cut.jpg.*upload the photo again") as caught:
        load_image(path)
    assert caught.value.reason == "truncated"


def test_zero_byte_photos_are_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()
    for source in (tmp_path / "empty.jpg", b"", io.BytesIO(), {"bytes": b"", "path": "a.jpg"}):
        assert reason(source) == "empty"
    for source in ("", {"bytes": None, "path": None}, Image.new("RGB", (0, 4))):
        assert reason(source) == "empty"


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + checksum + struct.pack(">I", 10) + b"IDAT" + bytes(14)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused_before_decoding():
    assert reason(png_header(8001, 8000)) == "too_large"
    assert reason(png_header(10_000, 10_000)) == "too_large"
    assert reason(png_header(100_000, 100_000)) == "too_large"
    assert reason(encode(halves(64, 32), "PNG"), max_pixels=64 * 32 - 1) == "too_large"
    assert load_image(encode(halves(64, 32), "PNG"), max_pixels=64 * 32).size == (64, 32)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "notes.jpg").write_text("no photo")
    assert reason(tmp_path / "notes.jpg") == "unreadable"
    assert reason(encode(halves(), "EPS")) == "unreadable"
    assert reason(encode(halves(), "PCX")) == "unreadable"
    assert reason(tmp_path / "missing.jpg") == "not_found"
    assert reason("a" * 5000) == "not_found"
    assert reason("a\0b") == "not_found"
    assert reason(tmp_path) == "wrong_type"
    assert reason("/dev/zero") == "wrong_type"
    assert reason(42) == "wrong_type"
    assert reason(None) == "wrong_type"


def test_errors_survive_the_way_home_from_a_loader_worker():
    error = pickle.loads(pickle.dumps(ImageError("empty", "no bytes")))
    assert error.reason == "empty" and str(error) == "no bytes"


def tiled_tiff(side, tile):
    """A deflated grey TIFF of one tile."""
    pixels = zlib.compress(bytes(tile * tile if tile < 100 else 1000))
    tags = [(256, side), (257, side), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile), (323, tile), (324, 134),
            (325, len(pixels))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels


def test_a_tiff_whose_tiles_are_larger_than_itself_counts_as_its_tiles():
    assert load_image(tiled_tiff(10, 16)).size == (10, 10)
    start = time.perf_counter()
    assert reason(tiled_tiff(10, 46_000)) == "too_large"  # 2 GB otherwise
    assert time.perf_counter() - start < 1


def progressive(size, scans):
    """A progressive JPEG whose last scan is repeated, `scans` times."""
    data = encode(Image.new("RGB", size, RED), "JPEG", progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + scans * data[last:end] + b"\xff\xd9"


def test_a_jpeg_of_many_scans_counts_as_the_work_that_it_is():
    assert near(load_image(progressive((800, 800), 0), max_pixels=800 * 800).getpixel((0, 0)), RED)
    assert load_image(progressive((800, 800), 100)).size == (800, 800)
    hostile = progressive((6000, 6000), 3900)  # 55 kB, and minutes of work
    for source in (hostile, io.BytesIO(hostile), Image.open(io.BytesIO(hostile))):
        start = time.perf_counter()
        assert reason(source) == "too_large"
        assert time.perf_counter() - start < 1
    tiff = Image.open(io.BytesIO(encode(halves(800, 800), "TIFF", compression="jpeg")))
    assert len(tiff.tag_v2[273]) > 1 and load_image(tiff, max_pixels=800 * 800).size == (800, 800)


def test_photos_of_one_request_share_a_budget_of_pixels():
    budget, photo = PixelBudget(5000), encode(halves(64, 32), "PNG")
    assert [load_image(photo, budget=budget).size for _ in range(2)] == [(64, 32)] * 2
    assert reason(photo, budget=budget) == "too_large"
    assert load_image(encode(halves(16, 16), "PNG"), budget=budget).size == (16, 16)
