"""Four loops from your own server, with Python alone: python loops_http.py [http://localhost:5000]."""

import base64
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

SERVER = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:5000"
REQUEST = {"prompt": "deep house, warm chords", "bpm": 124, "variations": 4, "seed": 1}


def predict(asked: dict) -> dict:
    """Ask for a prediction and wait for it."""
    request = urllib.request.Request(
        f"{SERVER}/predictions", json.dumps({"input": asked}).encode(), {"Content-Type": "application/json"}
    )
    while True:
        try:
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            if error.code != 409:  # busy with somebody else's prediction
                sys.exit(f"the server says {error.code}: {error.read().decode()}")
            time.sleep(2)


def main() -> None:
    """Write the loops to loops/."""
    prediction = predict(REQUEST)
    if prediction["status"] != "succeeded":  # a failure too is answered with status 200
        sys.exit(prediction["error"])
    folder = pathlib.Path("loops")
    folder.mkdir(exist_ok=True)
    for name, uri in prediction["output"].items():
        if uri is None:  # there are always twenty; those not asked for are null
            continue
        file = folder / f"{name}.wav"
        file.write_bytes(base64.b64decode(uri.partition(",")[2]))
        print(file)


main()
