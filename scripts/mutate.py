"""Plant small mistakes in a module and see whether its own tests notice: `make mutate`.

A mutant changes one comparison, sign, constant, condition or call of `min` and `max`. Those of a module are drawn with
a fixed seed, and its tests run on each in a copy of the tree, the slow ones and those that start servers left out: those
that reach the changed statement, the quickest first. Every run is a fork of one process that has imported the libraries
once. What no test notices is printed: either nobody would notice
it, or a test is missing. `equivalent_mutants.toml` holds those that were looked at and change nothing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
SECONDS = 300  # a mutant that hangs is noticed
FUZZ = "tests/fuzz/test_"
EXAMPLES = "tests/test_docstrings.py"
Place = tuple[str, int]  # file and line
CO_OPTIMIZED = 0x1  # a function's code; modules and classes run theirs once, when they are imported

# module or folder -> the tests that are its own; the first line that fits a module is its own
TESTS = {
    "looper/request.py": ["tests/test_request.py", "tests/test_length.py", f"{FUZZ}requests.py"],
    "looper/samples.py": ["tests/loops", "tests/beats/test_grid.py"],
    "looper/loops/resample.py": ["tests/loops/test_resample.py", "tests/files/test_studio_formats.py"],
    "looper/loops/seam.py": [
        "tests/loops/test_seam_by_hand.py",
        "tests/loops/test_seam.py",
        "tests/loops/test_pins.py",
    ],
    "looper/loops/notebook.py": ["tests/examples/test_notebook.py"],
    "looper/loops": ["tests/loops"],
    "looper/beats": ["tests/beats", "tests/training/test_downbeats.py"],
    "looper/files/wav_chunks.py": ["tests/files/test_wav_chunks.py", "tests/files/test_write.py"],
    "looper/files/write.py": ["tests/files/test_write.py", "tests/files/test_studio_formats.py"],
    "looper/files/read.py": ["tests/files/test_read.py", f"{FUZZ}recordings.py"],
    "looper/files": ["tests/files", f"{FUZZ}recordings.py", f"{FUZZ}names.py"],
    "looper/model/linear.py": ["tests/model/test_linear.py"],
    "looper/generation/sampling.py": ["tests/generation/test_exact_draws.py"],
    "looper/pipeline/plan.py": ["tests/pipeline/test_plan.py", "tests/pipeline/test_maker.py"],
    "looper/pipeline/maker.py": ["tests/pipeline/test_maker.py", "tests/pipeline/test_from_recording.py"],
    "looper/pipeline/from_recording.py": [
        "tests/pipeline/test_source.py",
        "tests/pipeline/test_from_recording.py",
    ],
    "looper/pipeline/takes.py": ["tests/pipeline/test_takes.py"],
    "looper/pipeline/result.py": ["tests/pipeline/test_result.py"],
    "looper/pipeline/session.py": ["tests/pipeline/test_session.py"],
    "looper/pipeline": ["tests/pipeline/test_takes.py", "tests/pipeline/test_maker.py"],
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
    """One mistake: a place in the source, what stands there before and after, and the lines of its statement."""

    line: int
    start: int
    stop: int
    before: str
    after: str
    statement: range

    def planted(self, source: str) -> str:
        """`source` with the mistake in it."""
        return source[: self.start] + self.after + source[self.stop :]


def mutants(source: str) -> list[Mutant]:
    """Every mistake that can be planted in `source`.

    Examples
    --------
    >>> [mutant.after for mutant in mutants("x = a < 1")]
    ['a <= 1', '2']
    """
    tree = ast.parse(source)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def place(line: int, column: int) -> int:
        text = source[starts[line - 1] : starts[line]]
        return starts[line - 1] + len(text.encode()[:column].decode())

    found = []
    for node in _code(tree):
        assert node.end_lineno is not None and node.end_col_offset is not None
        if node.end_lineno - node.lineno >= 8:
            continue
        begin, end = place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
        for changed in _changes(node):
            mutant = Mutant(node.lineno, begin, end, source[begin:end], changed, _lines(node, statements))
            with contextlib.suppress(SyntaxError):
                ast.parse(mutant.planted(source))
                found.append(mutant)
    return found


def _lines(node: ast.expr, statements: list[ast.stmt]) -> range:
    """Lines of the innermost statement around `node`, without the body of a compound one."""
    around = [s for s in statements if s.lineno <= node.lineno <= (s.end_lineno or s.lineno)]
    inner = max(around, key=lambda s: (s.lineno, -(s.end_lineno or 0)))
    body = getattr(inner, "body", None)
    return range(inner.lineno, max(inner.lineno + 1, body[0].lineno if body else (inner.end_lineno or 0) + 1))


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


@dataclass
class Reached:
    """A pytest plugin: which lines of some files each test reaches, and how long it takes."""

    files: frozenset[str]
    lines: dict[str, set[Place]] = field(default_factory=dict)
    everybody: set[Place] = field(default_factory=set)  # imports and fixtures: any test may hang on them
    seconds: dict[str, float] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Any:
        with self._watched(self.everybody):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        self._forget()
        began = time.perf_counter()
        with self._watched(self.lines.setdefault(item.nodeid, set())):
            result = yield
        self.seconds[item.nodeid] = time.perf_counter() - began
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Any:
        with self._watched(self.everybody):
            return (yield)

    def pytest_sessionfinish(self) -> None:
        places = [(name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items())]
        self.libraries = [name for name, place in places if place and "site-packages" in place]

    def _forget(self) -> None:
        """Empty the caches of the watched modules: what an earlier test has filled, a later one reaches too."""
        for module in [
            module for module in sys.modules.values() if getattr(module, "__file__", None) in self.files
        ]:
            for value in vars(module).values():
                if callable(forget := getattr(value, "cache_clear", None)):
                    forget()

    @contextlib.contextmanager
    def _watched(self, lines: set[Place]) -> Iterator[None]:
        def called(frame: FrameType, event: str, arg: object) -> Any:
            code: CodeType = frame.f_code
            if code.co_filename not in self.files:
                return None
            into = lines if code.co_flags & CO_OPTIMIZED else self.everybody
            into.add((code.co_filename, frame.f_lineno))

            def line(frame: FrameType, event: str, arg: object) -> Any:
                into.add((frame.f_code.co_filename, frame.f_lineno))
                return line

            return line

        before = sys.gettrace()
        sys.settrace(called)
        threading.settrace(called)
        try:
            yield
        finally:
            sys.settrace(before)
            threading.settrace(before)  # type: ignore[arg-type]

    def reaching(self, file: str, statement: range) -> list[str]:
        """Tests that reach one of these lines, the quickest first, those of one file together."""
        lines = {(file, line) for line in statement}
        chosen = [
            test
            for test, reached in self.lines.items()
            if not self.everybody.isdisjoint(lines) or not reached.isdisjoint(lines)
        ]
        whole: dict[str, float] = {}
        for test in chosen:
            name = test.split("::")[0]
            whole[name] = whole.get(name, 0.0) + self.seconds[test]
        return sorted(
            chosen, key=lambda test: (whole[test.split("::")[0]], test.split("::")[0], self.seconds[test])
        )


@dataclass(frozen=True)
class Chosen:
    """A pytest plugin: runs these tests alone, in this order; of the docstrings' examples those of some modules."""

    modules: tuple[str, ...]
    tests: list[str] | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        names = [f"[{module.removesuffix('.py').replace('/', '.')}]" for module in self.modules]
        here = {
            item.nodeid: item
            for item in items
            if EXAMPLES not in item.nodeid or any(name in item.nodeid for name in names)
        }
        items[:] = list(here.values()) if self.tests is None else [here[t] for t in self.tests if t in here]


