"""Rehearse `cog build` and a prediction without Docker.

    python scripts/rehearse_image.py                # a fresh Python like the image's: several minutes and 5 GB
    python scripts/rehearse_image.py --venv .venv   # an environment that is there: seconds
    python scripts/rehearse_image.py --check        # cog.yaml and .dockerignore only

Checks cog.yaml against the rules at https://cog.run/yaml, copies what .dockerignore keeps to an empty
folder, installs what cog.yaml lists into an externally managed Python (scripts/managed_python.py), puts the
schema where `cog build` does, starts the server on weights/tiny from that folder with a HOME that cannot be,
no way out to the network, and asks for a prediction. Nothing may be written but in the temp folder. What the
rehearsal can't see: CUDA, and the apt packages, which it only looks for on PATH.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import managed_python  # noqa: E402

TOP = {"build": dict, "image": str, "predict": str, "train": str, "concurrency": dict, "environment": list}
BUILD = {
    "cuda": str,
    "cudnn": str,
    "gpu": bool,
    "python_requirements": str,
    "python_version": str,
    "run": list,
    "sdk_version": str,
    "system_packages": list,
}
# https://github.com/replicate/cog/blob/main/pkg/config/env.go
DENIED = {
    "PATH",
    "LD_LIBRARY_PATH",
    "LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "VIRTUAL_ENV",
    "HF_ENDPOINT",
}
DENIED |= {"HF_HUB_ENABLE_HF_TRANSFER"}
DENIED_PREFIXES = ("R8_", "REPLICATE_", "CUDA_", "NVIDIA_", "NV_", "PGET_", "KUBERNETES_")
REQUEST = {"prompt": "house", "bpm": 124, "variations": 2, "max_duration": 2, "seed": 5}


def config_problems(config: Any, root: Path = ROOT) -> list[str]:
    """What Cog would refuse in a cog.yaml, or take for something else; empty where it is right."""
    if not isinstance(config, dict) or not isinstance(config.get("build"), dict):
        return ["cog.yaml has no build section"]
    build = config["build"]
    wrong = [*_types("", config, TOP), *_types("build.", build, BUILD)]
    for key, pattern in (
        ("python_version", r"3\.\d+(\.\d+)?"),
        ("cuda", r"\d+\.\d+"),
        ("sdk_version", r"\d+\.\d+\.\d+"),
    ):
        if isinstance(build.get(key), str) and not re.fullmatch(pattern, build[key]):
            wrong.append(f"build.{key} is {build[key]!r}")
    if "python_version" not in build:
        wrong.append("build.python_version is missing")
    for key in ("run", "system_packages"):
        wrong += [f"build.{key} holds {item!r}" for item in build.get(key) or [] if not isinstance(item, str)]
    wanted = build.get("python_requirements")
    if isinstance(wanted, str) and not (root / wanted).is_file():
        wrong.append(f"build.python_requirements names {wanted}, which is not there")
    wrong += _environment(config.get("environment") or [])
    return wrong + _pointer(str(config.get("predict", "")), root)


def _environment(items: list[Any]) -> Iterator[str]:
    for item in items:
        name, equals, _ = str(item).partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            yield f"environment holds {item!r}, which is not NAME=value"
        elif name in DENIED or name.startswith(DENIED_PREFIXES):
            yield f"environment sets {name}, which Cog keeps for itself"


def _types(prefix: str, section: dict[str, Any], known: dict[str, type]) -> Iterator[str]:
    for key, value in section.items():
        if key not in known:
            yield f"{prefix}{key} is not a key Cog knows"
        elif not isinstance(value, known[key]):
            yield f"{prefix}{key} must be {known[key].__name__}, got {value!r}: quote it"


def _pointer(predict: str, root: Path) -> list[str]:
    file, _, name = predict.partition(":")
    if not (root / file).is_file() or not file:
        return [f"predict names {file!r}, which is not there"]
    classes = [
        node.name for node in ast.parse((root / file).read_text()).body if isinstance(node, ast.ClassDef)
    ]
    return [] if name in classes else [f"{file} has no class {name!r}"]


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore leaves out `path`: the last pattern that fits it or a folder above it decides."""
    out = False
    for line in patterns:
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        rule = "".join(
            {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))
            for piece in re.split(r"(\*\*/|\*\*|\*|\?)", pattern.removeprefix("!").strip("/"))
        )
        if re.fullmatch(f"{rule}(?:/.*)?", path):
            out = not pattern.startswith("!")
    return out


