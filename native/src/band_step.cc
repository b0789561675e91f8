#include "band_step.h"

#include <algorithm>

namespace mobilenet {

namespace {

void convert_line(const PictureSource &picture, Element element, const Kernels &kernels, const char *source,
                  int64_t count, char *line) {
  const float *floats = reinterpret_cast<const float *>(source);
  if (element == Element::bf16) {
    kernels.narrow_line(floats, count, line);
  } else if (element == Element::f32) {
    std::memcpy(line, source, size_t(count) * 4);
  } else if (picture.quantise) {
    kernels.quantise_line(floats, count, picture.inverse, picture.zero, line);
  } else if (picture.dtype == DType::int8) {
    for (int64_t i = 0; i < count; i++) line[i] = char(source[i] ^ 0x80);
  } else {
    std::memcpy(line, source, size_t(count));
  }
}

// Pixels of a block, a stride apart, to pixels side by side. The sizes are constants, or each would be a call.
template <int PIXEL>
void copy_pixels(const char *from, int64_t step, char *to, int64_t count) {
  for (; count > 0; count--, from += step, to += PIXEL) std::memcpy(to, from, PIXEL);
}

void copy_pixels(int64_t pixel, const char *from, int64_t step, char *to, int64_t count) {
  if (pixel == 64) return copy_pixels<64>(from, step, to, count);
  if (pixel == 32) return copy_pixels<32>(from, step, to, count);
  copy_pixels<16>(from, step, to, count);
}

void fill(char *to, int64_t bytes, Element element, int pad) {
  std::memset(to, element == Element::u8 ? pad : 0, size_t(bytes));
}

}  // namespace

bool BandStep::prepare() {
  pixel_ = int64_t(BLOCK * size_of(element));
  size_t used = 0;
  auto take = [&](int64_t bytes) {
    const size_t at = used;
    used += aligned(size_t(bytes) + ALIGNMENT);
    return at;
  };
  if (feed) {
    feed_scratch_ = take(int64_t(feed->scratch));
    fed_row_ = take((channels0 + BLOCK - 1) / BLOCK * width0 * pixel_);
  }
  const int64_t new_rows = !depthwise ? band_rows
                           : by_channels
                               ? height1
                               : std::min<int64_t>(height1, (band_rows - 1) * depthwise->window.stride_down +
                                                                depthwise->window.reach_down());
  if (expand && (!expand->window.pointwise() || picture.present)) {
    const WindowShape &w = expand->window;
    one_slice_ = !depthwise || channels1 <= slice_channels;
    rows0_ = one_slice_ ? w.reach_down() : (new_rows - 1) * w.stride_down + w.reach_down();
    columns0_ = std::max(width0 + w.pad_left, (width1 - 1) * w.stride_across + w.kernel_width);
    const int64_t line_bytes = (columns0_ * channels0 + 2 * BLOCK) * int64_t(size_of(element));
    if (expand->unfolded == Unfolded::rows) {
      block0_bytes_ = width1 * pixel_;
      phase_bytes_ = (w.kernel_width * channels0 + BLOCK - 1) / BLOCK * block0_bytes_;
      row0_bytes_ = phase_bytes_;
      line_ = take(line_bytes);
    } else if (expand->unfolded == Unfolded::window) {
      block0_bytes_ = (width1 + 3) * pixel_;
      row0_bytes_ = line_bytes + 64;
      window_ = take(2 * block0_bytes_);
    } else {
      block0_bytes_ = (width1 + (w.reach_across() - 1) / w.stride_across) * pixel_;
      phase_bytes_ = (channels0 + BLOCK - 1) / BLOCK * block0_bytes_;
      row0_bytes_ = phase_bytes_ * std::min(w.stride_across, w.reach_across());
    }
    ring0_ = take(rows0_ * row0_bytes_);
  }
  if (depthwise) {
    const WindowShape &w = depthwise->window;
    rows1_ = new_rows;
    const int64_t columns = std::max((width2 - 1) * w.stride_across + w.reach_across(), w.pad_left + width1);
    row1_bytes_ = (columns + over_read) * pixel_;
    block1_bytes_ = rows1_ * row1_bytes_;
    const int64_t held = by_channels ? std::min<int64_t>(channels1, slice_channels) : channels1;
    blocks1_ = (held + BLOCK - 1) / BLOCK;
    ring1_ = take(blocks1_ * block1_bytes_);
    zero1_ = take(std::max(row1_bytes_, element == Element::u8 ? 0 : row0_bytes_));
    overlapping_ = w.dilation_down == 1 && depthwise->sets == 1;
    const int64_t rows = by_channels ? height2 : band_rows;
    pointers_ = take(int64_t(sizeof(char *)) * (overlapping_ ? (rows - 1) * w.stride_down + w.kernel_height
                                                             : rows * w.kernel_height * depthwise->sets));
  }
  // A row of padding for each ring; zeros serve both.
  if (rows0_) zero0_ = depthwise && element != Element::u8 ? zero1_ : take(row0_bytes_);
  if (project) {
    band_block_bytes_ = band_rows * width2 * pixel_;
    band_ = take((channels1 + BLOCK - 1) / BLOCK * band_block_bytes_);
    project_runs_ = take(int64_t(project->run_words.size() * sizeof(Run)));
  }
  if (expand) runs_ = take(int64_t(expand->run_words.size() * sizeof(Run)));
  sums_ = take(std::max(width1, band_rows * width2) * 4);
  scratch = used;
  return used < size_t(1) << 31;  // runs count bytes in 32 bits
}

// One thread at work.
struct BandStep::Worker {
  const BandStep &s;
  const Frame &frame;
  const char *source;
  char *destination, *scratch;
  Run *runs, *project_runs;
  int32_t *sums;
  Epilogue expand_epilogue, project_epilogue;
  Worker *feed;
  int64_t loaded0 = 0, made1 = 0;  // the next row that is not in a ring yet

