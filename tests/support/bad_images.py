"""Files as the world has them, and small VOC trees: made here, so that every test knows the truth about them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 128, 0)


def photo(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, (8, 4), left)
    image.paste(right, (4, 0, 8, 4))
    return image


READABLE = {
    "plain.jpg": lambda: encoded(photo(), "JPEG"),
    "grey.jpg": lambda: encoded(photo().convert("L"), "JPEG"),
    "cmyk.jpg": lambda: encoded(photo().convert("CMYK"), "JPEG"),
    "grey16.png": lambda: encoded(Image.fromarray(np.array([[0, 257, 65535]], np.uint16)), "PNG"),
    "alpha.png": lambda: encoded(halves((*RED, 255), (*BLUE, 0), "RGBA"), "PNG"),
    "palette_alpha.png": lambda: palette_with_alpha(),
    "one_bit.png": lambda: encoded(Image.fromarray(np.eye(4, dtype=bool)), "PNG"),
    "exif6.jpg": lambda: rotated(),
    "animated.gif": lambda: animated(),
    "one.png": lambda: encoded(Image.new("RGB", (1, 1), GREEN), "PNG"),
    'it\'s "quoted" & größer.png': lambda: encoded(photo(seed=3), "PNG"),
}
UNREADABLE = {
    "empty.jpg": lambda: b"",
    "text.jpg": lambda: b"This is a shopping list: milk, bread.\n",
    "truncated.jpg": lambda: encoded(photo(200, 150), "JPEG", quality=95)[:3000],
}


def palette_with_alpha() -> bytes:
    image = halves(RED, BLUE).quantize(2)
    transparent = image.getpixel((7, 0))
    return encoded(image, "PNG", transparency=transparent)


def rotated() -> bytes:
    """8×4 as stored, red left and blue right; orientation 6 means: turn it a quarter clockwise to see it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(halves(RED, BLUE).resize((64, 32), Image.Resampling.NEAREST), "JPEG", exif=exif, quality=95)


def animated() -> bytes:
    frames = [Image.new("RGB", (6, 5), colour) for colour in (GREEN, RED, BLUE)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def hundred_megapixels() -> bytes:
    return encoded(Image.new("RGB", (11_000, 9_100), GREEN), "JPEG", quality=20)


def write_zoo(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in (READABLE | UNREADABLE).items():
        (folder / name).write_bytes(make())
    return folder


@dataclass
class VocTruth:
    """What a made VOC tree holds."""

    folder: Path
    images: dict[str, str] = field(default_factory=dict)
    splits: dict[str, set[str]] = field(default_factory=dict)
    boxes: dict[str, list[tuple[str, int, int, int, int, bool, bool]]] = field(default_factory=dict)
    masks: set[str] = field(default_factory=set)


def make_voc(folder: Path, years: Sequence[str] = ("VOC2007", "VOC2012"), images: int = 6) -> VocTruth:
    """Write a small VOCdevkit: for each year ``images`` JPEGs; train, val and test by turns; a mask for every second."""
    truth = VocTruth(folder)
    for year in years:
        part = folder / year
        for name in ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationObject"):
            (part / name).mkdir(parents=True, exist_ok=True)
        lists: dict[str, list[str]] = {}
        for number in range(images):
            stem = f"{number:06d}" if year == "VOC2007" else f"{year[3:]}_{number:06d}"
            photo(seed=hash_of(stem)).save(part / "JPEGImages" / f"{stem}.jpg")
            truth.images[stem] = f"{year}/JPEGImages/{stem}.jpg"
            split = ("train", "val", "test")[number % 3]
            names = {f"main/{split}"} | ({"main/trainval"} if split != "test" else set())
            if number % 2 == 0:
                mask(part, stem)
                truth.masks.add(stem)
                names |= {name.replace("main", "segmentation") for name in names}
            truth.splits[stem] = names
            for name in names:
                lists.setdefault(name, []).append(stem)
            truth.boxes[stem] = [
                ("dog", 3, 4, 30 + number, 35, number == 1, False),
                ("person", 1, 1, 60, 40, False, True),
            ]
            (part / "Annotations" / f"{stem}.xml").write_text(annotation(stem, truth.boxes[stem]))
        for name, stems in lists.items():
            kind, which = name.split("/")
            path = part / "ImageSets" / kind.capitalize() / f"{which}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{stem}\n" for stem in stems))
        signs = "".join(f"{stem} {1 if n % 2 else -1}\n" for n, stem in enumerate(truth.images))
        (part / "ImageSets" / "Main" / "dog_train.txt").write_text(signs)
    return truth


def hash_of(stem: str) -> int:
    return sum(stem.encode()) * 7919 + int("".join(c for c in stem if c.isdigit()))


def mask(part: Path, stem: str, size: tuple[int, int] = (60, 40)) -> None:
    labels = np.zeros((size[1], size[0]), np.uint8)
    labels[4:35, 3:30] = 12
    labels[0] = 255
    image = Image.new("P", size)
    image.putpalette([value for i in range(256) for value in (i, 255 - i, (7 * i) % 256)])
    image.putdata(labels.reshape(-1).tolist())
    for kind in ("SegmentationClass", "SegmentationObject"):
        image.save(part / kind / f"{stem}.png")


def annotation(stem: str, boxes: Sequence[tuple[str, int, int, int, int, bool, bool]]) -> str:
    objects = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>{int(truncated)}</truncated><difficult>{int(difficult)}"
        f"</difficult><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
        for name, a, b, c, d, difficult, truncated in boxes
    )
    size = "<size><width>60</width><height>40</height><depth>3</depth></size>"
    return f"<annotation><filename>{stem}.jpg</filename>{size}{objects}</annotation>"
