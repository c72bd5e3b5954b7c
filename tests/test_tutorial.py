"""docs/tutorial.md can be followed: its scripts and commands run one after another, here on fewer images and a tiny model."""

import re
import runpy
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from tinystore import done

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
QUICK = {
    "TRAIN, VAL = 24, 12": "TRAIN, VAL = 4, 2",
    "EPOCHS = 6, 20": "EPOCHS = 6, 2",
    "--weights demo --input-size 224": "--weights random --input-size 64",
    "--views 16": "--views 6 --holdout 1",
    "--layer 8": "--layer 2",
    "--steps 200": "--steps 5",
    "dinov2_s": "test_vit",
    "024": "004",
}
"""What makes it quick: everything else is as the page has it."""


def test_the_tutorial_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage", reason="the extra `demo` is not installed")
    monkeypatch.chdir(tmp_path)
    page = PAGE
    for slow, quick in QUICK.items():
        assert slow in page
        page = page.replace(slow, quick)
    said: list[str] = []
    for before, language, block in re.findall(r"([^\n]*)\n*```(\w+)\n(.*?)```", page, re.DOTALL):
        saved = re.search(r"`(\w+\.py)`:$", before)
        if language == "python" and saved:
            Path(saved[1]).write_text(block, encoding="utf-8")
        elif language == "python":
            exec(compile(block, "tutorial.md", "exec"), {"__name__": "tutorial"})
        elif language == "sh":
            said = [follow(line, capsys) for line in block.splitlines()]
        else:
            assert headers(block) <= headers("\n".join(said)), block
    assert Path("tutorial.png").is_file()


def follow(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run one line of the shell and return what it printed."""
    program, *words = shlex.split(line)
    if program == "featstore":
        return done(*words).out
    if words[0] == "-m":
        assert line == 'python -m pip install -e ".[demo]"'
        return ""
    runpy.run_path(words[0], run_name="__main__")
    return capsys.readouterr().out


def headers(text: str) -> set[str]:
    """Return the words of each table's first line, and of lines that end in a figure the words before it."""
    lines = text.splitlines()
    tables = {" ".join(one.split()) for one, below in pairwise(lines) if below.startswith("---")}
    return tables | set(re.findall(r"^(\w+: mean IoU) [\d.]+$", text, re.MULTILINE))
