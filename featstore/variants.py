"""Which variants a build writes."""

from collections.abc import Sequence

from .compute import FINE, VARIANTS, Decomposer
from .errors import InputError
from .layout import FLOAT16, INT8

__all__ = ["choose_variants"]


def choose_variants(asked: Sequence[str], decomposer: Decomposer, store: str) -> tuple[str, ...]:
    """Return the variants to write, in canonical order; raises InputError for one that is not to be had.

    As int8 the residual is never stored: what is left of values that are rounded so is their rounding as well.
    """
    if store == INT8 and "residual" in asked:
        raise InputError(
            "int8 stores no residual: leave it out, with raw, clean and artifact it is worked out on reading"
        )
    unknown = [name for name in asked if name not in VARIANTS]
    if unknown:
        raise InputError(f"unknown variant {unknown[0]!r}: choose from {', '.join(VARIANTS)}")
    absent = [name for name in asked if name not in decomposer.variants]
    if absent:
        hint = "; --clean-grid SIZE asks for it" if absent[0] == FINE and "clean" in decomposer.variants else ""
        raise InputError(
            f"method {decomposer.method} does not give {absent[0]!r}, only {', '.join(decomposer.variants)}{hint}"
        )
    kept = [name for name in decomposer.variants if store == FLOAT16 or name != "residual"]
    return tuple(name for name in kept if not asked or name in asked)
