"""Fitting the neural field to one image's views: the loop, and what comes out of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .encoding import encoding_backend
from .errors import SolverError
from .field import FieldModel, FieldOptions

__all__ = ["FieldFit", "fit_field"]

STEPS_AT_ONCE = 512  # steps whose samples are drawn and brought to the device together
PLACES_AT_ONCE = 65_536
EAGER = 3  # steps before a CUDA graph is captured, so that every buffer and Adam's state exist


@dataclass(frozen=True)
class FieldFit:
    """A fitted field: ``sample`` is S, ``artifact`` is G (H, W, C) with zero mean, the mean being moved into S."""

    model: FieldModel
    offset: Float[Tensor, "c"]
    artifact: Float[Tensor, "h w c"]

    @property
    def artifacts(self) -> tuple[Float[Tensor, "h w c"], ...]:
        """Return the artifact of every group of views: the field knows one."""
        return (self.artifact,)

    @torch.no_grad()
    def sample(self, places: Float[Tensor, "*place 2"]) -> Float[Tensor, "*place c"]:
        """Return S at places (x, y) in [0, 1] of the whole image."""
        parts = [self.model(part) + self.offset for part in torch.split(places.reshape(-1, 2), PLACES_AT_ONCE)]
        return torch.cat(parts).reshape(*places.shape[:-1], -1)


def fit_field(
    features: Float[Tensor, "v h w c"],
    places: Float[Tensor, "v h w 2"],
    options: FieldOptions,
    seed: int = 0,
    backend: str = "auto",
    graphs: bool = True,
    prior: Float[Tensor, "h w c"] | None = None,
) -> FieldFit:
    """Fit S, G and h to the raw features of views whose patches lie at ``places``, (x, y) in [0, 1].

    Parameters and samples are drawn on the CPU from ``seed``, so that every device starts alike. On CUDA each half's step is
    captured once as a graph and replayed (not with tinycudann's grid, nor where ``graphs`` is false). ``prior`` is an artifact
    known beforehand (``FieldOptions.prior``). Raises SolverError where the loss does not stay finite.
    """
    device = features.device
    generator = torch.Generator().manual_seed(seed)
    chosen = encoding_backend(backend, device)
    model = FieldModel(tuple(features.shape[1:3]), features.shape[-1], options, chosen, generator).to(device)  # type: ignore[arg-type]
    if prior is not None:  # the loss is a mean over V views: each position has V samples
        model.begin_from(prior.to(device), options.prior / len(features))
    step = Step(model, features.flatten(0, 2), places.reshape(-1, 2), options)
    captured = graphs and device.type == "cuda" and chosen == "pytorch"
    switch = int(options.freeze * options.iterations)
    for index, (samples, rate) in enumerate(draws(step, options, generator)):
        if index in (0, switch + 1):
            run = replayed(step, index > switch) if captured else step.eager(index > switch)
        run(samples, rate)
    if not bool(torch.isfinite(step.last)):
        raise SolverError("the field's loss does not stay finite: lower its rate, or use the solver lstsq")
    mean = model.artifact.detach().mean(dim=(0, 1))
    return FieldFit(model.requires_grad_(False), mean, model.artifact.detach() - mean)


class Step:
    """One step of Adam on static buffers: whatever it reads lies on the device before it starts."""

    def __init__(self, model: FieldModel, raw: Tensor, places: Tensor, options: FieldOptions) -> None:
        self.model, self.raw, self.places, self.options = model, raw, places, options
        self.positions = model.artifact.shape[0] * model.artifact.shape[1]
        device = raw.device
        self.samples = torch.zeros(options.batch, dtype=torch.long, device=device)
        self.rate = torch.zeros((), device=device)
        self.last = torch.zeros((), device=device)
        on_gpu = device.type == "cuda"
        self.optimizer = torch.optim.Adam(
            model.parameters(),
            lr=self.rate,
            betas=options.betas,
            eps=options.eps,
            weight_decay=options.decay,
            fused=True,
            capturable=on_gpu,
        )

    def advance(self, second_half: bool) -> None:
        """Take one step with the samples and the rate that lie in the buffers."""
        self.optimizer.zero_grad(set_to_none=True)
        raw, places = self.raw[self.samples], self.places[self.samples]
        loss = self.model.loss(places, raw, self.samples % self.positions, self.options, second_half)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.last.copy_(loss.detach())

    def eager(self, second_half: bool) -> Callable[[Tensor, Tensor], None]:
        """Return the step as it is."""

        def run(samples: Tensor, rate: Tensor) -> None:
            self.samples.copy_(samples)
            self.rate.copy_(rate)
            self.advance(second_half)

        return run


def draws(step: Step, options: FieldOptions, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every step's samples and rate, on the device."""
    device = step.raw.device
    rates = options.rates().to(device)
    for start in range(0, options.iterations, STEPS_AT_ONCE):
        count = min(STEPS_AT_ONCE, options.iterations - start)
        drawn = torch.randint(len(step.raw), (count, options.batch), generator=generator).to(device, non_blocking=True)
        yield from zip(drawn, rates[start : start + count], strict=True)


def replayed(step: Step, second_half: bool) -> Callable[[Tensor, Tensor], None]:
    """Return the step as a CUDA graph, captured after a few eager ones on a stream of their own."""
    taken = 0
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    eager = step.eager(second_half)

    def run(samples: Tensor, rate: Tensor) -> None:
        nonlocal taken
        taken += 1
        if taken <= EAGER:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                eager(samples, rate)
            torch.cuda.current_stream().wait_stream(stream)
            return
        if taken == EAGER + 1:
            step.optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                step.advance(second_half)
        step.samples.copy_(samples)
        step.rate.copy_(rate)
        graph.replay()

    return run
