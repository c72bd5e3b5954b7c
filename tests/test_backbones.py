"""``featstore backbones``: the table and its JSON."""

import json

import pytest

from featstore.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["backbones", *arguments])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_the_table_tells_what_a_backbone_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "sam_b")
    assert code == 0
    row = [
        "sam_b",
        "samvit_base_patch16.sa1b",
        "16",
        "256",
        "12",
        "1024",
        "1024",
        "64×64",
        "0",
        "90",
        "M",
        "apache-2.0",
    ]
    assert out.splitlines()[2].split() == row
    assert out.endswith("1 backbone, the weights of 0 here\n")


def test_a_size_that_cannot_be_changed_has_an_asterisk(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "cait_xxs24_224*", "--all")
    assert out.splitlines()[2].split()[4:7] == ["224", "224*", "14×14"]


def test_json_has_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "dinov2_b", "--json")
    assert code == 0
    plain, registers = json.loads(out)
    assert plain == {
        **{"alias": "dinov2_b", "timm_name": "vit_base_patch14_dinov2.lvd142m", "patch": 14, "width": 768, "depth": 12},
        **{"native": [518, 518], "default": [518, 518], "grid": [37, 37], "any_size": True, "prefix_tokens": 1},
        **{"parameters": 86579712, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        **{"interpolation": "bicubic", "licence": "apache-2.0", "weights": None},
    }
    assert registers["prefix_tokens"] == 5


def test_nothing_found_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "nonsense")
    assert (code, out) == (1, "")
    assert err == "error: no backbone is called like 'nonsense'; --all looks through all of timm\n"
