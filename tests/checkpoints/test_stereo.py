"""Stereo models: two interleaved streams of codes, as audiocraft has them, and stereo to the last file."""

from __future__ import annotations

import json
import shutil
import wave

import numpy as np
import pytest
import soundfile as sf
import torch

from looper import LoopMaker, LoopRequest
from looper.checkpoints import load
from looper.checkpoints.convert import SHARED_CODEC, convert
from looper.checkpoints.manifest import verify, write_manifest
from looper.checkpoints.own_models import add_model
from looper.checkpoints.sources import WeightsError
from looper.generation.messages import GenerationRequest
from looper.loops.loudness import CEILING_DBTP, integrated_loudness, true_peak
from looper.loops.matching import cross_clicks
from looper.request import Sampling
from testkit import stand_ins
from testkit.checkpoints import Shape

pytestmark = pytest.mark.usefixtures("one_thread", "drawn_once")
TEXT = "deep house warm chords"
STEREO = Shape(stereo=True)


@pytest.fixture
def generator(models):
    return models("stereo")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return stand_ins.publish(tmp_path_factory.mktemp("published") / "stereo", STEREO)


@pytest.fixture(scope="module")
def theirs(published):
    """Audiocraft's own codec for the published files: a mono one, wrapped as the language model's config says."""
    from audiocraft.models import builders, loaders
    from omegaconf import OmegaConf

    package = torch.load(published / "state_dict.bin", weights_only=True)
    codec = loaders.load_compression_model(str(published), device="cpu")
    return builders.get_wrapped_compression_model(codec, OmegaConf.create(package["xp.cfg"]))


def tone(frames: int) -> np.ndarray:
    """Another note in each ear, [n, 2]."""
    t = np.arange(frames * 640) / 32_000
    return (0.3 * np.sin(2 * np.pi * np.array([220, 330]) * t[:, None])).astype(np.float32)


def generate(generator, **asked):
    asked = {"prompts": [TEXT] * 2, "frames": 40, "keys": [(1, 0, 0), (1, 1, 0)]} | asked
    return generator.generate(GenerationRequest(**asked, sampling=Sampling(top_k=20)))


@pytest.mark.slow
@torch.inference_mode()
def test_the_sound_is_that_of_audiocrafts_interleaving_codec(generator, theirs):
    output = generate(generator)
    assert type(theirs).__name__ == "InterleaveStereoCompressionModel"
    expected = theirs.decode(torch.from_numpy(output.codes)).numpy().swapaxes(1, 2)
    assert output.codes.shape == (2, 8, 40) and output.samples.shape == (2, 40 * 640, 2)
    np.testing.assert_allclose(output.samples, expected, atol=1e-5)
    assert not np.allclose(output.samples[..., 0], output.samples[..., 1])


@torch.inference_mode()
@pytest.mark.parametrize("mono", [False, True])
def test_codes_are_those_of_audiocrafts_interleaving_codec(generator, theirs, mono):
    heard = tone(25)[:, 0] if mono else tone(25)
    both = np.stack([heard, heard], 1) if mono else heard
    expected, _ = theirs.encode(torch.from_numpy(both.T)[None])
    assert torch.equal(generator.encode_audio(heard), expected[0])


def test_an_audio_prompt_in_stereo_comes_back_at_the_beginning(generator):
    output = generate(generator, audio_prompts=tone(20)[None])
    encoded = generator.encode_audio(tone(20)).numpy()
    assert np.array_equal(output.codes[:, :, :20], np.stack([encoded] * 2))


def test_rows_of_lengths_of_their_own_end_in_silence_on_both_channels(generator):
    output = generate(generator, frames=[40, 12])
    assert not output.samples[1, 12 * 640 :].any() and output.samples[1, : 12 * 640].std() > 0
    assert np.array_equal(output.samples[1, : 12 * 640], generate(generator).samples[1, : 12 * 640]) is False


@pytest.mark.parametrize("shape", [(1, 640, 3), (1, 640, 1), (1, 700, 2), (640, 2)])
def test_audio_prompts_of_another_shape_are_refused(generator, shape):
    with pytest.raises(ValueError, match=r"audio_prompts must be .* or, in stereo"):
        generate(generator, audio_prompts=np.zeros(shape, np.float32))


