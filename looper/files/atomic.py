"""Files that appear under their names only when they are whole, all of a set or none.

A name that the user chose is replaced (`deliver`). A name that the program chose never replaces anything
(`deliver_new`): two recordings may lead to one name, and the recording itself may have it.
"""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # FAT, some network drives


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
    """Write all files or none; files of these names are replaced.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as here:
    ...     deliver({Path(here) / "a.txt": b"a", Path(here) / "b.txt": b"b"})
    ...     sorted(path.name for path in Path(here).iterdir())
    ['a.txt', 'b.txt']
    """
    folder = next(iter(contents)).parent
    with _said_of(folder), made(folder), ExitStack() as stack:
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


def deliver_new(named: Callable[[int], Sequence[Path]], contents: Sequence[bytes]) -> list[Path]:
    """Write all files or none, under the first names at which nothing else stands.

    A file that is there already with the same bytes counts as written.

    Parameters
    ----------
    named : callable
        Takes a number from 1 on and returns one path for each of `contents`, all in one folder.
    contents : sequence of bytes

    Returns
    -------
    list of Path
        The paths of the number that was taken.

    Raises
    ------
    OSError
        If they cannot be written; nothing is left behind then.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as here:
    ...     named = lambda number: [Path(here) / f"a-{number}.txt"]
    ...     [deliver_new(named, [content])[0].name for content in (b"one", b"other", b"one")]
    ['a-1.txt', 'a-2.txt', 'a-1.txt']
    """
    first = named(1)
    folder = first[0].parent
    with _said_of(folder), made(folder), ExitStack() as stack:
        ready = [
            stack.enter_context(_whole(path, content)) for path, content in zip(first, contents, strict=True)
        ]
        for number in itertools.count(1):
            paths = list(named(number))
            if _put_all(ready, paths, contents):
                break
    return paths


@contextmanager
def _said_of(folder: Path) -> Iterator[None]:
    """Say what goes wrong within of the folder that the user chose."""
    try:
        yield
    except OSError as error:
        raise cannot_write(folder, error.strerror or str(error), error.errno) from error


def _put_all(ready: Sequence[Path], paths: Sequence[Path], contents: Sequence[bytes]) -> bool:
    """Give every file its name; False, and none has it, where one of the names is another file's."""
    put: list[Path] = []
    try:
        for temporary, path, content in zip(ready, paths, contents, strict=True):
            if put_new(temporary, path):
                put.append(path)
            elif not _holds(path, content):
                _remove(put)
                return False
    except BaseException:  # an interrupt too
        _remove(put)
        raise
    return True


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def put_new(temporary: Path, path: Path) -> bool:
    """Let `temporary` appear as `path` unless something is there, which the file system itself decides.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as here:
    ...     one, target = Path(here) / "one", Path(here) / "target"
    ...     _ = one.write_text("x")
    ...     put_new(one, target), put_new(one, target)
    (True, False)
    """
    try:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            path.open("xb").close()  # the name is ours from here on
            temporary.replace(path)
    except FileExistsError:
        return False
    return True


def _holds(path: Path, content: bytes) -> bool:
    """Whether `path` is a regular file of just these bytes."""
    try:
        there = path.lstat()
        return stat.S_ISREG(there.st_mode) and there.st_size == len(content) and path.read_bytes() == content
    except OSError:  # gone again, or not ours to read
        return False
