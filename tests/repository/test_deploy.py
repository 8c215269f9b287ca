"""deploy/ against Kubernetes' schemas, and every name in it against the code."""

import ast
import pathlib
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from looper.cli.commands import app
from looper.generation.tasks import EngineStatus
from looper.runtime.cuda_graph import StepCounts
from looper.service.metrics import Metrics
from looper.service.probe import WORDS
from looper.service.probes import PATHS, PORT_VARIABLE

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
VERSION = "1.32"  # the oldest that is meant
FOLDERS = sorted(path.parent for path in DEPLOY.rglob("kustomization.yaml"))
NAMES = [str(folder.relative_to(DEPLOY)) for folder in FOLDERS]
OWN_SCHEMAS = {"ScaledObject", "RayJob", ("serving.knative.dev/v1", "Service")}
COGS_PORT = 5000


def plain(folder):
    """The objects of a kustomization as they stand in its files, before its patches."""
    config = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for name in config["resources"]:
        path = folder / name
        yield from (
            plain(path.resolve()) if path.is_dir() else filter(None, yaml.safe_load_all(path.read_text()))
        )


def rendered(folder):
    """The objects as kubectl would apply them; as they stand there, where there is no kubectl."""
    if shutil.which("kubectl") is None:
        return list(plain(folder))
    text = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    return list(filter(None, yaml.safe_load_all(text)))


OBJECTS = {name: rendered(folder) for name, folder in zip(NAMES, FOLDERS, strict=True)}
EVERYTHING = [thing for things in OBJECTS.values() for thing in things]


def has_own_schema(thing):
    return thing["kind"] in OWN_SCHEMAS or (thing["apiVersion"], thing["kind"]) in OWN_SCHEMAS


def pods(node):
    """Every pod's spec within an object."""
    if isinstance(node, dict):
        if isinstance(node.get("containers"), list):
            yield node
        else:
            for value in node.values():
                yield from pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from pods(value)


def containers(things=EVERYTHING):
    for thing in things:
        for pod in pods(thing):
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                yield pod, container


def commands():
    """Whatever is run: of containers, of probes and hooks, of jobs."""
    for _, container in containers():
        yield from filter(None, [container.get("command")])
        for holder in ("readinessProbe", "livenessProbe", "startupProbe"):
            yield from filter(None, [container.get(holder, {}).get("exec", {}).get("command")])
        hook = container.get("lifecycle", {}).get("preStop", {})
        yield from filter(None, [hook.get("exec", {}).get("command")])
    jobs = [thing["spec"]["entrypoint"] for thing in EVERYTHING if thing["kind"] == "RayJob"]
    sky = yaml.safe_load((DEPLOY / "batch" / "skypilot.yaml").read_text())["run"]
    yield from (line.split() for line in [*jobs, *sky.splitlines()] if "python -m" in line)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_one_that_kubernetes_takes(name):
    assert OBJECTS[name]
    for thing in OBJECTS[name]:
        if not has_own_schema(thing):
            kubernetes_validate.validate(thing, VERSION, strict=True)
            continue
        for pod in pods(thing):  # what an operator makes pods of
            names = {field: value for field, value in pod.items() if field != "containerConcurrency"}
            names.pop("timeoutSeconds", None)
            whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": names}
            kubernetes_validate.validate(whole, VERSION, strict=True)


def test_the_validation_finds_a_field_that_is_none():
    broken = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"container": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


def test_probes_ask_for_paths_and_ports_that_are_served():
    seen = set()
    for _, container in containers():
        ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
        served = {env["name"]: env.get("value") for env in container.get("env", [])}.get(PORT_VARIABLE)
        for holder in ("readinessProbe", "livenessProbe", "startupProbe"):
            if asked := container.get(holder, {}).get("httpGet"):
                seen.add((holder, asked["path"]))
                assert asked["path"] in PATHS and str(ports[asked["port"]]) == served
    assert seen == {("startupProbe", "/ready"), ("readinessProbe", "/ready"), ("livenessProbe", "/live")}


