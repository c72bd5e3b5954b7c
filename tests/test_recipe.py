import hashlib
import json
from importlib.resources import files

import jsonschema
import pytest

from featstore.errors import InputError
from featstore.recipe import Recipe, canonical


def test_canonical_json_is_one_text_whatever_the_order_of_keys() -> None:
    assert canonical({"b": [1, 2.5], "a": {"ü": None, "c": True}}) == '{"a":{"c":true,"ü":null},"b":[1,2.5]}'


def test_digest_is_sha256_of_the_canonical_text() -> None:
    recipe = Recipe.of({"method": {"name": "raw"}})
    assert recipe.text == '{"format":1,"method":{"name":"raw"}}'
    assert recipe.digest == hashlib.sha256(b'{"format":1,"method":{"name":"raw"}}').hexdigest()
    assert recipe.parameters() == {"format": 1, "method": {"name": "raw"}}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="plain JSON"):
        canonical({"value": value})


def test_schema_accepts_a_whole_recipe_and_refuses_a_partial_one() -> None:
    schema = json.loads((files("featstore.schemas") / "recipe.schema.json").read_text(encoding="utf-8"))
    backbone = {"id": "m", "weights": "0" * 64, "layer": 11, "norm": True, "input": [518, 518], "stride": 14}
    backbone |= {"resize": "squash", "interpolation": "bicubic", "mean": [0.5], "std": [0.5], "dtype": "float32"}
    jsonschema.validate(Recipe.of({"backbone": backbone, "method": {"name": "raw"}}).parameters(), schema)
    del backbone["weights"]
    with pytest.raises(jsonschema.ValidationError, match="weights"):
        jsonschema.validate(Recipe.of({"backbone": backbone, "method": {"name": "raw"}}).parameters(), schema)


def test_schema_accepts_what_was_imported_with_what_is_known_of_it() -> None:
    schema = json.loads((files("featstore.schemas") / "recipe.schema.json").read_text(encoding="utf-8"))
    method: dict[str, object] = {"name": "imported", "grid": [37, 37], "channels": 768, "prefix_tokens": 0}
    known = {"id": "m", "input": [518, 518]}
    jsonschema.validate(Recipe.of({"backbone": known, "method": method}).parameters(), schema)
    with pytest.raises(jsonschema.ValidationError, match="weights"):
        jsonschema.validate(Recipe.of({"backbone": known, "method": {"name": "raw"}}).parameters(), schema)
    with pytest.raises(jsonschema.ValidationError, match="channels"):
        jsonschema.validate(
            Recipe.of({"backbone": known, "method": {"name": "imported", "grid": [1, 1]}}).parameters(), schema
        )
