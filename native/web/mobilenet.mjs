// The mobilenet engine in a browser or in node:
//
//   import { load } from "./mobilenet.mjs";
//   const model = await load(bytes);             // of a .safetensors model file
//   const { logits } = model.run(pixels);        // a Float32Array, or of whatever dtype the model's input has
//   model.free();
//
// A model has its own WebAssembly instance, on the caller's thread. Results are copies: they stay valid.

const ERROR_BYTES = 1024;
const OPTIONS_BYTES = 32; // mobilenet_options and mobilenet_tensor of mobilenet.h, with pointers of 4 bytes
const TENSOR_BYTES = 88;
const CODES = ["", "bad file", "unsupported", "bad argument", "no memory"];
const ARRAYS = [Float32Array, Int8Array, Uint8Array, BigInt64Array];
const DTYPES = ["float32", "int8", "uint8", "int64"];
const PRECISIONS = { fp32: 0, bf16: 1 };
const KNOWN_OPTIONS = ["precision", "relaxed", "wasm", "isa", "memoryLimit", "macLimit"];

// A function of one relaxed instruction, f32x4.relaxed_madd.
const RELAXED_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 8, 1, 96, 3, 123, 123, 123, 1, 123, 3, 2, 1, 0, 10, 13, 1, 11, 0, 32, 0, 32, 1,
  32, 2, 253, 133, 2, 11,
]);

/** What the engine says was wrong. `kind` is "bad file", "unsupported", "bad argument" or "no memory". */
export class MobilenetError extends Error {
  constructor(kind, text) {
    super(text);
    this.name = "MobilenetError";
    this.kind = kind;
  }
}

/** Whether this host has the vector instructions that `load(bytes, { relaxed: true })` needs. */
export function supportsRelaxed() {
  return WebAssembly.validate(RELAXED_PROBE);
}

const compiled = new Map(); // by address

async function compileAt(url) {
  if (url.protocol === "file:") {
    const { readFile } = await import("node:fs/promises");
    return WebAssembly.compile(await readFile(url));
  }
  const response = await fetch(url);
  if (!response.ok) throw new MobilenetError("bad argument", `${url}: ${response.status} ${response.statusText}`);
  return WebAssembly.compile(await response.arrayBuffer());
}

function moduleAt(url) {
  const key = String(url);
  if (!compiled.has(key)) {
    const promise = compileAt(url);
    promise.catch(() => compiled.delete(key)); // so that the next call tries again
    compiled.set(key, promise);
  }
  return compiled.get(key);
}

async function moduleFor({ wasm, relaxed = false }) {
  if (wasm instanceof WebAssembly.Module) return wasm;
  if (wasm instanceof ArrayBuffer || ArrayBuffer.isView(wasm)) return WebAssembly.compile(wasm);
  if (relaxed && !supportsRelaxed())
    throw new MobilenetError("unsupported", "relaxed: this host has no relaxed vector instructions");
  const name = relaxed ? "mobilenet-relaxed.wasm" : "mobilenet.wasm";
  return moduleAt(new URL(wasm ?? name, import.meta.url));
}

// WASI's code of what a system lacks: only threads, which there are none of, would read the clock.
const NO_CLOCK = 52;

// The module's way out when it can neither go on nor return an error; nothing of ours takes it.
function exit(status) {
  throw new MobilenetError("unsupported", `the engine ended itself with status ${status}`);
}

/**
 * Reads a model file and prepares it for running.
 *
 * @param {ArrayBuffer | ArrayBufferView} bytes of the model file
 * @param {object} [options]
 *   precision: "fp32" (the default)
 *   relaxed: use mobilenet-relaxed.wasm, whose floats are faster and may differ from host to host in the last bits
 *   wasm: where the module is instead of beside this file: an address, its bytes or a WebAssembly.Module
 *   isa: an instruction set of `model.isas`; "generic" is plain code
 *   memoryLimit (bytes), macLimit (multiply-accumulates of one picture): what a file may ask for
 * @returns {Promise<Model>}
 */
