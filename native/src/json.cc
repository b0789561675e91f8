#include "json.h"

#include <algorithm>
#include <charconv>
#include <clocale>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "graph.h"
#include "mobilenet.h"
#include "messages.h"

namespace mobilenet::json {

class Parser {
 public:
  Parser(Document &document, const char *what) : document_(document), text_(document.text_), what_(what) {}

  void parse() {
    document_.entries_.resize(1);
    value(0);
    space();
    if (at_ != text_.size()) refuse("something follows the end");
  }

 private:
  [[noreturn]] void refuse(const char *why) const {
    fail(MOBILENET_BAD_FILE, "%s: byte %zu: %s", what_, at_, why);
  }

  bool more() const { return at_ < text_.size(); }
  char peek() const { return more() ? text_[at_] : '\0'; }

  void space() {
    while (more() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
  }

  uint32_t add() {
    if (document_.entries_.size() > MAX_VALUES) refuse("more values than any model needs");
    document_.entries_.emplace_back();
    return uint32_t(document_.entries_.size() - 1);
  }

  uint32_t value(int depth) {
    space();
    if (!more()) refuse("the text ends too early");
    const uint32_t place = add();
    const char first = text_[at_];
    if (first == '{' || first == '[') {
      if (depth >= MAX_DEPTH) refuse("nested more than 64 deep");
      first == '{' ? object(place, depth) : array(place, depth);
    } else if (first == '"') {
      const Text text = string();
      document_.entries_[place].type = Type::string;
      document_.entries_[place].text = text;
    } else if (first == '-' || (first >= '0' && first <= '9')) {
      number(document_.entries_[place]);
    } else {
      word(document_.entries_[place]);
    }
    return place;
  }

  // Links `place` behind the values that its parent already has.
  void append(uint32_t parent, uint32_t &last, uint32_t place) {
    Entry &entry = document_.entries_[parent];
    if (last == 0) entry.children.first = place;
    else document_.entries_[last].next = place;
    ++entry.children.count;
    last = place;
  }

  void open(uint32_t place, Type type) {
    document_.entries_[place].type = type;
    document_.entries_[place].children = {0, 0};
    ++at_;
    space();
  }

  // After a value: true if another one follows.
  bool another(char close) {
    space();
    const char next = peek();
    if (next != ',' && next != close) refuse(close == ']' ? "expected , or ]" : "expected , or }");
    ++at_;
    return next == ',';
  }

  void array(uint32_t place, int depth) {
    open(place, Type::array);
    if (peek() == ']') {
      ++at_;
      return;
    }
    uint32_t last = 0;
    do append(place, last, value(depth + 1));
    while (another(']'));
  }

  void object(uint32_t place, int depth) {
    open(place, Type::object);
    if (peek() == '}') {
      ++at_;
      return;
    }
    uint32_t last = 0;
    do {
      space();
      if (peek() != '"') refuse("expected a key in quotes");
      const Text key = string();
      space();
      if (peek() != ':') refuse("expected : after a key");
      ++at_;
      append(place, last, value(depth + 1));
      document_.entries_[last].key = key;
    } while (another('}'));
    refuse_repeated_keys(place);
  }

  // By sorting: a hash table could be made slow by keys that were chosen for it.
  void refuse_repeated_keys(uint32_t place) const {
    std::vector<std::string_view> keys;
    keys.reserve(document_.entries_[place].children.count);
    for (const Value child : Value(&document_, place)) keys.push_back(child.key());
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) refuse(("the key '" + shown(*twice) + "' is given twice").c_str());
  }

  void word(Entry &entry) {
    const auto is = [&](std::string_view word) {
      if (text_.substr(at_, word.size()) != word) return false;
      at_ += word.size();
      return true;
    };
    if (is("null")) return;
    if (is("true")) entry.integer = 1;
    else if (!is("false")) refuse("expected a value");
    entry.type = Type::boolean;
  }

  void digits() {
    if (peek() < '0' || peek() > '9') refuse("expected a digit");
    while (peek() >= '0' && peek() <= '9') ++at_;
  }

  void number(Entry &entry) {
    const size_t begin = at_;
    if (peek() == '-') ++at_;
    if (peek() == '0') ++at_;  // no digits after a leading zero
    else digits();
    bool whole = true;
    if (peek() == '.') {
      whole = false;
      ++at_;
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      whole = false;
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits();
    }
    const std::string_view text = text_.substr(begin, at_ - begin);
    entry.type = Type::integer;
    if (whole && std::from_chars(text.data(), text.data() + text.size(), entry.integer).ec == std::errc()) return;
    entry.type = Type::real;
    entry.real = real(text);
    if (!std::isfinite(entry.real)) refuse("a number that is too large");
  }

  static double real(std::string_view text) {
#if defined(__cpp_lib_to_chars)
    double value = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
    if (result.ec != std::errc::result_out_of_range) return value;
#endif
    // Out of range, which strtod tells apart into 0 and infinity, or a library without from_chars of double.
    std::string local(text);
    const size_t point = local.find('.');
    if (point != std::string::npos) local.replace(point, 1, std::localeconv()->decimal_point);
    return std::strtod(local.c_str(), nullptr);
  }

