"""Open any product photo as an RGB PIL image, or say precisely why it cannot be opened.

Ships with the model: standard library, Pillow and numpy only.
"""

import io
import math
import os
import re
import stat
import threading
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .saving import part

# Pillow's other readers are never tried: some start external programs (EPS) and none holds product photos.
Image.init()
FORMATS = [name for name in ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
           if name in Image.OPEN]

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = dict(enumerate(map(Image.Transpose.__getitem__, (
    "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")), 2))
_SIDEWAYS = (5, 6, 7, 8)


# A JPEG is decoded scan by scan; usual progressive ones have 10 or 12, a hostile one thousands, of a few bytes each.
USUAL_SCANS = 16


class ImageError(ValueError):
    """A photo that cannot be used. `reason` is one of "empty", "unreadable", "truncated", "too_large", "not_found",
    "wrong_type", "url_refused", "fetch_failed"; the message says what to do."""

    def __init__(self, reason, message):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.reason, str(self))


class PixelBudget:
    """Pixels that the photos of one request may have together, whichever threads read them; None: any number."""

    def __init__(self, pixels=None):
        self.pixels = self.left = pixels
        self._lock = threading.Lock()

    def spend(self, pixels, name):
        """Raises ImageError where so many are not left."""
        with self._lock:
            if self.left is not None and pixels > self.left:
                raise ImageError("too_large", f"{name}: photos of a request may have {self.pixels} pixels together; "
                                              "send fewer or smaller ones")
            self.left = None if self.left is None else self.left - pixels


def load_image(source, *, min_size=None, allow_urls=False, allow_private_addresses=False,
               max_bytes=20 * 2**20, max_pixels=64_000_000, timeout=10.0, budget=None):
    """Return `source` as a PIL image of mode "RGB".

    EXIF orientation is applied, transparency is laid on white, 16-bit and CMYK are brought to 8-bit RGB, and the first
    frame of an animation is taken.

    Args:
        source: a PIL image, a path, an http(s) URL, encoded bytes, a binary file, a `{"bytes", "path"}` dict (an
            undecoded `datasets` image), or a uint8 array [H, W], [H, W, 3] or [H, W, 4].
        min_size: (height, width) in pixels the caller needs. A JPEG is decoded at the smallest of the scales 1, 1/2,
            1/4, 1/8 that still has at least this size; other formats are decoded in full.
        allow_urls: fetch URLs; otherwise they are refused.
        allow_private_addresses: let a URL reach loopback, private and other non-public addresses.
        max_bytes: largest download, in bytes.
        max_pixels: largest image, in pixels, that is decoded. The pixels of a JPEG of more than USUAL_SCANS scans
            count as often more.
        timeout: seconds for the whole download, redirects included.
        budget: a `PixelBudget` that the photo is taken from.

    Raises:
        ImageError: the photo cannot be used.
    """
    if isinstance(source, dict):
        source = _undecoded(source)
    if isinstance(source, Image.Image):
        return _to_rgb(source, None, max_pixels, "a PIL image", budget)
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source), None, max_pixels, "an array", budget)

    if isinstance(source, str) and _URL.match(source):
        name = repr(source)
        if not allow_urls:
            raise ImageError("url_refused", f"{name}: URLs are fetched only with allow_urls=True; pass a path or "
                                            "bytes, or set it")
        file = io.BytesIO(_fetch(source, allow_private_addresses, max_bytes, timeout))
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name, file = "image bytes", io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        name, file = repr(os.fspath(source)), _open_path(source)
    elif hasattr(source, "read"):
        name, file = "an image file object", source
    else:
        raise ImageError("wrong_type", f"{type(source).__name__} is not an image; pass a PIL image, a path, bytes, a "
                                       "binary file or a uint8 array")
    try:
        return _to_rgb(_identify(file, name), min_size, max_pixels, name, budget)
    finally:
        if file is not source:
            file.close()


def read_pixels(source, size, **options):
    """`source`, as `load_image` takes it (with its `options`), resized to `size` (height, width): uint8 [H, W, 3]."""
    height, width = size
    image = load_image(source, min_size=size, **options)
    if image.size != (width, height):
        # reducing_gap lets Pillow shrink large photos in cheap steps with no visible difference.
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image)


def stack_photos(photos, size, mean, std):
    """Photos uint8 [H, W, 3] of `size` (height, width), any number per product -> `pixel_values` float32 [N, 3, H, W],
    product after product, normalised by `mean` and `std` of each channel (in units of 255), and `pixel_mask` bool
    [B, I], how many each product has. Products with few photos cost nothing where one has many."""
    counts = np.array([len(row) for row in photos])
    values = np.empty((counts.sum(), 3, *size), np.float32)
    mean, std = (255 * np.asarray(each, np.float32)[:, None, None] for each in (mean, std))
    for value, photo in zip(values, (photo for row in photos for photo in row), strict=True):
        np.subtract(photo.transpose(2, 0, 1), mean, out=value)
        value /= std
    return {"pixel_values": values, "pixel_mask": np.arange(max(1, counts.max())) < counts[:, None]}


