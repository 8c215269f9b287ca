"""Generate openapi.json from predict.py, and hold both against the contract.

    python -m scripts.openapi_schema          # write openapi.json and put it where Cog's runtime looks (.cog/)
    python -m scripts.openapi_schema --check  # fail when the committed file is not what predict.py says

Cog's runtime serves this file and validates against it; `COG_OPENAPI_SCHEMA=openapi.json cog build` ships it. Our own
generator writes what Cog's static one cannot: the title "Outputs" and outputs without "nullable".
"""

from __future__ import annotations

import argparse
import ast
import json
import pathlib
import shutil
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILE = ROOT / "openapi.json"
TYPES = {"str": "string", "float": "number", "int": "integer", "bool": "boolean"}


def read_predictor(source: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Inputs (name to type and Input arguments) and output names of a predict.py, by parsing alone."""
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    predict = next(
        n
        for n in classes["Predictor"].body
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == "predict"
    )
    arguments, defaults = predict.args.args[1:], predict.args.defaults
    inputs = {}
    for argument, default in zip(arguments, defaults, strict=True):
        assert isinstance(default, ast.Call) and isinstance(argument.annotation, ast.Name)
        facts = {k.arg: ast.literal_eval(k.value) for k in default.keywords if k.arg}
        inputs[argument.arg] = {"type": TYPES[argument.annotation.id], **facts}
    outputs = [
        n.target.id
        for n in classes["Outputs"].body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    ]
    return inputs, outputs


def _title(name: str) -> str:
    return name.replace("_", " ").title()


def components(inputs: dict[str, dict[str, Any]], outputs: list[str]) -> dict[str, Any]:
    """The Input, Output and enum schemas as Replicate reads them."""
    schemas: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for order, (name, facts) in enumerate(inputs.items()):
        if "choices" in facts:
            schemas[name] = {
                "title": name,
                "description": "An enumeration.",
                "type": facts["type"],
                "enum": facts["choices"],
            }
            entry: dict[str, Any] = {"allOf": [{"$ref": f"#/components/schemas/{name}"}]}
        else:
            entry = {"type": facts["type"], "title": _title(name)}
        for key, field in (
            ("default", "default"),
            ("minimum", "ge"),
            ("maximum", "le"),
            ("description", "description"),
        ):
            if field in facts:
                entry[key] = facts[field]
        entry["x-order"] = order
        properties[name] = entry
    required = [name for name, facts in inputs.items() if "default" not in facts]
    schemas["Input"] = {"title": "Input", "type": "object", "required": required, "properties": properties}
    schemas["Output"] = {
        "title": "Outputs",
        "type": "object",
        "properties": {name: {"type": "string", "format": "uri", "title": _title(name)} for name in outputs},
    }
    return schemas


def _responses(reply: str) -> dict[str, Any]:
    body = lambda name: {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {
        "200": {"description": "Successful Response", "content": body(reply)},
        "422": {"description": "Validation Error", "content": body("HTTPValidationError")},
    }


def _prediction(kind: str) -> dict[str, Any]:
    """PredictionRequest or PredictionResponse."""
    text = lambda title, **more: {"title": title, "type": "string", **more}
    properties: dict[str, Any] = {
        "id": text("Id"),
        "input": {"$ref": "#/components/schemas/Input"},
    }
    if kind == "PredictionRequest":
        properties |= {
            "created_at": text("Created At", format="date-time"),
            "webhook": text("Webhook", format="uri", minLength=1, maxLength=65536),
            "webhook_events_filter": {
                "title": "Webhook Events Filter",
                "type": "array",
                "items": {"$ref": "#/components/schemas/WebhookEvent"},
                "default": ["start", "output", "logs", "completed"],
            },
        }
    else:
        properties |= {
            "output": {"$ref": "#/components/schemas/Output"},
            "status": {"$ref": "#/components/schemas/Status"},
            "error": text("Error"),
            "logs": text("Logs", default=""),
            "metrics": {"title": "Metrics", "type": "object"},
            "created_at": text("Created At", format="date-time"),
            "started_at": text("Started At", format="date-time"),
            "completed_at": text("Completed At", format="date-time"),
        }
    return {"title": kind, "type": "object", "properties": properties}


def schema(source: str) -> dict[str, Any]:
    """The whole OpenAPI document for a predict.py."""
    schemas = components(*read_predictor(source))
    enum = lambda title, values: {
        "title": title,
        "description": "An enumeration.",
        "type": "string",
        "enum": values,
    }
    schemas |= {
        "PredictionRequest": _prediction("PredictionRequest"),
        "PredictionResponse": _prediction("PredictionResponse"),
        "Status": enum("Status", ["starting", "processing", "succeeded", "canceled", "failed"]),
        "WebhookEvent": enum("WebhookEvent", ["start", "output", "logs", "completed"]),
        "ValidationError": {
            "title": "ValidationError",
            "type": "object",
            "required": ["loc", "msg", "type"],
            "properties": {
                "loc": {
                    "title": "Location",
                    "type": "array",
                    "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                },
                "msg": {"title": "Message", "type": "string"},
                "type": {"title": "Error Type", "type": "string"},
            },
        },
        "HTTPValidationError": {
            "title": "HTTPValidationError",
            "type": "object",
            "properties": {
                "detail": {
                    "title": "Detail",
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/ValidationError"},
                }
            },
        },
    }
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictionRequest"}}}}
    identity = {
        "in": "path",
        "name": "prediction_id",
        "required": True,
        "schema": {"title": "Prediction ID", "type": "string"},
    }
    plain = {"200": {"description": "Successful Response", "content": {"application/json": {"schema": {}}}}}
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {
            "/": {"get": {"summary": "Root", "operationId": "root__get", "responses": plain}},
            "/health-check": {
                "get": {
                    "summary": "Healthcheck",
                    "operationId": "healthcheck_health_check_get",
                    "responses": plain,
                }
            },
            "/predictions": {
                "post": {
                    "summary": "Predict",
                    "description": "Run a single prediction on the model",
                    "operationId": "predict_predictions_post",
                    "requestBody": body,
                    "responses": _responses("PredictionResponse"),
                }
            },
            "/predictions/{prediction_id}": {
                "put": {
                    "summary": "Predict Idempotent",
                    "description": "Run a single prediction on the model (idempotent creation).",
                    "operationId": "predict_idempotent_predictions__prediction_id__put",
                    "parameters": [identity],
                    "requestBody": {**body, "required": True},
                    "responses": _responses("PredictionResponse"),
                }
            },
            "/predictions/{prediction_id}/cancel": {
                "post": {
                    "summary": "Cancel",
                    "description": "Cancel a running prediction",
                    "operationId": "cancel_predictions__prediction_id__cancel_post",
                    "parameters": [identity],
                    "responses": plain,
                }
            },
        },
        "components": {"schemas": schemas},
    }


def main() -> int:
    """Write openapi.json, or check it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when openapi.json is out of date"
    )
    args = parser.parse_args()
    text = json.dumps(schema((ROOT / "predict.py").read_text()), indent=2) + "\n"
    if args.check:
        if not FILE.exists() or FILE.read_text() != text:
            print("openapi.json is not what predict.py says: run `make schema`", file=sys.stderr)
            return 1
        return 0
    FILE.write_text(text)
    install()
    return 0


def install(root: pathlib.Path = ROOT) -> pathlib.Path:
    """Put the committed schema where Cog's runtime looks: .cog/openapi_schema.json of its working directory."""
    target = root / ".cog" / "openapi_schema.json"
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(FILE, target)
    return target


if __name__ == "__main__":
    sys.exit(main())
