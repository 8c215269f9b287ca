"""An interpreter as Cog's CUDA 13 images have it: externally managed (PEP 668), and called python and python3 only.

Those images take their Python from uv, which marks it; Cog passes ``--break-system-packages`` in its own installs,
and a cog.yaml's `run` lines get nothing added. A virtual environment would hide both: pip never looks for the mark there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

MARK = "[externally-managed]\nError=This Python installation is managed by uv and should not be modified.\n"
LEFT_OUT = {"site-packages", "__pycache__", "EXTERNALLY-MANAGED", "test"}


def make(folder: Path, python: str = sys.executable) -> Path:
    """Make such an interpreter below `folder`, with pip and nothing else, and return the folder of its programs."""
    base = Path(
        subprocess.run(
            [python, "-c", "import sys; print(sys.base_prefix)"], check=True, capture_output=True, text=True
        ).stdout.strip()
    )
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library, programs = folder / "lib" / version, folder / "bin"
    library.mkdir(parents=True)
    programs.mkdir()
    for part in (base / "lib" / version).iterdir():
        if part.name not in LEFT_OUT:
            (library / part.name).symlink_to(part)
    (library / "site-packages").mkdir()
    shutil.copy2(base / "bin" / version, programs / "python3")
    (programs / "python").symlink_to("python3")
    subprocess.run([programs / "python3", "-m", "ensurepip"], check=True, capture_output=True)
    for script in programs.glob("pip*"):
        script.unlink()
    (library / "EXTERNALLY-MANAGED").write_text(MARK)
    return programs


def run_line(line: str, programs: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a cog.yaml line as Docker does: by ``sh -c``, with `programs` first and no other Python's on PATH."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    clean |= {"PATH": f"{programs}:/usr/bin:/bin", **environment}
    return subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=folder,
        env=clean,
        text=True,
        capture_output=True,
        check=False,
        timeout=1200,
    )
