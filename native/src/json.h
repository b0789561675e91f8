// A strict JSON reader for untrusted text: UTF-8 only, no repeated keys, at most 64 deep, memory in proportion to
// the text. Values are 24 bytes each and live in one Document; a Value is a place in it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

namespace mobilenet::json {

constexpr int MAX_DEPTH = 64;
constexpr uint32_t MAX_VALUES = 1u << 20;  // of one text: ten times what the largest accepted graph needs
constexpr size_t MAX_TEXT = size_t(1) << 24;

enum class Type : uint8_t { null, boolean, integer, real, string, array, object };
const char *name_of(Type type);

struct Text {  // a part of the document's text, or of its decoded strings if `begin` is past the text's end
  uint32_t begin, length;
};

struct Children {
  uint32_t first, count;
};

struct Entry {
  Type type = Type::null;
  uint32_t next = 0;  // the following value in the same array or object; 0: none
  Text key{};         // in objects
  union {
    int64_t integer = 0;  // booleans too
    double real;
    Text text;
    Children children;
  };
};

class Document;

// A value in a document that outlives it. Iterating an array or object gives its values in the text's order.
class Value {
 public:
  Value(const Document *document, uint32_t place) : document_(document), place_(place) {}

  Type type() const;
  bool is(Type wanted) const { return type() == wanted; }
  bool is_number() const { return is(Type::integer) || is(Type::real); }
  std::string_view key() const;     // of a value in an object
  std::string_view text() const;    // of a string
  int64_t integer() const;          // of an integer or boolean
  double number() const;            // of an integer or real; always finite
  uint32_t size() const;            // of an array or object
  std::optional<Value> find(std::string_view key) const;  // in an object
  Value at(std::string_view key) const { return *find(key); }     // where it is known to be there

  Value operator*() const { return *this; }
  Value &operator++();
  bool operator!=(const Value &other) const { return place_ != other.place_; }
  Value begin() const;
  Value end() const { return {document_, 0}; }

 private:
  const Entry &entry() const;
  const Document *document_;
  uint32_t place_;
};

class Document {
 public:
  // `text` must outlive the document. `what` names it in messages: "<what>: byte 17: ...". Throws Failure
  // (MOBILENET_BAD_FILE) or std::bad_alloc.
  Document(std::string_view text, const char *what);
  Document(const Document &) = delete;
  Document &operator=(const Document &) = delete;

  Value root() const { return {this, 1}; }
  std::string_view view(Text text) const;
  const Entry &entry(uint32_t place) const { return entries_[place]; }

 private:
  friend class Parser;
  std::string_view text_;
  std::string decoded_;        // strings that had escapes
  std::deque<Entry> entries_;  // entry 0 is unused, 1 is the root
};

}  // namespace mobilenet::json
