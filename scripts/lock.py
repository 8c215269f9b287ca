"""One version of everything, with hashes: requirements.lock, made by uv from the ranges in pyproject.toml.

    python scripts/lock.py                    # write it anew (pip install uv; asks the package index)
    python scripts/lock.py --upgrade          # with the newest versions that the ranges allow
    python scripts/lock.py --check            # exit 1 where it does not fit pyproject.toml any more; no network
    python scripts/lock.py --print image desk  # what pip takes: ... | pip install --require-hashes -r /dev/stdin

The groups are those of [tool.looper.lock]. The first one's lines are plain: `cog build` reads the file as its
python_requirements, and takes every pinned line for its own (it drops the hashes, and hangs torch's index beside
them). The other groups' lines are comments to it and to pip, each with its group's name in front.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK, PROJECT = ROOT / "requirements.lock", ROOT / "pyproject.toml"
AUDIOCRAFT = "audiocraft"  # a group of its own: it goes in without its dependencies
PYTHON, PLATFORM = "3.11", "x86_64-manylinux_2_28"  # the image's
HEADER = """# Every version, with hashes, for Linux x86-64 and Python 3.11. Made by `make lock`; do not edit.
# `#desk`, `#dev` and `#audiocraft` lines are for scripts/lock.py --print.
# digest {digest}
"""


def wanted(project: Path = PROJECT) -> dict[str, list[str]]:
    """Requirements of each group, the ones before it included: the first group's are the project's own too."""
    table = tomllib.loads(project.read_text())
    extras, settings = table["project"]["optional-dependencies"], table["tool"]["looper"]["lock"]
    asked, groups = list(table["project"]["dependencies"]), {}
    for group, names in settings["groups"].items():
        asked = asked + [requirement for name in names for requirement in extras[name]]
        asked = list(filter(_is_for_our_python, asked))
        groups[group] = asked
    return {**groups, AUDIOCRAFT: [settings[AUDIOCRAFT]]}


def _is_for_our_python(requirement: str) -> bool:
    from packaging.requirements import Requirement

    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({"python_version": PYTHON})


def digest(groups: dict[str, list[str]]) -> str:
    """Of all that the lock was made from."""
    text = json.dumps([groups, PYTHON, PLATFORM], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def entries(lock: Path = LOCK) -> dict[str, dict[str, str]]:
    """Groups of the lock: package -> its lines, as pip takes them."""
    groups: dict[str, dict[str, str]] = {}
    name = ""
    for line in lock.read_text().splitlines():
        plain = re.fullmatch(r"(?:#(\w+) )?(\s*\S.*)", line)
        if not plain or line.startswith(("# ", "-")):  # a word of ours, an option
            continue
        group, text = plain[1] or "image", plain[2]
        if found := re.match(r"([\w.-]+)(?:\[.*\])?==", text):
            name = found[1]
            groups.setdefault(group, {})[name] = text
        else:
            groups[group][name] += f"\n{text}"
    return groups


def pins(lock: Path = LOCK, *names: str) -> dict[str, str]:
    """Package -> version, of the named groups or of all."""
    groups = entries(lock)
    return {
        package: re.search(r"==(\S+)", text)[1]  # type: ignore[index]
        for group in names or groups
        for package, text in groups.get(group, {}).items()
    }


def problems(project: Path = PROJECT, lock: Path = LOCK) -> list[str]:
    """Why the lock must be made anew: pyproject.toml was changed since, or a pin or hash is missing or out of range."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    groups, text = wanted(project), lock.read_text()
    wrong = [] if f"# digest {digest(groups)}\n" in text else ["pyproject.toml has changed since"]
    there = {canonicalize_name(name): version for name, version in pins(lock).items()}
    for requirement in map(Requirement, dict.fromkeys(r for asked in groups.values() for r in asked)):
        version = there.get(canonicalize_name(requirement.name))
        if version is None:
            wrong.append(f"{requirement.name} is not in it")
        elif not requirement.specifier.contains(version):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    for group in entries(lock).values():
        wrong += [f"{name} has no hash" for name, lines in group.items() if "--hash=sha256:" not in lines]
    return wrong + [
        f"it names a host: {line}" for line in text.splitlines() if "://" in line or "-url" in line
    ]


def _compile(asked: Iterable[str], keep: dict[str, str], *options: str) -> str:
    """Have uv choose versions; `keep` are those already chosen."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as held:
        held.write("\n".join(f"{name}=={version}" for name, version in keep.items()))
        held.flush()
        command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--constraint", held.name, *options]
        command += ["--python-version", PYTHON, "--python-platform", PLATFORM, "--generate-hashes"]
        command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-progress", "--quiet"]
        done = subprocess.run(command, input="\n".join(asked), text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"uv could not choose versions (pip install uv):\n{done.stderr}")
    return done.stdout


def write(upgrade: bool = False, project: Path = PROJECT, lock: Path = LOCK) -> None:
    """Make the lock; without `upgrade` every version that still fits stays."""
    groups = wanted(project)
    before = pins(lock) if lock.exists() and not upgrade else {}
    before = {name: version for name, version in before.items() if _fits(name, version, groups)}
    lines, chosen = [HEADER.format(digest=digest(groups)).rstrip()], {}
    for group, asked in groups.items():
        options = ("--no-deps",) if group == AUDIOCRAFT else ()
        prefix = f"#{group} " if chosen else ""
        for entry in re.split(r"\n(?=\S)", _compile(asked, before | chosen, *options).strip()):
            name, version = re.match(r"([\w.-]+)(?:\[.*\])?==(\S+)", entry).groups()  # type: ignore[union-attr]
            if name not in chosen:
                chosen[name] = version
                lines += [prefix + line for line in entry.splitlines()]
    lock.write_text("\n".join(lines) + "\n")


def _fits(name: str, version: str, groups: dict[str, list[str]]) -> bool:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    asked = [Requirement(text) for group in groups.values() for text in group]
    same = [r for r in asked if canonicalize_name(r.name) == canonicalize_name(name)]
    return all(r.specifier.contains(version) for r in same)


def main(arguments: list[str] | None = None) -> Any:
    """Write, check or print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upgrade", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--print", nargs="+", metavar="GROUP")
    args = parser.parse_args(arguments)
    if args.print:
        groups = entries()
        print("\n".join(text for group in args.print for text in groups[group].values()))
        return 0
    if args.check:
        for wrong in (found := problems()):
            print(f"requirements.lock: {wrong}; run `make lock`", file=sys.stderr)
        return 1 if found else 0
    write(args.upgrade)
    return 0


if __name__ == "__main__":
    sys.exit(main())