export async function load(bytes, options = {}) {
  for (const name of Object.keys(options))
    if (!KNOWN_OPTIONS.includes(name))
      throw new MobilenetError("bad argument", `unknown option '${name}'; there are ${KNOWN_OPTIONS.join(", ")}`);
  const { precision = "fp32" } = options;
  if (!Object.hasOwn(PRECISIONS, precision)) {
    const accepted = Object.keys(PRECISIONS).join(", ");
    throw new MobilenetError("bad argument", `precision is one of ${accepted}, not '${precision}'`);
  }
  const { exports } = await WebAssembly.instantiate(await moduleFor(options), {
    env: { emscripten_notify_memory_growth: () => {} }, // every call makes its views anew
    wasi_snapshot_preview1: { proc_exit: exit, clock_time_get: () => NO_CLOCK },
  });
  exports._initialize();
  return new Model(new Heap(exports), asBytes(bytes), options);
}

function asBytes(data) {
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  throw new MobilenetError("bad argument", "a model file is an ArrayBuffer or a view of one");
}

// The module's memory. Whatever calls into the module may let it grow, which detaches earlier views.
class Heap {
  constructor(exports) {
    this.exports = exports;
    this.error = this.allocate(ERROR_BYTES);
  }

  get view() {
    return new DataView(this.exports.memory.buffer);
  }

  bytes(address, size) {
    return new Uint8Array(this.exports.memory.buffer, address, size);
  }

  allocate(size) {
    const address = this.exports.malloc(size || 1) >>> 0;
    if (!address) throw new MobilenetError("no memory", `not enough memory for ${size} bytes`);
    return address;
  }

  free(address) {
    this.exports.free(address);
  }

  // Calls use(address) with `size` bytes that are given back afterwards.
  with(size, use) {
    const address = this.allocate(size);
    try {
      return use(address);
    } finally {
      this.free(address);
    }
  }

  withText(text, use) {
    if (text === undefined) return use(0);
    const bytes = new TextEncoder().encode(text);
    return this.with(bytes.length + 1, (address) => {
      this.bytes(address, bytes.length).set(bytes);
      this.bytes(address + bytes.length, 1)[0] = 0;
      return use(address);
    });
  }

  text(address) {
    const end = new Uint8Array(this.exports.memory.buffer).indexOf(0, address);
    return new TextDecoder().decode(this.bytes(address, end - address));
  }

  check(code) {
    if (code) throw new MobilenetError(CODES[code] ?? `code ${code}`, this.text(this.error));
  }

  // Calls a function of mobilenet.h that ends with (..., char *error, size_t error_size).
  call(name, ...parameters) {
    this.check(this.exports[name](...parameters, this.error, ERROR_BYTES));
  }
}

class Model {
  #heap;
  #handle = 0;

