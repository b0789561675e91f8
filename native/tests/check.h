// CHECK(condition) counts and prints what does not hold; main ends with `return failures();`.
#pragma once

#include <cstdio>

namespace mobilenet::test {

inline int &failed() {
  static int count = 0;
  return count;
}

inline int failures() {
  if (failed() != 0) std::fprintf(stderr, "%d checks failed\n", failed());
  return failed() == 0 ? 0 : 1;
}

inline void check(bool holds, const char *what, const char *file, int line) {
  if (holds) return;
  ++failed();
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
}

}  // namespace mobilenet::test

#define CHECK(condition) ::mobilenet::test::check(bool(condition), #condition, __FILE__, __LINE__)