def in_fork(work: Callable[[], object], seconds: float) -> Any:
    """What `work` returns in a process of its own, None where that has died or takes longer than `seconds`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(reader)
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        answer = b""
        with contextlib.suppress(BaseException):
            answer = pickle.dumps(work())
        os.write(writer, len(answer).to_bytes(8, "big"))
        while answer:
            answer = answer[os.write(writer, answer) :]
        os._exit(0)
    os.close(writer)
    late = threading.Timer(seconds, lambda: os.killpg(child, signal.SIGKILL))
    late.start()
    with os.fdopen(reader, "rb") as stream:
        size = int.from_bytes(stream.read(8), "big")
        answer = stream.read(size)
    late.cancel()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # and what its tests have left
    os.waitpid(child, 0)
    return pickle.loads(answer) if answer and len(answer) == size else None


def run_tests(tree: Path, files: list[str], *plugins: object) -> int:
    """Exit status of the tests in `tree`, run by this process, which must be a fork."""
    os.chdir(tree)
    os.environ.update(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
    sys.dont_write_bytecode = not any(isinstance(plugin, Reached) for plugin in plugins)
    sys.path[:] = [str(tree)] + [
        p for p in sys.path if p and Path(p).resolve() not in (ROOT, Path.cwd().resolve())
    ]
    for name in [name for name in sys.modules if name.split(".")[0] in ("looper", "testkit", "tests")]:
        del sys.modules[name]
    command = [
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
        "--no-header",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        *files,
    ]
    return int(
        pytest.main([*command, "-m", "not server and not browser and not slow"], plugins=list(plugins))
    )


def first_look(tree: Path, modules: tuple[str, ...], tests: list[str]) -> Reached:
    """What the tests reach of modules in which there is no mistake; imports the libraries that they need."""
    watched = Reached(frozenset(str(tree / module) for module in modules))

    def look() -> Reached | None:
        return None if run_tests(tree, [*tests, EXAMPLES], Chosen(modules), watched) else watched

    reached: Reached | None = in_fork(look, 3 * SECONDS)
    if reached is None:
        raise SystemExit(f"{' '.join(tests)} fail without any mistake: mend that first")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in reached.libraries:
            if not name.startswith(("audiocraft", "av", "_pytest", "pytest", "xdist", "_hypothesis")):
                with contextlib.suppress(BaseException):
                    importlib.import_module(name)
    for module in modules:
        for stale in (tree / module).parent.glob(f"__pycache__/{Path(module).stem}.*.pyc"):
            stale.unlink()
    if in_fork(lambda: run_tests(tree, [*tests, EXAMPLES], Chosen(modules)), 3 * SECONDS) != 0:
        raise SystemExit(
            f"{' '.join(tests)} fail where libraries are imported before: no score could be believed"
        )
    return reached


def noticed(tree: Path, module: str, mutant: Mutant, reached: Reached) -> bool:
    """Whether a test fails in `tree`, in which the mistake is."""
    tests = reached.reaching(str(tree / module), mutant.statement)
    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    limit = 60 + 10 * sum(reached.seconds[test] for test in tests)
    return bool(tests) and in_fork(lambda: run_tests(tree, files, Chosen((module,), tests)), limit) != 0


@dataclass(frozen=True)
class Score:
    """How many of a module's mutants its tests noticed, and those that they did not."""

    module: str
    tried: int
    alive: list[Mutant]
    equivalent: int

    def tell(self) -> None:
        """Print it."""
        share = 100 * (self.tried - len(self.alive)) / max(1, self.tried)
        besides = f", {self.equivalent} besides that change nothing" if self.equivalent else ""
        print(
            f"{self.module}: {self.tried - len(self.alive)} of {self.tried} noticed ({share:.0f} %){besides}",
            flush=True,
        )
        for mutant in self.alive:
            print(f"    line {mutant.line}: {mutant.before!r} -> {mutant.after!r}", flush=True)