def test_services_policies_and_annotations_name_ports_that_containers_have():
    served = {port["containerPort"] for _, container in containers() for port in container.get("ports", [])}
    assert served == {COGS_PORT, 9400}
    for thing in EVERYTHING:
        if thing["kind"] == "NetworkPolicy":
            assert {port["port"] for rule in thing["spec"]["ingress"] for port in rule["ports"]} == served
            assert thing["spec"]["egress"] == []
        if thing["kind"] == "Deployment":
            notes = thing["spec"]["template"]["metadata"]["annotations"]
            assert notes["prometheus.io/port"] == "9400" and notes["prometheus.io/path"] in PATHS
        if thing["kind"] == "Service" and thing["apiVersion"] == "v1":
            names = {
                port["name"] for _, container in containers(OBJECTS["base"]) for port in container["ports"]
            }
            assert {port["targetPort"] for port in thing["spec"]["ports"]} == names


def test_selectors_find_the_pods_they_are_meant_for():
    labels = [
        thing["spec"]["template"]["metadata"]["labels"]
        for thing in OBJECTS["base"]
        if thing["kind"] == "Deployment"
    ]
    for thing in OBJECTS["base"]:
        spec = thing["spec"]
        found = spec.get("podSelector") or spec.get("selector") or {}
        assert found.get("matchLabels", found) in labels
    job = next(thing for thing in OBJECTS["overlays/weights-volume"] if thing["kind"] == "Job")
    assert job["spec"]["template"]["metadata"]["labels"] not in labels  # or it could fetch nothing


def test_metrics_in_queries_are_ones_that_are_exported():
    metrics = Metrics()
    metrics.watch(lambda: {"medium": EngineStatus(0, 0, 0, 0, 0.0, StepCounts(), {"embed": True})})
    exported = {
        sample.name
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }
    texts = [path.read_text() for path in (*DEPLOY.rglob("*.yaml"), ROOT / "docs" / "deploy.md")]
    named = {name for text in texts for name in re.findall(r"\blooper_[a-z_]+", text)}
    assert "looper_predictions_in_flight" in named
    assert named <= exported


@pytest.mark.slow
def test_variables_are_ones_that_something_reads():
    ours = set()
    for path in (ROOT / "looper").rglob("*.py"):
        strings = (
            node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
        )
        ours |= {text for text in strings if isinstance(text, str)}
    others = {"TMPDIR", "HOME", "LOG_FORMAT", "RAY_USAGE_STATS_ENABLED"}  # Python's, Cog's, Ray's
    named = {env["name"] for _, container in containers() for env in container.get("env", [])}
    assert PORT_VARIABLE in named and named <= ours | others


def test_commands_are_ones_that_exist():
    said = [words[words.index("-m") + 1 :] for words in commands()]
    assert {words[0] for words in said} == {"looper", "looper.service.probe"}
    for module, *words in said:
        if module == "looper.service.probe":
            assert words[0] in WORDS
            continue
        group = words[:2] if words[0] == "weights" else words[:1]
        options = {word for word in words if word.startswith("--")}
        shown = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "300"})
        assert shown.exit_code == 0 and all(option in shown.output for option in options)


def test_nothing_runs_as_root_or_may_become_it():
    for pod, container in containers():
        security = {**pod.get("securityContext", {}), **container["securityContext"]}
        assert security["runAsNonRoot"] and security["runAsUser"] > 0
        assert not security["allowPrivilegeEscalation"] and security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        if not container["image"].startswith("registry.example/musicgen-looper-ray"):
            assert security["readOnlyRootFilesystem"]
            written = {mount["mountPath"] for mount in container["volumeMounts"]}
            env = {env["name"]: env.get("value") for env in container["env"]}
            assert {"/tmp", env["TMPDIR"]} <= written


def test_a_container_is_stopped_only_when_it_has_nothing_under_way():
    (deployment,) = (thing for thing in OBJECTS["base"] if thing["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[-2:] == ["looper.service.probe", "drained"] and pod["terminationGracePeriodSeconds"] >= 300
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_ray_is_pinned_alike_everywhere_and_never_with_what_is_under_the_gpl():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (pin,) = project["project"]["optional-dependencies"]["batch"]
    version = pin.removeprefix("ray==")
    job = next(thing for thing in OBJECTS["batch"] if thing["kind"] == "RayJob")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    installed = re.findall(r'"(ray\S*)==(\S+)"', (DEPLOY / "batch" / "Dockerfile").read_text())
    assert (
        installed == [("ray[default]", version)]
        and "batch" in project["tool"]["looper"]["lock"]["groups"]["dev"]
    )
