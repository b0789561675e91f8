/* The whole interface of the mobilenet engine: load a model, run it, free it.
 *
 * No global state, nothing is printed, nothing exits. A function returns 0 or one of the codes below, and then
 * writes why, as UTF-8 text that ends with a zero byte, to `error` (cut off at `error_size` bytes; may be NULL).
 * A model may be used by several threads at once; mobilenet_free must be the last call for it. */
#ifndef MOBILENET_H
#define MOBILENET_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define MOBILENET_API __declspec(dllexport)
#else
#define MOBILENET_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mobilenet_model mobilenet_model;

enum {
  MOBILENET_OK = 0,
  MOBILENET_BAD_FILE = 1,     /* damaged or hostile bytes, or a graph that does not fit together */
  MOBILENET_UNSUPPORTED = 2,  /* a well-formed request that the engine has no kernel for; the text names both */
  MOBILENET_BAD_ARGUMENT = 3, /* a size, name or option that the caller gave */
  MOBILENET_NO_MEMORY = 4,    /* malloc failed, or `memory_limit` would be passed */
};

enum { MOBILENET_FP32 = 0, MOBILENET_BF16 = 1 }; /* of float layers; integer layers are exact in either */

enum { MOBILENET_FLOAT32 = 0, MOBILENET_INT8 = 1, MOBILENET_UINT8 = 2, MOBILENET_INT64 = 3 };

typedef struct {
  uint32_t size;         /* sizeof(mobilenet_options) */
  int32_t precision;     /* MOBILENET_FP32 or MOBILENET_BF16 */
  int32_t threads;       /* at least 1; 0: one for each processor that this process may use */
  const char *isa;       /* NULL: the best that this processor has; see mobilenet_isas */
  uint64_t memory_limit; /* bytes of weights and activations of one run, 0: 4 GiB */
  uint64_t mac_limit;    /* multiply-accumulates of one picture, 0: 2^40 */
  int32_t borrow;        /* 1: `bytes` stay as they are until mobilenet_free, and are not copied */
  int32_t reserved;      /* 0 */
} mobilenet_options;

/* What an input or output is. `shape` has no batch dimension. `scale` and `zero_point` are of integers. */
typedef struct {
  const char *name;
  int32_t dtype;
  int32_t rank;
  int64_t shape[8];
  float scale;
  int32_t zero_point;
} mobilenet_tensor;

/* Reads a model file (docs/format.md), checks it, and prepares it for running. `bytes` may be freed afterwards,
 * unless options->borrow is set. */
MOBILENET_API int mobilenet_load(const void *bytes, size_t size, const mobilenet_options *options,
                                 mobilenet_model **model, char *error, size_t error_size);
MOBILENET_API void mobilenet_free(mobilenet_model *model);

/* How many inputs and outputs there are, and what each is for pictures of height x width (0, 0: the model's own
 * size). The names live as long as the model. */
MOBILENET_API int mobilenet_input_count(const mobilenet_model *model);
MOBILENET_API int mobilenet_output_count(const mobilenet_model *model);
MOBILENET_API int mobilenet_input(mobilenet_model *model, int index, int64_t height, int64_t width,
                                  mobilenet_tensor *tensor, char *error, size_t error_size);
MOBILENET_API int mobilenet_output(mobilenet_model *model, int index, int64_t height, int64_t width,
                                   mobilenet_tensor *tensor, char *error, size_t error_size);

/* Runs `batch` pictures. inputs[i] and outputs[i] hold batch x shape elements, row-major, of the tensor's dtype.
 * Plans are kept for each height x width (0, 0: the model's own) that was asked for. */
MOBILENET_API int mobilenet_run(mobilenet_model *model, int64_t height, int64_t width, int64_t batch,
                                const void *const *inputs, void *const *outputs, char *error, size_t error_size);

/* The plan as JSON text, in a buffer to be given to mobilenet_release. */
MOBILENET_API int mobilenet_plan(mobilenet_model *model, int64_t height, int64_t width, char **json, char *error,
                                 size_t error_size);
MOBILENET_API void mobilenet_release(char *text);

/* The plan with "ms" in every step: the shortest of `rounds` runs on zeros, on one thread. */
MOBILENET_API int mobilenet_profile(mobilenet_model *model, int64_t height, int64_t width, int32_t rounds,
                                    char **json, char *error, size_t error_size);

