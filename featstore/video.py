"""Frames of a sequence as a video: photograph, raw and clean side by side, one PCA basis from its first frame to its last."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .components import Colours, fit_colours
from .errors import InputError
from .figure import check_format
from .sealing import sealed, storing
from .shown import Chosen, Shown

__all__ = ["FORMATS", "check_video", "frames_of", "save_video"]

FORMATS = (".webp", ".gif", ".mp4")
SAMPLED = 32
"""Frames that decide the basis, evenly from the whole sequence."""
GAP, HEAD, FOOT = 8, 26, 22
"""Pixels: between tiles, for the headings, for the frame's name."""
QUALITY, TALLEST = 90, 2
"""Of WebP, of 100; the tallest tile (tile widths)."""


def check_video(path: Path) -> None:
    """Raise InputError where a video cannot be written at a path: an unknown ending, no folder, MP4 and no ffmpeg."""
    check_format(path, FORMATS)
    if path.suffix.lower() == ".mp4":
        ffmpeg(path)


def ffmpeg(path: Path) -> str:
    """Return where ffmpeg is; raises InputError where it is not."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise InputError(
            f'--output {path}: MP4 needs ffmpeg: pip install "featstore-dvt[video]", or take .webp or .gif, which need nothing'
        ) from None


def frames_of(chosen: Chosen, width: int, smooth: bool = False) -> Iterator[Image.Image]:
    """Yield the frames, each column ``width`` [pixels] wide: all of one size, into which a frame of another shape is fitted."""
    shades = fit_colours([values for one in chosen.evenly(SAMPLED) for values in one.maps.values()])
    size: tuple[int, int] | None = None
    for one in chosen:
        size = size or (
            width,
            int(np.clip(width * one.photograph.shape[0] / one.photograph.shape[1] + 0.5, 16, TALLEST * width)),
        )
        yield compose(one, shades, size, chosen.version.name, smooth)


def compose(one: Shown, shades: Colours, size: tuple[int, int], title: str, smooth: bool) -> Image.Image:
    """Lay one frame out: tiles under their headings, the frame's name below. Sides are even, as codecs want them."""
    tiles: list[tuple[str, NDArray[np.uint8], Image.Resampling]] = [("input", one.photograph, Image.Resampling.LANCZOS)]
    blend = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    tiles += [(f"{name} (PCA)", shades(values), blend) for name, values in one.maps.items()]
    wide = len(tiles) * (size[0] + GAP) + GAP
    canvas = Image.new("RGB", (wide + wide % 2, HEAD + size[1] + FOOT + (HEAD + size[1] + FOOT) % 2), "white")
    draw, font, small = ImageDraw.Draw(canvas), ImageFont.load_default(15), ImageFont.load_default(13)
    inner = fitting(one.photograph.shape[1], one.photograph.shape[0], size)
    for n, (heading, pixels, method) in enumerate(tiles):
        left = GAP + n * (size[0] + GAP)
        draw.text((left, 4), heading, "black", font=font)
        place = left + (size[0] - inner[0]) // 2, HEAD + (size[1] - inner[1]) // 2
        canvas.paste(Image.fromarray(pixels).resize(inner, method), place)
    draw.text(
        (GAP, HEAD + size[1] + 3), fitted(f"{one.image_id}   {title}", small, wide - 2 * GAP), "black", font=small
    )
    return canvas


def fitting(width: int, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the largest (width, height) of an image's shape inside a size; the size itself where all but a pixel fits."""
    scale = min(size[0] / width, size[1] / height)
    inner = round(width * scale), round(height * scale)
    return size if abs(inner[0] - size[0]) + abs(inner[1] - size[1]) <= 1 else (max(1, inner[0]), max(1, inner[1]))


def fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return a text, cut at its end where it is longer than a width [pixels]."""
    shown = text
    while font.getlength(shown) > width and len(shown) > 1:
        shown = shown[:-2].rstrip("…") + "…"
    return shown


def save_video(frames: Iterator[Image.Image], path: Path, fps: float) -> int:
    """Write frames in the format of the path's ending and return how many they were; a .webp or .gif repeats for ever.

    Raises InputError as ``check_video`` and where ffmpeg refuses, StoreError where the disk does.
    """
    form = path.suffix.lower()[1:]
    drawn = list(frames)
    with storing(path), sealed(path) as temporary:
        if form == "mp4":
            encode(drawn, temporary, path, fps)
        else:
            how = {"quality": QUALITY, "method": 4} if form == "webp" else {"disposal": 1}
            pause = max(1, round(1000 / fps))
            drawn[0].save(temporary, form, save_all=True, append_images=drawn[1:], duration=pause, loop=0, **how)
    return len(drawn)


def encode(frames: Sequence[Image.Image], temporary: Path, path: Path, fps: float) -> None:
    """Have ffmpeg write H.264, in the colours that every player knows."""
    width, height = frames[0].size
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    made = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-movflags", "+faststart", "-f", "mp4"]
    command = [ffmpeg(path), "-loglevel", "error", "-y", *given, *made, str(temporary)]
    done = subprocess.run(
        command, input=b"".join(frame.tobytes() for frame in frames), capture_output=True, check=False
    )
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())[:200]
        raise InputError(f"--output {path}: ffmpeg cannot write it ({reason}); take .webp or .gif")
