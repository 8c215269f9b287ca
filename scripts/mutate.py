"""Plant small mistakes in a module and see whether its own tests notice: `make mutate`.

A mutant changes one comparison, sign, constant, condition or call of `min` and `max`. Those of a module are drawn with
a fixed seed, and its tests run on each in a copy of the tree, the slow ones and those that start servers left out.
What no test notices is printed: either nobody would notice it, or a test is missing.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 300  # a mutant that hangs is noticed
FUZZ = "tests/fuzz/test_"

_CUT, _WRITE = "tests/loops/test_cut.py", "tests/files/test_write.py"
_GRID = ["tests/beats/test_features.py", "tests/beats/test_grid.py", "tests/beats/test_grid_properties.py"]
_MAKER = ["tests/pipeline/test_takes.py", "tests/pipeline/test_maker.py"]

# module or folder -> the tests that are its own, the quickest first; the first line that fits a module is its own
TESTS = {
    "looper/request.py": ["tests/test_request.py", f"{FUZZ}requests.py"],
    "looper/loops/loudness.py": ["tests/loops/test_loudness.py", _CUT],
    "looper/loops/seam.py": ["tests/loops/test_seam.py", _CUT],
    "looper/loops/clicks.py": ["tests/loops/test_seam.py"],
    "looper/loops/key.py": ["tests/loops/test_key.py"],
    "looper/loops": [_CUT],
    "looper/beats/spans.py": ["tests/beats/test_spans.py", *_GRID],
    "looper/beats": _GRID,
    "looper/files/read.py": ["tests/files/test_read.py", f"{FUZZ}recordings.py"],
    "looper/files/text.py": [f"{FUZZ}names.py", _WRITE],
    "looper/files": [_WRITE],
    "looper/model/linear.py": ["tests/model/test_linear.py"],
    "looper/generation/sampling.py": ["tests/generation/test_sampling.py"],
    "looper/pipeline": _MAKER,
    "looper/web/library.py": ["tests/web/test_library.py"],
}
SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}


@dataclass(frozen=True)
class Mutant:
    """One mistake: the text of a line range, before and after."""

    line: int
    before: str
    after: str


def mutants(source: str) -> list[Mutant]:
    """Every mistake that can be planted in `source`.

    Examples
    --------
    >>> [mutant.after for mutant in mutants("x = a < 1")]
    ['a <= 1', '2']
    """
    tree = ast.parse(source)
    found = []
    for node in _code(tree):
        for changed in _changes(node):
            before = ast.get_source_segment(source, node)
            if before and before.count("\n") < 8:
                found.append(Mutant(node.lineno, before, changed))
    return found


def _code(tree: ast.AST) -> Iterator[ast.expr]:
    """Expressions that are computed: no docstrings, annotations, or words of a message."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.JoinedStr, ast.Raise, ast.ImportFrom, ast.Import)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if child in getattr(tree, "decorator_list", []):
            continue
        if isinstance(tree, ast.AnnAssign) and child is tree.annotation:
            continue
        if isinstance(tree, ast.arg) or (isinstance(tree, ast.FunctionDef) and child is tree.returns):
            continue
        if isinstance(child, ast.expr):
            yield child
        yield from _code(child)


def _changes(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Compare) and (other := SWAPPED.get(type(node.ops[0]))):
        yield ast.unparse(ast.Compare(node.left, [other(), *node.ops[1:]], node.comparators))
    elif isinstance(node, ast.BinOp) and (other := SWAPPED.get(type(node.op))):
        yield f"({ast.unparse(ast.BinOp(node.left, other(), node.right))})"
    elif isinstance(node, ast.BoolOp):
        yield f"({ast.unparse(ast.BoolOp(SWAPPED[type(node.op)](), node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield ast.unparse(node.operand)
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.Call) and (name := CALLS.get(_called(node))):
        yield ast.unparse(node).replace(_called(node), name, 1)


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _constants(value: object) -> Iterator[str]:
    if isinstance(value, bool):
        yield repr(not value)
    elif isinstance(value, int):
        yield repr(value + 1)
    elif isinstance(value, float):
        yield repr(value * 1.5 + (value == 0))


def planted(source: str, mutant: Mutant) -> str | None:
    """`source` with the mistake in it, None where its words do not stand there once."""
    lines = source.splitlines(keepends=True)
    head, rest = "".join(lines[: mutant.line - 1]), "".join(lines[mutant.line - 1 :])
    text = head + rest.replace(mutant.before, mutant.after, 1)
    try:
        ast.parse(text)
    except SyntaxError:
        return None
    return text if text != source else None


@dataclass(frozen=True)
class Score:
    """How many of a module's mutants its tests noticed, and those that they did not."""

    module: str
    tried: int
    alive: list[Mutant]

    def tell(self) -> None:
        """Print it."""
        share = 100 * (self.tried - len(self.alive)) / max(1, self.tried)
        print(
            f"{self.module}: {self.tried - len(self.alive)} of {self.tried} noticed ({share:.0f} %)",
            flush=True,
        )
        for mutant in self.alive:
            print(f"    line {mutant.line}: {mutant.before!r} -> {mutant.after!r}", flush=True)


def noticed(tree: Path, tests: list[str]) -> bool:
    """Whether the tests fail in `tree`."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
    command += ["-m", "not server and not browser and not slow"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def score(tree: Path, module: str, tests: list[str], count: int, seed: int) -> Score:
    """Try `count` mutants of `module`, a path within `tree`."""
    file = tree / module
    source = file.read_text(encoding="utf-8")
    drawn = mutants(source)
    random.Random(f"{seed} {module}").shuffle(drawn)
    tried, alive = 0, []
    for mutant in drawn:
        if tried == count:
            break
        if (text := planted(source, mutant)) is None:
            continue
        tried += 1
        file.write_text(text, encoding="utf-8")
        if not noticed(tree, tests):
            alive.append(mutant)
    file.write_text(source, encoding="utf-8")
    return Score(module, tried, sorted(alive, key=lambda mutant: mutant.line))


def modules(asked: list[str]) -> dict[str, list[str]]:
    """Each module with its tests: those asked for, or all of `TESTS`."""
    found: dict[str, list[str]] = {}
    for place, tests in TESTS.items():
        for module in [place] if place.endswith(".py") else sorted(_inside(place)):
            if not asked or module in asked or place in asked:
                found.setdefault(module, tests)
    return found


def _inside(folder: str) -> Iterator[str]:
    for path in (ROOT / folder).glob("*.py"):
        if path.name != "__init__.py":
            yield str(path.relative_to(ROOT))


def main() -> None:
    """Print the score of each module; exit code 1 where one is below nine in ten."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=20, help="for each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("modules", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="looper-mutants-") as scratch:
        tree = Path(scratch) / "tree"
        kept = shutil.ignore_patterns(
            ".git", ".venv*", ".cache", "node_modules", "__pycache__", "work", ".hypothesis"
        )
        shutil.copytree(ROOT, tree, ignore=kept, symlinks=True)
        scores = []
        for module, tests in modules(options.modules).items():
            if noticed(tree, tests):
                raise SystemExit(f"{' '.join(tests)} fail without any mistake: mend that first")
            scores.append(score(tree, module, tests, options.mutants, options.seed))
            scores[-1].tell()
    raise SystemExit(any(len(one.alive) > 0.1 * one.tried for one in scores))


if __name__ == "__main__":
    main()