def _fetch(url, *options):
    try:
        urls = part("urls", "fetching photos")
    except ImportError as error:
        raise ImageError("url_refused", f"{url!r}: {error}; or pass a path or bytes") from error
    try:
        return urls.fetch(url, *options)
    except urls.FetchError as error:
        raise ImageError(error.reason, str(error)) from error


def _undecoded(source):
    data, path = source.get("bytes"), source.get("path")
    if data is not None:
        return data
    if path:
        return path
    raise ImageError("empty", 'an image dict needs "bytes" or "path", and this one has neither')


def _open_path(source):
    if not os.fspath(source):
        raise ImageError("empty", "an empty path is not an image; leave the image out instead")
    path = Path(source)
    try:
        # Opening a pipe or a device would block or never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError("wrong_type", f"{str(path)!r} is not a regular file; give the path of an image file")
        return open(path, "rb")
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise ImageError("not_found", f"cannot open {str(path)!r} ({error}); check the path") from error


def _from_array(array):
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError("wrong_type", f"an array of shape {array.shape} and type {array.dtype} is not an image; pass "
                                       "uint8 [height, width, 3] with values 0 to 255")
    if array.size == 0:
        raise ImageError("empty", f"an array of shape {array.shape} has no pixels")
    return Image.fromarray(array)


def _identify(file, name):
    try:
        return Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", f"{name}: {error}; shrink the photo") from error
    except UnidentifiedImageError as error:
        if _is_empty(file):
            raise ImageError("empty", f"{name}: zero bytes; provide the photo again") from error
        raise ImageError("unreadable", f"{name} is not an image in a known format ({', '.join(FORMATS)}), or its "
                                       "header is damaged") from error
    except Exception as error:  # Pillow's readers let struct, zlib, value and syntax errors of damaged headers through
        raise ImageError("unreadable", f"{name} cannot be read: {error}; save the photo again") from error


def _is_empty(file):
    try:
        return file.seek(0, io.SEEK_END) == 0
    except (OSError, ValueError):
        return False


def _to_rgb(image, min_size, max_pixels, name, budget):
    width, height = image.size
    if width * height == 0:
        raise ImageError("empty", f"{name} has no pixels")
    pixels = max(width * height, _tile_pixels(image))
    if pixels > max_pixels:
        raise ImageError("too_large", f"{name} has {width} x {height} pixels, or larger tiles, more than "
                                      f"max_pixels={max_pixels}; shrink the photo")
    scans = _scans(image)
    work = int(pixels * max(1, scans / USUAL_SCANS))
    if work > max_pixels:
        raise ImageError("too_large", f"{name} has {scans:.0f} scans of {width} x {height} pixels, more than "
                                      f"max_pixels={max_pixels} allows; save it as a plain (baseline) JPEG")
    if budget is not None:
        budget.spend(work, name)
    try:
        if min_size is not None and image.format in ("JPEG", "MPO"):
            height, width = min_size
            if _orientation(image) in _SIDEWAYS:
                height, width = width, height
            image.draft(None, (width, height))
        image.load()
        # After load: PNG may keep EXIF behind the pixels, and TIFF has turned the pixels itself by now.
        transpose = _TRANSPOSE.get(_orientation(image))
        image = _eight_bit_rgb(image)
    except Exception as error:  # see _identify
        reason = "truncated" if re.search("truncated|broken data stream", str(error), re.IGNORECASE) else "unreadable"
        raise ImageError(reason, f"{name} cannot be decoded: {error}; save or upload the photo again") from error
    if transpose is not None:
        image = image.transpose(transpose)
        image.info = {}  # holds the orientation, which must not be applied twice
    return image


def _tile_pixels(image):
    """Of a TIFF stored in tiles, which may say that they are larger than the photo: one is decoded whole."""
    sides = [image.tag_v2.get(tag, 0) for tag in (322, 323)] if image.format == "TIFF" else [0]
    return math.prod(sides) if all(isinstance(side, int) for side in sides) else math.inf


def _scans(image):
    """How often the pixels of a JPEG that is still to be decoded are gone over, at most: markers in thumbnails count,
    too. A TIFF of compression "jpeg" is one JPEG per strip or tile."""
    parts = 1
    if image.format == "TIFF" and "jpeg" in image.info.get("compression", ""):
        parts = len(image.tag_v2.get(273) or image.tag_v2.get(324) or (0,))
    elif image.format not in ("JPEG", "MPO"):
        return 1
    try:
        place = image.fp.tell()
        image.fp.seek(0)
        found = sum(chunk.count(b"\xff\xda") for chunk in iter(lambda: image.fp.read(2**20), b""))
        image.fp.seek(place)
    except (AttributeError, OSError, ValueError):  # decoded already, or its file was closed
        return 1
    return found / parts


def _orientation(image):
    # A photo with a damaged EXIF block is still a photo.
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1


def _eight_bit_rgb(image):
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit_grey(image)
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit_grey(image):
    """Pillow clips deep greys to 255 where it should scale them."""
    pixels = np.array(image, np.float32)  # all in place from here on: a photo may have 64 million pixels
    peak = pixels.max()
    if image.mode == "F" and peak <= 1:
        pixels *= 255
    elif image.mode.startswith("I;16") or peak > 255:
        pixels /= 257
    return Image.fromarray(np.rint(pixels, out=pixels).clip(0, 255, out=pixels).astype(np.uint8))
