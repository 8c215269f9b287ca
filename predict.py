"""The entry point for Cog: types in, file paths out. What happens between is looper's.

Cog reads the inputs below statically: every Input and every string in it stays one plain literal.
"""

from cog import BaseModel, BasePredictor, Input, Path

from looper.service.service import Service


class Outputs(BaseModel):
    """One file a variation; those not asked for are null."""

    variation_01: Path = None
    variation_02: Path = None
    variation_03: Path = None
    variation_04: Path = None
    variation_05: Path = None
    variation_06: Path = None
    variation_07: Path = None
    variation_08: Path = None
    variation_09: Path = None
    variation_10: Path = None
    variation_11: Path = None
    variation_12: Path = None
    variation_13: Path = None
    variation_14: Path = None
    variation_15: Path = None
    variation_16: Path = None
    variation_17: Path = None
    variation_18: Path = None
    variation_19: Path = None
    variation_20: Path = None


class Predictor(BasePredictor):
    """Seamless loops from a text prompt and a tempo."""

    def setup(self) -> None:
        """Load the models, or fail with a message that names the command to run."""
        self.service = Service.start()

    def healthcheck(self) -> bool:
        """Cog asks with every GET /health-check; False turns it UNHEALTHY."""
        return self.service.healthy()

    async def predict(
        self,
        prompt: str = Input(description="A description of the music you want to generate."),
        bpm: float = Input(description="Tempo in beats per minute", default=140, ge=40, le=300),
        variations: int = Input(description="Number of variations to generate", default=4, ge=1, le=20),
        max_duration: int = Input(
            description="Maximum duration of the generated loop in seconds.", default=8, ge=2, le=20
        ),
        model_version: str = Input(
            description="Model to use for generation. .", default="medium", choices=["medium", "large"]
        ),
        top_k: int = Input(description="Reduces sampling to the k most likely tokens.", default=250),
        top_p: float = Input(
            description="Reduces sampling to tokens with cumulative probability of p. When set to `0` (default), top_k sampling is used.",
            default=0,
        ),
        temperature: float = Input(
            description="Controls the 'conservativeness' of the sampling process. Higher temperature means more diversity.",
            default=1,
        ),
        classifier_free_guidance: int = Input(
            description="Increases the influence of inputs on the output. Higher values produce lower-varience outputs that adhere more closely to inputs.",
            default=3,
        ),
        output_format: str = Input(
            description="Output format for generated audio.", default="wav", choices=["wav", "mp3"]
        ),
        seed: int = Input(
            description="Seed for random number generator. If None or -1, a random seed will be used.",
            default=-1,
        ),
    ) -> Outputs:
        """Make `variations` loops of equal length at exactly `bpm`."""
        files = await self.service.answer(
            model=model_version,
            output_format=output_format,
            record=self.record_metric,
            prompt=prompt,
            bpm=bpm,
            variations=variations,
            max_duration=max_duration,
            top_k=top_k,
            top_p=top_p,
            temperature=temperature,
            cfg_coef=classifier_free_guidance,
            seed=seed,
        )
        return Outputs(**{f"variation_{k:02d}": Path(file) for k, file in enumerate(files, 1)})
