// Times the engine and onnxruntime-web in turns, in one node process on one thread; bench/web.py calls it.
//
//   node bench/web.mjs PLAN.json        prints a list of results as JSON
//
// PLAN.json: { engine: folder of mobilenet.mjs, ort: address of onnxruntime-web's module, relaxed, rounds, calls,
//   cases: [{ name, precision, model, onnx, shape, input }] }, all files by path; input: float32, channels last.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";

const plan = JSON.parse(await readFile(process.argv[2], "utf8"));
const { load } = await import(pathToFileURL(path.join(plan.engine, "mobilenet.mjs")));
const ort = await import(plan.ort);
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

function channelsFirst(pixels, [height, width, channels]) {
  const result = new Float32Array(pixels.length);
  for (let i = 0; i < height * width; i++)
    for (let c = 0; c < channels; c++) result[c * height * width + i] = pixels[i * channels + c];
  return result;
}

async function engine(item, relaxed) {
  const model = await load(await readFile(item.model), { relaxed });
  const name = relaxed ? "mobilenet, relaxed" : "mobilenet";
  return { name, run: async () => Object.values(model.run(item.pixels))[0] };
}

async function peer(item) {
  const session = await ort.InferenceSession.create(await readFile(item.onnx), {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
  });
  const [height, width, channels] = item.shape;
  const given = new ort.Tensor("float32", channelsFirst(item.pixels, item.shape), [1, channels, height, width]);
  const run = async () => {
    const outputs = await session.run({ [session.inputNames[0]]: given });
    return outputs[session.outputNames[0]].data;
  };
  return { name: "onnxruntime-web", run };
}

// Adds the times of `calls` calls to `times`.
async function timed(run, calls, times) {
  for (let i = 0; i < calls; i++) {
    const start = performance.now();
    await run();
    times.push(performance.now() - start);
  }
}

const median = (times) => times.toSorted((a, b) => a - b)[times.length >> 1];

// The largest difference, relative to the largest value.
function difference(found, expected) {
  let largest = 0;
  let worst = 0;
  expected.forEach((value, i) => {
    largest = Math.max(largest, Math.abs(value));
    worst = Math.max(worst, Math.abs(value - found[i]));
  });
  return worst / largest;
}

const results = [];
for (const item of plan.cases) {
  const bytes = await readFile(item.input);
  item.pixels = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const runtimes = [await engine(item, false)];
  if (plan.relaxed) runtimes.push(await engine(item, true));
  runtimes.push(await peer(item));
  const answers = [];
  for (const { run } of runtimes) answers.push(Float32Array.from(await run()));
  const times = runtimes.map(() => []);
  for (const { run } of runtimes) await timed(run, 2 * plan.calls, []); // until the hot loops are compiled well
  for (let round = 0; round < plan.rounds; round++)
    for (let i = 0; i < runtimes.length; i++) await timed(runtimes[i].run, plan.calls, times[i]);
  const ours = Math.min(...times[0]);
  runtimes.forEach(({ name }, i) => {
    const least = Math.min(...times[i]);
    results.push({
      network: item.name,
      runtime: name,
      version: name === "onnxruntime-web" ? (ort.env.versions?.web ?? "") : "",
      precision: item.precision,
      threads: 1,
      min_ms: least,
      median_ms: median(times[i]),
      ratio_to_mobilenet: least / ours,
      difference: difference(answers[i], answers[answers.length - 1]),
    });
  });
}
process.stdout.write(JSON.stringify(results));
process.exit(0); // onnxruntime-web keeps a handle open
