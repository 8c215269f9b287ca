#!/bin/sh
# Four loops from your own server: sh loops.sh [http://localhost:5000]
set -eu
server=${1:-http://localhost:5000}

# --retry-all-errors with --fail: 409 means that the server is busy with somebody else's prediction
curl --silent --show-error --fail-with-body --retry 10 --retry-delay 2 --retry-all-errors \
    --header 'Content-Type: application/json' \
    --data '{"input": {"prompt": "deep house, warm chords", "bpm": 124, "variations": 4, "seed": 1}}' \
    --output reply.json "$server/predictions"

looper unpack reply.json --out loops # decodes, skips the nulls, says why a prediction failed
