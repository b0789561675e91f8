// The plan as JSON, for people and tests.
#include <cstdio>

#include "plan.h"

namespace mobilenet {

namespace {

std::string quoted(const std::string &text) {
  std::string result = "\"";
  for (const char c : text) {
    char escaped[8];
    if (c == '"' || c == '\\') {
      result += '\\', result += c;
    } else if (static_cast<unsigned char>(c) < 32) {
      std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
      result += escaped;
    } else {
      result += c;
    }
  }
  return result + '"';
}

std::string field(const char *name, const std::string &value) { return quoted(name) + ":" + value; }
std::string field(const char *name, int64_t value) { return field(name, std::to_string(value)); }
std::string field(const char *name, size_t value) { return field(name, std::to_string(value)); }

std::string shape_text(const Shape &shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); i++) text += (i ? "," : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string step_text(const Plan &plan, const Step &step) {
  const Buffer &out = plan.buffers[size_t(step.write)];
  std::string nodes = "[";
  for (size_t i = 0; i < step.nodes.size(); i++)
    nodes += (i ? "," : "") + quoted(plan.graph.nodes[size_t(step.nodes[i])].name);
  const std::string name = step.nodes.empty() ? "" : plan.graph.nodes[size_t(step.nodes.back())].name;
  return "{" + field("name", quoted(name)) + "," + field("kernel", quoted(step.kernel)) + "," +
         field("nodes", nodes + "]") + "," + field("tile", quoted(step.tile)) + "," + field("macs", step.macs) +
         "," + field("bytes", out.bytes) + "," + field("scratch_bytes", step.scratch) + "," +
         (step.best_ms > 0 ? field("ms", std::to_string(step.best_ms)) + "," : std::string()) +
         field("output_shape", shape_text(plan.graph.type(out.value).shape)) + "}";
}

}  // namespace

std::string plan_text(const Plan &plan, const PlanOptions &options) {
  int64_t macs = 0;
  std::string steps;
  for (const auto &step : plan.steps) {
    macs += step->macs;
    steps += (steps.empty() ? "" : ",") + step_text(plan, *step);
  }
  return "{" + field("isa", quoted(options.kernels ? options.kernels->name : "generic")) + "," +
         field("precision", quoted(options.bf16 ? "bf16" : "fp32")) + "," +
         field("threads", int64_t(plan.threads)) + "," + field("arena_bytes", plan.arena_bytes) + "," +
         field("scratch_bytes", plan.scratch_bytes * size_t(plan.threads)) + "," +
         field("peak_activation_bytes", plan.peak_bytes) + "," + field("weight_bytes", plan.weight_bytes) + "," +
         field("macs", macs) + "," + field("steps", "[" + steps + "]") + "}";
}

}  // namespace mobilenet
