"""What the product is made of: licences of all runtime dependencies, as a table and as an SBOM.

    python scripts/licences.py              # write docs/licences.md
    python scripts/licences.py --sbom FILE  # write CycloneDX JSON
    python scripts/licences.py --check      # write nothing; exit 1 where something is under the GPL or AGPL

Read from the installed packages' own metadata, from what pyproject.toml asks for (tests and training left
out) and audiocraft down; what a wheel brings along in binary form is looked for by file name, since its
metadata seldom says.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import lock  # noqa: E402

TABLE = ROOT / "docs" / "licences.md"
AUDIOCRAFT = "audiocraft"  # installed without its own requirements: ours stand in pyproject.toml

COPYLEFT = re.compile(r"\bA?GPL|(?<!Lesser )(?<!Library or )General Public", re.I)
LESSER = re.compile(r"LGPL|Lesser General Public", re.I)
COPYLEFT_BINARIES = re.compile(
    r"\blib(x264|x265|xvid|postproc|fftw3|rubberband)\b|ffmpeg-(linux|win|macos)", re.I
)
# under the GPL, but with GCC's Runtime Library Exception: what uses them keeps its own licence
GCC_RUNTIME = re.compile(r"^lib(gfortran|gomp|quadmath|gcc_s|stdc\+\+)\b")
EXCEPTION = re.compile(r"GPL[-\w.+]* WITH (GCC|LLVM|Classpath)-exception[-\w.]*", re.I)
SYSTEM = {  # what cog.yaml may install from Debian
    "ffmpeg": "GPL-2.0-or-later, as Debian builds it; a program of its own, which no prediction runs"
}
SHORT = {
    "Apache Software License": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "BSD License": "BSD",
    "BSD 3-Clause License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "ISC License": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL",
    "Python Software Foundation License": "PSF",
    "Other/Proprietary License": "proprietary",
    "NVIDIA Proprietary Software": "proprietary",
    "LicenseRef-NVIDIA-Proprietary": "proprietary",
}


@dataclass(frozen=True)
class Part:
    """An installed package: what it says of itself, and the GPL and GCC's own among the binaries it brings along."""

    name: str
    version: str
    licence: str
    direct: bool
    binaries: tuple[str, ...]
    runtime: tuple[str, ...] = ()

    @property
    def copyleft(self) -> bool:
        """Whether it, or a binary in it, is under the GPL or AGPL (the LGPL is not meant)."""
        return bool(self.binaries) or is_copyleft(self.licence)


def is_copyleft(licence: str) -> bool:
    """Tell the GPL and AGPL from everything else; a choice with another licence is none."""
    choices = re.split(r"\s+OR\s+", licence)
    return all(COPYLEFT.search(LESSER.sub("", EXCEPTION.sub("", choice))) for choice in choices)


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def pins() -> list[Requirement]:
    """The direct requirements: what a desk installs, extras included, and audiocraft."""
    groups = lock.wanted()
    return [Requirement(line) for line in [*groups["desk"], *groups[AUDIOCRAFT]]]


def licence_of(about: metadata.PackageMetadata) -> str:
    """The licence in a few words: the SPDX expression, else the classifiers, else the licence field's first line."""
    if expression := about.get("License-Expression"):
        return SHORT.get(expression, expression)
    classifiers = [
        line.split("::")[-1].strip()
        for line in about.get_all("Classifier", [])
        if line.startswith("License ::")
    ]
    field = next((line.strip() for line in (about.get("License") or "").splitlines() if line.strip()), "")
    field = "" if re.match("Copyright|=", field) else field
    if field and len(field) < 40 and not any(c in SHORT and SHORT[c] != "BSD" for c in classifiers):
        return SHORT.get(field, field)
    return " AND ".join(SHORT.get(c, c) for c in classifiers) or field[:40] or "not stated"


