"""Text columns against numpy's own conversion."""

import numpy as np
import pytest

from featstore.text_columns import text_column


@pytest.mark.parametrize(
    "texts",
    [["a"], ["ab", "cd", "ef"], ["ä", "xy"], ["", "a"], ["a", ""], ["", ""], ["straße/猫.jpg", "b", "", "c d"], [""]],
)
def test_as_numpy_does_it_a_text_at_a_time(texts: list[str]) -> None:
    made = text_column(texts)
    assert made.tolist() == np.array([text.encode() for text in texts], np.bytes_).tolist()
    assert made.tolist() == text_column(np.array(texts, object)).tolist()


def test_none_is_the_empty_text_and_nothing_is_no_row() -> None:
    assert text_column([None, "x", None]).tolist() == [b"", b"x", b""]
    assert text_column([]).tolist() == []
    masked = np.ma.MaskedArray(np.array(["a", "b", "c"], object), [False, True, False])
    assert text_column(masked).tolist() == [b"a", b"", b"c"]


def test_many_random_texts() -> None:
    drawn = np.random.default_rng(0)
    texts = ["".join(map(chr, drawn.integers(1, 2000, length))) for length in drawn.integers(0, 30, 500)]
    assert [value.decode() for value in text_column(texts).tolist()] == texts


def test_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        text_column(["a\0b", "c"])
