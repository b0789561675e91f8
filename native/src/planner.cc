#include "planner.h"

#include <algorithm>
#include <cmath>

#include "../include/mobilenet.h"
#include "generic.h"

namespace mobilenet {

namespace {

constexpr int64_t MAX_BUFFER = int64_t(1) << 31;  // kernels count bytes inside a value in 32 bits
constexpr float MAX_QUANTA = 2147483648.0f;  // what a conversion to int32 must stay below

bool is_pointwise(const Node &node) {
  const int64_t *p = node.op.padding;
  return node.op.kind == Kind::dense ||
         (node.op.kind == Kind::conv && window_of(node.op).pointwise() && p[0] + p[1] + p[2] + p[3] == 0);
}

// Rows of a picture are unfolded where a window has few values.
bool fits_picture(const Node &first, const Shape &shape) {
  return first.op.kind == Kind::conv && first.op.dilation[1] == 1 && shape.size() == 3 &&
         shape[2] * first.op.kernel[1] <= 256 && shape[2] <= 4;
}

bool is_depthwise(const Node &node) { return node.op.kind == Kind::depthwise_conv && node.op.multiplier == 1; }

size_t flat_bytes(const TensorType &type) { return size_t(elements(type.shape)) * size_of(type.dtype); }

std::string tile_text(int pixels, int channels) {
  return std::to_string(pixels) + " x " + std::to_string(channels);
}

const char *name_of(Element element) {
  return element == Element::f32 ? "f32" : element == Element::bf16 ? "bf16" : "u8";
}

}  // namespace

// The nodes that one BandStep runs, and what stands for each in the plan.
struct Planner::Chain {
  const Node *feed = nullptr, *feed_after = nullptr;  // a picture's first convolution, in front of another
  const Node *expand = nullptr, *expand_after = nullptr;
  const Node *depthwise = nullptr, *depthwise_after = nullptr;
  const Node *project = nullptr, *project_after = nullptr;
  std::unique_ptr<BandStep> step = std::make_unique<BandStep>();
  Element element = Element::f32;
  int end = 0;  // the value that the last node so far writes
};

Planner::Planner(Plan &plan, const PlanOptions &options) : plan_(plan), options_(options), graph_(plan.graph) {
  const size_t values = graph_.inputs.size() + graph_.nodes.size();
  readers_.resize(values);
  output_uses_.assign(values, 0);
  flat_.assign(values, -1);
  blocked_.assign(values, -1);
  done_.assign(values, false);
  for (const Node &node : graph_.nodes)
    for (int input : node.inputs) readers_[size_t(input)].push_back(&node);
  for (const Named &output : graph_.outputs) output_uses_[size_t(output.value)]++;
}

void Planner::run() {
  for (size_t i = 0; i < graph_.inputs.size(); i++) {
    flat_[i] = new_buffer(int(i), false);
    plan_.buffers[size_t(flat_[i])].input = int(i);
  }
  for (const Node &node : graph_.nodes) {
    if (done_[size_t(value_of(node))]) continue;
    const bool planned =
        options_.kernels && (plan_quantise(node) || plan_linear(node) || plan_elementwise(node) ||
                             plan_mean(node) || plan_attention(node) || plan_alias(node));
    if (!planned) plan_generic(node);
    done(node);
  }
  plan_outputs();
}

const Node *Planner::only_reader(int value) const {
  const auto &readers = readers_[size_t(value)];
  return readers.size() == 1 && output_uses_[size_t(value)] == 0 ? readers[0] : nullptr;
}

Element Planner::element_of(const TensorType &type) const {
  if (is_integer(type.dtype)) return Element::u8;
  return options_.bf16 ? Element::bf16 : Element::f32;
}

bool Planner::has_blocks(const TensorType &type) const {
  const size_t rank = type.shape.size();
  if (rank < 1 || rank > 3 || (type.dtype != DType::float32 && !is_integer(type.dtype))) return false;
  const int64_t channels = (type.shape.back() + BLOCK - 1) / BLOCK * BLOCK;
  const int64_t bytes = elements(type.shape) / type.shape.back() * channels * int64_t(size_of(element_of(type)));
  return options_.kernels && options_.kernels->has[int(element_of(type))] && bytes < MAX_BUFFER;
}

int Planner::new_buffer(int value, bool in_blocks) {
  const TensorType &type = graph_.type(value);
  Buffer buffer;
  buffer.value = value;
  buffer.blocked = in_blocks;
  buffer.bytes = flat_bytes(type);
  const Shape &shape = type.shape;
  if (in_blocks) {
    buffer.element = element_of(type);
    buffer.channels = shape.back();
    buffer.height = shape.size() > 2 ? shape[0] : 1;
    buffer.width = shape.size() > 2 ? shape[1] : shape.size() > 1 ? shape[0] : 1;
    buffer.bytes = size_t(buffer.blocks() * buffer.block_bytes());
  }
  plan_.buffers.push_back(buffer);
  return int(plan_.buffers.size()) - 1;
}

Step &Planner::add(std::unique_ptr<Step> step, std::vector<int> nodes, std::vector<int> reads, int write) {
  for (int node : nodes) step->macs += macs_of(graph_, graph_.nodes[size_t(node)]);
  step->nodes = std::move(nodes);
  step->reads = std::move(reads);
  step->write = write;
  plan_.steps.push_back(std::move(step));
  return *plan_.steps.back();
}

int Planner::flat(int value) {
  if (flat_[size_t(value)] < 0 && blocked_[size_t(value)] < 0) plan_generic(node_of(value));  // see plan_quantise
  int &buffer = flat_[size_t(value)];
  if (buffer >= 0) return buffer;
  buffer = new_buffer(value, false);
  auto step = std::make_unique<ConvertStep>();
  step->kernel = "flatten";
  step->dtype = graph_.type(value).dtype;
  add(std::move(step), {}, {blocked_[size_t(value)]}, buffer);
  return buffer;
}

int Planner::blocked(int value) {
  if (flat_[size_t(value)] < 0 && blocked_[size_t(value)] < 0) plan_generic(node_of(value));
  int &buffer = blocked_[size_t(value)];
  if (buffer >= 0) return buffer;
  buffer = new_buffer(value, true);
  auto step = std::make_unique<ConvertStep>();
  step->kernel = "block";
  step->dtype = graph_.type(value).dtype;
  add(std::move(step), {}, {flat_[size_t(value)]}, buffer);
  return buffer;
}

// An activation node that nothing else keeps apart from the integer layer before it: a table in its epilogue.
const Node *Planner::table_after(const Node &node) const {
  const Node *next = only_reader(value_of(node));
  if (!next || next->op.kind != Kind::activation || !is_integer(node.type.dtype)) return nullptr;
  return next->op.activation == Activation::prelu ? nullptr : next;
}

bool Planner::plan_linear(const Node &node) {
  const Kind kind = node.op.kind;
  if (kind != Kind::conv && kind != Kind::depthwise_conv && kind != Kind::dense) return false;
  if (!has_blocks(graph_.type(node.inputs[0])) || !has_blocks(node.type)) return false;
  const Node *after = table_after(node);
  if (kind == Kind::depthwise_conv && !is_depthwise(node)) return false;
  const Node *next = only_reader(after ? value_of(*after) : value_of(node));
  const bool opens = kind == Kind::conv && next && is_depthwise(*next);
  const bool from_picture = kind == Kind::conv && blocked_[size_t(node.inputs[0])] < 0 &&
                            fits_picture(node, graph_.type(node.inputs[0]).shape);
  if (is_pointwise(node) && !opens && !from_picture) return plan_pointwise(node, after);
  return plan_chain(node, after);
}

// The add node that can become part of a layer's epilogue; `end` is the value that the layer writes.
const Node *Planner::residual_of(const Node &last, int end, GemmLayer &layer, int &other) const {
  const Node *add = only_reader(end);
  if (!add || add->op.kind != Kind::add || last.op.activation != Activation::none) return nullptr;
  other = add->inputs[0] == end ? add->inputs[1] : add->inputs[0];
  if (other == end || (flat_[size_t(other)] < 0 && blocked_[size_t(other)] < 0)) return nullptr;
  // Only the first summand may be scaled by add_self: the order does not matter to the sum.
  if (!make_residual(graph_.type(end), graph_.type(other), *add, layer.finish.epilogue)) return nullptr;
  return add;
}

bool Planner::plan_pointwise(const Node &node, const Node *after) {
  const Element element = element_of(node.type);
  auto layer = make_gemm(graph_, node, after, element, false, *options_.kernels, *plan_.weights);
  if (!layer) return false;
  auto step = std::make_unique<PointwiseStep>();
  step->kernels = options_.kernels;
  step->layer = std::move(*layer);
  std::vector<int> nodes = {int(&node - graph_.nodes.data())};
  int end = value_of(node);
  if (after) done(*after), nodes.push_back(int(after - graph_.nodes.data())), end = value_of(*after);
  std::vector<int> reads = {blocked(node.inputs[0])};
  int other = -1;
  if (const Node *sum = residual_of(node, end, step->layer, other)) {
    reads.push_back(step->residual = blocked(other));
    done(*sum), nodes.push_back(int(sum - graph_.nodes.data())), end = value_of(*sum);
  }
  const Buffer &in = plan_.buffers[size_t(reads[0])];
  step->scratch = aligned(step->layer.run_words.size() * sizeof(Run)) +
                  (step->layer.needs_row_sums ? aligned(size_t(in.pixels()) * 4) : 0);
  step->kernel = std::string(in.pixels() == 1 ? "dense_" : "pointwise_") + name_of(element);
  step->tile = tile_text(options_.kernels->tile_pixels[int(element)], options_.kernels->panel[int(element)]);
  plan_.weight_bytes += step->layer.weight_bytes;
  const int write = new_buffer(end, true);
  Buffer &out = plan_.buffers[size_t(write)];
  const bool answer = output_uses_[size_t(end)] && readers_[size_t(end)].empty();
  if (element == Element::bf16 && out.pixels() == 1 && answer && step->residual < 0) {
    out.element = Element::f32;  // logits keep all of their bits
    out.bytes = size_t(out.blocks() * out.block_bytes());
    step->float_out = true;
  }
  blocked_[size_t(end)] = write;
  add(std::move(step), std::move(nodes), std::move(reads), write);
  return true;
}

// A picture of the caller is read as it is, row by row, by the first convolution: its windows are laid out and, in
// front of integers, its floats are quantised on the way.
bool Planner::picture_source(const Node &first, int value, BandStep &step, int &source) {
  PictureSource &picture = step.picture;
  if (blocked_[size_t(value)] >= 0 || !fits_picture(first, graph_.type(value).shape)) return false;
  if (flat_[size_t(value)] < 0) {  // a quantise node that was left to this layer
    const TensorType &type = graph_.type(value);
    picture.quantise = true;
    picture.inverse = 1 / type.scale;
    picture.zero = stored_zero(type);
    value = node_of(value).inputs[0];
  }
  picture.present = true;
  picture.dtype = graph_.type(value).dtype;
  source = flat(value);
  return true;
}

// Whether a quantise node can be left to the convolution that reads it.
bool Planner::plan_quantise(const Node &node) {
  const int input = node.inputs[0];
  if (node.op.kind != Kind::quantise || input >= int(graph_.inputs.size())) return false;
  const Node *reader = only_reader(value_of(node));
  return reader && reader->op.kind == Kind::conv && graph_.type(input).dtype == DType::float32 &&
         has_blocks(reader->type) && fits_picture(*reader, node.type.shape);
}

// The next layer of a chain, if it can run with those before it.
bool Planner::extend(Chain &chain) {
  const Node *next = only_reader(chain.end);
  if (!next || next->inputs.size() != 1 || !has_blocks(next->type) || element_of(next->type) != chain.element)
    return false;
  BandStep &step = *chain.step;
  if (!chain.depthwise && is_depthwise(*next)) {
    chain.depthwise_after = table_after(*next);
    step.depthwise = make_depthwise(graph_, *next, chain.depthwise_after, chain.element, *options_.kernels,
                                    *plan_.weights);
    if (!step.depthwise) return false;
    chain.depthwise = next;
    chain.end = value_of(chain.depthwise_after ? *chain.depthwise_after : *next);
    step.pad_depthwise = stored_zero(graph_.type(next->inputs[0]));
    return true;
  }
  if (next->op.kind != Kind::conv || !is_pointwise(*next)) return false;
  chain.project_after = table_after(*next);
  step.project = make_gemm(graph_, *next, chain.project_after, chain.element, false, *options_.kernels,
                           *plan_.weights);
  if (!step.project) return false;
  chain.project = next;
  chain.end = value_of(chain.project_after ? *chain.project_after : *next);
  return true;
}

// Bands of rows keep what lies between the layers small; slices of channels read every weight once.
void Planner::choose_bands(BandStep &step, bool may_project) const {
  const int64_t size = int64_t(size_of(step.element));
  step.band_rows =
      int(std::clamp<int64_t>(56 / std::max<int64_t>(step.width2, 1), 1, std::max<int64_t>(step.height2, 1)));
  step.slice_channels = int(4 / size) * 32;  // 128 bytes of a pixel
  if (!step.depthwise) return;
  const int64_t picture = step.height1 * (step.width1 + 4) * BLOCK * size;  // of one block, in the ring
  const bool windowed = step.expand && (!step.expand->window.pointwise() || step.picture.present);
  const bool small = step.height2 * step.width2 <= 256;
  step.by_channels = !windowed && picture * 2 <= 160 * 1024 && (small || !may_project);
  if (step.by_channels) step.slice_channels = 32;
}

// Where a picture's first convolution is followed by another one that is not pointwise, the second makes the rows
// that it reads as it goes: the first one's output, the largest of the network, is never whole in memory.
void Planner::feed(Chain &chain, int source) {
  const Node *next = only_reader(chain.end);
  if (!chain.step->picture.present || !next || next->op.kind != Kind::conv || is_pointwise(*next)) return;
  if (!has_blocks(next->type) || element_of(next->type) != chain.element) return;
  const Node *after = table_after(*next);
  auto gemm = make_gemm(graph_, *next, after, chain.element, false, *options_.kernels, *plan_.weights);
  BandStep &first = *chain.step;
  const Shape &in = graph_.type(chain.expand->inputs[0]).shape, &out = chain.expand->type.shape;
  first.height0 = in[0], first.width0 = in[1], first.channels0 = in[2];
  first.height1 = first.height2 = out[0], first.width1 = first.width2 = out[1];
  first.channels1 = first.channels2 = out[2];
  first.reads = {source};
  if (!gemm || !first.prepare()) return;
  auto step = std::make_unique<BandStep>();
  step->element = chain.element;
  step->kernels = first.kernels, step->panel = first.panel, step->over_read = first.over_read;
  step->expand = std::move(gemm);
  step->pad_expand = stored_zero(graph_.type(chain.end));
  step->feed = std::move(chain.step);
  chain.step = std::move(step);
  chain.feed = chain.expand, chain.feed_after = chain.expand_after;
  chain.expand = next, chain.expand_after = after;
  chain.end = value_of(after ? *after : *next);
}

// Begins a chain with this node; `source`: the buffer of the picture that it reads, if it reads one.
bool Planner::begin(Chain &chain, const Node &node, const Node *after, int &source) {
  BandStep &step = *chain.step;
  chain.element = step.element = element_of(node.type);
  if (element_of(graph_.type(node.inputs[0])) != chain.element) return false;
  step.kernels = options_.kernels;
  step.panel = is_depthwise(node) ? BLOCK : options_.kernels->panel[int(chain.element)];
  step.over_read = options_.kernels->pixels_over_read[int(chain.element)];
  const int input = node.inputs[0];
  if (is_depthwise(node)) {
    chain.depthwise_after = after;
    step.depthwise = make_depthwise(graph_, node, after, chain.element, *options_.kernels, *plan_.weights);
    if (!step.depthwise) return false;
    chain.depthwise = &node;
    step.pad_depthwise = stored_zero(graph_.type(input));
  } else {
    const bool picture = picture_source(node, input, step, source);
    step.expand = make_gemm(graph_, node, after, chain.element, picture, *options_.kernels, *plan_.weights);
    if (!step.expand) return false;
    chain.expand = &node;
    chain.expand_after = after;
    step.pad_expand = stored_zero(graph_.type(input));
  }
  chain.end = value_of(after ? *after : node);
  return true;
}

bool Planner::plan_chain(const Node &node, const Node *after) {
  Chain chain;
  int source = -1;
  if (!begin(chain, node, after, source)) return false;
  feed(chain, source);
  BandStep &step = *chain.step;
  const int input = (chain.expand ? *chain.expand : node).inputs[0];
  const Shape &in = graph_.type(input).shape;
  step.height0 = in[0], step.width0 = in[1], step.channels0 = in[2];
  if (chain.expand && !chain.depthwise) extend(chain);
  const Shape &middle = chain.expand ? chain.expand->type.shape : in;
  step.height1 = middle[0], step.width1 = middle[1], step.channels1 = middle[2];
  const Shape &sized = graph_.type(chain.end).shape;
  step.height2 = sized[0], step.width2 = sized[1];
  const Node *next = only_reader(chain.end);
  const bool may_project = next && next->op.kind == Kind::conv && is_pointwise(*next) && !step.project;
  choose_bands(step, may_project);
  if (may_project && !step.by_channels && !step.project) extend(chain);
  const Shape &out = graph_.type(chain.end).shape;
  step.channels2 = out[2];

  if (!step.prepare()) return false;

  std::vector<int> nodes;
  for (const Node *part : {chain.feed, chain.feed_after, chain.expand, chain.expand_after, chain.depthwise,
                           chain.depthwise_after, chain.project, chain.project_after})
    if (part) done(*part), nodes.push_back(int(part - graph_.nodes.data()));
  std::vector<int> reads = {source >= 0 ? source : blocked(input)};
  int other = -1;
  if (chain.project)
    if (const Node *sum = residual_of(*chain.project, chain.end, *step.project, other)) {
      reads.push_back(step.residual = blocked(other));
      done(*sum), nodes.push_back(int(sum - graph_.nodes.data())), chain.end = value_of(*sum);
    }
  step.kernel = step.by_channels ? "channels" : "bands";
  for (const auto &[present, name] : {std::pair{bool(step.feed), "_conv"}, {bool(step.expand), "_conv"},
                                      {bool(step.depthwise), "_depthwise"}, {bool(step.project), "_pointwise"}})
    if (present) step.kernel += name;
  step.kernel += std::string("_") + name_of(chain.element);
  step.tile = step.by_channels ? std::to_string(step.slice_channels) + " channels"
                               : std::to_string(step.band_rows) + (step.band_rows == 1 ? " row" : " rows");
  if (step.feed) plan_.weight_bytes += step.feed->expand->weight_bytes;
  if (step.expand) plan_.weight_bytes += step.expand->weight_bytes;
  if (step.depthwise) plan_.weight_bytes += step.depthwise->weight_bytes;
  if (step.project) plan_.weight_bytes += step.project->weight_bytes;
  const int write = new_buffer(chain.end, true);
  blocked_[size_t(chain.end)] = write;
  add(std::move(chain.step), std::move(nodes), std::move(reads), write);
  return true;
}

bool Planner::plan_elementwise(const Node &node) {
  const Kind kind = node.op.kind;
  if (kind != Kind::add && kind != Kind::mul && kind != Kind::activation) return false;
  for (int input : node.inputs)
    if (!has_blocks(graph_.type(input)) || blocked_[size_t(input)] < 0) return false;
  if (!has_blocks(node.type) || node.op.activation == Activation::prelu || node.op.constant) return false;
  const TensorType &a = graph_.type(node.inputs[0]), &out = node.type;
  const Element element = element_of(out);
  auto step = std::make_unique<ElementwiseStep>();
  Elementwise &how = step->how;
  how.activation = int(node.op.activation);
  if (kind == Kind::activation) {
    step->function = options_.kernels->activate[int(element)];
    if (element == Element::u8) {
      step->table = Bytes(256);
      blocked_table(node.op.activation, a, out, step->table.as<uint8_t>());
      how.table = step->table.as<uint8_t>();
    }
  } else {
    const TensorType &b = graph_.type(node.inputs[1]);
    uint8_t low = 0, high = 255;
    if (element == Element::u8 && !integer_limits(node.op.activation, out, low, high)) return false;
    how.low = low, how.high = high, how.zero = stored_zero(out);
    how.zero_a = stored_zero(a), how.zero_b = stored_zero(b);
    if (kind == Kind::add) {
      Epilogue e;
      if (element == Element::u8 && !make_residual(a, b, node, e)) return false;
      how.factor_a = e.add_self, how.factor_b = e.add_other, how.offset = e.add_offset, how.shift = e.add_shift;
      step->function = options_.kernels->add[int(element)];
    } else {
      const Buffer &gate = plan_.buffers[size_t(blocked_[size_t(node.inputs[1])])];
      if (gate.pixels() != 1 || gate.channels != a.shape.back()) return false;
      step->gate = true;
      how.scale = a.scale * b.scale / out.scale;
      if (element == Element::u8 && !(255.0f * 255.0f * how.scale < MAX_QUANTA)) return false;
      step->function = options_.kernels->mul_gate[int(element)];
    }
  }
  step->kernel = std::string(name_of(kind)) + "_" + name_of(element);
  std::vector<int> reads;
  for (int input : node.inputs) reads.push_back(blocked(input));
  const int write = blocked_[size_t(value_of(node))] = new_buffer(value_of(node), true);
  add(std::move(step), {int(&node - graph_.nodes.data())}, std::move(reads), write);
  return true;
}

bool Planner::plan_mean(const Node &node) {
  if (node.op.kind != Kind::mean || !has_blocks(node.type) || blocked_[size_t(node.inputs[0])] < 0) return false;
  const TensorType &in = graph_.type(node.inputs[0]);
  const int64_t pixels = in.shape[0] * in.shape[1];
  const Element element = element_of(node.type);
  auto step = std::make_unique<MeanStep>();
  step->function = options_.kernels->mean[int(element)];
  step->how.scale = element == Element::u8 ? in.scale / (node.type.scale * float(pixels)) : 1 / float(pixels);
  step->how.zero_a = stored_zero(in), step->how.zero = stored_zero(node.type);
  if (element == Element::u8 && !(255.0f * float(pixels) * step->how.scale < MAX_QUANTA)) return false;
  step->kernel = std::string("mean_") + name_of(element);
  const int write = blocked_[size_t(value_of(node))] = new_buffer(value_of(node), true);
  add(std::move(step), {int(&node - graph_.nodes.data())}, {blocked(node.inputs[0])}, write);
  return true;
}

bool Planner::plan_attention(const Node &node) {
  if (node.op.kind != Kind::softmax && node.op.kind != Kind::matmul) return false;
  for (int input : node.inputs)
    if (!has_blocks(graph_.type(input)) || element_of(graph_.type(input)) == Element::u8) return false;
  if (!has_blocks(node.type)) return false;
  std::vector<int> reads;
  for (int input : node.inputs) reads.push_back(blocked(input));
  const int write = blocked_[size_t(value_of(node))] = new_buffer(value_of(node), true);
  const std::string kernel = std::string(name_of(node.op.kind)) + "_" + name_of(element_of(node.type));
  std::unique_ptr<Step> step;
  if (node.op.kind == Kind::softmax) {
    auto made = std::make_unique<SoftmaxStep>();
    made->beta = float(node.op.beta);
    made->kernels = options_.kernels;
    step = std::move(made);
  } else {
    auto made = std::make_unique<MatMulStep>();
    made->transpose_second = node.op.transpose_second;
    made->kernels = options_.kernels;
    made->prepare(plan_.buffers[size_t(reads[0])], plan_.buffers[size_t(write)]);
    step = std::move(made);
  }
  step->kernel = kernel;
  add(std::move(step), {int(&node - graph_.nodes.data())}, std::move(reads), write);
  return true;
}

// A reshape that leaves the channels where they are is the same memory.
bool Planner::plan_alias(const Node &node) {
  if (node.op.kind != Kind::reshape || blocked_[size_t(node.inputs[0])] < 0 || !has_blocks(node.type))
    return false;
  const TensorType &in = graph_.type(node.inputs[0]);
  if (in.shape.back() != node.type.shape.back() || in.dtype != node.type.dtype || in.scale != node.type.scale ||
      in.zero_point != node.type.zero_point)
    return false;
  blocked_[size_t(value_of(node))] = blocked_[size_t(node.inputs[0])];
  return true;
}

void Planner::plan_generic(const Node &node) {
  std::string why;
  if (!generic_supports(graph_, node, why))
    fail(MOBILENET_UNSUPPORTED, "node '%s' (%s): %s", node.name.c_str(), name_of(node.op.kind), why.c_str());
  auto step = std::make_unique<GenericStep>();
  step->graph = &graph_;
  step->node = int(&node - graph_.nodes.data());
  step->scratch = generic_scratch(graph_, node);
  step->kernel = std::string("generic_") + name_of(node.op.kind);
  std::vector<int> reads;
  for (int input : node.inputs) reads.push_back(flat(input));
  const int write = flat_[size_t(value_of(node))] = new_buffer(value_of(node), false);
  add(std::move(step), {int(&node - graph_.nodes.data())}, std::move(reads), write);
}

void Planner::plan_outputs() {
  for (size_t i = 0; i < graph_.outputs.size(); i++) {
    const int value = graph_.outputs[i].value, write = new_buffer(value, false);
    plan_.buffers[size_t(write)].output = int(i);
    if (flat_[size_t(value)] >= 0) {
      auto step = std::make_unique<CopyStep>();
      step->kernel = "copy";
      add(std::move(step), {}, {flat_[size_t(value)]}, write);
    } else {
      auto step = std::make_unique<ConvertStep>();
      step->kernel = "flatten";
      step->dtype = graph_.type(value).dtype;
      add(std::move(step), {}, {blocked_[size_t(value)]}, write);
    }
  }
}

std::unique_ptr<Plan> make_plan(Graph graph, const PlanOptions &options) {
  auto plan = std::make_unique<Plan>();
  plan->graph = std::move(graph);
  plan->threads = options.threads;
  size_t weights = 0;
  for (const Node &node : plan->graph.nodes)
    for (const auto &[name, tensor] : node.parameters)
      weights += size_t(elements(tensor.shape)) * size_of(tensor.dtype);
  plan->weights = std::make_unique<Store>(weights);
  Planner(*plan, options).run();
  for (const auto &step : plan->steps) plan->scratch_bytes = std::max(plan->scratch_bytes, aligned(step->scratch));
  place_buffers(*plan);
  const uint64_t needed = plan->arena_bytes + plan->scratch_bytes * uint64_t(options.threads) + plan->weight_bytes;
  if (needed > options.memory_limit)
    fail(MOBILENET_NO_MEMORY, "the model needs %llu bytes to run; the limit is %llu", (unsigned long long)needed,
         (unsigned long long)options.memory_limit);
  return plan;
}

}  // namespace mobilenet
