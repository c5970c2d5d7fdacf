"""Drawn product pictures whose shape, colour, pattern and details are the tags of catalog.synthetic."""

import functools
import io
import math

from PIL import Image, ImageChops, ImageDraw

# Shapes in a square of 100 x 100, y downwards: polygon (points), ellipse and cut (box), rounded (box, radius),
# pieslice (box, angles), arc (box, angles, line width). "cut" removes from what stands before it.
SHAPES = {
    "T-Shirt": [
        ("polygon", "36 16  64 16  94 30  86 50  72 43  72 88  28 88  28 43  14 50  6 30"),
        ("cut", "40 6 60 25"),
    ],
    "Dress": [
        ("polygon", "34 8  40 8  43 22  57 22  60 8  66 8  66 30  60 46  86 92  14 92  40 46  34 30"),
    ],
    "Trousers": [
        ("polygon", "30 7  70 7  78 94  58 94  50 36  42 94  22 94"),
    ],
    "Handbag": [
        ("arc", "32 12 68 68 180 360 6"),
        ("polygon", "16 40  84 40  94 88  6 88"),
    ],
    "Mug": [
        ("arc", "56 34 90 70 0 360 8"),
        ("rounded", "16 20 68 86 8"),
    ],
    "Boot": [
        ("polygon", "26 8  58 8  58 54  80 64  90 74  90 90  26 90"),
    ],
    "Lamp": [
        ("polygon", "36 8  64 8  86 50  14 50"),
        ("polygon", "46 50  54 50  54 84  46 84"),
        ("ellipse", "28 80 72 93"),
    ],
    "Backpack": [
        ("arc", "38 4 62 26 180 360 5"),
        ("rounded", "20 13 80 90 20"),
        ("rounded", "8 50 24 84 6"),
        ("rounded", "76 50 92 84 6"),
    ],
    "Cushion": [
        ("polygon", "10 12  50 20  90 12  82 50  90 88  50 80  10 88  18 50"),
    ],
    "Vase": [
        ("rounded", "36 6 64 12 2"),
        ("polygon", "41 10  59 10  57 34  43 34"),
        ("ellipse", "22 28 78 84"),
        ("polygon", "36 76  64 76  68 94  32 94"),
    ],
    "Cap": [
        ("pieslice", "8 22 72 102 180 360"),
        ("polygon", "40 61  70 57  92 64  97 74  70 70  40 71"),
        ("polygon", "8 60  60 60  60 70  8 68"),
    ],
    "Umbrella": [
        ("polygon", "48.5 5  51.5 5  51.5 14  48.5 14"),
        ("pieslice", "4 11 96 97 180 360"),
        ("polygon", "48 52  52 52  52 84  48 84"),
        ("arc", "52 74 70 94 0 180 4"),
        ("polygon", "48 82  56 82  56 86  48 86"),
    ],
    "Chair": [
        ("rounded", "26 6 74 46 8"),
        ("polygon", "32 44  38 44  38 58  32 58"),
        ("polygon", "62 44  68 44  68 58  62 58"),
        ("rounded", "18 55 82 66 4"),
        ("polygon", "22 64  30 64  24 95  17 95"),
        ("polygon", "70 64  78 64  83 95  76 95"),
    ],
    "Sock": [
        ("polygon", "34 6  62 6  62 58  34 62"),
        ("ellipse", "32 50 64 88"),
        ("polygon", "42 56  62 50  86 72  74 93  42 87"),
        ("ellipse", "66 68 92 94"),
    ],
}

