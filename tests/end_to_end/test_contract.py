import copy
import json
import pathlib
import re

import jsonschema
import pytest

from scripts import openapi_schema as schema

ROOT = pathlib.Path(__file__).parents[2]
CONTRACT = json.loads((ROOT / "tests/data/api.json").read_text())
OPENAPI = json.loads((ROOT / "openapi.json").read_text())
SCHEMAS = OPENAPI["components"]["schemas"]


def inputs_of(schemas):
    """The Input schema written as the contract writes it."""
    found = []
    for name, entry in sorted(schemas["Input"]["properties"].items(), key=lambda item: item[1]["x-order"]):
        row = {"name": name, "description": entry["description"], "order": entry["x-order"]}
        row["required"] = name in schemas["Input"]["required"]
        if "allOf" in entry:
            target = schemas[entry["allOf"][0]["$ref"].rsplit("/", 1)[-1]]
            row |= {"type": target["type"], "enum": target["enum"]}
        else:
            row["type"] = entry["type"]
        found.append(row | {k: entry[k] for k in ("default", "minimum", "maximum") if k in entry})
    return found


def test_the_inputs_are_the_contract_to_the_letter():
    assert inputs_of(SCHEMAS) == CONTRACT["input"]


def test_the_outputs_are_the_contract_to_the_letter():
    assert SCHEMAS["Output"] == CONTRACT["output"]
    assert "nullable" not in json.dumps(SCHEMAS)


def test_the_committed_schema_is_what_predict_py_says():
    assert schema.schema((ROOT / "predict.py").read_text()) == OPENAPI


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ge=40", "ge=41"),
        ("default=140", "default=120"),
        ("variation_20: Path = None\n", ""),
        ('"medium", "large"', '"medium"'),
        ("Tempo in beats", "The tempo in beats"),
        ("seed: int", "seed: float"),
    ],
)
def test_a_change_of_predict_py_is_noticed(old, new):
    source = (ROOT / "predict.py").read_text()
    assert old in source
    changed = schema.schema(source.replace(old, new))
    assert changed != OPENAPI
    schemas = changed["components"]["schemas"]
    assert inputs_of(schemas) != CONTRACT["input"] or schemas["Output"] != CONTRACT["output"]


def test_predict_py_keeps_to_what_cogs_static_reader_understands():
    """Each Input is a literal call, each string one plain literal, choices and defaults in place."""
    inputs, outputs = schema.read_predictor((ROOT / "predict.py").read_text())
    assert list(inputs) == [entry["name"] for entry in CONTRACT["input"]]
    assert outputs == list(CONTRACT["output"]["properties"])


GOOD = {"prompt": "house", "bpm": 140.5, "variations": 2, "seed": 0}


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        ("bpm", 40, True),
        ("bpm", 39.99, False),
        ("bpm", 300, True),
        ("bpm", 301, False),
        ("variations", 20, True),
        ("variations", 21, False),
        ("max_duration", 1, False),
        ("max_duration", 20, True),
        ("model_version", "small", False),
        ("output_format", "mp3", True),
        ("output_format", "flac", False),
        ("prompt", 3, False),
    ],
)
def test_the_schema_draws_the_bounds(field, value, valid):
    resolved = copy.deepcopy(SCHEMAS["Input"])
    for entry in resolved["properties"].values():
        if "allOf" in entry:
            entry["allOf"] = [SCHEMAS[entry["allOf"][0]["$ref"].rsplit("/", 1)[-1]]]
    errors = list(jsonschema.Draft7Validator(resolved).iter_errors({**GOOD, field: value}))
    assert (not errors) == valid


def test_cog_yaml_and_the_makefile_share_one_way_to_install_audiocraft():
    (line,) = re.findall(r"- (echo audiocraft==1\.3\.0 .*)", (ROOT / "cog.yaml").read_text())
    assert "pip install" in line and "--no-deps" in line and "--require-hashes" in line
    makefile = (ROOT / "Makefile").read_text()
    assert "cog.yaml" in makefile and "audiocraft==" not in makefile
