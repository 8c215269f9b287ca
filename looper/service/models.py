"""Loaded models by name."""

from __future__ import annotations

import gc
import logging
import pathlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from looper.checkpoints.mapping import MAPPING_VARIABLE, NAMES
from looper.pipeline.maker import LoopMaker
from looper.request import LoopRequest
from looper.runtime.cancellation import check_cancelled
from looper.runtime.device import gpu_answers, has_gpu
from looper.runtime.memory import freeze_gc

if TYPE_CHECKING:
    from looper.generation.tasks import EngineStatus

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05  # between a waiting prediction's looks at whether it was cancelled


def _without_gpu(names: Sequence[str]) -> str:
    return (
        f"no CUDA GPU was found, and MusicGen {' and '.join(names)} would take hours without one: run on a "
        f"machine with an NVIDIA GPU (and fetch the weights there: `looper weights get {names[0]}`), or set "
        f"{MAPPING_VARIABLE}='medium=tiny,large=tiny' to serve the small demonstration model"
    )


class Models:
    """Loaded models by name. Each folder is loaded once; on a GPU that is too small for all, one at a time.

    Predictions in other threads borrow them with `lend`: none is unloaded while somebody has it.
    """

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self.mapping = dict(mapping)
        self._loaded: dict[pathlib.Path, LoopMaker] = {}
        self._gpu = False
        # held while a model is loaded or exchanged: who waits for one keeps their turn
        self._door = threading.Lock()
        self._returned = threading.Condition()
        self._borrowers: Counter[LoopMaker] = Counter()

    def start(self) -> None:
        """Load what is here. A name without weights is not served, and a request for it says what brings them.

        Raises
        ------
        looper.checkpoints.sources.WeightsError
            If no name has weights, a folder of the mapping is missing, or weights are damaged, saying what to run.
        RuntimeError
            If there is no GPU for MusicGen's own sizes.
        """
        self._gpu = has_gpu()
        folders = self._here()
        for name, other in self.mapping.items():
            logger.warning("%s: %r is served by %s, not by MusicGen %s", MAPPING_VARIABLE, name, other, name)
        for name, folder in folders.items():
            if folder not in self._loaded and (not self._loaded or self._fits(folder)):
                self._warm_up(self._load(name, folder))

    def _here(self) -> dict[str, pathlib.Path]:
        """Folders of the names that can be served; the log says which cannot, and why."""
        from looper.checkpoints.sources import WeightsError

        folders: dict[str, pathlib.Path] = {}
        missing: dict[str, WeightsError] = {}
        for name in NAMES:
            try:
                folders[name] = self._folder(name)
            except WeightsError as error:
                if name in self.mapping:
                    raise
                missing[name] = error
        too_big = [name for name in folders or NAMES if name not in self.mapping]
        if too_big and not self._gpu:  # told before anybody fetches gigabytes for nothing
            raise RuntimeError(_without_gpu(too_big))
        if not folders:
            raise next(iter(missing.values()))
        for name, why in missing.items():
            logger.warning("only %s is served; %s is not: %s", *folders, name, why)
        return folders

    def _folder(self, name: str) -> pathlib.Path:
        from looper.checkpoints.store import find

        return find(self.mapping.get(name, name))

    @contextmanager
    def lend(self, name: str) -> Iterator[LoopMaker]:
        """Lend the maker for a model name for a block; see `get` for what it raises.

        Where it does not fit beside the one that is loaded, this waits until nobody uses that; those who come later
        wait behind, whatever they ask for.
        """
        while not self._door.acquire(timeout=POLL_SECONDS):
            check_cancelled()
        try:
            maker = self.get(name)
            with self._returned:
                self._borrowers[maker] += 1
        finally:
            self._door.release()
        try:
            yield maker
        finally:
            with self._returned:
                self._borrowers[maker] -= 1
                self._borrowers += Counter()  # keeps those above zero
                self._returned.notify_all()

    def get(self, name: str) -> LoopMaker:
        """The maker for a model name, loaded on demand.

        Raises
        ------
        looper.checkpoints.sources.WeightsError
            If its weights are not here, saying at once what brings them.
        RuntimeError
            If it would need a GPU and there is none.
        """
        folder = self._folder_or_instead(name)
        if folder not in self._loaded:
            if self._loaded and not self._fits(folder):
                self._wait_until_returned()
                self._unload()
            self._load(name, folder)
            freeze_gc()  # as after a start: what was loaded then is gone, and with it what was frozen
        return self._loaded[folder]

    def _load(self, name: str, folder: pathlib.Path) -> LoopMaker:
        logger.info("loading %s from %s", name, folder)
        maker = self._loaded[folder] = LoopMaker.load(str(folder))
        return maker

    def _folder_or_instead(self, name: str) -> pathlib.Path:
        """The folder of `name`, or a complaint that names what can be asked for instead."""
        from looper.checkpoints.sources import WeightsError

        if not self._gpu and name not in self.mapping:
            raise RuntimeError(_without_gpu([name]))
        try:
            return self._folder(name)
        except WeightsError as error:
            instead = " or ".join(other for other in NAMES if other != name)
            raise WeightsError(
                f"model_version {name} is not served here: {error}; or ask for {instead}"
            ) from None

    def _fits(self, folder: pathlib.Path) -> bool:
        if not has_gpu():
            return True
        import torch

        size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        return torch.cuda.mem_get_info()[0] > 1.5 * size + 6 * 2**30  # room for caches and activations

    def is_healthy(self) -> bool:
        """Tell whether the GPU there was at the start still computes; without one there is nothing to lose."""
        return not self._gpu or gpu_answers()

    def unload(self) -> None:
        """Give back the memory of models that nobody has, and what the others keep; the caller has none."""
        with self._door:  # not while one is being lent
            self._unload()

    def _unload(self) -> None:
        with self._returned:
            self._loaded = {folder: maker for folder, maker in self._loaded.items() if self._borrowers[maker]}
            for maker in self._loaded.values():
                maker.generator.release()
        gc.unfreeze()
        gc.collect()
        if has_gpu():
            import torch

            torch.cuda.empty_cache()

    def engines(self) -> dict[str, EngineStatus]:
        """What the engine of each loaded model is doing, by the model's own name."""
        makers = list(self._loaded.values())
        return {maker.generator.name: maker.generator.engine.status() for maker in makers}

    def _wait_until_returned(self) -> None:
        with self._returned:
            while self._borrowers:
                self._returned.wait(POLL_SECONDS)
                check_cancelled()

    @staticmethod
    def _warm_up(maker: LoopMaker) -> None:
        maker.generator.prepare()  # here, not at the first customer's cost
        variations, seconds = (4, 8) if has_gpu() else (1, 2)
        maker.make(LoopRequest("warm up", bpm=120, variations=variations, max_duration=seconds, seed=0))
