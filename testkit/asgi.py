"""Calls into the page server without a socket, and what they need."""

import asyncio
import io
import json

import httpx
import soundfile as sf


def wav(seconds=0.1):
    buffer = io.BytesIO()
    sf.write(buffer, [0.25] * round(32000 * seconds), 32000, format="WAV")
    return buffer.getvalue()


def ask(app, method, path, host="127.0.0.1", **more):
    async def send():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


def events(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
