"""What no linter knows of the layout: no module grows too long to be read at a sitting."""

from looper.runtime import paths

MOST_LINES = 300


def test_no_module_has_more_lines_than_can_be_read_at_a_sitting():
    lengths = {
        path.relative_to(paths.PACKAGE).as_posix(): len(path.read_text().splitlines())
        for path in paths.PACKAGE.rglob("*.py")
    }
    assert len(lengths) > 50
    assert {name for name, lines in lengths.items() if lines > MOST_LINES} == set()