/* Operations (a multiply-accumulate is two) a second that a matrix kernel reaches on one processor, on data in its
 * first cache. `isa` may be NULL; precision: MOBILENET_FP32, MOBILENET_BF16 or MOBILENET_INTEGER. */
enum { MOBILENET_INTEGER = 2 };
MOBILENET_API int mobilenet_peak(const char *isa, int32_t precision, double *operations, char *error,
                                 size_t error_size);

/* The instruction sets that this build has and this processor can run, best first, separated by commas. */
MOBILENET_API const char *mobilenet_isas(void);

/* `count` real numbers to the integers of a quantised input, `dtype` MOBILENET_INT8 or MOBILENET_UINT8:
 * rint(x * (1 / scale)) + zero_point, ties to even, within the dtype; NaN becomes its lowest. `isa` may be NULL.
 */
MOBILENET_API int mobilenet_quantise(const char *isa, const float *from, int64_t count, float scale,
                                     int32_t zero_point, int32_t dtype, void *to, char *error, size_t error_size);

/* A picture's way to a network's input in one pass: window, resampling, crop, borders, values, quanta. Bit for bit
 * what src/mobilenet/pictures/preprocess.py defines. */
enum { MOBILENET_CROP = 0, MOBILENET_STRETCH = 1, MOBILENET_PAD = 2 };
enum {
  MOBILENET_NEAREST = 0,
  MOBILENET_BOX = 1,
  MOBILENET_BILINEAR = 2,
  MOBILENET_BICUBIC = 3,
  MOBILENET_LANCZOS = 4
};
enum { MOBILENET_RGB = 0, MOBILENET_BGR = 1, MOBILENET_L = 2 };

typedef struct {
  uint32_t size; /* sizeof(mobilenet_preprocessing) */
  int32_t height, width;
  int32_t resize;        /* MOBILENET_CROP, ... */
  int32_t interpolation; /* MOBILENET_NEAREST, ... */
  int32_t channels;      /* MOBILENET_RGB, ... */
  int32_t fill;          /* grey level of the borders of MOBILENET_PAD */
  int32_t pixel_bytes;   /* of a pixel of the picture: 3 (red, green, blue), or 4, of which the last is not used */
  double crop_fraction;
  const char *isa;       /* NULL: the best that this processor has; the result is the same for all */
} mobilenet_preprocessing;

/* pixels: height x width x pixel_bytes, uint8, rows `stride` bytes apart. output: rule height x rule width x
 * channels. `table`, channels x 256 entries of `entry_size` bytes (1 or 4), is what each level becomes: float
 * values, or quanta, or (NULL, entry_size 1) the levels themselves. */
MOBILENET_API int mobilenet_preprocess(const mobilenet_preprocessing *rule, const uint8_t *pixels, int64_t height,
                                       int64_t width, int64_t stride, const void *table, int32_t entry_size,
                                       void *output, char *error, size_t error_size);

/* A detector's raw outputs to boxes, as src/mobilenet/tasks/detect.py defines it. */
enum { MOBILENET_SSD = 0, MOBILENET_YOLO = 1 };
enum { MOBILENET_SOFTMAX = 0, MOBILENET_SIGMOID = 1 };

typedef struct {
  uint32_t size;      /* sizeof(mobilenet_decoding) */
  int32_t kind;       /* MOBILENET_SSD, ... */
  int32_t scores;     /* MOBILENET_SOFTMAX, ... */
  int32_t background; /* 1: the first score of a row is that nothing is there */
  int32_t agnostic;   /* 1: boxes suppress those of other classes, too */
  int32_t candidates, detections;
  double variances[4];
  double score_threshold, iou_threshold;
  int32_t height, width; /* of the network's input */
} mobilenet_decoding;

typedef struct {
  float left, top, right, bottom; /* pixels of the network's input */
  float score;
  int32_t index; /* of the class */
} mobilenet_box;

/* boxes: count x 4; scores: count x columns; priors: count x 4, centre and sides as shares of the input's. `found`
 * has room for rule->detections; *kept is how many there are, the most probable first. */
MOBILENET_API int mobilenet_detect(const mobilenet_decoding *rule, const float *boxes, const float *scores,
                                   const double *priors, int64_t count, int64_t columns, mobilenet_box *found,
                                   int32_t *kept, char *error, size_t error_size);

#ifdef __cplusplus
}
#endif
#endif
