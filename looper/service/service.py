"""What stands behind the Cog door: models by name, one folder of files a prediction, progress and metrics."""

from __future__ import annotations

import gc
import json
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from tqdm import tqdm

from looper.files.write import write_all
from looper.pipeline.maker import LoopMaker
from looper.pipeline.result import Loops
from looper.request import FORMATS, LoopRequest, whole
from looper.runtime.cache_dirs import keep_in_temp_folder
from looper.runtime.memory import (
    gpu_answers,
    out_of_memory,
    peak_memory_mb,
    return_memory,
    settle,
    steady_heap,
    watch_peak,
)

log = logging.getLogger(__name__)

NAMES = ("medium", "large")
MAPPING_VARIABLE = "LOOPER_MODELS"
_SCRATCH = "musicgen-looper-"


def model_mapping(text: str | None = None) -> dict[str, str]:
    """Folders that stand in for model names, from "medium=folder,large=folder".

    Raises
    ------
    ValueError
        If the text does not read like that.
    """
    text = os.environ.get(MAPPING_VARIABLE, "") if text is None else text
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    wrong = [
        name
        for name, equals, folder in pairs
        if name.strip() not in NAMES or not equals or not folder.strip()
    ]
    if wrong:
        raise ValueError(
            f"{MAPPING_VARIABLE} must look like 'medium=weights/tiny,large=weights/tiny', got {text!r:.120}"
        )
    return {name.strip(): folder.strip() for name, _, folder in pairs}


def has_gpu() -> bool:
    """Tell whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


class Models:
    """Loaded models by name. Each folder is loaded once; on a GPU that is too small for all, one at a time."""

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self.mapping = dict(mapping)
        self._loaded: dict[pathlib.Path, LoopMaker] = {}
        self._gpu = False

    def start(self) -> None:
        """Load what can be served.

        Raises
        ------
        looper.checkpoints.load.WeightsError
            If weights are missing or damaged, saying what to run.
        RuntimeError
            If there is no GPU for MusicGen's own sizes.
        """
        from looper.checkpoints.load import find

        self._gpu = has_gpu()
        unmapped = [name for name in NAMES if name not in self.mapping]
        if unmapped and not self._gpu:  # told before anybody fetches gigabytes for nothing
            raise RuntimeError(
                f"no CUDA GPU was found, and MusicGen {' and '.join(unmapped)} would take hours without one: run on a "
                f"machine with an NVIDIA GPU (and fetch the weights there: `looper weights get {unmapped[0]}`), or set "
                f"{MAPPING_VARIABLE}='medium=weights/tiny,large=weights/tiny' to serve the small demonstration model"
            )
        folders = {name: find(self.mapping.get(name, name)) for name in NAMES}
        for name, folder in self.mapping.items():
            log.warning("%s: %r is served by %s, not by MusicGen %s", MAPPING_VARIABLE, name, folder, name)
        for name in NAMES:
            if folders[name] not in self._loaded and (not self._loaded or self._fits(folders[name])):
                self._warm_up(self.get(name))

    def get(self, name: str) -> LoopMaker:
        """The maker for a model name, loaded on demand."""
        from looper.checkpoints.load import find

        folder = find(self.mapping.get(name, name))
        if folder not in self._loaded:
            if self._loaded and not self._fits(folder):
                self.unload()
            log.info("loading %s from %s", name, folder)
            self._loaded[folder] = LoopMaker.load(str(folder))
        if self._gpu:
            for other in self._loaded:
                if other != folder:
                    self._loaded[other].generator.rest()  # what it keeps is room for this one's batches
        return self._loaded[folder]

    def _fits(self, folder: pathlib.Path) -> bool:
        if not has_gpu():
            return True
        import torch

        size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        return torch.cuda.mem_get_info()[0] > 1.5 * size + 6 * 2**30  # room for caches and activations

    def answer(self) -> bool:
        """Tell whether the GPU there was at the start still computes; without one there is nothing to lose."""
        return not self._gpu or gpu_answers()

    def unload(self) -> None:
        """Give all memory back; models are loaded again on demand."""
        self._loaded.clear()
        gc.unfreeze()
        gc.collect()
        if has_gpu():
            import torch

            torch.cuda.empty_cache()

    @staticmethod
    def _warm_up(maker: LoopMaker) -> None:
        # on a GPU the graphs of a default request are captured here, not at the first customer's cost
        variations, seconds = (4, 8) if has_gpu() else (2, 2)
        maker.make(LoopRequest("warm up", bpm=120, variations=variations, max_duration=seconds, seed=0))


class _Lines:
    """A text file for tqdm whose updates are whole lines: a half line would leak into the next prediction's log."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


