// The fields of the operators as a table: which kinds have them, and how each is read from JSON.
#include <algorithm>
#include <array>
#include <iterator>

#include "messages.h"
#include "mobilenet.h"
#include "operators.h"

namespace mobilenet {
namespace {

constexpr const char *KINDS[] = {
    "conv",    "depthwise_conv", "dense",   "batch_norm", "activation", "add",     "mul",
    "mean",    "average_pool",   "max_pool", "pad",       "concat",     "resize",  "reshape",
    "transpose", "matmul",       "softmax", "l2_normalise", "argmax",   "quantise", "dequantise"};

constexpr const char *ACTIVATIONS[] = {"none",         "relu",    "relu6", "hard_swish", "hard_sigmoid",
                                       "hard_sigmoid_slim", "sigmoid", "prelu", "gelu"};

[[noreturn]] void refuse(const std::string &text) { fail(MOBILENET_BAD_FILE, "%s", text.c_str()); }

[[noreturn]] void refuse_field(json::Value value, const char *wanted) {
  refuse("field '" + shown(value.key()) + "' must be " + wanted + ", not " + json::name_of(value.type()));
}

int64_t whole(json::Value field, json::Value value) {
  if (!value.is(json::Type::integer)) refuse_field(field, "whole numbers");
  if (value.integer() > MAX_FIELD || value.integer() < -MAX_FIELD)
    refuse("field '" + shown(field.key()) + "' holds " + std::to_string(value.integer()) +
           "; at most 2^20 is accepted");
  return value.integer();
}

void read_list(json::Value field, int64_t *target, uint32_t count, int64_t least) {
  if (!field.is(json::Type::array)) refuse_field(field, "a list");
  if (field.size() != count)
    refuse("field '" + shown(field.key()) + "' must hold " + std::to_string(count) + " numbers, not " +
           std::to_string(field.size()));
  for (const json::Value value : field) {
    *target = whole(field, value);
    if (*target++ < least)
      refuse("field '" + shown(field.key()) + "' holds " + std::to_string(target[-1]) + ", but must be at least " +
             std::to_string(least));
  }
}

void read_shape(json::Value field, Shape &target) {
  if (!field.is(json::Type::array)) refuse_field(field, "a list");
  if (field.size() > MAX_RANK) refuse("field '" + shown(field.key()) + "' has more than 8 axes");
  target.clear();
  for (const json::Value value : field) target.push_back(whole(field, value));
}

int64_t read_count(json::Value field) {
  const int64_t count = whole(field, field);
  if (count < 1) refuse(shown(field.key()) + " " + std::to_string(count) + " must be at least 1");
  return count;
}

bool read_bool(json::Value field) {
  if (!field.is(json::Type::boolean)) refuse_field(field, "true or false");
  return field.integer() != 0;
}

double read_number(json::Value field) {
  if (!field.is_number()) refuse_field(field, "a number");
  return field.number();
}

// What only training uses: checked and forgotten.
void read_probability(json::Value field) {
  const double value = read_number(field);
  if (!(value >= 0 && value < 1)) refuse(shown(field.key()) + " must be at least 0 and below 1");
}

Activation read_activation(json::Value field) {
  if (!field.is(json::Type::string)) refuse_field(field, "text");
  const auto found = std::find(std::begin(ACTIVATIONS), std::end(ACTIVATIONS), field.text());
  if (found == std::end(ACTIVATIONS)) refuse("unknown activation '" + shown(field.text()) + "'");
  return Activation(found - std::begin(ACTIVATIONS));
}

void read_method(json::Value field, Operator &op) {
  if (!field.is(json::Type::string)) refuse_field(field, "text");
  if (field.text() != "bilinear" && field.text() != "nearest")
    refuse("unknown method '" + shown(field.text()) + "'; accepted are bilinear, nearest");
  op.nearest = field.text() == "nearest";
}

void read_size(json::Value field, Operator &op) {
  op.has_size = !field.is(json::Type::null);
  if (op.has_size) read_list(field, op.size, 2, 1);
}

constexpr uint32_t mask(Kind kind) { return 1u << int(kind); }
template <class... Kinds>
constexpr uint32_t kinds(Kinds... kinds) {
  return (mask(kinds) | ...);
}
constexpr uint32_t WINDOWS = kinds(Kind::conv, Kind::depthwise_conv, Kind::average_pool, Kind::max_pool);
constexpr uint32_t LINEAR = kinds(Kind::conv, Kind::depthwise_conv, Kind::dense);
constexpr uint32_t ACTIVATED =
    LINEAR | WINDOWS | kinds(Kind::batch_norm, Kind::activation, Kind::add, Kind::mul);

struct Field {
  std::string_view name;
  uint32_t kinds;
  void (*read)(json::Value value, Operator &op);
};

using V = json::Value;
using O = Operator &;
constexpr Field FIELDS[] = {
    {"kernel", WINDOWS, [](V v, O op) { read_list(v, op.kernel, 2, 1); }},
    {"stride", WINDOWS, [](V v, O op) { read_list(v, op.stride, 2, 1); }},
    {"dilation", WINDOWS, [](V v, O op) { read_list(v, op.dilation, 2, 1); }},
    {"padding", WINDOWS | kinds(Kind::pad), [](V v, O op) { read_list(v, op.padding, 4, 0); }},
    {"same", WINDOWS, [](V v, O op) { op.same = read_bool(v); }},
    {"out_channels", kinds(Kind::conv), [](V v, O op) { op.out_channels = read_count(v); }},
    {"multiplier", kinds(Kind::depthwise_conv), [](V v, O op) { op.multiplier = read_count(v); }},
    {"out_features", kinds(Kind::dense), [](V v, O op) { op.out_features = read_count(v); }},
    {"bias", LINEAR, [](V v, O op) { op.bias = read_bool(v); }},
    {"activation", ACTIVATED, [](V v, O op) { op.activation = read_activation(v); }},
    {"dropout", kinds(Kind::dense), [](V v, O) { read_probability(v); }},
    {"drop_path", kinds(Kind::add), [](V v, O) { read_probability(v); }},
    {"momentum", kinds(Kind::batch_norm),
     [](V v, O) {
       if (!(read_number(v) >= 0 && read_number(v) <= 1)) refuse("momentum must be within 0..1");
     }},
    {"epsilon", kinds(Kind::batch_norm, Kind::l2_normalise), [](V v, O op) { op.epsilon = read_number(v); }},
    {"beta", kinds(Kind::softmax), [](V v, O op) { op.beta = read_number(v); }},
    {"constant", kinds(Kind::mul), [](V v, O op) { op.constant = read_bool(v); }},
    {"keep_axes", kinds(Kind::mean), [](V v, O op) { op.keep_axes = read_bool(v); }},
    {"transpose_second", kinds(Kind::matmul), [](V v, O op) { op.transpose_second = read_bool(v); }},
    {"size", kinds(Kind::resize), read_size},
    {"method", kinds(Kind::resize), read_method},
    {"align_corners", kinds(Kind::resize), [](V v, O op) { op.align_corners = read_bool(v); }},
    {"half_pixel_centers", kinds(Kind::resize), [](V v, O op) { op.half_pixel_centers = read_bool(v); }},
    {"shape", kinds(Kind::reshape), [](V v, O op) { read_shape(v, op.shape); }},
    {"axes", kinds(Kind::transpose), [](V v, O op) { read_shape(v, op.axes); }},
};

Operator with_defaults(Kind kind) {
  Operator op;
  op.kind = kind;
  op.bias = kind == Kind::dense;
  if (kind == Kind::activation) op.activation = Activation::relu;
  if (kind == Kind::batch_norm) op.epsilon = 1e-5;
  if (kind == Kind::l2_normalise) op.epsilon = 1e-12;
  if (kind == Kind::reshape) op.shape = {-1};
  return op;
}

void check_together(const Operator &op) {
  if (op.kind == Kind::batch_norm && !(op.epsilon > 0)) refuse("epsilon must be above 0");
  if (op.kind == Kind::average_pool || op.kind == Kind::max_pool) {
    const bool small = std::max(op.padding[0], op.padding[1]) < op.kernel[0] &&
                       std::max(op.padding[2], op.padding[3]) < op.kernel[1];
    if (op.dilation[0] != 1 || op.dilation[1] != 1 || !small)
      refuse("a pool has no dilation, and its padding is smaller than its kernel");
  }
  if (op.kind == Kind::resize && op.align_corners && op.half_pixel_centers)
    refuse("align_corners and half_pixel_centers exclude each other");
  if (op.kind == Kind::reshape) {
    const bool sizes = std::all_of(op.shape.begin(), op.shape.end(), [](int64_t n) { return n >= 1 || n == -1; });
    if (!sizes || std::count(op.shape.begin(), op.shape.end(), -1) > 1)
      refuse("shape " + shown(op.shape) + " must be sizes with at most one -1");
  }
}

}  // namespace

const char *name_of(Kind kind) { return KINDS[int(kind)]; }

Operator read_operator(json::Value value) {
  if (!value.is(json::Type::object)) refuse("its operator must be an object");
  const auto kind = value.find("kind");
  const bool named = kind && kind->is(json::Type::string);
  const auto found = named ? std::find(std::begin(KINDS), std::end(KINDS), kind->text()) : std::end(KINDS);
  if (found == std::end(KINDS)) refuse("unknown operator '" + (named ? shown(kind->text()) : "") + "'");
  Operator op = with_defaults(Kind(found - std::begin(KINDS)));
  for (const json::Value field : value) {
    const std::string_view name = field.key();
    if (name == "kind") continue;
    const auto rule = std::find_if(std::begin(FIELDS), std::end(FIELDS), [&](const Field &candidate) {
      return candidate.name == name && (candidate.kinds & mask(op.kind)) != 0;
    });
    if (rule == std::end(FIELDS)) refuse(std::string("'") + *found + "' has no field '" + shown(name) + "'");
    rule->read(field, op);
  }
  check_together(op);
  return op;
}

}  // namespace mobilenet
