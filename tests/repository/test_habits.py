"""What is checked before a commit is what `make lint` checks."""

import re

import yaml

from looper.runtime import paths


def test_the_hooks_before_a_commit_are_the_commands_of_make_lint():
    makefile = (paths.PROJECT / "Makefile").read_text()
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.M)[1]
    linted = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    config = yaml.safe_load((paths.PROJECT / ".pre-commit-config.yaml").read_text())
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == linted
