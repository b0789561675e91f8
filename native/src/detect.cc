#include "detect.h"

#include <algorithm>
#include <cmath>

#include "guarded.h"

namespace mobilenet {
namespace {

constexpr double SLACK = 1e-3;  // share of the threshold by which the first look may err

struct Candidate {
  float score;
  int32_t index;  // of the class
  int64_t prior;
};

bool less_preferred(const Candidate &a, const Candidate &b) {
  if (a.score != b.score) return a.score < b.score;
  if (a.index != b.index) return a.index > b.index;
  return a.prior > b.prior;
}
bool preferred(const Candidate &a, const Candidate &b) { return less_preferred(b, a); }

// The sum of x[i] - x[i] is 0 if all are finite, and NaN otherwise.
bool finite(const float *x, int64_t count) {
  float nothing[16] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (int lane = 0; lane < 16; lane++) nothing[lane] += x[i + lane] - x[i + lane];
  for (; i < count; i++) nothing[0] += x[i] - x[i];
  return std::all_of(nothing, nothing + 16, [](float lane) { return lane == 0; });
}

float largest(const float *x, int64_t count) {
  float most[16];
  std::fill(most, most + 16, x[0]);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (int lane = 0; lane < 16; lane++) most[lane] = std::max(most[lane], x[i + lane]);
  for (; i < count; i++) most[0] = std::max(most[0], x[i]);
  return *std::max_element(most, most + 16);
}

// Of each class the priors with a probability above the threshold.
std::vector<std::vector<Candidate>> likely(const mobilenet_decoding &rule, const float *scores, int64_t count,
                                           int64_t columns) {
  const int64_t first = rule.background ? 1 : 0;
  const double threshold = rule.score_threshold;
  const float above = float(threshold);
  const bool sigmoid = rule.scores == MOBILENET_SIGMOID;
  // Below this (a softmax: this below the largest score of the row) no score comes near the threshold.
  float least = -INFINITY;
  if (sigmoid && threshold > 0) least = threshold < 1 ? float(std::log(threshold / (1 - threshold)) - SLACK) : 0;
  if (!sigmoid && threshold > 0) least = float(std::log(threshold) - SLACK);
  std::vector<std::vector<Candidate>> found(static_cast<size_t>(columns - first));
  std::vector<double> powers(static_cast<size_t>(columns));
  for (int64_t row = 0; row < count; row++) {
    const float *x = scores + row * columns;
    const auto offer = [&](int64_t column, double probability) {
      const int32_t index = int32_t(column - first);
      if (float(probability) > above) found[size_t(index)].push_back({float(probability), index, row});
    };
    const float best = largest(x + first, columns - first);
    if (sigmoid) {
      if (!(best > least)) continue;
      for (int64_t c = first; c < columns; c++)
        if (x[c] > least) offer(c, 1 / (1 + std::exp(-double(x[c]))));
      continue;
    }
    const float most = first ? std::max(best, x[0]) : best;
    if (best - most < least) continue;
    double sum = 0;
    for (int64_t c = 0; c < columns; c++) sum += powers[size_t(c)] = std::exp(double(x[c]) - double(most));
    for (int64_t c = first; c < columns; c++) offer(c, powers[size_t(c)] / sum);
  }
  return found;
}

// The most probable ones of each class, together: a heap whose top is preferred.
std::vector<Candidate> best_of(std::vector<std::vector<Candidate>> classes, size_t most) {
  std::vector<Candidate> all;
  for (std::vector<Candidate> &own : classes) {
    if (own.size() > most) {
      std::nth_element(own.begin(), own.begin() + long(most), own.end(), preferred);
      own.resize(most);
    }
    all.insert(all.end(), own.begin(), own.end());
  }
  std::make_heap(all.begin(), all.end(), less_preferred);
  return all;
}

float within(double value, double limit) { return float(std::min(std::max(value, 0.0), limit)); }

mobilenet_box decoded(const mobilenet_decoding &rule, const float *raw, const double *prior,
                      const Candidate &candidate) {
  static const double MAX_EXPONENT = std::log(1000.0 / 16);
  double low[2], high[2];
  for (int axis = 0; axis < 2; axis++) {
    const double size = prior[2 + axis], x = raw[axis], y = raw[2 + axis];
    if (rule.kind == MOBILENET_YOLO) {
      const auto reach = [&](double v) { return (std::max(v, 0.0) + std::log1p(std::exp(-std::abs(v)))) * size; };
      low[axis] = prior[axis] - reach(x), high[axis] = prior[axis] + reach(y);
    } else {
      const double centre = prior[axis] + x * rule.variances[axis] * size;
      const double half = std::exp(std::min(y * rule.variances[2 + axis], MAX_EXPONENT)) * size / 2;
      low[axis] = centre - half, high[axis] = centre + half;
    }
  }
  const double width = rule.width, height = rule.height;
  return {within(low[0] * width, width),   within(low[1] * height, height), within(high[0] * width, width),
          within(high[1] * height, height), candidate.score,                candidate.index};
}

float area(const mobilenet_box &box) { return (box.right - box.left) * (box.bottom - box.top); }

bool overlap(const mobilenet_box &stayed, const mobilenet_box &box, float threshold) {
  const float across = std::max(std::min(stayed.right, box.right) - std::max(stayed.left, box.left), 0.0f);
  const float down = std::max(std::min(stayed.bottom, box.bottom) - std::max(stayed.top, box.top), 0.0f);
  const float shared = across * down;
  return shared / ((area(stayed) + area(box)) - shared) > threshold;
}

void check(const mobilenet_decoding &rule, const float *boxes, const float *scores, const double *priors,
           int64_t count, int64_t columns) {
  if (rule.kind < 0 || rule.kind > MOBILENET_YOLO || rule.scores < 0 || rule.scores > MOBILENET_SIGMOID)
    fail(MOBILENET_BAD_ARGUMENT, "a detector of kind %d with scores %d", rule.kind, rule.scores);
  if (count < 0 || columns <= (rule.background ? 1 : 0) || columns > (1 << 20))
    fail(MOBILENET_BAD_ARGUMENT, "%lld rows of %lld scores", static_cast<long long>(count),
         static_cast<long long>(columns));
  if (rule.candidates < 1 || rule.detections < 1 || rule.height < 1 || rule.width < 1)
    fail(MOBILENET_BAD_ARGUMENT, "candidates, detections, height and width are at least 1");
  if (!finite(boxes, count * 4) || !finite(scores, count * columns))
    fail(MOBILENET_BAD_ARGUMENT, "a detector's outputs hold a NaN or an infinity");
  if (!std::all_of(priors, priors + count * 4, [](double x) { return std::isfinite(x); }))
    fail(MOBILENET_BAD_ARGUMENT, "the priors hold a NaN or an infinity");
}

}  // namespace

std::vector<mobilenet_box> detect(const mobilenet_decoding &rule, const float *boxes, const float *scores,
                                  const double *priors, int64_t count, int64_t columns) {
  check(rule, boxes, scores, priors, count, columns);
  std::vector<Candidate> waiting = best_of(likely(rule, scores, count, columns), size_t(rule.candidates));
  const float threshold = float(rule.iou_threshold);
  std::vector<mobilenet_box> kept;
  while (!waiting.empty() && kept.size() < size_t(rule.detections)) {
    std::pop_heap(waiting.begin(), waiting.end(), less_preferred);
    const Candidate candidate = waiting.back();
    waiting.pop_back();
    const mobilenet_box box = decoded(rule, boxes + candidate.prior * 4, priors + candidate.prior * 4, candidate);
    const bool suppressed = std::any_of(kept.begin(), kept.end(), [&](const mobilenet_box &stayed) {
      return (rule.agnostic || stayed.index == box.index) && overlap(stayed, box, threshold);
    });
    if (!suppressed) kept.push_back(box);
  }
  return kept;
}

}  // namespace mobilenet

extern "C" int mobilenet_detect(const mobilenet_decoding *rule, const float *boxes, const float *scores,
                                const double *priors, int64_t count, int64_t columns, mobilenet_box *found,
                                int32_t *kept, char *error, size_t error_size) {
  return mobilenet::guarded(error, error_size, [&] {
    if (!rule || rule->size != sizeof(*rule) || !boxes || !scores || !priors || !found || !kept)
      mobilenet::fail(MOBILENET_BAD_ARGUMENT, "a pointer is NULL, or the rule's size is wrong");
    const auto all = mobilenet::detect(*rule, boxes, scores, priors, count, columns);
    std::copy(all.begin(), all.end(), found);
    *kept = int32_t(all.size());
  });
}
