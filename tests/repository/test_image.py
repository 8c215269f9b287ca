"""What goes into the image, and cog.yaml against Cog's rules."""

import copy
import pathlib
import subprocess
import sys

import pytest
import yaml

from scripts.rehearse_image import config_problems, ignored, kept

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "cog.yaml").read_text())


def test_cog_yaml_follows_cogs_rules():
    assert config_problems(CONFIG) == []


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("", "predictor", "predict.py:Predictor", "predictor is not a key"),
        ("build", "python_packages", ["torch"], "build.python_packages is not a key"),
        ("build", "cuda", 13.0, "build.cuda must be str"),
        ("build", "cuda", "thirteen", "build.cuda is 'thirteen'"),
        ("build", "python_version", 3.11, "build.python_version must be str"),
        ("build", "gpu", "yes", "build.gpu must be bool"),
        ("build", "run", "pip install x", "build.run must be list"),
        ("build", "run", [["pip"]], "build.run holds ['pip']"),
        ("build", "python_requirements", "needs.txt", "needs.txt, which is not there"),
        ("", "predict", "predict.py:Foreteller", "predict.py has no class 'Foreteller'"),
        ("", "predict", "foretell.py:Predictor", "'foretell.py', which is not there"),
    ],
)
def test_what_cog_would_refuse_is_named(section, key, value, words):
    config = copy.deepcopy(CONFIG)
    (config[section] if section else config)[key] = value
    assert any(words in problem for problem in config_problems(config))


def test_a_missing_python_version_or_build_is_named():
    config = copy.deepcopy(CONFIG)
    del config["build"]["python_version"]
    assert config_problems(config) == ["build.python_version is missing"]
    assert config_problems({}) == ["cog.yaml has no build section"]
    assert config_problems(None) == ["cog.yaml has no build section"]


@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        # https://docs.docker.com/build/concepts/context/#dockerignore-files
        ("*/temp*", "somedir/temporary.txt", True),
        ("*/temp*", "temp", False),
        ("*/*/temp*", "somedir/subdir/temporary.txt", True),
        ("temp?", "tempa", True),
        ("temp?", "tempab", False),
        ("**/*.go", "main.go", True),
        ("**/*.go", "a/b/main.go", True),
        ("*.md", "README.md", True),
        ("*.md", "weights/tiny/README.md", False),
        ("tests", "tests/data/api.json", True),
        ("tests", "testsuite", False),
        ("**/__pycache__", "looper/__pycache__/x.pyc", True),
        ("# tests", "tests", False),
    ],
)
def test_a_pattern_means_what_it_means_to_docker(pattern, path, out):
    assert ignored(path, [pattern]) is out


def test_the_last_pattern_that_fits_decides():
    assert not ignored("README.md", ["*.md", "!README.md"])
    assert ignored("README.md", ["!README.md", "*.md"])


def test_the_image_has_all_that_a_prediction_needs_and_nothing_of_the_workshop():
    files = set(kept())
    modules = {
        p.relative_to(ROOT).as_posix() for p in (ROOT / "looper").rglob("*") if p.suffix in (".py", ".npz")
    }
    needed = {
        "predict.py",
        "requirements.lock",
        "cog.yaml",
        "openapi.json",
        "LICENSE",
        "weights/tiny/manifest.json",
    }
    assert modules | needed <= files
    workshop = {
        "tests",
        "bench",
        "training",
        "docs",
        "scripts",
        ".git",
        ".venv",
        ".hypothesis",
        ".pytest_cache",
    }
    assert not workshop & {name.split("/")[0] for name in files}


@pytest.mark.slow
def test_a_prediction_works_from_the_images_files_alone_and_writes_nothing_beside_its_temp_folder():
    script = ROOT / "scripts/rehearse_image.py"
    done = subprocess.run(
        [sys.executable, script, "--venv", sys.prefix], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "two loops of the right length; written outside the temp folder: nothing" in done.stdout
