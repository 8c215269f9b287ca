"""Files that appear under their names only when they are whole, all of a set or none."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def _whole(path: Path, content: bytes) -> Iterator[Path]:
    """Make a temporary file beside `path` holding `content`, gone at the end unless it was renamed."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make `folder` for what is written within; where that fails, what was made for it goes again.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as here:
    ...     with made(Path(here) / "new"):
    ...         _ = (Path(here) / "new" / "x.txt").write_text("kept")
    ...     (Path(here) / "new" / "x.txt").read_text()
    'kept'
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:  # an interrupt too
        for place in new:
            with suppress(OSError):  # never made, or somebody else's files are in it
                place.rmdir()
        raise


def cannot_write(folder: Path, why: str, number: int | None) -> OSError:
    """Name the folder that the user chose, the reason and the remedy.

    Examples
    --------
    >>> cannot_write(Path("out"), "disk full", None).args[1]
    'cannot write to out: disk full; free space there or choose another folder'
    """
    return OSError(number, f"cannot write to {folder}: {why}; free space there or choose another folder")


def deliver(contents: dict[Path, bytes]) -> None:
    """Write all files or none.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as here:
    ...     deliver({Path(here) / "a.txt": b"a", Path(here) / "b.txt": b"b"})
    ...     sorted(path.name for path in Path(here).iterdir())
    ['a.txt', 'b.txt']
    """
    folder = next(iter(contents)).parent
    try:
        with made(folder), ExitStack() as stack:
            for path in contents:
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, f"{path.name} is a folder")
            ready = {path: stack.enter_context(_whole(path, content)) for path, content in contents.items()}
            new = [path for path in ready if not path.exists()]
            try:
                for path, temporary in ready.items():
                    temporary.replace(path)
            except BaseException:  # an interrupt too
                for path in new:
                    path.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise cannot_write(folder, error.strerror or str(error), error.errno) from error