def parts(requirements: Iterable[Requirement] | None = None) -> list[Part]:
    """All packages the product installs on this machine, by name."""
    waiting = list(pins() if requirements is None else requirements)
    direct = {_name(r.name) for r in waiting}
    found: dict[str, Part] = {}
    while waiting:
        wanted = waiting.pop()
        name = _name(wanted.name)
        if name in found:
            continue
        package = metadata.distribution(wanted.name)
        files = [Path(str(f)).name for f in package.files or []]
        binaries, runtime = (
            tuple(sorted({m[0] for f in files if (m := pattern.search(f))}))
            for pattern in (COPYLEFT_BINARIES, GCC_RUNTIME)
        )
        found[name] = Part(
            name, package.version, licence_of(package.metadata), name in direct, binaries, runtime
        )
        if name == AUDIOCRAFT:
            continue
        for text in package.requires or []:
            need = Requirement(text)
            extras = ["", *wanted.extras]
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(need)
    return [found[name] for name in sorted(found)]


def system_packages() -> list[str]:
    """What cog.yaml installs from Debian."""
    return yaml.safe_load((ROOT / "cog.yaml").read_text())["build"].get("system_packages") or []


def problems(found: Iterable[Part], system: Iterable[str] = ()) -> list[str]:
    """What may not be in the product: parts under the GPL or AGPL, and system packages nobody has looked at."""
    return [
        f"{part.name} {part.version} is copyleft: {part.licence} {', '.join(part.binaries)}"
        for part in found
        if part.copyleft
    ] + [f"{name} from Debian: its licence is not in SYSTEM yet" for name in system if name not in SYSTEM]


def table(found: list[Part]) -> str:
    """docs/licences.md."""
    rows = [
        f"| {'**' + p.name + '**' if p.direct else p.name} | {p.version} | {p.licence} | {', '.join(p.runtime)} |"
        for p in found
    ]
    copyleft = problems(found)
    system = [f"- **{name}**, from Debian: {SYSTEM[name]}." for name in system_packages()]
    lesser = ", ".join(p.name for p in found if LESSER.search(p.licence))
    return "\n".join(
        [
            "# Licences of what the product installs",
            "",
            "Made by `python scripts/licences.py` from the packages' own metadata on Linux; bold ones are asked for in",
            "`pyproject.toml`, all versions are those of `requirements.lock`. `python scripts/licences.py --sbom sbom.json`",
            "writes the same as CycloneDX.",
            "MusicGen's weights are not among them: they are CC-BY-NC 4.0.",
            "",
            "Under the GPL or AGPL: "
            + ("; ".join(copyleft) if copyleft else "no Python package.")
            + " `make test` fails on one.",
            "",
            *system,
            "- **GCC's runtime libraries** (last column) come inside some wheels: libgfortran and libgomp are GPL-3.0 with",
            "  the GCC Runtime Library Exception, libquadmath is LGPL-2.1. What uses them keeps its own licence.",
            f"- **Under the LGPL**, unmodified and in wheels of their own, so that they can be exchanged: {lesser}; and",
            "  libsndfile, LAME and mpg123, in soundfile's wheel.",
            "- **FreeType**, in the wheels of matplotlib and pillow, offers a choice; the FreeType licence is the one taken.",
            "  The GPL in torch's licence file is that of a test folder among its sources, which the wheel does not hold.",
            "- **PyAV and imageio-ffmpeg** (x264, x265: GPL) and mutagen (GPL) are readers for the tests alone, in the `dev`",
            "  extra of `pyproject.toml`. audiocraft would import PyAV:",
            "  `looper/runtime/audiocraft_compat.py` has it do without.",
            "",
            "| package | version | licence | GCC runtime in it |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def sbom(found: list[Part]) -> dict[str, Any]:
    """CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": "musicgen-looper", "name": "musicgen-looper"},
        },
        "components": [
            {
                "type": "library",
                "bom-ref": f"pkg:pypi/{p.name}@{p.version}",
                "name": p.name,
                "version": p.version,
                "purl": f"pkg:pypi/{p.name}@{p.version}",
                "licenses": [{"license": {"name": p.licence}}],
            }
            for p in found
        ],
    }


def main() -> int:
    """Write the table or the SBOM, or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sbom", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    found = parts()
    for problem in (bad := problems(found, system_packages())):
        print(problem, file=sys.stderr)
    if args.sbom:
        args.sbom.write_text(json.dumps(sbom(found), indent=2) + "\n")
    elif not args.check:
        TABLE.write_text(table(found))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