  Worker(const BandStep &step, const Frame &f, Worker *feeder = nullptr)
      : s(step), frame(f), source(f.at(step.reads[0])), destination(step.write < 0 ? nullptr : f.at(step.write)),
        scratch(f.scratch),
        runs(reinterpret_cast<Run *>(f.scratch + step.runs_)),
        project_runs(reinterpret_cast<Run *>(f.scratch + step.project_runs_)),
        sums(reinterpret_cast<int32_t *>(f.scratch + step.sums_)), feed(feeder) {
    if (s.expand) expand_epilogue = with_sums(*s.expand);
    if (s.project) project_epilogue = with_sums(*s.project);
    if (s.rows0_) fill(scratch + s.zero0_, s.row0_bytes_, s.element, s.pad_expand);
    if (s.depthwise) {
      fill(scratch + s.zero1_, s.row1_bytes_, s.element, s.pad_depthwise);
      pad_columns();
    }
    if (s.project)
      for (size_t r = 0; r < s.project->run_words.size(); r++)
        project_runs[r] = {int32_t(int64_t(r) * s.band_block_bytes_), s.project->run_words[r]};
    if (s.expand && !s.rows0_)
      for (size_t r = 0; r < s.expand->run_words.size(); r++)
        runs[r] = {int32_t(int64_t(r) * s.height0 * s.width0 * s.pixel_), s.expand->run_words[r]};
  }

  Epilogue with_sums(const GemmLayer &layer) const {
    Epilogue e = layer.finish.epilogue;
    if (layer.needs_row_sums) e.row_sums = sums;
    return e;
  }

  // What the inputs of each pixel add where the weights have a zero point of their own.
  void sum_rows(const GemmLayer &layer, const char *a, const Run *from, int64_t pixels, const Epilogue &epilogue) {
    s.kernels->row_sums(a, from, layer.run_channels.data(), int(layer.run_channels.size()), pixels,
                        -epilogue.weight_zero, s.kernels->input_offset, sums);
  }

