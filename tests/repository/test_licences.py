"""Nothing under the GPL or AGPL slips into the product unseen."""

import ast
import sys

import pytest

from scripts import licences, lock


@pytest.fixture(scope="module")
def found():
    return licences.parts()


@pytest.mark.slow
def test_nothing_under_the_gpl_is_in_the_product(found):
    assert len(found) > 60
    assert licences.problems(found, licences.system_packages()) == []


def test_a_system_package_nobody_has_looked_at_is_a_problem(found):
    assert licences.problems([], ["ffmpeg", "rubberband-cli"]) == [
        "rubberband-cli from Debian: its licence is not in SYSTEM yet"
    ]


def test_every_part_states_a_licence(found):
    assert {p.name for p in found if p.licence == "not stated"} <= {"cuda-toolkit"}  # a package of names only


@pytest.mark.parametrize(
    ("text", "copyleft"),
    [
        ("GPL-3.0-only", True),
        ("GPLv2+", True),
        ("AGPL-3.0-or-later", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("MIT AND GPL-2.0-only", True),
        ("GPL-2.0-only OR MIT", False),
        ("LGPL-2.1-or-later", False),
        ("GNU Library or Lesser General Public License (LGPL)", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("BSD-3-Clause", False),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1 AND LGPL-2.1-or-later", False),
        ("GPL-2.0-only AND GPL-3.0-or-later WITH GCC-exception-3.1", True),
    ],
)
def test_the_gpl_is_told_from_the_rest(text, copyleft):
    assert licences.is_copyleft(text) is copyleft


def test_a_copyleft_package_is_found_by_its_metadata_and_by_its_binaries():
    part = lambda licence, *binaries: licences.Part("new", "1", licence, True, binaries)
    assert licences.problems([part("GPL-3.0-only")])
    assert licences.problems([part("BSD-3-Clause", "libx264")])
    assert not licences.problems([part("MIT")])


def test_a_binary_under_the_gpl_is_found_in_an_installed_package():
    from packaging.requirements import Requirement

    (av,) = licences.parts([Requirement("av")])
    assert av.copyleft and {"libx264", "libx265"} <= set(av.binaries)


def test_gccs_runtime_is_seen_and_no_problem(found):
    (scipy,) = (p for p in found if p.name == "scipy")
    assert "libgfortran" in scipy.runtime and not scipy.copyleft


def test_the_readers_of_the_tests_are_not_in_the_product(found):
    assert not {"av", "imageio-ffmpeg", "mutagen", "pytest", "hypothesis"} & {p.name for p in found}


@pytest.mark.slow
def test_every_package_that_the_product_imports_is_pinned():
    """What is imported by name must be asked for by name, not come along by chance."""
    homes = {"yaml": "pyyaml", "soundfile": "soundfile", "stretch": "python_stretch", "PIL": "pillow"}
    files = [*(licences.ROOT / "looper").rglob("*.py"), licences.ROOT / "predict.py"]
    imported = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    ours = {"looper", "av"}  # av: only asked for
    wanted = {licences._name(homes.get(m, m)) for m in imported - ours - sys.stdlib_module_names}
    on_request = {
        "ray",
        "pyarrow",
        "triton",
    }  # the extras `batch` and `parquet`, for the tests alone; and what torch brings on Linux, done without elsewhere
    assert wanted <= {licences._name(pin.name) for pin in licences.pins()} | on_request


def test_the_committed_table_names_every_pin_in_its_version():
    text = licences.TABLE.read_text()
    versions = {licences._name(name): version for name, version in lock.pins().items()}
    for pin in licences.pins():
        name = licences._name(pin.name)
        assert f"| **{name}** | {versions[name]} |" in text, f"run scripts/licences.py: {pin}"


def test_the_sbom_names_every_part_once(found):
    bom = licences.sbom(found)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    urls = [component["purl"] for component in bom["components"]]
    assert len(urls) == len(set(urls)) == len(found)
    assert "pkg:pypi/torch@2.11.0" in urls
