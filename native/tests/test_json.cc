#include <string>

#include "check.h"
#include "graph.h"
#include "json.h"
#include "mobilenet.h"

using mobilenet::Failure;
using mobilenet::json::Document;
using mobilenet::json::Type;

namespace {

bool refused(const std::string &text) {
  try {
    const Document document(text, "text");
  } catch (const Failure &failure) {
    return failure.code == MOBILENET_BAD_FILE && failure.text.rfind("text: ", 0) == 0;
  }
  return false;
}

std::string string_of(const std::string &text) {
  const Document document(text, "text");
  return std::string(document.root().text());
}

double number_of(const std::string &text) {
  const Document document(text, "text");
  return document.root().number();
}

void accepts_values() {
  const std::string text = R"( {"a" : [1, -2.5e1, true, null, "x"], "b":{}, "":[[]]} )";
  const Document document(text, "text");
  const auto root = document.root();
  CHECK(root.is(Type::object) && root.size() == 3);
  const auto list = root.at("a");
  CHECK(list.size() == 5);
  auto value = list.begin();
  CHECK((*value).is(Type::integer) && (*value).integer() == 1);
  CHECK((*++value).is(Type::real) && (*value).number() == -25);
  CHECK((*++value).is(Type::boolean) && (*value).integer() == 1);
  CHECK((*++value).is(Type::null));
  CHECK((*++value).text() == "x");
  CHECK(!(++value != list.end()));
  CHECK(root.at("b").size() == 0 && !(root.at("b").begin() != root.at("b").end()));
  CHECK(root.find("") && !root.find("c"));
}

void reads_numbers() {
  CHECK(number_of("0") == 0 && number_of("-0") == 0 && number_of("0.1") == 0.1);
  CHECK(number_of("0.023528477177023888") == 0.023528477177023888);
  CHECK(number_of("1e-400") == 0 && number_of("5e-324") == 5e-324);
  CHECK(number_of("9223372036854775807") == 9223372036854775807.0);
  const Document integer("-9223372036854775808", "text"), large("9223372036854775808", "text");
  CHECK(integer.root().is(Type::integer) && integer.root().integer() == INT64_MIN);
  CHECK(large.root().is(Type::real) && large.root().number() == 9223372036854775808.0);
  for (const char *text : {"01", "-", "+1", ".5", "1.", "1e", "1e+", "0x1", "NaN", "Infinity", "-Infinity",
                           "1e999", "-1e999", "1_0", "--1", "1 2"})
    CHECK(refused(text));
}

void reads_strings() {
  CHECK(string_of(R"("a\"\\\/\b\f\n\r\tz")") == "a\"\\/\b\f\n\r\tz");
  CHECK(string_of(R"("\u0041\u00e9\u20ac\ud83d\ude00")") == "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  CHECK(string_of("\"\xC3\xA9\xF4\x8F\xBF\xBF\"") == "\xC3\xA9\xF4\x8F\xBF\xBF");
  CHECK(string_of(R"("\u0000")") == std::string(1, '\0'));
  for (const char *text : {R"("\ud83d")", R"("\ude00")", R"("\ud83d\u0041")", R"("\ud83d\ud83d")", R"("\u12")",
                           R"("\u12g4")", R"("\x41")", "\"\\", "\"\\u", "\"\\ud83d\\",
                           "\"a", "\"\n\"", "\"\x01\""})
    CHECK(refused(text));
  for (const char *text : {"\"\x80\"", "\"\xC0\x80\"", "\"\xC1\xBF\"", "\"\xE0\x80\x80\"", "\"\xED\xA0\x80\"",
                           "\"\xF0\x80\x80\x80\"", "\"\xF4\x90\x80\x80\"", "\"\xF8\x88\x80\x80\x80\"", "\"\xC3\"",
                           "\"\xE2\x82\"", "\xEF\xBB\xBF{}"})
    CHECK(refused(text));
}

void refuses_what_is_no_json() {
  for (const char *text : {"", " ", "{", "[", "[1", "[1,", "[1,]", "[,1]", "[1 1]", "{\"a\"", "{\"a\":",
                           "{\"a\":1", "{\"a\":1,}", "{a:1}", "{'a':1}", "{1:1}", "tru", "nul", "True", "[]]",
                           "{}{}", "//", "[1}",
                           "{\"a\" 1}", "]", ","})
    CHECK(refused(text));
  CHECK(refused(std::string("[1\0]", 4)));
}

void refuses_repeated_keys() {
  CHECK(refused(R"({"a":1,"b":2,"a":3})"));
  CHECK(refused(R"({"a":1,"\u0061":2})"));
  CHECK(refused(R"([{"x":{"":1,"":2}}])"));
  CHECK(!refused(R"([{"a":1},{"a":1}])"));
}

void limits_depth_and_count() {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK(!refused(nested(64)));
  CHECK(refused(nested(65)));
  CHECK(refused(nested(10'000)));
  CHECK(refused(std::string(1'000'000, '[')));
  std::string objects;
  for (int i = 0; i < 10'000; ++i) objects += "{\"a\":";
  CHECK(refused(objects));
  std::string many = "[0";
  for (int i = 0; i < (1 << 20); ++i) many += ",0";
  CHECK(refused(many + "]"));
  CHECK(refused("\"" + std::string(mobilenet::json::MAX_TEXT, 'a') + "\""));
}

}  // namespace

int main() {
  accepts_values();
  reads_numbers();
  reads_strings();
  refuses_what_is_no_json();
  refuses_repeated_keys();
  limits_depth_and_count();
  return mobilenet::test::failures();
}
