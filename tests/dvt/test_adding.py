"""The page on adding a backbone does what it says: its examples are run as they stand there."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from timm.models import _registry

from dvt import Backbone, BackboneError, aliases, describe_backbone, find_backbones

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-backbone.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python file=(\S+)\n(.*?)```", PAGE, re.DOTALL))
LINES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
POINTS = re.findall(r"```toml\n\[project\.entry-points\.\"(.*?)\"\]\n(.*?)```", PAGE, re.DOTALL)


def test_one_line_is_a_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    ((alias, name),) = ast.literal_eval("{" + LINES[0] + "}").items()
    assert alias not in aliases.ALIASES
    monkeypatch.setitem(aliases.ALIASES, alias, name)
    assert aliases.resolve(alias) == name
    assert aliases.backbone_id(name) == alias
    found = describe_backbone(name)
    assert (found.alias, found.patch, found.width, found.prefix_tokens) == (alias, 14, 768, 2)
    assert found.mean == (0.0, 0.0, 0.0)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page's package, installed: its file, and its entry point in the metadata; yields the alias."""
    ((group, line),) = POINTS
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    metadata = tmp_path / "my_backbones-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-backbones\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = {name: dict(vars(_registry)[name]) for name in ("_model_entrypoints", "_model_to_module")}
    aliases.brought.cache_clear()
    yield line.split(" = ")[0]
    aliases.brought.cache_clear()
    for name, entries in before.items():
        vars(_registry)[name].clear()
        vars(_registry)[name].update(entries)
    sys.modules.pop("my_backbones", None)


def test_one_file_and_one_line_are_a_backbone(package: str) -> None:
    (found,) = find_backbones(package)
    assert (found.alias, found.timm_name, found.width, found.prefix_tokens) == ("pocket", "vit_pocket_patch16", 64, 5)
    assert (found.licence, found.native, found.default, found.grid) == ("mit", (224, 224), (512, 512), (32, 32))
    backbone = Backbone.create(package, weights="random", input_size=(48, 64), device="cpu")
    assert backbone.id == "pocket"
    assert backbone.mean == (0.5, 0.5, 0.5)
    tokens, prefix = backbone.forward(torch.zeros(1, 3, 48, 64))
    assert (tokens.shape, prefix.shape) == ((1, 3, 4, 64), (1, 5, 64))


def test_a_package_that_cannot_be_imported_is_told(package: str, tmp_path: Path) -> None:
    (tmp_path / "my_backbones.py").write_text("import nowhere_to_be_found")
    with pytest.raises(BackboneError, match=r"backbone 'pocket' .*cannot be imported: ModuleNotFoundError") as caught:
        aliases.resolve(package)
    assert "\n" not in str(caught.value)
    (tmp_path / "my_backbones.py").write_text("def vit_pocket_patch16(): pass")
    with pytest.raises(BackboneError, match="register_model"):
        aliases.resolve(package)


def test_commands_of_the_page_parse() -> None:
    """The command line's own parser; in a process of its own, as a room below does not import the one above."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    code = (
        "import sys, shlex\nfrom featstore.cli.main import cli\n"
        "for line in sys.argv[1:]:\n    _, name, *rest = shlex.split(line)\n    cli.commands[name].make_context(name, rest)\n"
    )
    assert lines
    subprocess.run([sys.executable, "-c", code, *lines], check=True, capture_output=True)


def test_names_that_the_page_gives_to_the_hub_are_of_the_family() -> None:
    assert "dinov3_b_qkvb" in aliases.ALIASES
    assert timm.is_model(aliases.ALIASES["dinov3_b_qkvb"].split(".")[0])
