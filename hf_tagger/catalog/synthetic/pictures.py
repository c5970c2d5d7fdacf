"""Drawings of products whose shape, colour, pattern and details are the tags of a made-up catalogue."""

import functools
import io
import math
from pathlib import Path

import yaml
from PIL import Image, ImageChops, ImageDraw

# By category: parts, seams and the place of a printed star, in a square of 100 x 100.
SHAPES = yaml.safe_load(Path(__file__).with_name("shapes.yaml").read_text(encoding="utf-8"))

COLOURS = {
    "Black": (28, 28, 32), "Blue": (38, 84, 190), "White": (250, 250, 248), "Red": (205, 32, 38),
    "Grey": (142, 144, 148), "Green": (40, 140, 62), "Pink": (246, 150, 190), "Brown": (112, 66, 36),
    "Beige": (224, 202, 162), "Yellow": (248, 214, 40), "Purple": (122, 52, 165), "Orange": (242, 124, 22),
}
PATTERNS = ("Striped", "Checked", "Dotted", "Floral", "Zigzag")
VISIBLE_FEATURES = ("Contrast Trim", "Star Print", "Gift Wrapped")

_OVERSAMPLE = 4
_STAR = [(radius * math.sin(math.pi * k / 5), -radius * math.cos(math.pi * k / 5))
         for k, radius in enumerate((1.0, 0.42) * 5)]


