"""The reference of the Python API, made from the sources alone: nothing is imported, so it is the same everywhere."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Entry", "api_page", "entries", "modules"]

REPOSITORY = Path(__file__).parents[1]
HEAD = """# Python API

Made by `python docs/generate.py` from the sources' signatures and docstrings: change it there.

What is on this page is public. `featstore` is the data plane: it reads stores, and knows no model. `dvt` is the
algorithm: tensors in, tensors out, no files of ours. Arrays are written with their shapes: N images, H × W patches,
C channels, T prefix tokens.
Every name below `dvt` is imported from `dvt` itself. Errors that are raised on purpose are those of
[`featstore.errors`](#featstoreerrors) and [`dvt.errors`](#dvterrors).

Features of photographs without a store, raw and cleaned by stage 1:

```python
from pathlib import Path

import dvt
from featstore.images import decode

backbone = dvt.Backbone.create("dinov2_s", input_size=(224, 224))
method = dvt.Stage1Decomposer(backbone, dvt.ViewOptions(views=32))
image = decode(Path("cat.jpg").read_bytes())
(found,) = method.decompose([method.prepare(image, "cat")])
found.raw, found.clean, found.artifact  # (16, 16, 384) float32 each
```
"""
FEATSTORE = (
    ("index", ("index_dataset", "IndexReport")),
    ("plan", ("Request", "make_plan", "Plan")),
    ("build", ("build_version", "BuildReport", "Listener")),
    ("compute", ("Decomposer", "Decomposition", "PARTS", "FINE", "VARIANTS")),
    ("query", ("restricted", "select", "document")),
    ("verify", ("verify_store", "Watcher")),
    ("sources.base", ("Source", "HOLDS")),
    ("records", ("ImageRecord", "ObjectRecord", "Meaning", "Problem")),
    ("images", ("decode",)),
    ("errors", ()),
)
"""Modules beside the readers, and what of each is public: what commands do, what plug-ins are made of; () is all."""

LONG = 200
"""Constants that take more are not shown."""

Node = ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign


class Entry(NamedTuple):
    """A public name: where it is defined, as what, and its docstring."""

    name: str
    module: str
    node: Node
    doc: str


def modules() -> list[tuple[str, list[Entry]]]:
    """Return the page's parts, a module each, with their entries."""
    parts = [("featstore", [one(name, module, inner) for name, module, inner in exported("featstore")])]
    for module, names in FEATSTORE:
        found = names or tuple(ast.literal_eval(assigned(f"featstore.{module}", "__all__")))
        parts.append((f"featstore.{module}", [one(name, f"featstore.{module}", name) for name in found]))
    grouped: dict[str, list[Entry]] = {}
    for name, module, inner in exported("dvt"):
        grouped.setdefault(module, []).append(one(name, module, inner))
    return parts + sorted(grouped.items(), key=lambda part: part[0])


def entries() -> Iterator[Entry]:
    """Yield every public name."""
    for _, found in modules():
        yield from found


def api_page() -> str:
    """Return docs/api.md."""
    found = modules()
    listed = [
        f"| [`{module}`](#{module.replace('.', '')}) | {', '.join(f'`{entry.name}`' for entry in part)} |"
        for module, part in found
    ]
    index = "\n".join(["| module | names |", "|---|---|", *listed])
    return "\n\n".join([HEAD, index, *(section(module, part) for module, part in found)]) + "\n"


def section(module: str, found: list[Entry]) -> str:
    """Return the part of one module."""
    doc = ast.get_docstring(tree(module)) or ""
    told_whole = doc if module.endswith(".errors") else doc.partition("\n\n")[0]
    return "\n\n".join([f"## {module}", prose(told_whole), *(told(entry) for entry in found)])


def told(entry: Entry) -> str:
    """Return the part of one name: signature, docstring, public methods."""
    node, doc = entry.node, prose(entry.doc)
    if isinstance(node, ast.FunctionDef):
        managed = "@contextmanager\n" if "contextmanager" in map(ast.unparse, node.decorator_list) else ""
        return f"### {entry.name}\n\n{code(managed + signature(node, entry.name))}\n\n{doc}"
    if not isinstance(node, ast.ClassDef):
        value = ast.unparse(node.value) if node.value else ""
        shown = [code(f"{entry.name} = {value}")] if len(value) < LONG else []
        return "\n\n".join([f"### {entry.name}", *shown, doc])
    made = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    lines = [f"### {entry.name}", code(class_head(node)), doc, *(prose(ast.get_docstring(each) or "") for each in made)]
    lines = [line for line in lines if line]
    for method in methods(node):
        kinds = [ast.unparse(decorator) for decorator in method.decorator_list]
        kind = "property " if "property" in kinds else "classmethod " if "classmethod" in kinds else ""
        text = ast.get_docstring(method)
        if text:
            lines.append(f"`{kind}{signature(method, method.name, kind)}`: {prose(text)}")
    return "\n\n".join(lines)


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """Return the public methods and properties of a class."""
    return [each for each in node.body if isinstance(each, ast.FunctionDef) and not each.name.startswith("_")]


def class_head(node: ast.ClassDef) -> str:
    """Return how a class is called: its ``__init__``, else its fields, else its bases."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return signature(each, node.name).removesuffix(" -> None")
    fields = [ast.unparse(each) for each in node.body if isinstance(each, ast.AnnAssign)]
    if fields:
        return f"{node.name}({', '.join(fields)})"
    return f"class {node.name}({', '.join(ast.unparse(base) for base in node.bases)})"


def signature(node: ast.FunctionDef, name: str, kind: str = "") -> str:
    """Return a signature without self, quoted as ruff does."""
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    text = f"{name}{returned}" if kind == "property " else f"{name}({', '.join(parameters(node.args))}){returned}"
    return text if '"' in text else text.replace("'", '"')


def parameters(given: ast.arguments) -> list[str]:
    """Return the parameters of a function, but for self."""
    plain = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    words = [parameter(*pair) for pair in zip(plain, defaults, strict=True) if pair[0].arg not in ("self", "cls")]
    words += [f"*{parameter(given.vararg)}"] if given.vararg else ["*"] if given.kwonlyargs else []
    words += [parameter(*pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return words + ([f"**{parameter(given.kwarg)}"] if given.kwarg else [])


def parameter(given: ast.arg, default: ast.expr | None = None) -> str:
    """Return one parameter."""
    told = f"{given.arg}: {ast.unparse(given.annotation)}" if given.annotation else given.arg
    return f"{told} = {ast.unparse(default)}" if default else told


def code(text: str) -> str:
    """Return a block of code, a parameter a line where it is long; quoted as ruff does, which formats Markdown, too."""
    text = text if '"' in text else text.replace("'", '"')
    return f"```python\n{text if len(text) <= 100 else spread(text)}\n```"


def spread(text: str) -> str:
    """Return a call with a line a parameter."""
    depth, start, lines = 0, text.index("(") + 1, [text[: text.index("(") + 1]]
    for place, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if (depth == 1 and sign == ",") or (depth == 0 and sign == ")"):
            part = text[start:place].strip()
            lines += [f"    {part},"] if part else []
            start = place + 1
            if sign == ")":
                return "\n".join([*lines, text[place:]])
    return text


def prose(doc: str) -> str:
    """Return a docstring in Markdown: ``name`` as `name`, paragraphs in a line each, what is indented or a table as it is."""
    blocks = []
    for block in doc.replace("``", "`").split("\n\n"):
        kept = any(line.startswith(("    ", "- ", "|")) for line in block.split("\n"))
        blocks.append(block if kept else " ".join(block.split()))
    return "\n\n".join(block for block in blocks if block != "::")


def exported(package: str) -> list[tuple[str, str, str]]:
    """Return (name, module, name there) of what a package's ``__init__`` exports, in the order of its ``__all__``."""
    places = {
        alias.asname or alias.name: (f"{package}.{node.module}", alias.name)
        for node in ast.walk(tree(package))
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    return [(name, *places[name]) for name in ast.literal_eval(assigned(package, "__all__"))]


def one(name: str, module: str, inner: str) -> Entry:
    """Return the entry of a name; raises LookupError where the module does not define it."""
    body = tree(module).body
    for place, node in enumerate(body):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == inner:
            return Entry(name, module, node, ast.get_docstring(node) or "")
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and getattr(target, "id", "") == inner:
            following = body[place + 1] if place + 1 < len(body) else None
            text = following.value.value if is_text(following) else ""  # type: ignore[union-attr]
            return Entry(name, module, node, inspect.cleandoc(str(text)))
        if isinstance(node, ast.ImportFrom) and node.level == 1 and inner in [alias.name for alias in node.names]:
            return one(name, f"{module.rpartition('.')[0]}.{node.module}", inner)
    raise LookupError(f"{module} does not define {inner}")


def is_text(node: ast.stmt | None) -> bool:
    """Whether a statement is a string by itself, as behind a constant that it documents."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def assigned(module: str, name: str) -> ast.expr:
    """Return what a module assigns to a name at its top."""
    node = one(name, module, name).node
    if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
        raise LookupError(f"{module} assigns nothing to {name}")
    return node.value


TREES: dict[str, ast.Module] = {}


def tree(module: str) -> ast.Module:
    """Return the syntax tree of a module."""
    if module not in TREES:
        path = REPOSITORY / module.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        TREES[module] = ast.parse(file.read_text(encoding="utf-8"))
    return TREES[module]