def test_a_mono_model_takes_no_stereo_prompt(models):
    with pytest.raises(ValueError, match="audio_prompts must be"):
        generate(models("t5"), audio_prompts=tone(20)[None])


@pytest.fixture(scope="module")
def loops(models, drawn_once):
    request = LoopRequest("drums", bpm=121.7, variations=2, max_duration=2, top_k=60, seed=3)
    return LoopMaker(models("stereo")).make(request)


@pytest.mark.slow
def test_loops_are_stereo_exact_seamless_and_equally_loud(loops):
    assert all(loop.samples.shape == (round(loop.beats * 60 / 121.7 * 32_000), 2) for loop in loops)
    assert all(loop.channels == 2 and "stereo" in repr(loop) for loop in loops)
    assert all(not np.allclose(loop.samples[:, 0], loop.samples[:, 1], atol=1e-3) for loop in loops)
    assert cross_clicks(loops).max() < 1.5
    assert max(true_peak(loop.samples) for loop in loops) <= 10 ** (CEILING_DBTP / 20) + 1e-6
    loud = [integrated_loudness(loop.samples, 32_000) for loop in loops]
    assert np.ptp(loud) < 0.3
    assert all(np.abs(loop.samples.mean(axis=0)).max() < 1e-4 for loop in loops)


def test_the_gain_is_one_for_both_channels(models):
    """What is louder on the left stays as much louder."""
    from looper.loops.loudness import match

    noise = np.random.default_rng(1).normal(size=(64_000, 2)) * [0.3, 0.1]
    noise -= noise.mean(axis=0)
    (found,) = match([noise], 32_000, -20.0)
    ratio = found / noise
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [32_000, 44_100])
def test_files_are_stereo_in_every_format(loops, tmp_path, rate):
    loop = loops.at_rate(rate)[0]
    for format in ("wav", "flac", "ogg", "mp3"):
        read, found = sf.read(loop.save(tmp_path / f"loop.{format}"))
        assert (found, read.shape) == (rate, (round(loop.beats * 60 / 121.7 * rate), 2))
    with wave.open(str(tmp_path / "loop.wav")) as file:
        assert file.getnchannels() == 2


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    return stand_ins.weights(tmp_path_factory.mktemp("w") / "stereo", STEREO)


@pytest.mark.slow
def test_the_command_line_makes_a_stereo_pack_and_says_so(folder, tmp_path, capsys, monkeypatch):
    from testkit.command_line import run

    made = run("make", "drums", "--model", str(folder), "--bpm", "120", "--max-duration", "2", "-n", "1",
               "--seed", "1", "--pack", "--top-k", "60", "--out", str(tmp_path))  # fmt: skip
    assert "stereo" in made.stdout
    assert all(sf.info(path).channels == 2 for path in tmp_path.rglob("*.wav"))


@pytest.mark.slow
def test_a_stereo_model_under_medium_gives_stereo_files_through_the_service(folder):
    from looper.service.models import Models
    from looper.service.service import Service

    service = Service(Models({"medium": str(folder)}))
    facts = {}
    files = service.predict(
        "medium", "mp3", facts.__setitem__, prompt="drums", bpm=120, variations=2, max_duration=2, seed=1,
        beats_per_bar=4, top_k=60, top_p=0.0, temperature=1.0, cfg_coef=3.0,
    )  # fmt: skip
    assert [file.suffix for file in files] == [".mp3"] * 2 and facts["model"] == "stereo"
    assert all(sf.info(file).channels == 2 and sf.info(file).frames == 64_000 for file in files)
    service.scratch.discard(files[0].parent)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "model"), [(1, "stereo"), (2, "stereo"), (2, "t5"), (1, "t5")])
def test_variations_keep_the_recordings_channels(models, source, model):
    from testkit.fakes import drum_track

    drums = drum_track(120, 2)
    recording = drums if source == 1 else np.stack([drums, 0.5 * np.roll(drums, 300)], 1)
    request = LoopRequest("drums", bpm=120, variations=1, max_duration=2, top_k=60, seed=2)
    made = LoopMaker(models(model)).vary(recording, 32_000, request)
    assert all(loop.samples.shape == recording.shape for loop in made)
    said = [note for note in made.report.notes if "the model makes" in note]
    assert len(said) == (source != (2 if model == "stereo" else 1))
    if source == 2:
        left, right = made[0].samples[4_000:-4_000].T  # the wrap is the recording's own
        assert np.allclose(left, right) == (model == "t5")