  // The columns left and right of the rows of ring 1; nothing else writes there.
  void pad_columns() {
    const int64_t left = s.depthwise->window.pad_left * s.pixel_, right = left + s.width1 * s.pixel_;
    for (int64_t row = 0; row < s.blocks1_ * s.rows1_; row++) {
      char *at = scratch + s.ring1_ + row * s.row1_bytes_;
      fill(at, left, s.element, s.pad_depthwise);
      fill(at + right, s.row1_bytes_ - right, s.element, s.pad_depthwise);
    }
  }

  // Ring 0, row y of the source.
  void load_row(int64_t y) {
    char *row = scratch + s.ring0_ + y % s.rows0_ * s.row0_bytes_;
    switch (s.expand->unfolded) {
      case Unfolded::no: return spread_row(y, row);
      case Unfolded::rows: return unfold_row(y, row);
      case Unfolded::window: return convert_row(y, row);
    }
  }

  // A picture's row, converted, between its padding.
  void convert_row(int64_t y, char *line) {
    const WindowShape &w = s.expand->window;
    const int64_t size = int64_t(size_of(s.element)), channels = s.channels0;
    const int64_t source_size = s.picture.dtype == DType::float32 ? 4 : 1;
    fill(line, w.pad_left * channels * size, s.element, s.pad_expand);
    convert_line(s.picture, s.element, *s.kernels, source + y * s.width0 * channels * source_size,
                 s.width0 * channels, line + w.pad_left * channels * size);
    const int64_t end = (w.pad_left + s.width0) * channels * size;
    fill(line + end, (s.columns0_ * channels + BLOCK) * size - end, s.element, s.pad_expand);
  }

  // The same with the columns of each window side by side as channels.
  void unfold_row(int64_t y, char *row) {
    const WindowShape &w = s.expand->window;
    const int64_t size = int64_t(size_of(s.element)), wide = w.kernel_width * s.channels0;
    const char *line = scratch + s.line_;
    convert_row(y, scratch + s.line_);
    for (int64_t u = 0; u < wide; u += BLOCK)
      copy_pixels(s.pixel_, line + u * size, w.stride_across * s.channels0 * size,
                  row + u / BLOCK * s.block0_bytes_, s.width1);
  }

  // The windows of output row y, whole.
  const char *unfold_windows(int64_t y) {
    const WindowShape &w = s.expand->window;
    const char *lines[3];
    for (int ky = 0; ky < 3; ky++) {
      const int64_t row = y * w.stride_down - w.pad_top + ky;
      const bool outside = row < 0 || row >= s.height0;
      lines[ky] = scratch + (outside ? s.zero0_ : s.ring0_ + size_t(row % s.rows0_ * s.row0_bytes_));
    }
    s.kernels->unfold_3_rows(lines, w.stride_across * s.channels0, int(w.kernel_width * s.channels0), s.width1,
                             scratch + s.window_, s.block0_bytes_);
    for (size_t r = 0; r < s.expand->run_words.size(); r++)
      runs[r] = {int32_t(int64_t(r) * s.block0_bytes_), s.expand->run_words[r]};
    return scratch + s.window_;
  }

  // A row in blocks, padded; with a stride across, every stride-th column beside each other.
  void spread_row(int64_t y, char *row) {
    const WindowShape &w = s.expand->window;
    const int phases = std::min(w.stride_across, w.reach_across());
    const int64_t columns = s.block0_bytes_ / s.pixel_;
    const char *from_row = source + y * s.width0 * s.pixel_;
    int64_t from_block = s.height0 * s.width0 * s.pixel_;
    if (feed) {
      char *made = scratch + s.fed_row_;
      from_block = s.width0 * s.pixel_;
      feed->expand_rows(y, 1, 0, int(s.channels0), made, from_block, 0);
      from_row = made;
    }
    for (int phase = 0; phase < phases; phase++)
      for (int64_t block = 0; block * BLOCK < s.channels0; block++) {
        const char *from = from_row + block * from_block;
        char *to = row + phase * s.phase_bytes_ + block * s.block0_bytes_;
        // Column j of this phase is column j * stride + phase - pad of the picture: first .. last are inside.
        const int64_t shift = w.pad_left - phase, stride = w.stride_across;
        const int64_t first = std::min(columns, shift > 0 ? (shift + stride - 1) / stride : 0);
        const int64_t last = std::max(first, std::min(columns, (s.width0 - 1 + shift) / stride + 1));
        fill(to, first * s.pixel_, s.element, s.pad_expand);
        copy_pixels(s.pixel_, from + (first * stride - shift) * s.pixel_, stride * s.pixel_, to + first * s.pixel_,
                    last - first);
        fill(to + last * s.pixel_, (columns - last) * s.pixel_, s.element, s.pad_expand);
      }
  }

