"""requirements.lock: one version of everything, made from pyproject.toml."""

import re
import shutil
import subprocess

import pytest
import yaml
from packaging.utils import canonicalize_name

from scripts import lock, managed_python
from scripts.rehearse_image import as_cog_reads

COG = yaml.safe_load((lock.ROOT / "cog.yaml").read_text())
(LINE,) = COG["build"]["run"]


@pytest.fixture
def copies(tmp_path):
    project, locked = tmp_path / "pyproject.toml", tmp_path / "requirements.lock"
    shutil.copy(lock.PROJECT, project)
    shutil.copy(lock.LOCK, locked)
    return project, locked


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_lock_fits_pyproject():
    assert lock.problems() == []


def test_a_changed_range_makes_it_stale(copies):
    edit(copies[0], '"numpy>=2.2,<3"', '"numpy>=2.1,<3"')
    assert lock.problems(*copies) == ["pyproject.toml has changed since"]


def test_a_range_that_leaves_the_pin_out_is_named(copies):
    edit(copies[0], '"scipy>=1.15,<2"', '"scipy>=99"')
    assert any(re.match(r"scipy \S+ is not >=99", wrong) for wrong in lock.problems(*copies))


def test_a_new_requirement_is_missed(copies):
    edit(copies[0], '"einops>=', '"left-pad",\n    "einops>=')
    assert "left-pad is not in it" in lock.problems(*copies)


def test_a_pin_without_hash_is_named(copies):
    text = copies[1].read_text()
    copies[1].write_text(re.sub(r"(?m)^einops==(\S+) \\\n(    --hash=\S+( \\)?\n)+", r"einops==\1\n", text))
    assert lock.problems(*copies) == ["einops has no hash"]


def test_a_host_in_it_is_named(copies):
    copies[1].write_text("--extra-index-url https://somewhere.example\n" + copies[1].read_text())
    assert any("names a host" in wrong for wrong in lock.problems(*copies))


def test_what_pip_gets_holds_each_package_once_and_only_hashed(capsys):
    lock.main(["--print", "image", "desk", "dev", "audiocraft"])
    text = capsys.readouterr().out
    names = [canonicalize_name(name) for name in re.findall(r"(?m)^([\w.-]+)==", text)]
    assert len(names) == len(set(names)) == len(lock.pins()) > 100
    assert not re.search(r"(?m)^(?![\w.-]+==\S+ \\$|    --hash=sha256:[0-9a-f]{64}( \\)?$).", text)


def test_cog_reads_the_images_packages_and_none_that_it_brings_itself():
    read = as_cog_reads(lock.LOCK.read_text())
    assert read == [f"{name}=={version}" for name, version in lock.pins(lock.LOCK, "image").items()]
    names = {line.partition("==")[0] for line in read}
    assert {"torch", "torchaudio", "numpy"} <= names
    assert not {"cog", "coglet", "pytest", "audiocraft", "av", "spacy"} & names


def test_no_line_of_the_image_needs_what_cog_cannot_read():
    """Cog takes name==version by a pattern of its own: dots in a name, extras and markers are lost on it."""
    image = [text.splitlines()[0] for text in lock.entries()["image"].values()]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+==[^ ;]+ \\", line) for line in image)


def test_cog_brings_the_version_that_a_desk_has():
    assert lock.pins()["cog"] == COG["build"]["sdk_version"]


def test_the_run_line_installs_the_locks_audiocraft():
    version = lock.pins()["audiocraft"]
    assert f"audiocraft=={version} --hash=" in LINE
    assert re.search(r"sha256:[0-9a-f]{64}", LINE)[0] in lock.entries()["audiocraft"]["audiocraft"]


def test_make_runs_the_run_line():
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", ".venv/runtime"], cwd=lock.ROOT, capture_output=True, text=True
    )
    assert LINE in done.stdout


# --- the image's Python --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return managed_python.make(tmp_path_factory.mktemp("image") / "python")


def said(line, programs, folder):
    """What a run line says where no index can be reached."""
    done = managed_python.run_line(
        line, programs, folder, PIP_NO_INDEX="1", PIP_DISABLE_PIP_VERSION_CHECK="1"
    )
    assert done.returncode
    return done.stderr


@pytest.mark.slow
def test_the_run_line_gets_as_far_as_looking_for_audiocraft(programs, tmp_path):
    assert "No matching distribution found for audiocraft" in said(LINE, programs, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["pip install --no-deps audiocraft==1.3.0", "python3 -m pip install --no-deps audiocraft==1.3.0"]
)
def test_lines_that_fail_in_the_image_fail_here(programs, tmp_path, line):
    words = said(line, programs, tmp_path)
    assert "externally-managed-environment" in words or "not found" in words