  Text string() {
    const size_t begin = ++at_;
    while (more() && text_[at_] != '"' && text_[at_] != '\\') character();
    if (peek() == '"') return {uint32_t(begin), uint32_t(at_++ - begin)};
    std::string &out = document_.decoded_;
    if (out.capacity() < text_.size()) out.reserve(text_.size());  // decoded is never longer
    const size_t start = out.size();
    out.append(text_.substr(begin, at_ - begin));
    while (more() && text_[at_] != '"') {
      const size_t from = at_;
      if (text_[at_] == '\\') {
        escape(out);
      } else {
        character();
        out.append(text_.substr(from, at_ - from));
      }
    }
    if (!more()) refuse("a string does not end");
    ++at_;
    return {uint32_t(text_.size() + start), uint32_t(out.size() - start)};
  }

  // One UTF-8 character of a string; the shortest form only, no surrogates.
  void character() {
    const auto byte = [&](size_t i) { return at_ + i < text_.size() ? uint8_t(text_[at_ + i]) : 0u; };
    const unsigned first = byte(0);
    if (first < 0x20) refuse("a control character in a string");
    if (first < 0x80) {
      ++at_;
      return;
    }
    const unsigned length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4) refuse("no UTF-8 text");
    for (unsigned i = 1; i < length; ++i)
      if ((byte(i) & 0xC0) != 0x80) refuse("no UTF-8 text");
    const unsigned second = byte(1);
    const bool bad = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
                     (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
    if (bad) refuse("no UTF-8 text");
    at_ += length;
  }

  void escape(std::string &out) {
    ++at_;  // the backslash
    static constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    const char letter = peek();
    if (more() && letters.find(letter) != letters.npos) {
      out.push_back(meanings[letters.find(letter)]);
      ++at_;
      return;
    }
    if (letter != 'u') refuse("an unknown escape");
    uint32_t code = hexadecimal();
    if (code >= 0xDC00 && code < 0xE000) refuse("half a surrogate pair");
    if (code >= 0xD800 && code < 0xDC00) {
      if (text_.substr(at_, 2) != "\\u") refuse("half a surrogate pair");
      ++at_;
      const uint32_t low = hexadecimal();
      if (low < 0xDC00 || low > 0xDFFF) refuse("half a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    encode(code, out);
  }

  uint32_t hexadecimal() {
    ++at_;  // the u
    uint32_t code = 0;
    const std::string_view four = text_.substr(std::min(at_, text_.size()), 4);
    const auto result = std::from_chars(four.data(), four.data() + four.size(), code, 16);
    if (four.size() != 4 || result.ec != std::errc() || result.ptr != four.data() + 4)
      refuse("\\u needs four hexadecimal digits");
    at_ += 4;
    return code;
  }

  static void encode(uint32_t code, std::string &out) {
    if (code < 0x80) {
      out.push_back(char(code));
      return;
    }
    const int rest = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static constexpr uint8_t marks[] = {0, 0xC0, 0xE0, 0xF0};
    out.push_back(char(marks[rest] | (code >> (6 * rest))));
    for (int i = rest - 1; i >= 0; --i) out.push_back(char(0x80 | ((code >> (6 * i)) & 0x3F)));
  }

  Document &document_;
  std::string_view text_;
  const char *what_;
  size_t at_ = 0;
};

Document::Document(std::string_view text, const char *what) : text_(text) {
  if (text.size() > MAX_TEXT)
    fail(MOBILENET_BAD_FILE, "%s: %zu bytes long; at most %zu are accepted", what, text.size(), MAX_TEXT);
  Parser(*this, what).parse();
}

std::string_view Document::view(Text text) const {
  if (text.begin < text_.size()) return text_.substr(text.begin, text.length);
  return std::string_view(decoded_).substr(text.begin - text_.size(), text.length);
}

const char *name_of(Type type) {
  static constexpr const char *names[] = {"null", "true or false", "an integer", "a number",
                                          "text", "a list",        "an object"};
  return names[int(type)];
}

const Entry &Value::entry() const { return document_->entry(place_); }
Type Value::type() const { return entry().type; }
std::string_view Value::key() const { return document_->view(entry().key); }
std::string_view Value::text() const { return document_->view(entry().text); }
int64_t Value::integer() const { return entry().integer; }
double Value::number() const { return is(Type::integer) ? double(entry().integer) : entry().real; }
uint32_t Value::size() const { return entry().children.count; }
Value Value::begin() const { return {document_, entry().children.first}; }

Value &Value::operator++() {
  place_ = entry().next;
  return *this;
}

std::optional<Value> Value::find(std::string_view key) const {
  for (const Value child : *this)
    if (child.key() == key) return child;
  return std::nullopt;
}

}  // namespace mobilenet::json
