"""Engines: who makes the shards of a build, and where. They know neither manifest nor model."""

from .base import GO_ON, Engine
from .local import LocalEngine

__all__ = ["GO_ON", "Engine", "LocalEngine"]
