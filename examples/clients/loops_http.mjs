// Four loops from your own server, with Node 18 or newer alone: node loops_http.mjs [http://localhost:5000]
import { mkdir, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const server = process.argv[2] ?? "http://localhost:5000";
const input = { prompt: "deep house, warm chords", bpm: 124, variations: 4, seed: 1 };

async function predict() {
  for (;;) {
    const reply = await fetch(`${server}/predictions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ input }),
    });
    if (reply.ok) return reply.json();
    if (reply.status !== 409) throw new Error(`the server says ${reply.status}: ${await reply.text()}`);
    await sleep(2000); // busy with somebody else's prediction
  }
}

const prediction = await predict();
if (prediction.status !== "succeeded") throw new Error(prediction.error); // a failure too is answered with status 200

await mkdir("loops", { recursive: true });
for (const [name, uri] of Object.entries(prediction.output)) {
  if (uri === null) continue; // there are always twenty; those not asked for are null
  const file = `loops/${name}.wav`;
  await writeFile(file, Buffer.from(uri.slice(uri.indexOf(",") + 1), "base64"));
  console.log(file);
}
