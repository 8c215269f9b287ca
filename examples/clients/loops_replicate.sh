#!/bin/sh
# Four loops from Replicate: REPLICATE_API_TOKEN=r8_... sh loops_replicate.sh <owner>/<model>:<version>
set -eu
version=${1##*:}
api=${REPLICATE_API:-https://api.replicate.com/v1}

# `Prefer: wait` answers when the prediction is over, after 60 s at the latest
curl --silent --show-error --fail-with-body \
    --header "Authorization: Bearer $REPLICATE_API_TOKEN" \
    --header 'Content-Type: application/json' --header 'Prefer: wait' \
    --data '{"version": "'"$version"'", "input": {"prompt": "deep house, warm chords", "bpm": 124, "variations": 4}}' \
    --output reply.json "$api/predictions"

while grep -Eq '"status": ?"(starting|processing)"' reply.json; do
    sleep 2
    link=$(sed -n 's/.*"get": *"\([^"]*\)".*/\1/p' reply.json)
    curl --silent --show-error --fail-with-body --header "Authorization: Bearer $REPLICATE_API_TOKEN" \
        --output reply.json "$link"
done

looper unpack reply.json --out loops # downloads, skips the nulls, says why a prediction failed
