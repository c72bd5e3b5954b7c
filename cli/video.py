"""``featstore video``."""

from pathlib import Path

import click

from featstore.shown import choose_sequence
from featstore.video import FORMATS, check_video, frames_of, save_video

from . import options
from .printing import bytes_text, emit_json, plural

__all__ = ["video"]


@click.command(context_settings={"show_default": True})
@click.argument("version")
@click.option(
    "--output", type=options.Place(local=True), metavar="FILE", required=True, help=f"Ends in {', '.join(FORMATS)}."
)
@click.option("--part", metavar="SEQUENCE", help="The sequence: frames are SEQUENCE/00000 …")
@click.option("--where", metavar="SQL", help="Frames for which this holds.")
@click.option("--variants", type=options.Variants(), default="raw,clean", help="What to show beside the photograph.")
@click.option("--fps", type=click.FloatRange(0.1, 60), default=8.0, metavar="N", help="Frames a second.")
@click.option("--width", type=click.IntRange(64, 2048), default=320, metavar="PIXELS", help="Of each column.")
@click.option("--smooth", is_flag=True, help="Blend between patches, instead of drawing each as a square.")
@options.root
@options.as_json
def video(
    version: str,
    output: Path,
    part: str | None,
    where: str | None,
    variants: tuple[str, ...],
    fps: float,
    width: int,
    smooth: bool,
    root: Path,
    as_json: bool,
) -> None:
    """Draw a sequence of VERSION as a video: photograph, raw and clean features side by side, in PCA colours.

    Frames come in the order of their image_ids. The basis is found once, over frames of the whole sequence and raw and clean
    together, so that a colour means the same from the first frame to the last. .webp and .gif need nothing; .mp4 needs
    ffmpeg on the PATH, or the extra `video`.

    \b
    Examples:
      featstore video davis/dinov2_b/v1 --part bear --output bear.webp
      featstore video clips/dinov2_b/v1 --where "label = 'bear' AND split = 'val'" --fps 24 --output bear.mp4
    """
    check_video(output)
    chosen = choose_sequence(root, version, part, where, variants)
    count = save_video(frames_of(chosen, width, smooth), output, fps)
    if as_json:
        frames = [entry.image_id for entry in chosen.entries]
        facts = {"version": chosen.version.name, "output": str(output), "frames": frames, "fps": fps}
        emit_json(facts | {"variants": chosen.variants, "not_stored": chosen.absent})
        return
    if chosen.absent:
        click.echo(f"left out, not stored: {', '.join(chosen.absent)}", err=True)
    seconds = f"{count / fps:.1f} s at {fps:g} frames a second"
    click.echo(f"video {output}: {plural(count, 'frame')}, {seconds}, {bytes_text(output.stat().st_size)}")
