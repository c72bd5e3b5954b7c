"""A recipe in plain words: what was shown to which model, and what was made of its features."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["METHODS", "recipe_words"]

Words = list[tuple[str, str]]
"""What a line is about, and what it says."""
DIGITS = 12


def recipe_words(told: Mapping[str, Any], variants: Sequence[str], denoisers: Sequence[Mapping[str, Any]]) -> Words:
    """Return the recipe of a version that ``describe_version`` tells of, in lines; what a recipe does not say is left out."""
    recipe = told["recipe"]
    backbone, method = recipe.get("backbone", {}), recipe.get("method", {})
    shape = "×".join(map(str, (*told["grid"], told["channels"])))
    kept = recipe.get("store", {}).get("dtype", "float16")
    lines = [
        ("Backbone", backbone_words(backbone)),
        ("Weights", weights_words(backbone, told["provenance"])),
        ("Input", input_words(backbone)),
        ("Method", METHODS.get(str(method.get("name")), other_words)(method)),
        *(("Denoiser", denoiser_words(row)) for row in denoisers),
        ("Known beforehand", prior_words(method)),
        ("Stored", f"{', '.join(variants)} as {kept}: {near(backbone)}{shape} (rows × columns × channels)"),
        ("Fine grid", "clean_fine on {}×{} points".format(*told["fine_grid"]) if told["fine_grid"] else ""),
        ("Prefix tokens", prefix_words(told["prefix_tokens"])),
    ]
    return [(title, words) for title, words in lines if words]


def backbone_words(backbone: Mapping[str, Any]) -> str:
    """Return the model, and which of its outputs is taken."""
    parts = [str(backbone.get("id", ""))]
    if "layer" in backbone:
        norm = {True: ", after the final norm", False: ", before any final norm"}.get(backbone.get("norm", ""), "")
        parts.append(f"output of block {backbone['layer']}, counted from 0{norm}")
    if "dtype" in backbone:
        parts.append(f"computed in {backbone['dtype']}")
    return "; ".join(part for part in parts if part)


def weights_words(backbone: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Return where the weights are from and the digest that decides."""
    digest = f"SHA-256 {backbone['weights']}" if "weights" in backbone else ""
    return "; ".join(part for part in (str(provenance.get("weights_source") or ""), digest) if part)


def input_words(backbone: Mapping[str, Any]) -> str:
    """Return what the model is shown of an image."""
    if "input" not in backbone:
        return ""
    size = "×".join(map(str, backbone["input"]))
    how = {
        "squash": f"the whole image, squashed to {size} pixels",
        "shortest": f"the middle of the image, nothing distorted, at {size} pixels",
        "keep": f"the whole image in the nearest of {len(backbone.get('inputs', ()))} shapes of as many patches as {size}",
    }
    words = how.get(str(backbone.get("resize", "squash")), f"{size} pixels")
    stride = f"; a patch every {backbone['stride']} pixels" if "stride" in backbone else ""
    resampling = f" ({backbone['interpolation']})" if "interpolation" in backbone else ""
    return words + resampling + stride


def near(backbone: Mapping[str, Any]) -> str:
    """Return a word before a grid that is not every image's."""
    return "each image's own shape, near " if backbone.get("resize") == "keep" else ""


def prefix_words(count: int) -> str:
    """Return what is kept besides patches."""
    return f"{count} (class and registers)" if count else ""


def raw_words(_: Mapping[str, Any]) -> str:
    """Return what ``raw`` does."""
    return "raw: features as the model gives them, not cleaned"


