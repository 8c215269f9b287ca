"""What stands behind the Cog predictor: models by name, one folder of files a prediction, progress and metrics.

Predictions run at once where Cog hands out several: nothing here is one's alone but what `Service._files` holds.
"""

from __future__ import annotations

import json
import logging
import pathlib
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from statistics import fmean

from looper.checkpoints.mapping import NAMES, model_mapping
from looper.export.loop_files import write_all
from looper.pipeline.result import Loops
from looper.request import FORMATS, LoopRequest
from looper.runtime.cache_dirs import keep_in_temp_folder
from looper.runtime.memory import (
    freeze_gc,
    out_of_memory,
    peak_memory_mb,
    reset_peak_memory,
    return_memory,
    tune_malloc,
)
from looper.runtime.validation import FieldError, whole
from looper.service.concurrency import PredictionThreads, exits_are_errors, slots
from looper.service.metrics import Metrics
from looper.service.models import Models
from looper.service.probes import start_probes
from looper.service.progress import ProgressLines, write_line
from looper.service.scratch import Scratch

logger = logging.getLogger(__name__)
Record = Callable[[str, float | int | str], None]

RETURN_SECONDS = (
    10.0  # between returns of memory while predictions are under way: each stops them for a moment
)
INPUTS = {"cfg_coef": "classifier_free_guidance"}  # where an input has another name than the field


class Service:
    """Serve predictions with the models at hand, `count` at once."""

    def __init__(
        self,
        models: Models,
        scratch: Scratch | None = None,
        metrics: Metrics | None = None,
        count: int = 1,
    ) -> None:
        self.models = models
        self.metrics = metrics or Metrics()
        self.scratch = scratch or Scratch()
        self._threads = PredictionThreads(count)
        self._suspect = False
        self._returned = time.monotonic()

    @classmethod
    def start(cls) -> Service:
        """Load and warm up; see `Models.start` and `slots` for what it raises."""
        probes = start_probes(metrics := Metrics())  # they answer while the models are loaded
        count = slots()
        keep_in_temp_folder()
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        tune_malloc()
        service = cls(Models(model_mapping()), metrics=metrics, count=count)
        service.scratch.sweep()
        service.models.start()
        metrics.watch(service.models.engines)
        freeze_gc()
        if probes:
            probes.ready(service.healthy)
        return service

    async def answer(
        self, model: str, output_format: str, record: Record, **asked: object
    ) -> list[pathlib.Path]:
        """As `predict`, in a thread, for an event loop that others need too; cancelled, it ends soon."""
        work = partial(self.predict, model, output_format, record, **asked)
        return await self._threads.run(work, lambda files: self.scratch.discard(files[0].parent))

    def predict(self, model: str, output_format: str, record: Record, **asked: object) -> list[pathlib.Path]:
        """Make the loops of one request and return their files, all of them or an error; calls from any thread.

        Parameters
        ----------
        model : str
            "medium" or "large".
        output_format : str
            "wav" or "mp3".
        record : callable
            Takes (name, value) for the reply's metrics.
        **asked
            Fields of LoopRequest.
        """
        files: list[pathlib.Path] = []
        try:
            with self.metrics.prediction(), exits_are_errors():
                try:
                    files = self._predict(model, output_format, record, asked)
                except Exception as error:
                    self._suspect |= not isinstance(error, ValueError)
                    raise
                finally:
                    self._return_memory()
        except BaseException:  # a cancel may land when the files are there
            if files:
                self.scratch.discard(files[0].parent)
            raise
        self._suspect = False
        return files

    def _predict(
        self, model: str, output_format: str, record: Record, asked: dict[str, object]
    ) -> list[pathlib.Path]:
        """Make the files; say in the caller's words what is wrong, and give memory back where it ran out."""
        try:
            return self._files(model, output_format, record, asked)
        except FieldError as error:  # replies name the type, which callers know
            raise ValueError(str(error.named(INPUTS.get(error.field, error.field)))) from None
        except Exception as error:
            if not out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
            self.models.unload()
            raise RuntimeError(
                f"out of memory with {asked['variations']} variations of up to {asked['max_duration']} s: "
                "ask for fewer or shorter ones"
            ) from error

    def _return_memory(self) -> None:
        """Hand memory back when the last prediction under way ends, and now and then where there is always one."""
        now = time.monotonic()
        if self.metrics.under_way <= 1 or now - self._returned > RETURN_SECONDS:
            self._returned = now
            return_memory()

    def healthy(self) -> bool:
        """Tell whether predictions can be made; asked at any time, from another thread."""
        # a probe may not disturb a prediction's graph capture; and what it would find, the prediction meets itself
        busy = not self.metrics.idle
        return (busy and not self._suspect) or self.models.is_healthy()

    def _files(
        self, model: str, output_format: str, record: Record, asked: dict[str, object]
    ) -> list[pathlib.Path]:
        if model not in NAMES:
            raise ValueError(f"model_version must be one of {', '.join(NAMES)}, got {model!r:.80}")
        if output_format not in FORMATS:
            raise ValueError(f"output_format must be one of {', '.join(FORMATS)}, got {output_format!r:.80}")
        asked["max_duration"] = whole("max_duration", asked["max_duration"])
        request = LoopRequest(**asked).with_seed()  # type: ignore[arg-type]
        write_line(f"seed {request.seed}, {request.bpm:g} BPM, prompt {request.model_text[:200]!r}")
        if self.metrics.under_way <= 1:
            reset_peak_memory()
        with self.models.lend(model) as maker:
            loops = maker.make(request, ProgressLines())
        with loops.report.timed("export"):
            files = self._write(loops, output_format)
        try:
            self.metrics.add(loops.report)
            self._tell(loops, record)
        except BaseException:  # a cancel may land after the last file was written
            self.scratch.discard(files[0].parent)
            raise
        return files

    def _write(self, loops: Loops, output_format: str) -> list[pathlib.Path]:
        with self.scratch.folder() as folder:
            try:
                return write_all(loops, folder, output_format)
            except OSError as error:  # its text without "[Errno 28]"
                raise OSError(error.strerror or str(error)) from error

    @staticmethod
    def _tell(loops: Loops, record: Record) -> None:
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
        write_line(
            json.dumps({"event": "prediction", "bpm": loops.request.bpm, "variations": len(loops), **facts})
        )
        for k, (bpm, sure) in enumerate(zip(report.measured_bpm, report.confidence, strict=True), 1):
            write_line(f"variation {k:02d}: played at {bpm:.2f} BPM, confidence {sure:.2f}")
        write_line(
            f"{len(loops)} loops of {report.bars:g} bars, {loops[0].seconds:.4f} s, at {loops.request.bpm:g} BPM"
        )
