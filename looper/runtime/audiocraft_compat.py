"""Let audiocraft be imported without what no loop needs.

audiocraft imports readers of media files, tokenizers, attention kernels and its training at top level: seconds at
every start, and packages nobody else here wants, PyAV among them, whose wheels hold GPL code. What audiocraft's
modules import from `STAND_INS` is therefore a stand-in. It turns into the real thing when it is first used, where
that is installed, and else says what to install. Only audiocraft's own import statements see stand-ins: nothing
is put into ``sys.modules``, and everybody else imports the real packages. ``import looper`` prepares this, whoever
imports audiocraft afterwards. Of transformers, which reads the text encoder, what other models need is left out alike,
and with it `torch.compile`'s machinery.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from operator import attrgetter
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Unneeded:
    """A module that our paths never use.

    Attributes
    ----------
    use : str
        What the importing module wants it for.
    names : tuple of str
        What is taken out of it at import, and stood in for as well; any other name in it counts as use.
    package : str
        What pip calls it, where that is not the module's first name.
    note : str
        A remedy other than installing it.
    importers : tuple of str
        The packages that import it.
    """

    use: str
    names: tuple[str, ...] = ()
    package: str = ""
    note: str = ""
    importers: tuple[str, ...] = ("audiocraft",)


_SHARES = "models in shares on several cards in transformers"
IMPORTERS = ("audiocraft", "transformers")
STAND_INS: Mapping[str, Unneeded] = {
    "audiocraft.solvers.compression": Unneeded("multi-band diffusion", ("CompressionSolver",)),
    "av": Unneeded(
        "reading of media files", note="read the file with soundfile (PyAV's wheels hold GPL code)"
    ),
    "dora": Unneeded("training", package="dora-search"),
    "flashy": Unneeded("training"),
    "huggingface_hub": Unneeded("fetching by audiocraft itself", ("hf_hub_download",)),
    "julius": Unneeded("resampling and band filters"),
    "librosa": Unneeded("melody conditioning", ("filters",), importers=IMPORTERS),
    "num2words": Unneeded("text of conditioners other than T5", ("num2words",)),
    "sklearn.metrics": Unneeded(
        "speculative decoding in transformers", ("roc_curve",), "scikit-learn", importers=("transformers",)
    ),
    "scipy.optimize": Unneeded(
        "training losses of transformers", ("linear_sum_assignment",), importers=("transformers",)
    ),
    "spacy": Unneeded("text of conditioners other than T5"),
    "torch._dynamo._trace_wrapped_higher_order_op": Unneeded(
        "compiled attention masks in transformers", ("TransformGetItemToIndex",), importers=("transformers",)
    ),
    "torch.distributed._composable.fsdp": Unneeded(_SHARES, ("fully_shard",), importers=("transformers",)),
    "torch.distributed.fsdp": Unneeded(
        _SHARES,
        ("CPUOffloadPolicy", "FullyShardedDataParallel", "MixedPrecisionPolicy"),
        importers=("transformers",),
    ),
    "torch.distributed.tensor": Unneeded(_SHARES, ("DTensor",), importers=("transformers",)),
    "torchaudio": Unneeded("melody conditioning and loudness", importers=IMPORTERS),
    "transformers": Unneeded(
        "codecs and text encoders of its own loading",
        ("EncodecModel", "RobertaTokenizer", "T5EncoderModel", "T5Tokenizer"),
    ),
    "transformers.distributed.sharding_utils": Unneeded(
        _SHARES, ("DtensorShardOperation", "_dtensor_from_local_like"), importers=("transformers",)
    ),
    "transformers.distributed.tensor_parallel": Unneeded(
        _SHARES,
        (
            "_get_parameter_tp_plan",
            "_validate_tp_plan_styles",
            "apply_tensor_parallelism",
            "gather_state_dict_for_save",
            "replace_layer_number_by_wildcard",
            "verify_tp_plan",
        ),
        importers=("transformers",),
    ),
    "xformers": Unneeded("attention in audiocraft's own decoder", ("ops",)),
    "xformers.ops": Unneeded(
        "attention in audiocraft's own decoder", ("LowerTriangularMask", "memory_efficient_attention")
    ),
}


class NotInstalledError(ModuleNotFoundError):
    """A stand-in is used, and what it stands for is not installed."""


class StandIn:
    """Stands for a module, or for something in it, and turns into that when it is used."""

    def __init__(self, module: str, path: str = "") -> None:
        self._module, self._path = module, path

    def _real(self) -> Any:
        try:
            found = importlib.import_module(self._module)
        except ImportError as error:
            raise NotInstalledError(_remedy(self._module, self._path)) from error
        return attrgetter(self._path)(found) if self._path else found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # curiosity of typing, inspect or copy is no use
            raise AttributeError(name)
        path = f"{self._path}.{name}" if self._path else name
        if (module := f"{self._module}.{path}") in STAND_INS:
            return StandIn(module)  # a module of its own, which importing the one above need not bring
        if path in STAND_INS[self._module].names:
            return StandIn(self._module, path)
        return StandIn(self._module, path)._real()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the real thing."""
        return self._real()(*args, **kwargs)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    def __instancecheck__(self, thing: object) -> bool:
        # of a class whose module nobody has imported there are no instances
        return self._module in sys.modules and isinstance(thing, self._real())

    def __or__(self, other: Any) -> Any:
        return Any  # in annotations

    __ror__ = __or__

    def __bool__(self) -> bool:
        """Whether it is installed: ``if not dora:`` asks that."""
        return importlib.util.find_spec(self._module.partition(".")[0]) is not None


