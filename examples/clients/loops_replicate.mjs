// Four loops from Replicate: REPLICATE_API_TOKEN=r8_... node loops_replicate.mjs <owner>/<model>:<version>
// Needs `npm install replicate`.
import { mkdir, writeFile } from "node:fs/promises";
import Replicate from "replicate";

const replicate = new Replicate({ baseUrl: process.env.REPLICATE_API }); // reads REPLICATE_API_TOKEN
const output = await replicate.run(process.argv[2], {
  input: { prompt: "deep house, warm chords", bpm: 124, variations: 4 },
});

await mkdir("loops", { recursive: true });
for (const [name, file] of Object.entries(output)) {
  if (file === null) continue; // there are always twenty; those not asked for are null
  const path = `loops/${name}.wav`;
  await writeFile(path, file);
  console.log(path);
}
