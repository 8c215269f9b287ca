"""Puts what lies beside the package in a checkout into the wheel, as looper/_data; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
DATA = ["predict.py", "openapi.json", "weights/sources.json", "weights/tiny/**/*"]


class BuildWithData(build_py):
    """As build_py, and the data."""

    def run(self) -> None:
        """Copy the modules, then the data."""
        super().run()
        if not self.editable_mode:
            for source, target in self._data().items():
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All that was copied."""
        return [*super().get_outputs(include_bytecode), *map(str, self._data().values())]

    def _data(self) -> dict[Path, Path]:
        """Target of each file."""
        files = sorted(file for pattern in DATA for file in ROOT.glob(pattern) if file.is_file())
        folder = Path(self.build_lib) / "looper" / "_data"
        return {file: folder / file.relative_to(ROOT) for file in files}


setup(cmdclass={"build_py": BuildWithData})