def stage1_words(method: Mapping[str, Any]) -> str:
    """Return what stage 1 does to an image."""
    views, solver = method.get("views", {}), method.get("solver")
    words = "stage 1 of Denoising Vision Transformers: each image is cleaned by crops of its own"
    if solver:
        words += {"lstsq": ", by direct least squares", "field": ", by the paper's neural field"}.get(
            solver, f", {solver}"
        )
    if solver == "field" and "iterations" in method.get("field", {}):
        words += f" of {method['field']['iterations']:,} iterations"
    if "views" in views:
        words += f". {views['views']} crops"
        words += " of {:.0%} to {:.0%} of the image".format(*views["area"]) if "area" in views else ""
        words += " at {}×{} pixels".format(*views["crop_input"]) if views.get("crop_input") else ""
        words += f", {views['flip']:.0%} of them mirrored" if "flip" in views else ""
        words += f"; {views['holdout']} more, kept out of the fit, judge it" if views.get("holdout") else ""
    smooth = method.get("lstsq", {}).get("smooth")
    if smooth is not None:
        words += f". Smoothness λ = {', '.join(map(str, smooth)) if isinstance(smooth, list) else smooth}"
    return words


def stage2_words(method: Mapping[str, Any]) -> str:
    """Return what stage 2 does."""
    digest = f" (SHA-256 {str(method['denoiser'])[:DIGITS]}…)" if "denoiser" in method else ""
    return (
        f"stage 2 of Denoising Vision Transformers: a trained denoiser{digest} cleans raw features in one forward pass"
    )


def denoiser_words(row: Mapping[str, Any]) -> str:
    """Return what a denoiser was trained on, and how well it does on images that it has not seen."""
    source = f" of {row['trained_on']}" if row["trained_on"] else ""
    words = f"{row['name']} of {row['dataset']}, trained on {row['images']:,} images{source}"
    if row["cosine"] is None:
        return words
    raw = f" (raw: {row['raw_cosine']:.3f})" if row["raw_cosine"] is not None else ""
    return f"{words}; on {row['heldout_images']:,} images held out, its cosine to stage 1's clean is {row['cosine']:.3f}{raw}"


def shift_words(method: Mapping[str, Any]) -> str:
    """Return what ``shift-mean`` does."""
    shift = method.get("shift", {})
    count = f"{shift['views']} " if "views" in shift else ""
    reach = f" of up to {shift['reach']:.0%} of each side" if "reach" in shift else ""
    return f"shift-mean: the mean of {count}views, shifted{reach} and mirrored, each put back in its place"


def position_words(_: Mapping[str, Any]) -> str:
    """Return what ``position-mean`` does."""
    return "position-mean: the data set's mean feature at each position is taken off"


def rasa_words(method: Mapping[str, Any]) -> str:
    """Return what ``rasa`` does."""
    count = f"{method['directions']} directions" if "directions" in method else "directions"
    return f"rasa: {count} that tell row and column are projected out"


def register_words(method: Mapping[str, Any]) -> str:
    """Return what ``test-time-registers`` does."""
    count = f"{len(method['neurons'])} neurons" if "neurons" in method else "neurons"
    return f"test-time-registers: what {count} add to outlier tokens is moved to an extra token"


def imported_words(method: Mapping[str, Any]) -> str:
    """Return what is known of features that others computed."""
    note = f": {method['note']}" if method.get("note") else ""
    return f"imported: computed elsewhere and taken in as they were{note}"


def other_words(method: Mapping[str, Any]) -> str:
    """Return a method's name where nothing more is known."""
    return str(method.get("name", ""))


def prior_words(method: Mapping[str, Any]) -> str:
    """Return what of the artifact was known before an image was looked at."""
    if "prior" in method:
        return f"an artifact to begin from (SHA-256 {str(method['prior'])[:DIGITS]}…)"
    return f"the artifact (SHA-256 {str(method['artifact'])[:DIGITS]}…)" if "artifact" in method else ""


METHODS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "raw": raw_words,
    "stage1": stage1_words,
    "stage2": stage2_words,
    "shift-mean": shift_words,
    "position-mean": position_words,
    "rasa": rasa_words,
    "test-time-registers": register_words,
    "imported": imported_words,
}
