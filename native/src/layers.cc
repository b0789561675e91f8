#include "layers.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "bf16.h"
#include "generic.h"

namespace mobilenet {

WindowShape window_of(const Operator &op) {
  WindowShape w;
  if (op.kind == Kind::dense) return w;
  w.kernel_height = int(op.kernel[0]), w.kernel_width = int(op.kernel[1]);
  w.stride_down = int(op.stride[0]), w.stride_across = int(op.stride[1]);
  w.dilation_down = int(op.dilation[0]), w.dilation_across = int(op.dilation[1]);
  w.pad_top = int(op.padding[0]), w.pad_left = int(op.padding[2]);
  w.padded = op.padding[0] + op.padding[1] + op.padding[2] + op.padding[3] != 0;
  return w;
}

int panel_width(int rest, int widest) { return rest > 24 && widest == 32 ? 32 : rest > 8 ? 16 : 8; }

int stored_zero(const TensorType &type) { return type.zero_point + (type.dtype == DType::int8 ? 128 : 0); }

void blocked_table(Activation activation, const TensorType &input, const TensorType &output, uint8_t table[256]) {
  uint8_t stored[256];
  activation_table(activation, input, output, stored);
  const int flip_in = input.dtype == DType::int8 ? 128 : 0, flip_out = output.dtype == DType::int8 ? 128 : 0;
  for (int i = 0; i < 256; i++) table[i] = uint8_t(stored[i ^ flip_in] ^ flip_out);
}

bool integer_limits(Activation activation, const TensorType &output, uint8_t &low, uint8_t &high) {
  const int zero = stored_zero(output);
  low = 0, high = 255;
  if (activation == Activation::none) return true;
  if (activation != Activation::relu && activation != Activation::relu6) return false;
  low = uint8_t(zero);
  if (activation == Activation::relu6) {
    const float six = 6 / output.scale;
    const int top = zero + int(std::rint(six < 512 ? six : 512.0f));
    high = uint8_t(top < 255 ? top : 255);
  }
  return true;
}

namespace {

size_t padded_channels(int channels) { return size_t((channels + 31) / 32 * 32); }

float bias_of(const Node &node, int channel) {
  return node.has("bias") ? node.parameter("bias").f32()[channel] : 0.0f;
}

void finish_float(const Node &node, int channels, Finish &finish) {
  finish.bias = Bytes(padded_channels(channels) * 4);
  for (int c = 0; c < channels; c++) finish.bias.as<float>()[c] = bias_of(node, c);
  finish.epilogue.bias = finish.bias.data();
  finish.epilogue.activation = int(node.op.activation);
  if (node.op.activation == Activation::prelu) {
    finish.alpha = Bytes(padded_channels(channels) * 4);
    std::memcpy(finish.alpha.data(), node.parameter("alpha").data, size_t(channels) * 4);
    finish.epilogue.alpha = finish.alpha.as<float>();
  }
}

// An integer weight without its zero point, of the file's order.
struct IntegerWeights {
  const Tensor &tensor;
  int zero;
  explicit IntegerWeights(const Node &node)
      : tensor(node.parameter("weight")), zero(node.parameter("weight_zero_point").i32()[0]) {}
  int stored(int64_t i) const {
    return tensor.dtype == DType::int8 ? static_cast<const int8_t *>(tensor.data)[i]
                                       : static_cast<const uint8_t *>(tensor.data)[i];
  }
  int operator()(int64_t i) const { return stored(i) - zero; }
};

// sums[c]: sum of a channel's weights; sizes[c]: of their absolute values. False if a sum could pass int32, or a
// scaled sum what a conversion to int32 holds.
bool finish_integer(const Graph &graph, const Node &node, const Node *after, int channels,
                    const std::vector<int64_t> &sums, const std::vector<int64_t> &sizes, int input_offset,
                    Finish &finish) {
  const TensorType &input = graph.type(node.inputs[0]), &output = node.type;
  finish.bias = Bytes(padded_channels(channels) * 4);
  finish.scale = Bytes(padded_channels(channels) * 4);
  const Tensor &scales = node.parameter("weight_scale");
  const int64_t scale_count = elements(scales.shape);
  for (int c = 0; c < channels; c++) {
    const int64_t bias = node.has("bias") ? node.parameter("bias").i32()[c] : 0;
    const float multiplier = input.scale * scales.f32()[scale_count == 1 ? 0 : c] / output.scale;
    const int64_t start = bias - (stored_zero(input) - input_offset) * sums[size_t(c)];
    // Only the whole sum has to fit: on the way there, additions of 32 bits may wrap around.
    const double largest = 255.0 * double(sizes[size_t(c)]) + std::fabs(double(bias));
    if (largest >= 2147483648.0 || !(largest * multiplier < 2147483000.0)) return false;
    finish.bias.as<int32_t>()[c] = int32_t(uint32_t(uint64_t(start)));
    finish.scale.as<float>()[c] = multiplier;
  }
  Epilogue &e = finish.epilogue;
  e.bias = finish.bias.data();
  e.scale = finish.scale.as<float>();
  e.zero = stored_zero(output);
  if (!integer_limits(node.op.activation, output, e.low, e.high)) return false;
  if (after) {
    finish.table = Bytes(256);
    blocked_table(after->op.activation, output, after->type, finish.table.as<uint8_t>());
    e.table = finish.table.as<uint8_t>();
  }
  return true;
}

// Where the words of the packed weights come from: an index into one output channel's weights, or -1.
std::vector<int64_t> word_sources(GemmLayer &layer) {
  const WindowShape &w = layer.window;
  const int per_word = channels_in_word(layer.element);
  std::vector<int64_t> sources;
  auto add_run = [&](int64_t first, int channels) {
    const int words = (channels + per_word - 1) / per_word;
    layer.run_words.push_back(words);
    layer.run_channels.push_back(channels);
    layer.words += words;
    for (int i = 0; i < words * per_word; i++) sources.push_back(i < channels ? first + i : -1);
  };
  int side_by_side = layer.in_channels, taps = w.kernel_height * w.kernel_width;
  if (layer.unfolded != Unfolded::no) side_by_side *= w.kernel_width, taps = w.kernel_height;
  if (layer.unfolded == Unfolded::window) side_by_side *= w.kernel_height, taps = 1;
  for (int tap = 0; tap < taps; tap++)
    for (int c = 0; c < side_by_side; c += BLOCK) {
      const int rest = side_by_side - c;
      add_run(int64_t(tap) * side_by_side + c, rest < BLOCK ? rest : BLOCK);
    }
  return sources;
}

// Calls put(first channel, channels of the file, width, panel) for every panel.
template <class Put>
void pack_panels(const GemmLayer &layer, const Kernels &kernels, Put put) {
  char *panel = layer.weights;
  for (int first = 0; first < layer.out_channels;) {
    const int width = panel_width(layer.out_channels - first, kernels.panel[int(layer.element)]);
    put(first, std::min(width, layer.out_channels - first), width, panel);
    panel += layer.words * width * kernels.word_bytes[int(layer.element)];
    first += width;
  }
}

void pack_float(GemmLayer &layer, const Node &node, const Kernels &kernels, const std::vector<int64_t> &sources) {
  const float *weights = node.parameter("weight").f32();
  const int64_t size = elements(node.parameter("weight").shape) / layer.out_channels;
  const auto value = [&](int channel, int64_t i) {
    return sources[size_t(i)] < 0 ? 0.0f : weights[channel * size + sources[size_t(i)]];
  };
  pack_panels(layer, kernels, [&](int first, int channels, int width, char *panel) {
    for (int64_t word = 0; word < layer.words; word++)
      for (int lane = 0; lane < channels; lane++) {
        char *packed = panel + (word * width + lane) * 4;
        if (layer.element == Element::f32) {
          const float x = value(first + lane, word);
          std::memcpy(packed, &x, 4);
        } else {
          const uint16_t pair[2] = {to_bf16(value(first + lane, 2 * word)),
                                    to_bf16(value(first + lane, 2 * word + 1))};
          std::memcpy(packed, pair, 4);
        }
      }
  });
}

// What is to be known of a channel's integer weights without their zero point.
struct WeightRange {
  int64_t sum = 0, size = 0;  // size: the sum of their absolute values
  int lowest = 0, highest = 0;
};

template <class Stored>
WeightRange range_of(const Stored *from, int64_t count, int zero) {
  constexpr int64_t CHUNK = 1 << 20;  // int32 holds the sum of so many
  WeightRange range;
  for (int64_t begin = 0; begin < count; begin += CHUNK) {
    const int64_t end = std::min(count, begin + CHUNK);
    int32_t sum = 0, size = 0, lowest = 0, highest = 0;
    for (int64_t i = begin; i < end; i++) {
      const int32_t w = from[i] - zero;
      sum += w, size += w < 0 ? -w : w;
      if (std::is_same_v<Stored, int8_t> && zero == 0) continue;  // fits whatever it is
      lowest = w < lowest ? w : lowest, highest = w > highest ? w : highest;
    }
    range.sum += sum, range.size += size;
    range.lowest = std::min(range.lowest, lowest), range.highest = std::max(range.highest, highest);
  }
  return range;
}

// A panel's words of 4 int8 weights, from a row for each channel.
void put_words(const Kernels &kernels, const std::vector<const int8_t *> &rows, int64_t words, int width,
               char *panel) {
  const int bytes = kernels.word_bytes[int(Element::u8)];
  for (int64_t word = 0; word < words; word++)
    for (size_t lane = 0; lane < rows.size(); lane++) {
      char *packed = panel + (word * width + int64_t(lane)) * bytes;
      if (bytes == 4)
        std::memcpy(packed, rows[lane] + 4 * word, 4);
      else
        kernels.pack_word(rows[lane] + 4 * word, packed);
    }
}

template <class Stored>
bool pack_integer(const Graph &graph, GemmLayer &layer, const Node &node, const Node *after,
                  const Kernels &kernels, const std::vector<int64_t> &sources) {
  const IntegerWeights weights(node);
  const Stored *stored = static_cast<const Stored *>(weights.tensor.data);
  const int64_t size = elements(weights.tensor.shape) / layer.out_channels;
  std::vector<int64_t> sums, sizes;
  int lowest = 0, highest = 0;
  for (int c = 0; c < layer.out_channels; c++) {
    const WeightRange range = range_of(stored + c * size, size, weights.zero);
    sums.push_back(range.sum), sizes.push_back(range.size);
    lowest = std::min(lowest, range.lowest), highest = std::max(highest, range.highest);
  }
  // A uint8 weight without its zero point may need nine bits; then the stored one minus 128 is packed and the
  // rest, (zero - 128) times the sum of the inputs, is counted for each pixel.
  const int centre = weights.tensor.dtype == DType::uint8 ? 128 : 0;
  layer.needs_row_sums = lowest < -128 || highest > 127;
  const int subtract = layer.needs_row_sums ? centre : weights.zero;
  layer.finish.epilogue.weight_zero = layer.needs_row_sums ? weights.zero - centre : 0;
  const bool in_order = int64_t(sources.size()) == size && sources.back() == size - 1;
  const bool as_stored = in_order && subtract == 0 && std::is_same_v<Stored, int8_t>;
  std::vector<int8_t> copies(as_stored ? 0 : sources.size() * 32);
  std::vector<const int8_t *> rows;
  pack_panels(layer, kernels, [&](int first, int channels, int width, char *panel) {
    rows.clear();
    for (int lane = 0; lane < channels; lane++) {
      const Stored *from = stored + (first + lane) * size;
      if (as_stored) {
        rows.push_back(reinterpret_cast<const int8_t *>(from));
        continue;
      }
      int8_t *copy = copies.data() + size_t(lane) * sources.size();
      rows.push_back(copy);
      for (size_t i = 0; i < sources.size(); i++)
        copy[i] = int8_t(in_order ? from[i] - subtract : sources[i] < 0 ? 0 : from[sources[i]] - subtract);
    }
    put_words(kernels, rows, layer.words, width, panel);
  });
  return finish_integer(graph, node, after, layer.out_channels, sums, sizes, kernels.input_offset, layer.finish);
}

}  // namespace

std::optional<GemmLayer> make_gemm(const Graph &graph, const Node &node, const Node *after, Element element,
                                   bool picture, const Kernels &kernels, Store &memory) {
  GemmLayer layer;
  layer.window = window_of(node.op);
  layer.element = element;
  layer.in_channels = int(graph.type(node.inputs[0]).shape.back());
  const int row = layer.window.kernel_width * layer.in_channels;
  const bool whole = element == Element::u8 && kernels.unfold_3_rows && layer.window.kernel_height == 3 &&
                     layer.window.dilation_down == 1 && 2 * row >= BLOCK && 3 * row <= 2 * BLOCK &&
                     3 * layer.window.stride_across * layer.in_channels + row <= 64;
  layer.unfolded = !picture ? Unfolded::no : whole ? Unfolded::window : Unfolded::rows;
  layer.out_channels = int(node.type.shape.back());
  const std::vector<int64_t> sources = word_sources(layer);
  const size_t bytes = size_t(kernels.word_bytes[int(element)]);
  layer.weight_bytes = size_t(layer.words) * padded_channels(layer.out_channels) * bytes;
  layer.weights = memory.take(layer.weight_bytes);
  if (element == Element::u8) {
    const bool is_signed = node.parameter("weight").dtype == DType::int8;
    if (!(is_signed ? pack_integer<int8_t> : pack_integer<uint8_t>)(graph, layer, node, after, kernels, sources))
      return std::nullopt;
  } else {
    pack_float(layer, node, kernels, sources);
    finish_float(node, layer.out_channels, layer.finish);
  }
  return layer;
}

namespace {

void pack_depthwise_float(DepthwiseLayer &layer, const Node &node, const Kernels &kernels) {
  const float *weights = node.parameter("weight").f32();
  const int taps = layer.window.kernel_height * layer.window.kernel_width;
  std::vector<float> block(size_t(taps) * BLOCK);
  for (int b = 0; b * BLOCK < layer.channels; b++) {
    for (int t = 0; t < taps; t++)
      for (int c = 0; c < BLOCK; c++) {
        const int channel = b * BLOCK + c;
        block[size_t(t * BLOCK + c)] = channel < layer.channels ? weights[t * layer.channels + channel] : 0.0f;
      }
    kernels.pack_depthwise[int(layer.element)](block.data(), layer.window.kernel_height, layer.window.kernel_width,
                                               layer.weights + size_t(b) * layer.block_bytes);
  }
}

int8_t limited(int x) { return int8_t(x < -128 ? -128 : x > 127 ? 127 : x); }

bool pack_depthwise_integer(const Graph &graph, DepthwiseLayer &layer, const Node &node, const Node *after,
                            const Kernels &kernels) {
  const IntegerWeights weights(node);
  const int taps = layer.window.kernel_height * layer.window.kernel_width;
  const size_t set_bytes = layer.block_bytes / size_t(layer.sets);
  std::vector<int64_t> sums(size_t(layer.channels)), sizes(size_t(layer.channels));
  std::vector<int8_t> part(size_t(taps) * BLOCK);
  for (int b = 0; b * BLOCK < layer.channels; b++)
    for (int set = 0; set < layer.sets; set++) {
      for (int t = 0; t < taps; t++)
        for (int c = 0; c < BLOCK; c++) {
          const int channel = b * BLOCK + c;
          int rest = channel < layer.channels ? weights(int64_t(t) * layer.channels + channel) : 0;
          for (int before = 0; before < set; before++) rest -= limited(rest);
          part[size_t(t * BLOCK + c)] = limited(rest);
          if (channel >= layer.channels) continue;
          sums[size_t(channel)] += limited(rest);
          sizes[size_t(channel)] += rest < 0 ? -limited(rest) : limited(rest);
        }
      kernels.pack_depthwise[int(Element::u8)](part.data(), layer.window.kernel_height, layer.window.kernel_width,
                                               layer.weights + size_t(b) * layer.block_bytes +
                                                   size_t(set) * set_bytes);
    }
  return finish_integer(graph, node, after, layer.channels, sums, sizes, kernels.input_offset, layer.finish);
}

// A weight without its zero point may need nine bits: it is then the sum of two or three int8 ones.
int sets_of(const Node &node) {
  const IntegerWeights weights(node);
  int sets = 1;
  for (int64_t i = 0, n = elements(node.parameter("weight").shape); i < n; i++) {
    int needed = 0;
    for (int rest = weights(i); rest != 0; rest -= limited(rest)) needed++;
    sets = needed > sets ? needed : sets;
  }
  return sets;
}

}  // namespace

std::optional<DepthwiseLayer> make_depthwise(const Graph &graph, const Node &node, const Node *after,
                                             Element element, const Kernels &kernels, Store &memory) {
  DepthwiseLayer layer;
  layer.window = window_of(node.op);
  layer.element = element;
  layer.channels = int(node.type.shape.back());
  layer.sets = element == Element::u8 ? sets_of(node) : 1;
  layer.block_bytes = size_t(layer.sets) * kernels.depthwise_weights[int(element)](layer.window.kernel_height,
                                                                                    layer.window.kernel_width);
  layer.weight_bytes = size_t((layer.channels + BLOCK - 1) / BLOCK) * layer.block_bytes;
  layer.weights = memory.take(layer.weight_bytes);
  if (element == Element::u8) {
    if (!pack_depthwise_integer(graph, layer, node, after, kernels)) return std::nullopt;
  } else {
    pack_depthwise_float(layer, node, kernels);
    finish_float(node, layer.channels, layer.finish);
  }
  return layer;
}

bool make_residual(const TensorType &self, const TensorType &other, const Node &add, Epilogue &e) {
  if (!is_integer(self.dtype)) {
    e.activation_after = int(add.op.activation);
    if (add.op.activation == Activation::prelu) return false;
    e.residual = true;
    return true;
  }
  const float ratio_self = self.scale / add.type.scale, ratio_other = other.scale / add.type.scale;
  int exponent;
  std::frexp(ratio_self > ratio_other ? ratio_self : ratio_other, &exponent);
  const int shift = 21 - exponent;
  if (shift <= 12 || shift > 30) return false;
  if (!integer_limits(add.op.activation, add.type, e.add_low, e.add_high)) return false;
  e.add_self = int32_t(std::rint(std::ldexp(ratio_self, shift)));
  e.add_other = int32_t(std::rint(std::ldexp(ratio_other, shift)));
  e.add_offset = (1 << (shift - 1)) - stored_zero(self) * e.add_self - stored_zero(other) * e.add_other;
  e.add_shift = shift;
  e.add_zero = stored_zero(add.type);
  e.residual = true;
  return true;
}

}  // namespace mobilenet
