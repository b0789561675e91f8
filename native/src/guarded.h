// What leaves the C interface: nothing is thrown past it.
#pragma once

#include <cstdio>
#include <exception>
#include <new>

#include "../include/mobilenet.h"
#include "graph.h"

namespace mobilenet {

inline int report(int code, const char *text, char *error, size_t error_size) {
  if (error && error_size) std::snprintf(error, error_size, "%s", text);
  return code;
}

// Runs `action` and turns whatever it throws into a code and a text.
template <class Action>
int guarded(char *error, size_t error_size, Action action) {
  try {
    action();
    return report(MOBILENET_OK, "", error, error_size);
  } catch (const Failure &failure) {
    return report(failure.code, failure.text.c_str(), error, error_size);
  } catch (const std::bad_alloc &) {
    return report(MOBILENET_NO_MEMORY, "not enough memory", error, error_size);
  } catch (const std::exception &other) {
    return report(MOBILENET_UNSUPPORTED, other.what(), error, error_size);
  } catch (...) {
    return report(MOBILENET_UNSUPPORTED, "an unknown failure", error, error_size);
  }
}

}  // namespace mobilenet
