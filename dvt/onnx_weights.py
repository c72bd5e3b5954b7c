"""Weights out of an ONNX graph that PyTorch exported: linear layers are constants whose names must be found again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError

__all__ = ["read_onnx"]

EMBEDDINGS = "embeddings"


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of an ONNX file.

    Initializers keep their names. A linear layer's weight is the second input of a MatMul node and stored transposed; its
    name is the node's path. A position embedding that the exporter split into class and patch part is joined again.
    Raises WeightsError where the file is no ONNX or the package ``onnx`` is missing.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise WeightsError(f"reading {path.name} needs the package onnx: python -m pip install onnx") from error
    try:
        graph = onnx.load(str(path)).graph
        constants = {entry.name: torch.from_numpy(numpy_helper.to_array(entry).copy()) for entry in graph.initializer}
    except Exception as error:
        raise WeightsError(f"{path.name} cannot be read as ONNX: {' '.join(str(error).split())}") from error
    named = {name: value for name, value in constants.items() if not name.startswith("onnx::")}
    named |= dict(linear_weights(graph, constants))
    position = position_embedding(graph, constants)
    if position:
        named[position[0]] = position[1]
    return named


def linear_weights(graph: Any, constants: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, (out, in) weight) of every MatMul with a constant; ``/a/b.0/c/MatMul`` belongs to ``a.b.0.c``."""
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.endswith("/MatMul") and node.input[1] in constants:
            path = node.name.removesuffix("/MatMul").strip("/").replace("/", ".")
            yield f"{path}.weight", constants[node.input[1]].T.contiguous()


def position_embedding(graph: Any, constants: dict[str, Tensor]) -> tuple[str, Tensor] | None:
    """Return the (1, 1 + n, C) position embedding that interpolation split into (1, 1, C) and (1, n, C), if any."""
    used = [
        (node.name.strip("/").split("/"), constants[name])
        for node in graph.node
        for name in node.input
        if name.startswith("onnx::") and name in constants and constants[name].ndim == 3 and node.op_type != "MatMul"
    ]
    inside = [(path, value) for path, value in used if EMBEDDINGS in path]
    first = [value for _, value in inside if value.shape[1] == 1]
    rest = [(path, value) for path, value in inside if value.shape[1] > 1]
    if len(first) != 1 or len(rest) != 1:
        return None
    path, patches = rest[0]
    prefix = ".".join(path[: path.index(EMBEDDINGS) + 1])
    return f"{prefix}.position_embeddings", torch.cat([first[0], patches], dim=1)