@pytest.mark.slow
def test_a_stereo_model_hears_both_channels_of_a_stereo_recording(models, monkeypatch):
    from testkit.fakes import drum_track

    heard = []
    generator, encode = models("stereo"), models("stereo").encode_audio
    monkeypatch.setattr(generator, "encode_audio", lambda samples: heard.append(samples) or encode(samples))
    drums = drum_track(120, 2)
    request = LoopRequest("drums", bpm=120, variations=1, max_duration=2, top_k=60, seed=2)
    LoopMaker(generator).vary(np.stack([drums, 0 * drums], 1), 32_000, request)
    assert heard[0].shape[1] == 2 and heard[0][:, 0].std() > 0.01 > heard[0][:, 1].std()


# --- files that do not fit -----------------------------------------------------------------------


def with_pointer(published, folder, name=SHARED_CODEC):
    """The export that audiocraft writes where the codec is a shared one: its name alone."""
    shutil.copytree(published, folder)
    torch.save(
        {"pretrained": name, "exported": True, "version": "1.3.0"}, folder / "compression_state_dict.bin"
    )
    return folder


@pytest.mark.slow
def test_an_export_that_names_the_shared_codec_takes_it_from_where_it_is(published, folder, tmp_path):
    bare = with_pointer(published, tmp_path / "bare")
    for source in (published, folder):  # published files, or a model folder
        made = convert(bare, bare / "t5", tmp_path / "made", codec=source)
        verify(made)
        for name in ("codec.safetensors", "lm.safetensors"):
            assert (made / name).read_bytes() == (folder / name).read_bytes()
        assert load.load(made).channels == 2


def test_an_export_without_a_codec_says_what_brings_it_and_takes_that_of_a_fetched_model(
    published, folder, tmp_path, monkeypatch
):
    root = tmp_path / "weights"
    monkeypatch.setenv("LOOPER_WEIGHTS", str(root))
    bare = with_pointer(published, tmp_path / "bare")
    with pytest.raises(WeightsError, match="run `looper weights get medium` first"):
        add_model(bare, "mine", progress=lambda line: None)
    assert not (root / "mine").exists()
    shutil.copytree(folder, root / "medium")
    verify(add_model(bare, "mine", progress=lambda line: None))


def test_a_codec_that_nobody_knows_is_refused_by_name(published, folder, tmp_path):
    bare = with_pointer(published, tmp_path / "bare", "somebody/codec")
    with pytest.raises(WeightsError, match="names 'somebody/codec' for its codec"):
        convert(bare, bare / "t5", tmp_path / "made", codec=folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("per_timestep: false", "per_timestep: true", "take turns in time"),
        ("use: true", "use: false", "writes 8 codebooks and the codec reads 4 for each of 1 channels"),
        ("interleave_stereo_codebooks:", "other:", "writes 8 codebooks"),
        ("interleave_stereo_codebooks:", "interleave_stereo_codebooks: 5\\nother:", "is not a model config"),
    ],
)
def test_a_config_that_does_not_fit_is_said_in_words(folder, tmp_path, before, after, words):
    import yaml

    broken = shutil.copytree(folder, tmp_path / "stereo")
    config = yaml.safe_load((broken / "config.yaml").read_text())
    config["lm"] = config["lm"].replace(before, after.replace("\\n", "\n"))
    (broken / "config.yaml").write_text(yaml.safe_dump(config))
    write_manifest(broken, "stereo")
    with pytest.raises(WeightsError, match=words):
        load.load(broken)


@pytest.mark.slow
def test_a_pack_of_a_mono_model_says_what_it_said(models, tmp_path):
    from looper.export.pack import write_pack

    request = LoopRequest("drums", bpm=120, variations=1, max_duration=2, top_k=60, seed=1)
    written = write_pack(LoopMaker(models("t5")).make(request), tmp_path)
    (row,) = json.loads((written["folder"] / "pack.json").read_text())["loops"]
    assert "channels" not in row
