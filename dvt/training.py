"""Training the denoiser on (raw, clean) pairs of whole images (DVT, arXiv 2401.02957, section 3.3).

Loss: mse(D(raw), clean) + 1 − cos(D(raw), clean), means over patches (and channels, of the mse). AdamW; the learning rate rises
linearly for a share of the steps and falls to its end by a cosine; it is scaled by √(batch / 256).
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .denoiser import Denoiser
from .errors import DenoiserError
from .precision import autocast
from .validation import Validation, validate

__all__ = ["Progress", "TrainOptions", "Trainer", "denoising_loss", "rate_at"]

Pair = tuple[Float[Tensor, "n h w c"], Float[Tensor, "n h w c"]]


@dataclass(frozen=True)
class TrainOptions:
    """Everything that decides what is learned, but the pairs.

    ``batch`` images a step over all processes; ``rate`` the learning rate at 256 of them, ``final_rate`` where it ends
    (the original's: 2e-4, for 40,000 steps, where some hundreds learn more at ten times that, and 1e-6); ``warmup`` the share
    of ``steps`` in which it rises (original .15); ``decay`` AdamW's weight decay (original 1e-5); ``ema`` the decay of an
    average of the weights, which is then what is kept (0: none); ``start`` what the position embedding begins as:
    ``artifact``, minus the mean artifact that stage 1 found (ours: at the paper's rate a random one takes thousands of steps
    to get there), or ``random``; ``patience`` validations without a lower loss before it stops (0: never); ``dtype`` float32,
    or bfloat16 by autocast.
    """

    steps: int = 2000
    batch: int = 64
    rate: float = 2e-3
    final_rate: float = 1e-6
    warmup: float = 0.15
    decay: float = 1e-5
    ema: float = 0.0
    blocks: int = 1
    position: bool = True
    start: str = "artifact"
    validate_every: int = 100
    patience: int = 0
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.validate_every < 1:
            raise DenoiserError("steps, batch and the steps between validations are one or more")
        if not 0 <= self.ema < 1 or not 0 <= self.warmup < 1:
            raise DenoiserError("the average's decay and the share of warm-up lie in [0, 1)")


@dataclass(frozen=True)
class Progress:
    """What a step gave: losses are means over the batch; ``validation`` only where one was made after it."""

    step: int
    loss: float
    mse: float
    cosine: float
    rate: float
    validation: Validation | None = None

    def row(self) -> dict[str, Any]:
        """Return one flat, JSON-ready row."""
        row = asdict(self)
        judged = row.pop("validation")
        return row | {f"val_{name}": value for name, value in (judged or {}).items()}


def denoising_loss(
    found: Float[Tensor, "n h w c"], clean: Float[Tensor, "n h w c"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the mean squared error and the mean cosine; the loss is ``mse + 1 − cosine``."""
    return F.mse_loss(found, clean), F.cosine_similarity(found, clean, dim=-1).mean()


def rate_at(step: int, options: TrainOptions) -> float:
    """Return the learning rate of a step, counted from 0."""
    top = options.rate * math.sqrt(options.batch / 256)
    rising = round(options.steps * options.warmup)
    if step < rising:
        return top * step / rising
    gone = (step - rising) / max(1, options.steps - rising)
    return options.final_rate + (top - options.final_rate) * (1 + math.cos(math.pi * gone)) / 2


class Trainer:
    """One run: steps one after another, told as they go, its whole state taken and given back at any step.

    In a process group (``torchrun``) gradients are averaged over the processes, each fed its share of every batch.
    """

    def __init__(
        self, denoiser: Denoiser, options: TrainOptions, device: torch.device, *, compiled: bool = False
    ) -> None:
        self.options, self.device, self.step = options, device, 0
        self.denoiser = denoiser.to(device)
        self.best, self.stale = math.inf, 0
        self.best_state = snapshot(self.denoiser)
        if dist.is_initialized():
            ids = [device.index or 0] if device.type == "cuda" else None
            self.parallel: nn.Module = DistributedDataParallel(self.denoiser, device_ids=ids)
        else:
            self.parallel = self.denoiser
        self.run_model = torch.compile(self.parallel) if compiled else self.parallel
        self.average: AveragedModel | None = None
        if options.ema:
            self.average = AveragedModel(self.denoiser, multi_avg_fn=get_ema_multi_avg_fn(options.ema))  # type: ignore[no-untyped-call]
        self.optimizer = torch.optim.AdamW(self.denoiser.parameters(), lr=1.0, weight_decay=options.decay)
        self.schedule = LambdaLR(self.optimizer, lambda step: rate_at(step, options))

    @property
    def kept(self) -> nn.Module:
        """Return the weights that are judged and kept: the average where there is one."""
        return self.average.module if self.average is not None else self.denoiser

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or validation has told to stop."""
        return self.step >= self.options.steps or bool(self.options.patience and self.stale >= self.options.patience)

    def run(self, batches: Iterable[Pair], unseen: Iterable[Pair]) -> Iterator[Progress]:
        """Take steps on ``batches`` (from the step reached on) and yield each; judge by ``unseen`` now and then.

        A loss is fetched from the device one step late, so that no step waits. Raises DenoiserError where a loss is not finite.
        """
        pending: tuple[int, float, Tensor] | None = None
        for raw, clean in batches:
            if self.finished:
                break
            rate = float(self.optimizer.param_groups[0]["lr"])
            losses = self.learn(raw, clean)
            if pending is not None:
                yield told(*pending)
            pending = (self.step, rate, losses)
            if self.step % self.options.validate_every == 0 or self.step == self.options.steps:
                judged = self.judge(unseen)
                yield replace(told(*pending), validation=judged)
                pending = None
        if pending is not None:
            yield told(*pending)

    def learn(self, raw: Float[Tensor, "n h w c"], clean: Float[Tensor, "n h w c"]) -> Float[Tensor, "2"]:
        """Take one step; returns mean squared error and mean cosine, on the device."""
        self.denoiser.train()
        raw, clean = (values.to(self.device, non_blocking=True).float() for values in (raw, clean))
        with autocast(self.device, self.options.dtype):
            found = self.run_model(raw)
        mse, cosine = denoising_loss(found.float(), clean)
        self.optimizer.zero_grad(set_to_none=True)
        (mse + 1 - cosine).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.denoiser)
        self.step += 1
        losses = torch.stack([mse, cosine]).detach()
        if dist.is_initialized():
            dist.all_reduce(losses)
            losses /= dist.get_world_size()
        return losses

    def judge(self, unseen: Iterable[Pair]) -> Validation:
        """Validate, and keep the weights where they are the best so far."""
        judged = validate(self.kept, unseen, self.device, self.options.dtype)
        if judged.loss < self.best:
            self.best, self.stale, self.best_state = judged.loss, 0, snapshot(self.kept)
        else:
            self.stale += 1
        return judged

    def result(self) -> Denoiser:
        """Return the best denoiser so far, on the CPU."""
        made = Denoiser.fresh(self.denoiser.width, self.denoiser.grid, self.denoiser.blocks)
        made.load_state_dict(self.best_state)
        return made.eval()

    def to_bytes(self) -> bytes:
        """Return the whole state as safetensors."""
        from safetensors.torch import save

        tensors = {f"model.{name}": value for name, value in self.denoiser.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best_state.items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        facts = {"step": self.step, "best": self.best, "stale": self.stale, "options": asdict(self.options)}
        data: bytes = save(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
            metadata={"featstore": json.dumps(facts)},
        )
        return data

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go back to a state of ``to_bytes``; raises DenoiserError where it is of other options."""
        if facts["options"] != asdict(self.options):
            raise DenoiserError("the checkpoint is of a run with other options: begin anew with --restart")
        self.denoiser.load_state_dict(under(tensors, "model."))
        self.best_state = under(tensors, "best.")
        if self.average is not None:
            self.average.load_state_dict(under(tensors, "average."))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in under(tensors, "adam.").items():
            number, name = key.split(".", 1)
            moments.setdefault(int(number), {})[name] = value
        state = self.optimizer.state_dict()
        self.optimizer.load_state_dict(state | {"state": moments})
        self.step, self.best, self.stale = int(facts["step"]), float(facts["best"]), int(facts["stale"])
        self.schedule.last_epoch = self.step - 1
        self.optimizer.zero_grad()
        for group, base in zip(self.optimizer.param_groups, self.schedule.base_lrs, strict=True):
            group["lr"] = base * rate_at(self.step, self.options)
        self.schedule.last_epoch = self.step


def told(step: int, rate: float, losses: Float[Tensor, "2"]) -> Progress:
    """Fetch the losses of a step."""
    mse, cosine = losses.tolist()
    if not math.isfinite(mse + cosine):
        raise DenoiserError(
            f"the loss of step {step} is not finite: look whether all features are, or give a lower --rate"
        )
    return Progress(step, mse + 1 - cosine, mse, cosine, rate)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the parameters on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return what lies under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