  // Rows of the source that the expansion's rows up to `last` (not included) need.
  void load_for(int64_t last) {
    if (!s.rows0_) return;
    const WindowShape &w = s.expand->window;
    const int64_t needed = std::min(s.height0, (last - 1) * w.stride_down - w.pad_top + w.reach_down());
    for (; loaded0 < needed; loaded0++) load_row(loaded0);
  }

  // Points the expansion's runs at the rows that its output row y sees; returns what they are relative to.
  const char *aim(int64_t y) {
    if (!s.rows0_) return source + y * s.width0 * s.pixel_;
    if (s.expand->unfolded == Unfolded::window) return unfold_windows(y);
    const WindowShape &w = s.expand->window;
    Run *run = runs;
    size_t index = 0;
    for (int ky = 0; ky < w.kernel_height; ky++) {
      const int64_t row = y * w.stride_down - w.pad_top + ky * w.dilation_down;
      const bool outside = row < 0 || row >= s.height0;
      const int64_t begin =
          int64_t(outside ? s.zero0_ : s.ring0_) + (outside ? 0 : row % s.rows0_ * s.row0_bytes_);
      for (int kx = 0; kx < (s.expand->unfolded == Unfolded::rows ? 1 : w.kernel_width); kx++) {
        const int64_t column = int64_t(kx) * w.dilation_across;
        const int64_t at = begin + column % w.stride_across * s.phase_bytes_ +
                           column / w.stride_across * s.pixel_;
        for (int64_t block = 0; block * s.block0_bytes_ < s.phase_bytes_; block++, index++)
          *run++ = {int32_t(at + block * s.block0_bytes_), s.expand->run_words[index]};
      }
    }
    return scratch;
  }

  // Rows of the expansion, channels first .. last, to `out` (as if block 0 began there), `out_row` bytes from
  // row to row. More than one row only where rows need not be loaded.
  void expand_rows(int64_t y, int64_t rows, int first, int last, char *out, int64_t out_block, int64_t out_row) {
    const GemmLayer &layer = *s.expand;
    if (s.one_slice_) load_for(y + 1);
    const char *a = aim(y);
    if (layer.needs_row_sums)
      sum_rows(layer, a, runs, s.width1, expand_epilogue);
    const GemmCall call{a, runs, int(layer.run_words.size()), s.width1, layer.weights, layer.words, out,
                        out_block, out, out_block, first, last, &expand_epilogue, false, rows,
                        s.width0 * s.pixel_, out_row};
    s.kernels->gemm[int(s.element)](call);
  }

  // Rows from .. last of ring 1, for channels first .. last; block0: the first block that the ring holds.
  void fill_ring1(int64_t from, int64_t last, int first_channel, int last_channel, int64_t block0) {
    const int64_t left = s.depthwise->window.pad_left * s.pixel_;
    const bool one_by_one = !s.expand || s.rows0_ || s.expand->needs_row_sums;
    for (int64_t y = from, rows; y < last; y += rows) {
      const int64_t slot = y % s.rows1_;
      rows = one_by_one ? 1 : std::min(last - y, s.rows1_ - slot);
      char *row = scratch + s.ring1_ + slot * s.row1_bytes_ + left - block0 * s.block1_bytes_;
      if (s.expand) {
        expand_rows(y, rows, first_channel, last_channel, row, s.block1_bytes_, s.row1_bytes_);
        continue;
      }
      for (int64_t b = first_channel / BLOCK; b * BLOCK < last_channel; b++)
        std::memcpy(row + b * s.block1_bytes_, source + (b * s.height0 + y) * s.width0 * s.pixel_,
                    size_t(s.width0 * s.pixel_));
    }
  }