def known_equivalent(module: str) -> set[tuple[str, str, str]]:
    """Code of the line, before and after of the mutants of a module that change nothing."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.exists() else {}
    return {(one["code"], one["before"], one["after"]) for one in listed.get(module, [])}


def score(tree: Path, module: str, reached: Reached, count: int, seed: int) -> Score:
    """Try `count` mutants of `module`, a path within `tree`."""
    file = tree / module
    source = file.read_text(encoding="utf-8")
    code = source.splitlines()
    drawn = mutants(source)
    random.Random(f"{seed} {module}").shuffle(drawn)
    harmless = known_equivalent(module)
    alive, equivalent = [], 0
    for mutant in drawn[:count]:
        if (code[mutant.line - 1].strip(), mutant.before, mutant.after) in harmless:
            equivalent += 1
            continue
        file.write_text(mutant.planted(source), encoding="utf-8")
        if not noticed(tree, module, mutant, reached):
            alive.append(mutant)
    file.write_text(source, encoding="utf-8")
    tried = min(count, len(drawn)) - equivalent
    return Score(module, tried, sorted(alive, key=lambda mutant: mutant.line), equivalent)


def groups(asked: list[str]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Modules that share their tests, and these: those asked for, or all of `TESTS`."""
    seen: set[str] = set()
    for place, tests in TESTS.items():
        here = {place} if place.endswith(".py") else set(_inside(place))
        group = sorted(module for module in here - seen if not asked or module in asked or place in asked)
        seen |= here
        if group:
            yield tuple(group), tests


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
        for group, tests in groups(options.modules):
            reached = first_look(tree, group, tests)
            for module in group:
                scores.append(score(tree, module, reached, options.mutants, options.seed))
                scores[-1].tell()
    raise SystemExit(any(len(one.alive) > 0.1 * one.tried for one in scores))


if __name__ == "__main__":
    main()