# Lines that a silhouette alone does not show.
SEAMS = {
    "T-Shirt": ["28 43  31 24", "72 43  69 24"],
    "Dress": ["40 46  60 46", "44 50  36 90", "56 50  64 90"],
    "Trousers": ["29 14  71 14", "50 14  50 36"],
    "Handbag": ["14 50  50 60  86 50"],
    "Mug": ["17 27  67 27"],
    "Boot": ["26 82  90 82", "42 20  58 20", "42 32  58 32", "42 44  58 44"],
    "Lamp": ["15 48  85 48", "37 10  63 10"],
    "Backpack": ["20 36  80 36", "32 56  68 56  68 82  32 82  32 56"],
    "Cushion": ["17 20  50 26  83 20", "17 80  50 74  83 80"],
    "Vase": ["43 32  57 32", "36 80  64 80"],
    "Cap": ["40 23  36 60", "8 60  70 60"],
    "Umbrella": ["50 12  30 54", "50 12  70 54"],
    "Chair": ["34 14  34 40", "50 14  50 40", "66 14  66 40"],
    "Sock": ["34 16  62 16", "72 66  66 90", "36 66  46 86"],
}

# Where a printed star sits: (x, y, radius).
STAR_PLACES = {
    "T-Shirt": (0.50, 0.52, 0.15),
    "Dress": (0.50, 0.70, 0.14),
    "Trousers": (0.33, 0.50, 0.08),
    "Handbag": (0.50, 0.72, 0.12),
    "Mug": (0.42, 0.56, 0.17),
    "Boot": (0.42, 0.62, 0.11),
    "Lamp": (0.50, 0.34, 0.12),
    "Backpack": (0.50, 0.69, 0.11),
    "Cushion": (0.50, 0.50, 0.18),
    "Vase": (0.50, 0.56, 0.17),
    "Cap": (0.42, 0.46, 0.12),
    "Umbrella": (0.50, 0.36, 0.13),
    "Chair": (0.50, 0.27, 0.13),
    "Sock": (0.48, 0.36, 0.10),
}

COLOURS = {
    "Black": (28, 28, 32),
    "Blue": (38, 84, 190),
    "White": (250, 250, 248),
    "Red": (205, 32, 38),
    "Grey": (142, 144, 148),
    "Green": (40, 140, 62),
    "Pink": (246, 150, 190),
    "Brown": (112, 66, 36),
    "Beige": (224, 202, 162),
    "Yellow": (248, 214, 40),
    "Purple": (122, 52, 165),
    "Orange": (242, 124, 22),
}

PATTERNS = ("Striped", "Checked", "Dotted", "Floral", "Zigzag")
VISIBLE_FEATURES = ("Contrast Trim", "Star Print", "Gift Wrapped")

_OVERSAMPLE = 4
_STAR = [
    (radius * math.sin(math.pi * k / 5), -radius * math.cos(math.pi * k / 5))
    for k, radius in enumerate((1.0, 0.42) * 5)
]