def draw_product(category, colour, pattern, features, size, rng):
    """One RGB picture of size x size pixels.

    Args:
        category, colour: keys of SHAPES and COLOURS.
        pattern: one of PATTERNS, or None for a plain product.
        features: a collection; those in VISIBLE_FEATURES are drawn.
        rng: `random.Random` that moves, turns, mirrors and tints the picture.
    """
    base = tuple(min(255, max(0, value + rng.randint(-8, 8))) for value in COLOURS[colour])
    light = sum(share * value for share, value in zip((0.3, 0.59, 0.11), base, strict=True)) > 135
    contrast = tuple(int(value * 0.35 if light else 255 - (255 - value) * 0.18) for value in base)
    mask, outline = _silhouette(category, size)
    product = Image.new("RGB", (size, size), base)
    if pattern:
        product.paste(contrast, mask=_pattern(pattern, rng.randrange(4), size))
    if "Contrast Trim" in features:
        trim = _hem(category, max(2, size // 9), size)
        product.paste(contrast, mask=trim)
        # A plain line above the trim, so that no pattern runs into it.
        product.paste(base, mask=ImageChops.subtract(_hem(category, max(3, size // 7), size), trim))
    if "Star Print" in features:
        _draw_star(product, SHAPES[category]["star"], contrast, base, size)
    product.paste((70, 70, 74) if sum(base) > 200 else (150, 150, 156), mask=outline)
    product.putalpha(mask)
    if rng.random() < 0.5:
        product = product.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    tint = rng.randint(218, 240)
    picture = Image.new("RGB", (size, size), (tint - rng.randint(0, 6), tint, tint + rng.randint(-4, 8)))
    product = _move(product, size, rng)
    picture.paste(product, mask=product)
    if "Gift Wrapped" in features:
        _draw_bow(picture, size)
    return picture


def encode_jpeg(picture, quality=85):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _move(product, size, rng):
    """Turn, shrink and shift about the middle."""
    angle, scale = math.radians(rng.uniform(-9, 9)), rng.uniform(0.80, 0.98)
    across, down = (size * (0.5 + rng.uniform(-0.04, 0.04)) for _ in range(2))
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    middle = size / 2
    matrix = (cosine, sine, middle - cosine * across - sine * down,
              -sine, cosine, middle + sine * across - cosine * down)
    return product.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


@functools.lru_cache(maxsize=64)
def _silhouette(category, size):
    """Masks (mode "L") of the product's area and of its outline and seams."""
    side = size * _OVERSAMPLE
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    for part in SHAPES[category]["parts"]:
        (kind, numbers), = part.items()
        points = [number * side / 100 for number in numbers]
        if kind == "polygon":
            draw.polygon(points, fill=255)
        elif kind == "rounded":
            draw.rounded_rectangle(points[:4], radius=points[4], fill=255)
        elif kind == "pieslice":
            draw.pieslice(points[:4], *numbers[4:], fill=255)
        elif kind == "arc":
            draw.arc(points[:4], *numbers[4:6], fill=255, width=round(points[6]))
        else:
            draw.ellipse(points, fill=0 if kind == "cut" else 255)

    width, inner = max(_OVERSAMPLE, side // 70), mask
    for across, down in ((width, 0), (-width, 0), (0, width), (0, -width)):
        inner = ImageChops.darker(inner, ImageChops.offset(inner, across, down))
    outline = ImageChops.subtract(mask, inner)
    draw = ImageDraw.Draw(outline)
    for line in SHAPES[category]["seams"]:
        draw.line([number * side / 100 for number in line], fill=255, width=width)
    outline = ImageChops.multiply(outline, mask)
    return [drawn.resize((size, size), Image.Resampling.BOX) for drawn in (mask, outline)]


@functools.lru_cache(maxsize=64)
def _hem(category, height, size):
    """Mask of a band of so many pixels along every lower edge."""
    mask = _silhouette(category, size)[0]
    return ImageChops.subtract(mask, ImageChops.offset(mask, 0, -height))


@functools.lru_cache(maxsize=64)
def _pattern(name, phase, size):
    """Mask of what is printed in the second colour. It covers less than half, so that the first colour is the tag."""
    side = size * _OVERSAMPLE
    mask = Image.new("L", (side, side))
    draw, step = ImageDraw.Draw(mask), side / 9
    places = [-step + phase * step / 4 + k * step for k in range(12)]
    for row, y in enumerate(places):
        if name == "Striped":
            draw.rectangle((0, y, side, y + step * 0.38), fill=255)
        elif name == "Checked" and row % 2 == 0:
            draw.rectangle((0, y, side, y + step * 0.40), fill=255)
            draw.rectangle((y, 0, y + step * 0.40, side), fill=255)
        elif name == "Dotted":
            for x in places:
                _disc(draw, x + row % 2 * step / 2, y, step * 0.26)
        elif name == "Floral" and row % 2 == 0:
            for x in places[::2]:
                _flower(draw, x + row // 2 % 2 * step, y, step * 0.36)
        elif name == "Zigzag":
            points = [(k * step * 0.75, y + k % 2 * step * 0.75) for k in range(14)]
            draw.line(points, fill=255, width=round(step * 0.25), joint="curve")
    return mask.resize((size, size), Image.Resampling.BOX)


def _disc(draw, x, y, radius, fill=255):
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _flower(draw, x, y, radius):
    for petal in range(5):
        angle = 2 * math.pi * petal / 5
        _disc(draw, x + radius * 1.25 * math.sin(angle), y - radius * 1.25 * math.cos(angle), radius)
    _disc(draw, x, y, radius * 0.6, fill=0)


def _draw_star(product, place, colour, edge, size):
    x, y, radius = (value / 100 * size for value in place)
    draw = ImageDraw.Draw(product)
    _disc(draw, x, y, radius * 1.15, fill=edge)  # a plain patch, so that a pattern does not hide the star
    draw.polygon([(x + radius * a, y + radius * b) for a, b in _STAR], fill=colour)


def _draw_bow(picture, size):
    gold, dark = (214, 170, 58), (150, 112, 24)
    x, y, wing = size * 0.84, size * 0.86, size * 0.12
    draw = ImageDraw.Draw(picture)
    for side in (-1, 1):
        draw.polygon([(x, y), (x + side * wing * 0.8, y + wing), (x + side * wing * 0.3, y + wing)], fill=dark)
        draw.polygon([(x, y), (x + side * wing, y - wing * 0.7), (x + side * wing, y + wing * 0.6)], gold, dark)
    _disc(draw, x, y, size * 0.03, fill=dark)
