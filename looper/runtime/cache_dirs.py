"""Keep what libraries write on the side in the temp folder: a container may have no other place to write to.

matplotlib, Triton and CUDA's driver write to the home folder.
"""

from __future__ import annotations

import os
import pathlib
import stat
import tempfile

PREFIX = "musicgen-looper-caches-"
FOLDERS = {
    "MPLCONFIGDIR": "matplotlib",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "CUDA_CACHE_PATH": "cuda",
}


def keep_in_temp_folder() -> pathlib.Path:
    """Point every library's cache below the temp folder, but for those the environment places already.

    Call it before matplotlib or torch is imported.

    Returns
    -------
    pathlib.Path
        The folder, which later processes of the same user share.
    """
    folder = _folder()
    for variable, name in FOLDERS.items():
        if not os.environ.get(variable):
            (folder / name).mkdir(exist_ok=True)
            os.environ[variable] = str(folder / name)
    return folder


def _folder() -> pathlib.Path:
    folder = pathlib.Path(tempfile.gettempdir()) / f"{PREFIX}{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        # caches hold code: what somebody else may have put there is not for us
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            return pathlib.Path(tempfile.mkdtemp(prefix=PREFIX))
    return folder
