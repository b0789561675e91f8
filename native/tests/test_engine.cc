// test_engine MODEL...: every instruction set, with 1 to 3 threads, at the model's own and at other sizes, says
// what the plain code of "generic" says: integers exactly, floats within 1e-4. Threads and batches change no
// bit.
#include "check.h"
#include "engine_model.h"

using namespace mobilenet::test;

namespace {

constexpr int BATCH = 2;
constexpr unsigned SEED = 41;

std::vector<Size> sizes_of(const EngineModel &model) {
  const Size own = model.own_size();
  if (own.height == 0) return {{0, 0}};
  return {
      {0, 0}, {own.height + 6, own.width > 9 ? own.width - 9 : own.width}, {own.height / 2 + 1, own.width + 1}};
}

void must(bool holds, const char *path, const std::string &isa, int threads, Size size, const char *what) {
  if (holds) return;
  ++failed();
  std::fprintf(stderr, "%s, %s, %d threads, %lld x %lld: %s\n", path, isa.c_str(), threads,
               static_cast<long long>(size.height), static_cast<long long>(size.width), what);
}

// The last picture alone, through memory that others have used.
void batches_are_singles(EngineModel &model, Size size, const std::vector<Output> &batch, const char *path,
                         const std::string &isa) {
  must(model.run(size, 1, SEED + BATCH - 1) == picture_of(batch, BATCH, BATCH - 1), path, isa, 1, size,
       "a picture alone has another answer than in a batch");
}

void agrees(const char *path, const Bytes &bytes, const std::string &isa, int precision,
            const std::vector<Size> &sizes, const std::vector<std::vector<Output>> &wanted) {
  std::vector<std::vector<Output>> first(sizes.size());
  for (int threads : {1, 2, 3}) {
    EngineModel model(bytes, isa.c_str(), threads, precision);
    if (precision == MOBILENET_BF16 && model.code == MOBILENET_UNSUPPORTED) return;
    must(model.code == MOBILENET_OK, path, isa, threads, {0, 0}, model.error);
    if (model.code != MOBILENET_OK) return;
    for (size_t s = 0; s < sizes.size(); ++s) {
      const auto answer = model.run(sizes[s], BATCH, SEED);
      if (wanted[s].empty()) {
        must(model.code == MOBILENET_BAD_ARGUMENT && model.error[0], path, isa, threads, sizes[s],
             "is not refused");
        continue;
      }
      if (threads == 1) {
        first[s] = answer;
        if (precision == MOBILENET_FP32)
          must(near(answer, wanted[s], 1e-4f), path, isa, threads, sizes[s], "differs from generic");
        batches_are_singles(model, sizes[s], answer, path, isa);
      }
      must(answer == first[s], path, isa, threads, sizes[s], "differs from one thread");
    }
  }
}

void all_agree(const char *path) {
  const Bytes bytes = read_file(path);
  EngineModel generic(bytes, "generic", 1);
  must(generic.code == MOBILENET_OK, path, "generic", 1, {0, 0}, generic.error);
  if (generic.code != MOBILENET_OK) return;
  const std::vector<Size> sizes = sizes_of(generic);
  std::vector<std::vector<Output>> wanted;
  for (const Size &size : sizes) {
    wanted.push_back(generic.run(size, BATCH, SEED));
    must(generic.code == MOBILENET_OK || generic.code == MOBILENET_BAD_ARGUMENT, path, "generic", 1, size,
         generic.error);
  }
  must(!wanted[0].empty(), path, "generic", 1, {0, 0}, "no answer at the model's own size");
  for (const std::string &isa : instruction_sets()) {
    agrees(path, bytes, isa, MOBILENET_FP32, sizes, wanted);
    agrees(path, bytes, isa, MOBILENET_BF16, sizes, wanted);
  }
}

}  // namespace

int main(int count, char **paths) {
  if (count < 2) {
    std::fprintf(stderr, "skipped: give model files (tests/native/test_sanitizers.py makes them)\n");
    return 77;
  }
  for (int i = 1; i < count; ++i) all_agree(paths[i]);
  return failures();
}
