#include "simple_steps.h"

#include "bf16.h"
#include "generic.h"

namespace mobilenet {

void GenericStep::run(const Frame &frame) const {
  const Node &n = graph->nodes[size_t(node)];
  const void *inputs[64];
  for (size_t i = 0; i < reads.size(); i++) inputs[i] = frame.at(reads[i]);
  const int64_t parts = generic_parts(*graph, n);
  const Share part = share(parts, 1, frame.index, frame.count);
  if (part.first < part.last)
    generic_run(*graph, n, inputs, frame.at(write), frame.scratch, part.first, part.last);
}

namespace {

// One pixel of one block to flat channels and back.
void flatten(Element element, bool flip, const char *from, char *to, int64_t channels) {
  if (element == Element::f32) {
    std::memcpy(to, from, size_t(channels) * 4);
  } else if (element == Element::bf16) {
    for (int64_t c = 0; c < channels; c++)
      reinterpret_cast<float *>(to)[c] = from_bf16(reinterpret_cast<const uint16_t *>(from)[c]);
  } else {
    for (int64_t c = 0; c < channels; c++) to[c] = char(from[c] ^ (flip ? 0x80 : 0));
  }
}

void unflatten(Element element, bool flip, const char *from, char *to, int64_t channels) {
  if (element == Element::f32) {
    std::memcpy(to, from, size_t(channels) * 4);
  } else if (element == Element::bf16) {
    for (int64_t c = 0; c < channels; c++)
      reinterpret_cast<uint16_t *>(to)[c] = to_bf16(reinterpret_cast<const float *>(from)[c]);
  } else {
    for (int64_t c = 0; c < channels; c++) to[c] = char(from[c] ^ (flip ? 0x80 : 0));
  }
  const int64_t size = int64_t(size_of(element));
  std::memset(to + channels * size, 0, size_t((BLOCK - channels) * size));
}

}  // namespace

void ConvertStep::run(const Frame &frame) const {
  const Buffer &in = (*frame.buffers)[size_t(reads[0])], &out = (*frame.buffers)[size_t(write)];
  const Buffer &blocked = in.blocked ? in : out;
  const Share part = share(blocked.pixels(), 1, frame.index, frame.count);
  const int64_t flat_size = dtype == DType::float32 ? 4 : 1, row = blocked.channels * flat_size;
  const bool flip = dtype == DType::int8;
  for (int b = 0; b < blocked.blocks(); b++) {
    const int64_t rest = blocked.channels - b * BLOCK, channels = rest < BLOCK ? rest : BLOCK;
    for (int64_t p = part.first; p < part.last; p++) {
      const int64_t at = b * blocked.block_bytes() + p * blocked.pixel_bytes(),
                    flat = p * row + b * BLOCK * flat_size;
      if (in.blocked)
        flatten(blocked.element, flip, frame.at(reads[0]) + at, frame.at(write) + flat, channels);
      else
        unflatten(blocked.element, flip, frame.at(reads[0]) + flat, frame.at(write) + at, channels);
    }
  }
}

void CopyStep::run(const Frame &frame) const {
  if (frame.index == 0) std::memcpy(frame.at(write), frame.at(reads[0]), (*frame.buffers)[size_t(reads[0])].bytes);
}

void ElementwiseStep::run(const Frame &frame) const {
  const Buffer &in = (*frame.buffers)[size_t(reads[0])];
  const Share part = share(in.blocks(), 1, frame.index, frame.count);
  for (int64_t b = part.first; b < part.last; b++) {
    const int64_t at = b * in.block_bytes();
    const char *other = reads.size() < 2 ? nullptr : frame.at(reads[1]) + (gate ? b * in.pixel_bytes() : at);
    function(frame.at(reads[0]) + at, other, frame.at(write) + at, in.pixels(), how);
  }
}

void MeanStep::run(const Frame &frame) const {
  const Buffer &in = (*frame.buffers)[size_t(reads[0])];
  const Share part = share(in.blocks(), 1, frame.index, frame.count);
  for (int64_t b = part.first; b < part.last; b++)
    function(frame.at(reads[0]) + b * in.block_bytes(), nullptr, frame.at(write) + b * in.pixel_bytes(),
             in.pixels(), how);
}

void SoftmaxStep::run(const Frame &frame) const {
  const Buffer &in = (*frame.buffers)[size_t(reads[0])];
  const Share part = share(in.pixels(), 1, frame.index, frame.count);
  const int64_t at = part.first * in.pixel_bytes();
  kernels->softmax[int(in.element)](frame.at(reads[0]) + at, frame.at(write) + at, part.last - part.first,
                                    in.channels, in.block_bytes(), beta);
}

void MatMulStep::prepare(const Buffer &first, const Buffer &out) {
  for (int b = 0; b < first.blocks(); b++) {
    const int64_t rest = first.channels - b * BLOCK, per_word = channels_in_word(first.element);
    words_ += ((rest < BLOCK ? rest : BLOCK) + per_word - 1) / per_word;
  }
  zeros = Bytes(size_t(out.channels + 32) * 4);
  epilogue.bias = zeros.data();
  scratch = aligned(size_t(first.blocks()) * sizeof(mobilenet::Run)) +
            aligned(size_t(words_) * size_t(out.channels + 32) * 4);
}

// In panels, as layers.cc packs weights.
void MatMulStep::pack(const Buffer &second, const char *from, const Buffer &out, char *packed) const {
  const int64_t size = int64_t(size_of(second.element)), per_word = channels_in_word(second.element);
  const int64_t terms = transpose_second ? second.channels : second.pixels();
  const int widest = kernels->panel[int(second.element)];
  for (int64_t first = 0; first < out.channels;) {
    const int width = panel_width(int(out.channels - first), widest);
    for (int64_t term = 0; term < terms; term += per_word)
      for (int64_t n = first; n < first + width; n++)
        for (int64_t k = term; k < term + per_word; k++, packed += size) {
          const int64_t pixel = transpose_second ? n : k, channel = transpose_second ? k : n;
          if (n < out.channels && k < terms)
            std::memcpy(packed, from + channel / BLOCK * second.block_bytes() + pixel * second.pixel_bytes() +
                                    channel % BLOCK * size, size_t(size));
          else
            std::memset(packed, 0, size_t(size));
        }
    first += width;
  }
}

void MatMulStep::run(const Frame &frame) const {
  const Buffer &a = (*frame.buffers)[size_t(reads[0])], &b = (*frame.buffers)[size_t(reads[1])];
  const Buffer &out = (*frame.buffers)[size_t(write)];
  const Share part = share(a.pixels(), 14, frame.index, frame.count);
  if (part.first == part.last) return;
  mobilenet::Run *runs = reinterpret_cast<mobilenet::Run *>(frame.scratch);
  for (int i = 0; i < a.blocks(); i++) {
    const int64_t rest = a.channels - i * BLOCK, per_word = channels_in_word(a.element);
    runs[i] = {int32_t(i * a.block_bytes()), int32_t(((rest < BLOCK ? rest : BLOCK) + per_word - 1) / per_word)};
  }
  char *packed = frame.scratch + aligned(size_t(a.blocks()) * sizeof(mobilenet::Run));
  pack(b, frame.at(reads[1]), out, packed);
  char *to = frame.at(write) + part.first * out.pixel_bytes();
  const GemmCall call{frame.at(reads[0]) + part.first * a.pixel_bytes(),
                      runs,
                      a.blocks(),
                      part.last - part.first,
                      packed,
                      words_,
                      to,
                      out.block_bytes(),
                      to,
                      out.block_bytes(),
                      0,
                      int(out.channels),
                      &epilogue};
  kernels->gemm[int(a.element)](call);
}

}  // namespace mobilenet