def kept(root: Path = ROOT) -> list[str]:
    """Files that would go into the image."""
    patterns = (root / ".dockerignore").read_text().splitlines()
    files = []
    for folder, names, found in os.walk(root):
        here = Path(folder).relative_to(root)
        below = f"{here.as_posix()}/" if here.parts else ""
        names[:] = [name for name in names if not ignored(below + name, patterns)]
        files += [below + name for name in found if not ignored(below + name, patterns)]
    return sorted(files)


def copy(files: list[str], target: Path) -> None:
    """Copy `files` to `target`, and the schema to where `cog build` puts it."""
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    (target / ".cog").mkdir(exist_ok=True)
    shutil.copyfile(ROOT / "openapi.json", target / ".cog" / "openapi_schema.json")


def as_cog_reads(lock: str) -> list[str]:
    """Requirements as `cog build` makes them of the lock: it keeps name==version of each and drops comments and hashes.

    It also hangs the index of torch's CUDA builds beside them, which gives the same torch.
    """
    found = [re.match(r"[\w.-]+==\S+", line) for line in lock.splitlines()]
    return [match[0] for match in found if match]


def install(build: dict[str, Any], target: Path, python: Path) -> Path:
    """Make the image's Python and install into it, in Cog's order: requirements, the SDK, then the run lines.

    Raises
    ------
    SystemExit
        With the line that fails, and what it says.
    """
    programs = managed_python.make(python)
    pinned = target.parent / "requirements.txt"
    pinned.write_text("\n".join(as_cog_reads((target / build["python_requirements"]).read_text())))
    pip = "python3 -m pip install --quiet --disable-pip-version-check --break-system-packages"
    lines = [f"{pip} -r {pinned}", f"{pip} cog=={build['sdk_version']}", *(build.get("run") or [])]
    for line in lines:
        # /src is empty yet: Cog copies the sources after the run lines
        done = managed_python.run_line(line, programs, pinned.parent)
        if done.returncode:
            raise SystemExit(f"this line fails in the image:\n  {line}\n{done.stderr.strip()}")
    return programs


PREDICT = """
import base64, io, json, sys
import soundfile
from testkit.cog_server import Server
with Server({folder!r}, root={target!r}, python={python!r}, **{environment!r}) as server:
    output = server.output({request!r})
    for name in ("variation_01", "variation_02"):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(output[name].partition(",")[2])))
        assert (len(samples), rate) == (round(4 * 60 / 124 * 32000), 32000), (len(samples), rate)
    assert output["variation_03"] is None
"""


def predict(target: Path, programs: Path, temp: Path, declared: dict[str, str]) -> None:
    """Start the server from `target` and ask it for two loops of the right length."""
    environment = {
        "HOME": "/dev/null/nowhere",  # whoever wants to write there can't, root neither
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "",
        # whoever looks for the network is refused
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"),
        "NO_PROXY": "127.0.0.1",
        **declared,
    }
    code = PREDICT.format(
        folder=str(temp),
        target=str(target),
        python=str(programs / "python"),
        environment=environment,
        request=REQUEST,
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=600)


def tree(folder: Path) -> dict[str, int]:
    """Every file below `folder` with its size."""
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def main() -> int:
    """Rehearse."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, help="use this one instead of making a fresh one")
    parser.add_argument("--check", action="store_true", help="install and run nothing")
    args = parser.parse_args()
    config = yaml.safe_load((ROOT / "cog.yaml").read_text())
    if wrong := config_problems(config):
        print(*wrong, sep="\n")
        return 1
    files = kept()
    size = sum((ROOT / name).stat().st_size for name in files)
    print(f"cog.yaml is in order; {len(files)} files, {size / 2**20:.1f} MiB go into the image", flush=True)
    if args.check:
        return 0
    missing = [name for name in config["build"].get("system_packages") or [] if not shutil.which(name)]
    if missing:
        print(f"not on this machine, but in the image: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="looper-image-") as scratch:
        target, temp = Path(scratch) / "src", Path(scratch) / "tmp"
        target.mkdir()
        temp.mkdir()
        copy(files, target)
        there = args.venv and args.venv.absolute() / "bin"
        programs = there or install(config["build"], target, Path(scratch) / "python")
        before = tree(target)
        declared = dict(item.split("=", 1) for item in config.get("environment") or [])
        predict(target, programs, temp, declared)
        written = sorted(name for name, n in tree(target).items() if before.get(name) != n)
    print(f"two loops of the right length; written outside the temp folder: {written or 'nothing'}")
    return 1 if written else 0


if __name__ == "__main__":
    sys.exit(main())
