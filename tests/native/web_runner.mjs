// Runs cases for test_wasm.py: node web_runner.mjs FOLDER_OF_MODULE REQUEST.json
// REQUEST: { model, input, output, relaxed, isa, options, runs: [{ height, width, batch, elements }] }; the answer,
// as JSON: { isas, inputs, plan, errors: [text of each run or ""], after_free } or { error, kind }.
import { readFile, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [, , folder, path] = process.argv;
const request = JSON.parse(await readFile(path, "utf8"));
const { load, MobilenetError, supportsRelaxed } = await import(pathToFileURL(`${folder}/mobilenet.mjs`));

function isOurs(error) {
  if (!(error instanceof MobilenetError)) throw error;
  return error;
}

async function answer() {
  const { relaxed, isa, options = {} } = request;
  const model = await load(await readFile(request.model), { relaxed, isa, ...options });
  const [type] = Object.values(model.inputs());
  const arrays = { float32: Float32Array, int8: Int8Array, uint8: Uint8Array };
  const bytes = await readFile(request.input);
  const elements = new arrays[type.dtype](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const parts = [];
  const errors = [];
  let first = 0;
  for (const { elements: count, ...size } of request.runs) {
    try {
      const outputs = model.run(elements.slice(first, first + count), size);
      for (const each of Object.values(outputs)) parts.push(Buffer.from(each.buffer));
      errors.push("");
    } catch (error) {
      errors.push(isOurs(error).message);
    }
    first += count;
  }
  await writeFile(request.output, Buffer.concat(parts));
  const result = { isas: model.isas, inputs: model.inputs(), plan: model.plan(), errors };
  model.free();
  model.free();
  try {
    model.run(elements);
  } catch (error) {
    result.after_free = isOurs(error).message;
  }
  return result;
}

let result;
try {
  result = request.probe ? { relaxed: supportsRelaxed() } : await answer();
} catch (error) {
  result = { error: isOurs(error).message, kind: error.kind };
}
process.stdout.write(JSON.stringify(result));
