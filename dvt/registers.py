"""Method `test-time-registers`: outlier tokens moved out of the image, with no training (arXiv 2506.08010).

"Vision Transformers Don't Need Trained Registers" (Jiang et al.) finds that a few hidden neurons of the MLPs, the register
neurons, write the tokens of large norm. At inference they get their strongest activation at one extra token, which enters
as zeros, and 0 at every patch. What is found is a list of (block, hidden neuron); a model without outliers has none, and
its features stay as they are.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float, UInt8
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .backbone import Backbone
from .errors import BackboneError, SolverError
from .precision import autocast
from .preprocess import normalise
from .tokens import tokens_after
from .whole_image import WholeImageDecomposer

__all__ = ["Neurons", "RegisterOptions", "RegistersDecomposer", "find_neurons", "with_register"]

Neurons = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RegisterOptions:
    """``neurons``: how many to move (the authors: 10 for CLIP ViT-B, 50 for DINOv2-L). ``last``: block up to which they are
    looked for, None for that after which outliers are there (the authors set it by hand). ``outlier``: a token is one from
    this many times the median norm of its image's patches on (the authors: a norm of their own for each model).
    """

    neurons: int = 10
    last: int | None = None
    outlier: float = 3.0

    def __post_init__(self) -> None:
        """Raise SolverError for options that mean nothing."""
        if self.neurons < 1 or self.outlier <= 1:
            raise SolverError("test-time-registers needs at least one neuron, and outliers above the median")


def check_blocks(backbone: Backbone) -> list[Any]:
    """Return the blocks up to the backbone's layer; raises BackboneError where no token can join or MLPs are of another
    kind.
    """
    model: Any = backbone.model
    plain = isinstance(model, VisionTransformer) and all(
        isinstance(getattr(getattr(block, "mlp", None), "fc2", None), nn.Linear) for block in model.blocks
    )
    if not plain:
        raise BackboneError(
            f"test-time-registers cannot add a token to {backbone.timm_name}: choose a plain vision transformer "
            "(dinov2_b, dino_b, mae_b, clip_b, deit3_b …), or another method"
        )
    return list(model.blocks[: backbone.layer + 1])


def find_neurons(
    backbone: Backbone,
    images: Sequence[UInt8[Tensor, "3 height width"]],
    options: RegisterOptions | None = None,
    batch_size: int = 4,
) -> Neurons:
    """Return the register neurons that prepared images show, the strongest first; none where no patch is an outlier.

    Outliers are looked for after the block, of the later half, where the largest norm stands out most from the median. A
    neuron's score is the mean absolute activation at an image's outliers less that at its other patches, averaged over the
    images that have outliers (the authors do not subtract, and may ask for sparsity instead). Raises BackboneError, and
    SolverError without an image.
    """
    options = options or RegisterOptions()
    blocks = check_blocks(backbone)
    if not images:
        raise SolverError("there is no image to look for register neurons in")
    norms = torch.cat([watched(backbone, blocks, batch) for batch in batches(images, batch_size)])
    ratios = norms / norms.median(dim=2, keepdim=True).values
    late = len(blocks) // 2
    outliers = ratios[:, late + int(ratios[:, late:].amax(dim=2).mean(dim=0).argmax())] >= options.outlier
    having = outliers.any(dim=1)
    if not having.any():
        return ()
    share = outliers[having].double() / outliers[having].sum(dim=1, keepdim=True)
    risen = (ratios[having].double() * share[:, None]).sum(dim=2).mean(dim=0) >= options.outlier
    last = int(risen.int().argmax()) if options.last is None else min(options.last, len(blocks) - 1)
    chosen = [image for image, has in zip(images, having.tolist(), strict=True) if has]
    scores = contrast(backbone, blocks[: last + 1], chosen, outliers[having], batch_size)
    ranked = sorted(
        ((score, block, place) for block, row in enumerate(scores) for place, score in enumerate(row.tolist())),
        key=lambda one: (-one[0], one[1:]),
    )
    return tuple((block, place) for _, block, place in ranked[: options.neurons])


def batches(images: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Yield images in groups of ``size``."""
    remaining = iter(images)
    while group := list(islice(remaining, size)):
        yield group