def _remedy(module: str, path: str) -> str:
    entry = STAND_INS[module]
    package = entry.package or module.partition(".")[0]
    what = f"{module}.{path}" if path else module
    other = f"{entry.note}, or " if entry.note else ""
    return (
        f"{what}: {entry.use} needs {package}, which musicgen-looper does without: "
        f"{other}`pip install {package}`"
    )


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> Any:
    """``__import__`` as the importers' modules see it."""
    package = str((globals or {}).get("__package__"))
    wanted = importlib.util.resolve_name("." * level + name, package) if level else name
    importer = package.partition(".")[0]
    bound = wanted if fromlist else wanted.partition(".")[0]  # `import a.b` binds a
    if bound in STAND_INS and importer in STAND_INS[bound].importers and not (level and not fromlist):
        return StandIn(bound)
    return builtins.__import__(name, globals, locals, fromlist or (), level)


class _Lean(Loader):
    """Loads a module as `loader` does, but for what its import statements see."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = module.__spec__.loader = self.loader  # type: ignore[union-attr]
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
        with _no_marks_for_the_compiler():
            self.loader.exec_module(module)


class _Marks:
    """`torch._dynamo`, but for decorators that only `torch.compile` reads: these leave a function as it is."""

    @staticmethod
    def allow_in_graph(function: Any = None, **_: Any) -> Any:
        return _Marks.allow_in_graph if function is None else function

    assume_constant_result = disable = allow_in_graph

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("torch._dynamo"), name)


@contextmanager
def _no_marks_for_the_compiler() -> Iterator[None]:
    """Let those decorators do nothing: for them all of `torch.compile` is imported, a second, and nobody here uses it."""
    torch, compiler = sys.modules.get("torch"), sys.modules.get("torch.compiler")
    if torch is None or compiler is None or "torch._dynamo" in sys.modules or "_dynamo" in vars(torch):
        yield
        return
    real, marks = {name: getattr(compiler, name) for name in ("allow_in_graph", "disable")}, _Marks()
    vars(torch)["_dynamo"] = marks
    vars(compiler).update(dict.fromkeys(real, _Marks.allow_in_graph))
    try:
        yield
    finally:
        vars(compiler).update(real)
        if vars(torch)["_dynamo"] is marks:  # else somebody has imported it
            del torch._dynamo


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in IMPORTERS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and spec.loader:
            spec.loader = _Lean(spec.loader)
        return spec


def install() -> None:
    """Put the finder in place, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
