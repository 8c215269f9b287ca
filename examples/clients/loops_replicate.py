"""Four loops from Replicate: REPLICATE_API_TOKEN=r8_... python loops_replicate.py <owner>/<model>:<version>.

Needs `pip install replicate`.
"""

import pathlib
import sys

import replicate

output = replicate.run(sys.argv[1], input={"prompt": "deep house, warm chords", "bpm": 124, "variations": 4})

folder = pathlib.Path("loops")
folder.mkdir(exist_ok=True)
for name, file in output.items():
    if file is None:  # there are always twenty; those not asked for are null
        continue
    path = folder / f"{name}.wav"
    path.write_bytes(file.read())
    print(path)
