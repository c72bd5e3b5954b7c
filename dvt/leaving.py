"""Tensors on their way from a GPU to the CPU while the GPU goes on computing."""

import torch
from torch import Tensor

__all__ = ["Exit"]


class Exit:
    """Copies off ``device``: on a GPU on a stream of their own into page-locked memory; elsewhere there is nothing to copy."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def send(self, values: Tensor) -> Tensor:
        """Return where ``values`` will be on the CPU after ``wait``."""
        if self.stream is None:
            return values.cpu()
        there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            there.copy_(values, non_blocking=True)
            values.record_stream(self.stream)
        return there

    def wait(self) -> None:
        """Wait until everything sent is there."""
        if self.stream is not None:
            self.stream.synchronize()
