"""Several layers from one pass: a forward that was made for one layer is not made again for the others."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .architecture import check_layer
from .errors import BackboneError

if TYPE_CHECKING:
    from .backbone import Backbone

__all__ = ["Layers", "Tape", "at_layers"]

Tokens = tuple[Tensor, Tensor]


class Tape:
    """Remembers the tokens of all ``layers`` for inputs that one of the backbones which share it has been given.

    Only while ``running``; what is remembered is compared with what is given, so that nobody gets tokens of other pixels.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self.layers, self.running, self.forwards = tuple(layers), False, 0
        self.seen: list[tuple[Tensor, dict[int, Tokens]]] = []

    @contextmanager
    def run(self) -> Iterator[None]:
        """Remember within the block."""
        self.running = True
        try:
            yield
        finally:
            self.running = False
            self.seen.clear()

    def tokens(self, backbone: "Backbone", images: Tensor) -> Tokens:
        """Return patch tokens (N, H·W, C) and prefix tokens (N, T, C) of the backbone's layer, from one forward for all."""
        for given, found in self.seen:
            if given.shape == images.shape and torch.equal(given, images):
                return found[backbone.layer]
        self.forwards += 1
        layers = self.layers if self.running else (backbone.layer,)
        found = dict(zip(layers, backbone.tokens(images, layers), strict=True))
        if self.running:
            self.seen.append((images, found))
        return found[backbone.layer]


class Layers:
    """One decomposer a layer, of backbones that share a tape; what each computes is a version of its own.

    ``parts`` are in the order of the layers. All that is asked before an image is known, and what prepares images, is the
    first's: the others take what it has prepared.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts, self.tape = tuple(parts), parts[0].backbone.tape
        self.batch_size = min(part.batch_size for part in parts)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "parts":
            raise AttributeError(name)
        return getattr(self.parts[0], name)

    def one_pass(self) -> Any:
        """Return a context in which forwards are shared."""
        return self.tape.run()


def at_layers(backbone: "Backbone", layers: Sequence[int]) -> list["Backbone"]:
    """Return a backbone at each of ``layers``, from 0 or from the end, sharing its model and a tape.

    Raises BackboneError for a layer that is not there or is given twice.
    """
    numbers = [check_layer(layer, backbone.model) for layer in layers]
    if len(set(numbers)) < len(numbers):
        raise BackboneError(f"a layer is given twice: {', '.join(map(str, layers))}")
    tape, made = Tape(numbers), []
    for number in numbers:
        one = copy.copy(backbone)
        one.layer, one.tape = number, tape
        tokens, prefix = one.forward(torch.zeros(1, 3, *one.input_size, device=one.device))
        one.width, one.prefix_tokens = tokens.shape[-1], prefix.shape[1]
        made.append(one)
    return made