  // Rows y .. last of one block. The rows that each sees are listed once; without dilation they overlap in the
  // list.
  void depthwise_rows(int64_t y, int64_t last, int64_t block, int64_t block0, char *out) {
    const DepthwiseLayer &layer = *s.depthwise;
    const WindowShape &w = layer.window;
    const char **rows = reinterpret_cast<const char **>(scratch + s.pointers_);
    const char *ring = scratch + s.ring1_ + (block - block0) * s.block1_bytes_, *zeros = scratch + s.zero1_;
    const auto row_at = [&](int64_t row) {
      return row < 0 || row >= s.height1 ? zeros : ring + row % s.rows1_ * s.row1_bytes_;
    };
    int64_t step = w.stride_down;
    if (s.overlapping_) {
      const int64_t first = y * w.stride_down - w.pad_top,
                    count = (last - 1 - y) * w.stride_down + w.kernel_height;
      for (int64_t i = 0; i < count; i++) rows[i] = row_at(first + i);
    } else {
      step = w.kernel_height * layer.sets;
      for (int64_t row = y, i = 0; row < last; row++)
        for (int set = 0; set < layer.sets; set++)
          for (int ky = 0; ky < w.kernel_height; ky++)
            rows[i++] = row_at(row * w.stride_down - w.pad_top + ky * w.dilation_down);
    }
    const int rest = int(s.channels1 - block * BLOCK);
    s.kernels->depthwise[int(s.element)](
        {rows, step, last - y, w.kernel_height * layer.sets, w.kernel_width, w.stride_across, w.dilation_across,
         s.width2, layer.weights + size_t(block) * layer.block_bytes, out, rest < BLOCK ? rest : BLOCK,
         int(block), &layer.finish.epilogue});
  }

  int64_t needed1(int64_t last) const {
    const WindowShape &w = s.depthwise->window;
    return std::min(s.height1, (last - 1) * w.stride_down - w.pad_top + w.reach_down());
  }

  int64_t destination_block() const { return s.height2 * s.width2 * s.pixel_; }

  // Slices of channels first .. last of the whole picture.
  void run_channels(int64_t first, int64_t last) {
    for (int64_t c = first; c < last; c += s.slice_channels) {
      const int64_t end = std::min<int64_t>(last, c + s.slice_channels), block0 = c / BLOCK;
      fill_ring1(0, needed1(s.height2), int(c), int(end), block0);
      for (int64_t block = block0; block * BLOCK < end; block++)
        depthwise_rows(0, s.height2, block, block0, destination + block * destination_block());
    }
  }

  // Rows y .. last of the destination's input, to the band or to the destination itself.
  void make_band(int64_t y, int64_t last, char *out, int64_t out_block) {
    if (!s.depthwise) {
      for (int64_t row = y; row < last; row++)
        expand_rows(row, 1, 0, int(s.channels1), out + (row - y) * s.width2 * s.pixel_, out_block, 0);
      return;
    }
    const int64_t needed = needed1(last);
    if (s.expand && !s.one_slice_) load_for(needed);
    for (int64_t c = 0; c < s.channels1; c += s.slice_channels) {
      const int64_t end = std::min<int64_t>(s.channels1, c + s.slice_channels);
      fill_ring1(made1, needed, int(c), int(end), 0);
      for (int64_t block = c / BLOCK; block * BLOCK < end; block++)
        depthwise_rows(y, last, block, 0, out + block * out_block);
    }
    made1 = std::max(made1, needed);
  }

  void project_band(int64_t y, int64_t last) {
    const GemmLayer &layer = *s.project;
    const int64_t pixels = (last - y) * s.width2, at = y * s.width2 * s.pixel_;
    const char *band = scratch + s.band_;
    if (layer.needs_row_sums)
      sum_rows(layer, band, project_runs, pixels, project_epilogue);
    const char *other = (s.residual < 0 ? destination : frame.at(s.residual)) + at;
    const GemmCall call{band, project_runs, int(layer.run_words.size()), pixels, layer.weights, layer.words,
                        destination + at, destination_block(), other, destination_block(), 0, int(s.channels2),
                        &project_epilogue};
    s.kernels->gemm[int(s.element)](call);
  }

