#include "container.h"

#include <algorithm>

#include "json.h"
#include "messages.h"
#include "mobilenet.h"
#include "operators.h"

namespace mobilenet {
namespace {

constexpr int BAD = MOBILENET_BAD_FILE;
constexpr uint32_t MAX_TENSORS = 1 << 16;  // the largest accepted graph needs 50,000

struct StoredDType {
  std::string_view name;
  uint64_t size;
  bool known;
  DType dtype;
};

constexpr StoredDType DTYPES[] = {
    {"F32", 4, true, DType::float32},  {"I8", 1, true, DType::int8},      {"U8", 1, true, DType::uint8},
    {"I32", 4, true, DType::int32},    {"I64", 8, true, DType::int64},    {"BOOL", 1, false, DType::uint8},
    {"I16", 2, false, DType::uint8},   {"U16", 2, false, DType::uint8},   {"F16", 2, false, DType::uint8},
    {"BF16", 2, false, DType::uint8},  {"U32", 4, false, DType::uint8},   {"F64", 8, false, DType::uint8},
    {"U64", 8, false, DType::uint8},
};

const StoredDType &dtype_of(json::Value value, const std::string &name) {
  const std::string_view text = value.is(json::Type::string) ? value.text() : std::string_view();
  for (const StoredDType &dtype : DTYPES)
    if (dtype.name == text) return dtype;
  fail(BAD, "tensor '%s' has the unknown dtype '%s'", name.c_str(), shown(text).c_str());
}

uint64_t size_in(json::Value value, const std::string &name, const char *field) {
  if (!value.is(json::Type::integer) || value.integer() < 0)
    fail(BAD, "tensor '%s': %s must hold whole numbers from 0 to 2^63 - 1", name.c_str(), field);
  return uint64_t(value.integer());
}

struct Fields {
  json::Value dtype, shape, offsets;
};

Fields fields_of(json::Value value, const std::string &name) {
  if (!value.is(json::Type::object)) fail(BAD, "tensor '%s' must be described by an object", name.c_str());
  for (const json::Value field : value)
    if (field.key() != "dtype" && field.key() != "shape" && field.key() != "data_offsets")
      fail(BAD, "tensor '%s': unknown field '%s'", name.c_str(), shown(field.key()).c_str());
  const auto dtype = value.find("dtype"), shape = value.find("shape"), offsets = value.find("data_offsets");
  if (!dtype || !shape || !offsets) fail(BAD, "tensor '%s' lacks dtype, shape or data_offsets", name.c_str());
  if (!shape->is(json::Type::array) || shape->size() > MAX_RANK)
    fail(BAD, "tensor '%s': shape must be a list of at most 8 sizes", name.c_str());
  if (!offsets->is(json::Type::array) || offsets->size() != 2)
    fail(BAD, "tensor '%s': data_offsets must be a list of two numbers", name.c_str());
  return {*dtype, *shape, *offsets};
}

StoredTensor read_tensor(json::Value value, const uint8_t *data, uint64_t size) {
  const std::string name = shown(value.key());
  const Fields fields = fields_of(value, name);
  const StoredDType &dtype = dtype_of(fields.dtype, name);
  StoredTensor stored{std::string(value.key()), {}, dtype.name, dtype.known};
  stored.tensor.dtype = dtype.dtype;
  for (const json::Value n : fields.shape) stored.tensor.shape.push_back(int64_t(size_in(n, name, "shape")));
  stored.begin = size_in(*fields.offsets.begin(), name, "data_offsets");
  stored.end = size_in(*++fields.offsets.begin(), name, "data_offsets");
  if (stored.begin > stored.end || stored.end > size)
    fail(BAD, "tensor '%s' lies at bytes %llu to %llu, but the file holds %llu bytes of tensors", name.c_str(),
         (unsigned long long)stored.begin, (unsigned long long)stored.end, (unsigned long long)size);
  const bool empty = std::count(stored.tensor.shape.begin(), stored.tensor.shape.end(), 0) > 0;
  const int64_t count = empty ? 0 : elements(stored.tensor.shape);  // INT64_MAX if it is too large
  if (uint64_t(count) != (stored.end - stored.begin) / dtype.size || (stored.end - stored.begin) % dtype.size != 0)
    fail(BAD, "tensor '%s' of shape %s and dtype %s does not take %llu bytes", name.c_str(),
         shown(stored.tensor.shape).c_str(), std::string(dtype.name).c_str(),
         (unsigned long long)(stored.end - stored.begin));
  stored.tensor.data = data + stored.begin;
  return stored;
}

// The tensors must fill the bytes after the header, each byte once.
void check_layout(std::vector<StoredTensor> &tensors, uint64_t size) {
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor &a, const StoredTensor &b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t expected = 0;
  for (const StoredTensor &tensor : tensors) {
    if (tensor.begin != expected)
      fail(BAD, "tensor '%s' begins at byte %llu, where %llu was expected: tensors overlap or leave a gap",
           shown(tensor.name).c_str(), (unsigned long long)tensor.begin, (unsigned long long)expected);
    expected = tensor.end;
  }
  if (expected != size)
    fail(BAD, "%llu bytes follow the last tensor", (unsigned long long)(size - expected));
}

std::string description_of(json::Value metadata) {
  if (!metadata.is(json::Type::object)) fail(BAD, "the header's __metadata__ must be an object");
  for (const json::Value field : metadata)
    if (!field.is(json::Type::string))
      fail(BAD, "the header's __metadata__: field '%s' must be text", shown(field.key()).c_str());
  const auto description = metadata.find("mobilenet");
  if (!description) fail(BAD, "is a .safetensors file, but holds no mobilenet model (no 'mobilenet' metadata)");
  return std::string(description->text());
}

std::string_view header_of(const uint8_t *bytes, size_t size) {
  if (size < 8) fail(BAD, "is no model file: %zu bytes are too few for a header", size);
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | bytes[i];
  if (length > size - 8)
    fail(BAD, "is no model file, or cut off: a header of %llu bytes is announced, and %zu bytes follow",
         (unsigned long long)length, size - 8);
  std::string_view header(reinterpret_cast<const char *>(bytes) + 8, size_t(length));
  if (header.empty() || header[0] != '{') fail(BAD, "is no model file: its header does not begin with {");
  return header;
}

}  // namespace

const StoredTensor *Container::find(std::string_view name) const {
  const auto place = std::lower_bound(tensors.begin(), tensors.end(), name,
                                      [](const StoredTensor &a, std::string_view b) { return a.name < b; });
  return place != tensors.end() && place->name == name ? &*place : nullptr;
}

Container read_container(const uint8_t *bytes, size_t size) {
  const std::string_view text = header_of(bytes, size);
  const uint8_t *data = bytes + 8 + text.size();
  const uint64_t data_size = size - 8 - text.size();
  const json::Document header(text, "the header");
  if (header.root().size() > MAX_TENSORS) fail(BAD, "more than %u tensors are not accepted", MAX_TENSORS);
  Container container;
  container.tensors.reserve(header.root().size());
  bool described = false;
  for (const json::Value value : header.root()) {
    described |= value.key() == "__metadata__";
    if (value.key() == "__metadata__") container.description = description_of(value);
    else container.tensors.push_back(read_tensor(value, data, data_size));
  }
  if (!described) fail(BAD, "is a .safetensors file, but holds no mobilenet model (no 'mobilenet' metadata)");
  check_layout(container.tensors, data_size);
  std::sort(container.tensors.begin(), container.tensors.end(),
            [](const StoredTensor &a, const StoredTensor &b) { return a.name < b.name; });
  return container;
}

}  // namespace mobilenet