  /** Made by `load`. */
  constructor(heap, bytes, options) {
    this.#heap = heap;
    this.#handle = heap.with(bytes.length, (file) => {
      heap.bytes(file, bytes.length).set(bytes);
      return heap.withText(options.isa, (isa) =>
        heap.with(OPTIONS_BYTES + 4, (place) => {
          const view = heap.view;
          view.setUint32(place, OPTIONS_BYTES, true);
          view.setInt32(place + 4, PRECISIONS[options.precision ?? "fp32"], true);
          view.setInt32(place + 8, 1, true); // thread
          view.setUint32(place + 12, isa, true);
          view.setBigUint64(place + 16, BigInt(options.memoryLimit ?? 0), true);
          view.setBigUint64(place + 24, BigInt(options.macLimit ?? 0), true);
          const out = place + OPTIONS_BYTES;
          heap.call("mobilenet_load", file, bytes.length, place, out);
          return heap.view.getUint32(out, true);
        }),
      );
    });
  }

  get #exports() {
    if (!this.#handle) throw new MobilenetError("bad argument", "the model was freed");
    return this.#heap.exports;
  }

  /** The instruction sets of this module, best first. */
  get isas() {
    return this.#heap.text(this.#exports.mobilenet_isas()).split(",");
  }

  /** name -> { dtype, shape (without the batch), scale, zeroPoint }, for `size`, else for the model's own. */
  inputs(size = {}) {
    return Object.fromEntries(this.#tensors("input", size).map(({ name, ...rest }) => [name, rest]));
  }

  /** As `inputs`. */
  outputs(size = {}) {
    return Object.fromEntries(this.#tensors("output", size).map(({ name, ...rest }) => [name, rest]));
  }

  /** The plan: steps, kernels, bytes of activations and weights. */
  plan({ height = 0, width = 0 } = {}) {
    const heap = this.#heap;
    const { mobilenet_release } = this.#exports;
    return heap.with(4, (place) => {
      heap.call("mobilenet_plan", this.#handle, BigInt(height), BigInt(width), place);
      const text = heap.view.getUint32(place, true);
      try {
        return JSON.parse(heap.text(text));
      } finally {
        mobilenet_release(text);
      }
    });
  }

  /**
   * Runs the model.
   *
   * @param {ArrayBufferView | Object<string, ArrayBufferView>} input the only input, or inputs by name; row-major,
   *   channels last, `batch` pictures after each other, in the input's dtype
   * @param {object} [options] height and width of the pictures (default: the model's own), batch (default: 1)
   * @returns {Object<string, ArrayBufferView>} outputs by name, as `outputs` describes them, batch first
   */
  run(input, { height = 0, width = 0, batch = 1 } = {}) {
    const size = { height, width };
    const inputs = this.#tensors("input", size);
    const outputs = this.#tensors("output", size);
    const arrays = inputs.map((tensor) => this.#array(tensor, input, inputs, batch));
    const heap = this.#heap;
    const sizes = arrays.map((array) => array.byteLength);
    sizes.push(...outputs.map((tensor) => bytesOf(tensor) * batch));
    const places = [];
    let pointers = 0;
    try {
      for (const each of sizes) places.push(heap.allocate(each));
      pointers = heap.allocate(4 * sizes.length);
      arrays.forEach((array, i) => heap.bytes(places[i], array.byteLength).set(asBytes(array)));
      places.forEach((place, i) => heap.view.setUint32(pointers + 4 * i, place, true));
      heap.call(
        "mobilenet_run", this.#handle, BigInt(height), BigInt(width), BigInt(batch), pointers,
        pointers + 4 * inputs.length,
      );
      return Object.fromEntries(
        outputs.map((tensor, i) => [tensor.name, this.#copy(tensor, places[inputs.length + i], batch)]),
      );
    } finally {
      for (const place of places) heap.free(place);
      if (pointers) heap.free(pointers);
    }
  }

  /** Ends the model; its memory goes with it. */
  free() {
    if (this.#handle) this.#heap.exports.mobilenet_free(this.#handle);
    this.#handle = 0;
  }

  #tensors(kind, { height = 0, width = 0 }) {
    const heap = this.#heap;
    const count = this.#exports[`mobilenet_${kind}_count`](this.#handle);
    return heap.with(TENSOR_BYTES, (place) =>
      Array.from({ length: count }, (_, index) => {
        heap.call(`mobilenet_${kind}`, this.#handle, index, BigInt(height), BigInt(width), place);
        const view = heap.view;
        const rank = view.getInt32(place + 8, true);
        const dtype = view.getInt32(place + 4, true);
        return {
          name: heap.text(view.getUint32(place, true)),
          dtype: DTYPES[dtype],
          shape: Array.from({ length: rank }, (_, i) => Number(view.getBigInt64(place + 16 + 8 * i, true))),
          scale: view.getFloat32(place + 80, true),
          zeroPoint: view.getInt32(place + 84, true),
        };
      }),
    );
  }

  #array(tensor, input, inputs, batch) {
    let array = input;
    if (!ArrayBuffer.isView(input)) {
      array = input?.[tensor.name];
    } else if (inputs.length > 1) {
      const names = inputs.map((each) => each.name).join(", ");
      throw new MobilenetError("bad argument", `inputs by name are needed: ${names}`);
    }
    const Wanted = arrayOf(tensor);
    const length = elementsOf(tensor) * batch;
    const clamped = Wanted === Uint8Array && array instanceof Uint8ClampedArray;
    if (!(array instanceof Wanted || clamped) || array.length !== length) {
      const shape = [batch, ...tensor.shape].join(" x ");
      const given = `${array?.constructor?.name ?? typeof array} of ${array?.length ?? 0}`;
      const wanted = `a ${Wanted.name} of ${length} elements (${shape})`;
      throw new MobilenetError("bad argument", `input '${tensor.name}' is ${wanted}, not ${given}`);
    }
    return array;
  }

  #copy(tensor, place, batch) {
    const from = this.#heap.exports.memory.buffer.slice(place, place + bytesOf(tensor) * batch);
    return new (arrayOf(tensor))(from);
  }
}

const arrayOf = (tensor) => ARRAYS[DTYPES.indexOf(tensor.dtype)];
const elementsOf = (tensor) => tensor.shape.reduce((product, each) => product * each, 1);
const bytesOf = (tensor) => elementsOf(tensor) * arrayOf(tensor).BYTES_PER_ELEMENT;