@dataclass
class ProgressLines:
    """Progress as one tqdm line each tenth of a stage."""

    bars: dict[str, tqdm] = field(default_factory=dict)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show `done` of `total`."""
        bar = self.bars.get(stage)
        if bar is None or done < bar.n:  # a further round starts its stage again
            self.bars[stage] = bar = tqdm(
                total=total,
                desc=stage,
                file=_Lines(),
                ncols=80,
                ascii=True,
                leave=False,
                miniters=max(1, total // 10),
                mininterval=0,
            )
        bar.update(done - bar.n)
        if done >= total:
            bar.close()


class Scratch:
    """One folder of output files a prediction, removed when the next one starts: nobody else deletes them."""

    def __init__(self, root: pathlib.Path | None = None) -> None:
        self.parent = pathlib.Path(root or tempfile.gettempdir())
        self.root = self.parent / f"{_SCRATCH}{os.getpid()}"

    def sweep(self) -> None:
        """Remove this process's files, and those of processes that are gone."""
        for folder in self.parent.glob(_SCRATCH + "*"):
            pid = folder.name.removeprefix(_SCRATCH)
            if pid.isdigit() and (int(pid) == os.getpid() or not _alive(int(pid))):
                shutil.rmtree(folder, ignore_errors=True)

    def fresh(self) -> pathlib.Path:
        """Return an empty folder, the last prediction's being gone."""
        self.sweep()
        self.root.mkdir(parents=True, mode=0o700)
        return self.root


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Service:
    """Serve predictions with the models at hand."""

    def __init__(self, models: Models, scratch: Scratch | None = None) -> None:
        self.models = models
        self.scratch = scratch or Scratch()
        self._predicting = False

    @classmethod
    def start(cls) -> Service:
        """Load and warm up; see `Models.start` for what it raises."""
        keep_in_temp_folder()
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        steady_heap()
        service = cls(Models(model_mapping()))
        service.scratch.sweep()
        service.models.start()
        settle()
        return service

    def predict(
        self, model: str, output_format: str, record: Callable[[str, float | int | str], None], **wish: object
    ) -> list[pathlib.Path]:
        """Make the loops of one request and return their files, all of them or an error.

        Parameters
        ----------
        model : str
            "medium" or "large".
        output_format : str
            "wav" or "mp3".
        record : callable
            Takes (name, value) for the reply's metrics.
        **wish
            Fields of LoopRequest.
        """
        self._predicting = True
        try:
            return self._files(model, output_format, record, wish)
        except BaseException as error:  # a cancelled prediction too leaves nothing behind
            shutil.rmtree(self.scratch.root, ignore_errors=True)
            if not out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
            self.models.unload()
            raise RuntimeError(
                f"out of memory with {wish['variations']} variations of up to {wish['max_duration']} s: "
                "ask for fewer or shorter ones"
            ) from error
        finally:
            return_memory()
            self._predicting = False

    def healthy(self) -> bool:
        """Tell whether predictions can be made; asked at any time, from another thread."""
        # a probe may not disturb a prediction's graph capture; and what it would find, the prediction meets itself
        return self._predicting or self.models.answer()

    def _files(
        self,
        model: str,
        output_format: str,
        record: Callable[[str, float | int | str], None],
        wish: dict[str, object],
    ) -> list[pathlib.Path]:
        folder = self.scratch.fresh()
        if model not in NAMES:
            raise ValueError(f"model_version must be one of {', '.join(NAMES)}, got {model!r:.80}")
        if output_format not in FORMATS:
            raise ValueError(f"output_format must be one of {', '.join(FORMATS)}, got {output_format!r:.80}")
        wish["max_duration"] = whole("max_duration", wish["max_duration"])
        try:
            request = LoopRequest(**wish).with_seed()  # type: ignore[arg-type]
        except ValueError as error:  # at this door the input has a longer name
            raise ValueError(str(error).replace("cfg_coef", "classifier_free_guidance")) from None
        print(f"seed {request.seed}, {request.bpm:g} BPM, prompt {request.model_text[:200]!r}")
        watch_peak()
        loops = self.models.get(model).make(request, ProgressLines())
        with loops.report.timed("export"):
            try:
                files = write_all(loops, folder, output_format)
            except OSError as error:  # its text without "[Errno 28]"
                raise OSError(error.strerror or str(error)) from error
        self._tell(loops, record)
        return files

    @staticmethod
    def _tell(loops: Loops, record: Callable[[str, float | int | str], None]) -> None:
        report = loops.report
        facts: dict[str, float | int | str] = {
            "model": report.model,
            "seed": report.seed,
            "bars": report.bars,
            "loop_seconds": round(loops[0].seconds, 6),
            "bpm_measured": round(report.measured_bpm[0], 3),
            "confidence": round(min(report.confidence), 3),
            "draws": sum(report.attempts),
            "seam": round(max(loop.seam.click_ratio for loop in loops), 3),
            "peak_memory_mb": round(peak_memory_mb()),
        }
        facts |= {f"seconds.{stage}": round(seconds, 3) for stage, seconds in report.seconds.items()}
        facts |= {f"steps_per_second.{stage}": round(s, 1) for stage, s in report.steps_per_second.items()}
        if seams := [seam for seam in report.seam_log_likelihood if seam is not None]:
            facts["seam_log_likelihood"] = round(fmean(seams), 3)
        for name, value in facts.items():
            record(name, value)
        # one line for machines: the metrics again, for those who keep logs alone
        print(
            json.dumps({"event": "prediction", "bpm": loops.request.bpm, "variations": len(loops), **facts})
        )
        for k, (bpm, sure) in enumerate(zip(report.measured_bpm, report.confidence, strict=True), 1):
            print(f"variation {k:02d}: played at {bpm:.2f} BPM, confidence {sure:.2f}")
        print(
            f"{len(loops)} loops of {report.bars:g} bars, {loops[0].seconds:.4f} s, at {loops.request.bpm:g} BPM"
        )
