// What the page says of a prediction on its way.

import assert from "node:assert/strict";
import { test } from "node:test";
import { whereabouts } from "../../../looper/web/page/predictions.js";

test("one that waits in line is told its place, and nothing of progress", () => {
  assert.deepEqual(whereabouts({ place: 3, logs: "" }), { stage: "Place 3 in line" });
  assert.deepEqual(whereabouts({ place: 1 }), { stage: "Next in line" });
});

test("one whose turn has come is told its progress", () => {
  assert.equal(whereabouts(undefined).stage, "Waiting for the model…");
  assert.equal(whereabouts({ place: null, logs: "" }).stage, "Waiting for the model…");
  const { stage, percent, done, total } = whereabouts({ place: null, logs: "candidates:  40%|####      | 203/507 [00:02<00:03, 98.1it/s]\n" });
  assert.deepEqual([stage, percent, done, total], ["candidates", 40, "203", "507"]);
});