  // As the feed of another: from this row on.
  void begin_at(int64_t row) {
    const WindowShape &w = s.expand->window;
    loaded0 = std::max<int64_t>(0, row * w.stride_down - w.pad_top);
  }

  void run_rows(int64_t first, int64_t end) {
    if (first == end) return;
    if (s.depthwise)
      made1 = std::max<int64_t>(0, first * s.depthwise->window.stride_down - s.depthwise->window.pad_top);
    if (s.rows0_) {
      const WindowShape &w = s.expand->window;
      loaded0 = std::max<int64_t>(0, (s.depthwise ? made1 : first) * w.stride_down - w.pad_top);
      if (feed) feed->begin_at(loaded0);
    }
    for (int64_t y = first; y < end; y += s.band_rows) {
      const int64_t last = std::min(end, y + s.band_rows);
      if (!s.project) {
        make_band(y, last, destination + y * s.width2 * s.pixel_, destination_block());
        continue;
      }
      make_band(y, last, scratch + s.band_, s.band_block_bytes_);
      project_band(y, last);
    }
  }
};

void BandStep::run(const Frame &frame) const {
  const Share part = by_channels ? share(channels1, panel, frame.index, frame.count)
                                 : share(height2, 1, frame.index, frame.count);
  if (part.first == part.last) return;
  if (feed) {
    Frame apart = frame;
    apart.scratch += feed_scratch_;
    Worker feeder(*feed, apart);
    return Worker(*this, frame, &feeder).run_rows(part.first, part.last);
  }
  Worker worker(*this, frame);
  if (by_channels)
    worker.run_channels(part.first, part.last);
  else
    worker.run_rows(part.first, part.last);
}

void PointwiseStep::run(const Frame &frame) const {
  const Buffer &in = (*frame.buffers)[size_t(reads[0])], &out = (*frame.buffers)[size_t(write)];
  const int64_t pixels = in.pixels(), channels = layer.out_channels;
  // Over pixels, or over channels where that shares more evenly.
  const int panel = kernels->panel[int(layer.element)];
  const int64_t tiles = (pixels + 6) / 7, panels = (channels + panel - 1) / panel;
  const auto busiest = [&](int64_t pieces) {
    return double((pieces + frame.count - 1) / frame.count) / double(pieces);
  };
  const bool over_pixels = pixels > 7 && busiest(tiles) <= busiest(panels);
  const Share p = over_pixels ? share(pixels, 7, frame.index, frame.count) : Share{0, pixels};
  const Share c = over_pixels ? Share{0, channels} : share(channels, panel, frame.index, frame.count);
  if (p.first == p.last || c.first == c.last) return;
  Run *runs = reinterpret_cast<Run *>(frame.scratch);
  const size_t count = layer.run_words.size();
  for (size_t r = 0; r < count; r++) runs[r] = {int32_t(int64_t(r) * in.block_bytes()), layer.run_words[r]};
  const char *a = frame.at(reads[0]) + p.first * in.pixel_bytes();
  Epilogue epilogue = layer.finish.epilogue;
  if (layer.needs_row_sums) {
    int32_t *sums = reinterpret_cast<int32_t *>(frame.scratch + aligned(count * sizeof(Run)));
    kernels->row_sums(a, runs, layer.run_channels.data(), int(count), p.last - p.first, -epilogue.weight_zero,
                      kernels->input_offset, sums);
    epilogue.row_sums = sums;
  }
  const int64_t at = p.first * out.pixel_bytes();
  const char *other = frame.at(residual < 0 ? write : residual) + at;
  const GemmCall call{a,
                      runs,
                      int(count),
                      p.last - p.first,
                      layer.weights,
                      layer.words,
                      frame.at(write) + at,
                      out.block_bytes(),
                      other,
                      out.block_bytes(),
                      int(c.first),
                      int(c.last),
                      &epilogue,
                      float_out};
  (pixels == 1 ? kernels->gemv : kernels->gemm)[int(layer.element)](call);
}

}  // namespace mobilenet
