// From a detector's raw outputs to boxes: candidates, decoding, suppression. src/mobilenet/tasks/detect.py and nms.py
// define the arithmetic.
#pragma once

#include <cstdint>
#include <vector>

#include "../include/mobilenet.h"

namespace mobilenet {

// The boxes that stay, the most probable first. The arrays are as in mobilenet.h and hold finite numbers only;
// anything else is a Failure.
std::vector<mobilenet_box> detect(const mobilenet_decoding &rule, const float *boxes, const float *scores,
                                  const double *priors, int64_t count, int64_t columns);

}  // namespace mobilenet
