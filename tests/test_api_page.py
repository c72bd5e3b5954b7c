"""The Python API is documented: every public name says what it is, of which shapes, and what it raises."""

import ast
import re
from pathlib import Path
from typing import Any

import api_page
import numpy as np
import pytest
from api_page import Entry
from PIL import Image

import dvt
import featstore

ENTRIES = list(api_page.entries())
ERRORS = {entry.name for module, found in api_page.modules() if module.endswith(".errors") for entry in found}
BARE = re.compile(r"(?<![\[\w])(Tensor|NDArray\[)")
SHAPE = re.compile(r"\([^()]*[A-Za-z…·][^()]*,[^()]*\)|\([A-Za-z],?\)")


def functions(entry: Entry) -> list[tuple[str, ast.FunctionDef, str]]:
    """Return name, definition and docstring of a function, or of each public method; a class speaks for its ``__init__``."""
    if isinstance(entry.node, ast.FunctionDef):
        return [(entry.name, entry.node, entry.doc)]
    if not isinstance(entry.node, ast.ClassDef) or "Protocol" in [ast.unparse(base) for base in entry.node.bases]:
        return []
    found = [(f"{entry.name}.{one.name}", one, ast.get_docstring(one) or "") for one in api_page.methods(entry.node)]
    for one in entry.node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__":
            found.append((entry.name, one, f"{entry.doc} {ast.get_docstring(one) or ''}"))
    return found


def test_the_page_has_every_exported_name() -> None:
    named = {(module.partition(".")[0], entry.name) for module, found in api_page.modules() for entry in found}
    for package in (featstore, dvt):
        assert {name for name in package.__all__ if (package.__name__, name) not in named} == set()
        for name in package.__all__:
            assert getattr(package, name) is not None


def test_every_public_name_has_a_docstring() -> None:
    assert [f"{entry.module}.{entry.name}" for entry in ENTRIES if not entry.doc] == []
    assert [name for entry in ENTRIES for name, _, doc in functions(entry) if not doc] == []


def test_what_is_raised_is_told() -> None:
    untold = []
    for name, node, doc in (one for entry in ENTRIES for one in functions(entry)):
        calls = [one.exc.func for one in ast.walk(node) if isinstance(one, ast.Raise) and isinstance(one.exc, ast.Call)]
        raised = {call.id for call in calls if isinstance(call, ast.Name)} & ERRORS
        untold += [(name, error) for error in raised if error not in doc]
    assert untold == []


def test_arrays_have_shapes() -> None:
    shapeless = []
    for name, node, doc in (one for entry in ENTRIES for one in functions(entry)):
        given = [one.annotation for one in [*node.args.args, *node.args.kwonlyargs]] + [node.returns]
        texts = [re.sub(r"\w+\[Tensor,", "", ast.unparse(one)) for one in given if one]
        bare = [
            text for text in texts if BARE.search(text.replace("[str, Tensor]", ""))
        ]  # by name, each of its own shape
        if bare and not SHAPE.search(doc):
            shapeless.append((name, bare))
    assert shapeless == []


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((320, 240)).save("cat.jpg")
    (example,) = re.findall(r"```python\n(.*?)```", api_page.HEAD, re.DOTALL)
    small = example.replace('"dinov2_s", input_size=(224, 224)', '"test_vit", weights="random", input_size=(64, 64)')
    assert small != example
    told: dict[str, Any] = {}
    exec(compile(small.replace("views=32", "views=6, holdout=1"), "api.md", "exec"), told)
    found = told["found"]
    assert found.raw.shape == found.clean.shape == found.artifact.shape == (4, 4, 64)
    np.testing.assert_allclose(found.raw, found.clean + found.artifact + found.residual, atol=1e-5)