def draw_product(category, colour, pattern, features, size, rng):
    """Return one RGB picture of size x size pixels.

    Args:
        category: a key of SHAPES.
        colour: a key of COLOURS.
        pattern: one of PATTERNS, or None for a plain product.
        features: a collection; those in VISIBLE_FEATURES are drawn.
        size: pixels of each side.
        rng: `random.Random` that moves, turns, mirrors and tints the picture.
    """
    base = tuple(min(255, max(0, value + rng.randint(-8, 8))) for value in COLOURS[colour])
    contrast = _contrast(base)
    mask, outline = _silhouette(category, size)

    product = Image.new("RGB", (size, size), base)
    if pattern:
        product.paste(contrast, mask=_pattern(pattern, rng.randrange(4), size))
    if "Contrast Trim" in features:
        product.paste(contrast, mask=_trim(category, size))
        product.paste(base, mask=_trim_gap(category, size))
    if "Star Print" in features:
        _draw_star(product, STAR_PLACES[category], contrast, base, size)
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
    """Return the JPEG bytes of a PIL picture."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _contrast(colour):
    red, green, blue = colour
    if 0.3 * red + 0.59 * green + 0.11 * blue > 135:
        return tuple(int(value * 0.35) for value in colour)
    return tuple(int(255 - (255 - value) * 0.18) for value in colour)


def _move(product, size, rng):
    """Turn, shrink and shift about the middle."""
    angle, scale = math.radians(rng.uniform(-9, 9)), rng.uniform(0.80, 0.98)
    across, down = (size * (0.5 + rng.uniform(-0.04, 0.04)) for _ in range(2))
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    middle = size / 2
    matrix = (
        cosine,
        sine,
        middle - cosine * across - sine * down,
        -sine,
        cosine,
        middle + sine * across - cosine * down,
    )
    return product.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


@functools.lru_cache(maxsize=64)
def _silhouette(category, size):
    """Masks (mode "L") of the product's area and of its outline and seams."""
    side = size * _OVERSAMPLE
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    for kind, numbers in SHAPES[category]:
        numbers = [float(number) for number in numbers.split()]
        points = [number * side / 100 for number in numbers]
        if kind == "polygon":
            draw.polygon(points, fill=255)
        elif kind == "ellipse":
            draw.ellipse(points, fill=255)
        elif kind == "cut":
            draw.ellipse(points, fill=0)
        elif kind == "rounded":
            draw.rounded_rectangle(points[:4], radius=points[4], fill=255)
        elif kind == "pieslice":
            draw.pieslice(points[:4], *numbers[4:], fill=255)
        elif kind == "arc":
            draw.arc(points[:4], *numbers[4:6], fill=255, width=round(points[6]))

    width = max(_OVERSAMPLE, side // 70)
    outline = ImageChops.subtract(mask, _shrunk(mask, width))
    draw = ImageDraw.Draw(outline)
    for line in SEAMS[category]:
        draw.line([float(number) * side / 100 for number in line.split()], fill=255, width=width)
    outline = ImageChops.multiply(outline, mask)
    return mask.resize((size, size), Image.Resampling.BOX), outline.resize((size, size), Image.Resampling.BOX)


def _shrunk(mask, width):
    for across, down in ((width, 0), (-width, 0), (0, width), (0, -width)):
        mask = ImageChops.darker(mask, ImageChops.offset(mask, across, down))
    return mask


@functools.lru_cache(maxsize=64)
def _trim(category, size):
    """Mask of a band along every lower edge."""
    mask = _silhouette(category, size)[0]
    return ImageChops.subtract(mask, ImageChops.offset(mask, 0, -max(2, size // 9)))


@functools.lru_cache(maxsize=64)
def _trim_gap(category, size):
    """Mask of the plain line that parts the trim from a pattern above it."""
    mask = _silhouette(category, size)[0]
    upper = ImageChops.subtract(mask, ImageChops.offset(mask, 0, -max(3, size // 7)))
    return ImageChops.subtract(upper, _trim(category, size))


@functools.lru_cache(maxsize=64)
def _pattern(name, phase, size):
    """Mask of what is printed in the second colour. It covers less than half, so that the first colour is the tag."""
    side = size * _OVERSAMPLE
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    step = side / 9
    start = -step + phase * step / 4
    places = [start + k * step for k in range(12)]
    if name == "Striped":
        for y in places:
            draw.rectangle((0, y, side, y + step * 0.38), fill=255)
    elif name == "Checked":
        for at in places[::2]:
            draw.rectangle((0, at, side, at + step * 0.40), fill=255)
            draw.rectangle((at, 0, at + step * 0.40, side), fill=255)
    elif name == "Dotted":
        for row, y in enumerate(places):
            for x in places:
                _disc(draw, x + (row % 2) * step / 2, y, step * 0.26)
    elif name == "Floral":
        for row, y in enumerate(places[::2]):
            for x in places[::2]:
                _flower(draw, x + (row % 2) * step, y, step * 0.36)
    elif name == "Zigzag":
        for y in places:
            points = [(k * step * 0.75, y + (k % 2) * step * 0.75) for k in range(14)]
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
    x, y, radius = (value * size for value in place)
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
