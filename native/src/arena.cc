// Where every value lies: largest first, each at the lowest place that is free while it is alive.
#include <algorithm>

#include "plan.h"

namespace mobilenet {

namespace {

void find_lifetimes(Plan &plan) {
  for (size_t i = 0; i < plan.steps.size(); i++) {
    const Step &step = *plan.steps[i];
    Buffer &written = plan.buffers[size_t(step.write)];
    if (written.first < 0) written.first = int(i);
    written.last = std::max(written.last, int(i));
    for (int read : step.reads) plan.buffers[size_t(read)].last = int(i);
  }
}

size_t peak_bytes(const Plan &plan) {
  size_t peak = 0;
  for (size_t i = 0; i < plan.steps.size(); i++) {
    size_t alive = plan.steps[i]->scratch;
    for (const Buffer &buffer : plan.buffers)
      if ((buffer.input >= 0 || buffer.first <= int(i)) && (buffer.last >= int(i) || buffer.output >= 0) &&
          (buffer.first >= 0 || buffer.input >= 0))
        alive += buffer.bytes;
    peak = std::max(peak, alive);
  }
  return peak;
}

}  // namespace

void place_buffers(Plan &plan) {
  find_lifetimes(plan);
  std::vector<Buffer *> order, placed;
  for (Buffer &buffer : plan.buffers)
    if (buffer.input < 0 && buffer.output < 0 && buffer.first >= 0) order.push_back(&buffer);
  std::stable_sort(order.begin(), order.end(),
                   [](const Buffer *a, const Buffer *b) { return a->bytes > b->bytes; });
  for (Buffer *buffer : order) {
    std::vector<const Buffer *> others;
    for (const Buffer *other : placed)
      if (other->first <= buffer->last && buffer->first <= other->last) others.push_back(other);
    std::sort(others.begin(), others.end(),
              [](const Buffer *a, const Buffer *b) { return a->offset < b->offset; });
    size_t at = 0;
    for (const Buffer *other : others) {
      if (at + aligned(buffer->bytes) <= other->offset) break;
      at = std::max(at, other->offset + aligned(other->bytes));
    }
    buffer->offset = at;
    placed.push_back(buffer);
    plan.arena_bytes = std::max(plan.arena_bytes, at + aligned(buffer->bytes));
  }
  plan.peak_bytes = peak_bytes(plan);
}

}  // namespace mobilenet