def run(backbone: Backbone, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return patch tokens (N, P, C), with the extra token last where there is one, and prefix tokens (N, T, C)."""
    given = normalise(torch.stack(list(images)), backbone.mean, backbone.std, backbone.device)
    with torch.inference_mode(), autocast(backbone.device, backbone.dtype):
        (tokens,) = tokens_after(backbone.model, given, (backbone.layer,), backbone.norm)
    return tokens


def watched(backbone: Backbone, blocks: Sequence[Any], images: Sequence[Tensor]) -> Float[Tensor, "n b p"]:
    """Return the norms of the patch tokens after every block, before the final norm."""
    seen: list[Tensor] = []

    def look(module: nn.Module, given: Any, tokens: Tensor) -> None:
        seen.append(tokens[:, backbone.prefix_tokens :].float().norm(dim=-1).cpu())

    with hooked([block.register_forward_hook(look) for block in blocks]):
        run(backbone, images)
    return torch.stack(seen, dim=1)


def contrast(
    backbone: Backbone, blocks: Sequence[Any], images: Sequence[Tensor], outliers: Tensor, batch_size: int
) -> list[Float[Tensor, " hidden"]]:
    """Return each block's scores of its hidden neurons, as ``find_neurons`` says; ``outliers`` (N, P) is true at an
    outlier.
    """
    marks = outliers.to(backbone.device)
    scores: list[Tensor] = [torch.zeros(block.mlp.fc2.in_features, dtype=torch.float64) for block in blocks]
    for start, batch in zip(range(0, len(images), batch_size), batches(images, batch_size), strict=True):
        high = marks[start : start + len(batch)].double()
        weights = high / high.sum(dim=1, keepdim=True) - (1 - high) / (1 - high).sum(dim=1, keepdim=True)

        def look(number: int, hidden: Tensor, weights: Tensor = weights) -> None:
            patches = hidden[:, backbone.prefix_tokens :].abs().double()
            scores[number] += torch.einsum("np,nph->h", weights, patches).cpu()

        with hooked(
            [block.mlp.fc2.register_forward_pre_hook(Look(number, look)) for number, block in enumerate(blocks)]
        ):
            run(backbone, batch)
    return [score / len(images) for score in scores]


class Look:
    """A hook that shows an MLP's hidden activations (N, P, hidden) to ``show`` with the block's number."""

    def __init__(self, number: int, show: Any) -> None:
        self.number, self.show = number, show

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.show(self.number, given[0])


@contextmanager
def hooked(handles: Sequence[Any]) -> Iterator[None]:
    """Take hooks off again in the end."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def with_register(backbone: Backbone, neurons: Neurons) -> Iterator[None]:
    """Run the model with one extra token behind all others, to which these neurons' activations are moved."""
    blocks, prefix = check_blocks(backbone), backbone.prefix_tokens

    def join(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        tokens = given[0]
        return (torch.cat([tokens, tokens.new_zeros(len(tokens), 1, tokens.shape[2])], dim=1), *given[1:])

    handles = [blocks[0].register_forward_pre_hook(join)]
    for number in sorted({block for block, _ in neurons}):
        own = torch.tensor([place for block, place in neurons if block == number], device=backbone.device)
        handles.append(blocks[number].mlp.fc2.register_forward_pre_hook(Mover(own, prefix)))
    with hooked(handles):
        yield


class Mover:
    """A hook that gives hidden neurons their strongest activation at the last token, and 0 at the patches."""

    def __init__(self, neurons: Tensor, prefix: int) -> None:
        self.neurons, self.prefix = neurons, prefix

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = given[0].clone()
        own = hidden[:, :, self.neurons]
        strongest = own.gather(1, own.abs().argmax(dim=1, keepdim=True))[:, 0]
        hidden[:, self.prefix :, self.neurons] = 0
        hidden[:, -1, self.neurons] = strongest
        return (hidden, *given[1:])


class RegistersDecomposer(WholeImageDecomposer):
    """clean is what the model gives with a test-time register; prefix tokens are those of the model as it is.

    artifact is the mean over a sample's images of raw − clean at each position, with zero mean over positions; the residual
    is the rest. Without neurons clean is raw, bit for bit.
    """

    method = "test-time-registers"

    def __init__(
        self, backbone: Backbone, neurons: Neurons, artifact: Float[Tensor, "h w c"], batch_size: int = 4
    ) -> None:
        """Raise BackboneError for a model that takes no extra token, or has not these neurons."""
        super().__init__(backbone, artifact, batch_size)
        blocks = check_blocks(backbone)
        for block, place in neurons:
            if not (0 <= block < len(blocks) and 0 <= place < blocks[block].mlp.fc2.in_features):
                raise BackboneError(f"there is no hidden neuron {place} in block {block} of {backbone.timm_name}")
        self.neurons = neurons
        self.forwards_per_image = 2 if neurons else 1
        found = ", ".join(f"{block}:{place}" for block, place in neurons)
        told = f"moved to an extra token: hidden neurons (block:neuron) {found}"
        self.notes = [told if neurons else "no outlier tokens in the sample, so no register neurons: clean is raw"]

    def parameters(self) -> dict[str, Any]:
        """Return the neurons, sorted, which is all that decides the forward."""
        return {"neurons": [list(one) for one in sorted(self.neurons)]}

    def clean(
        self, raw: Float[Tensor, "n h w c"], prepared: Sequence[UInt8[Tensor, "3 height width"]]
    ) -> Float[Tensor, "n h w c"]:
        """Return the patch tokens of the forward with a register; raw where there are no neurons."""
        if not self.neurons:
            return raw
        with with_register(self.backbone, self.neurons):
            patches, _ = run(self.backbone, prepared)
        return patches[:, :-1].float().reshape(raw.shape)
