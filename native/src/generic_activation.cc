// Activations: of floats, of a row after its sums, and as the table of an integer activation.
#include <cmath>
#include <iterator>

#include "generic.h"
#include "generic_rules.h"

namespace mobilenet {
namespace {

// Two of the rational approximations in W. J. Cody, "Rational Chebyshev approximations for the error function",
// Mathematics of Computation 23 (1969), pages 631-637; the highest power first.
constexpr double ERF_ABOVE[] = {1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2,
                                3.77485237685302021e2, 3.20937758913846947e3};
constexpr double ERF_BELOW[] = {1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
                                2.84423683343917062e3};
constexpr double ERFC_ABOVE[] = {2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594,
                                 6.61191906371416295e1,  2.98635138197400131e2,  8.81952221241769090e2,
                                 1.71204761263407058e3,  2.05107837782607147e3,  1.23033935479799725e3};
constexpr double ERFC_BELOW[] = {1.0,
                                 1.57449261107098347e1,
                                 1.17693950891312499e2,
                                 5.37181101862009858e2,
                                 1.62138957456669019e3,
                                 3.29079923573345963e3,
                                 4.36261909014324716e3,
                                 3.43936767414372164e3,
                                 1.23033935480374942e3};

template <size_t N>
double polynomial(const double (&coefficients)[N], double x) {
  double sum = 0;
  for (const double coefficient : coefficients) sum = sum * x + coefficient;
  return sum;
}

// As error_function in run/reference_float.py, operation by operation.
double error_function(double x) {
  const double size = std::fmin(std::fabs(x), 6);  // from there on erf is 1
  if (size <= 0.46875) {
    const double square = size * size;
    return x * polynomial(ERF_ABOVE, square) / polynomial(ERF_BELOW, square);
  }
  const double rest = std::exp(-size * size) * polynomial(ERFC_ABOVE, size) / polynomial(ERFC_BELOW, size);
  return std::copysign(1 - rest, x);
}

template <class T>
inline T relu(T x) {
  return T(0) > x ? T(0) : x;  // written so that NaN stays NaN, as does relu6
}

template <class T>
inline T relu6(T x) {
  const T y = relu(x);
  return T(6) < y ? T(6) : y;
}

inline float sigmoid(float x) {
  const float small = generic::exp_of_negative(-std::fabs(x));
  return (x >= 0 ? 1.0f : small) / (1.0f + small);
}

inline double sigmoid(double x) {
  const double small = std::exp(-std::fabs(x));  // never overflows
  return (x >= 0 ? 1.0 : small) / (1.0 + small);
}

inline float gelu(float x) { return float(x * (0.5 + 0.5 * error_function(x / float(std::sqrt(2.0))))); }
inline double gelu(double x) { return x * (0.5 + 0.5 * error_function(x / std::sqrt(2.0))); }

template <class T, Activation activation>
inline T active(T x) {
  switch (activation) {
    case Activation::relu: return relu(x);
    case Activation::relu6: return relu6(x);
    case Activation::hard_sigmoid: return relu6(x + 3) / T(6);
    case Activation::hard_sigmoid_slim: return relu6(x + 3) * T(0.16667);
    case Activation::hard_swish: return x * (relu6(x + 3) / T(6));
    case Activation::sigmoid: return sigmoid(x);
    case Activation::gelu: return gelu(x);
    case Activation::none:
    case Activation::prelu: return x;
  }
  return x;
}

template <class T, Activation activation>
void apply(T *row, int64_t count) {
  for (int64_t i = 0; i < count; ++i) row[i] = active<T, activation>(row[i]);
}

template <class T>
void apply(Activation activation, T *row, int64_t count) {
  switch (activation) {
    case Activation::relu: return apply<T, Activation::relu>(row, count);
    case Activation::relu6: return apply<T, Activation::relu6>(row, count);
    case Activation::hard_sigmoid: return apply<T, Activation::hard_sigmoid>(row, count);
    case Activation::hard_sigmoid_slim: return apply<T, Activation::hard_sigmoid_slim>(row, count);
    case Activation::hard_swish: return apply<T, Activation::hard_swish>(row, count);
    case Activation::sigmoid: return apply<T, Activation::sigmoid>(row, count);
    case Activation::gelu: return apply<T, Activation::gelu>(row, count);
    case Activation::none:
    case Activation::prelu: return;
  }
}

}  // namespace

float activate(Activation activation, float x) {
  apply(activation, &x, 1);
  return x;
}

double activate(Activation activation, double x) {
  apply(activation, &x, 1);
  return x;
}

void activation_table(Activation activation, const TensorType &input, const TensorType &output,
                      uint8_t table[256]) {
  const generic::Stored given = generic::stored(input);
  const double low = output.dtype == DType::int8 ? -128 : 0, high = low + 255;
  for (int byte = 0; byte < 256; ++byte) {
    const double real = activate(activation, double(input.scale) * given(uint8_t(byte)));
    const double q = std::rint(real / double(output.scale)) + output.zero_point;
    table[byte] = uint8_t(int(std::fmin(std::fmax(q, low), high)));
  }
}

namespace generic {

void finish_row(Activation activation, const float *bias, const float *alpha, float *row, int64_t count) {
  if (bias)
    for (int64_t i = 0; i < count; ++i) row[i] += bias[i];
  if (activation == Activation::prelu)
    for (int64_t i = 0; i < count; ++i) row[i] = row[i] >= 0 ? row[i] : row[i] * alpha[i];
  else
    apply(activation, row, count);
}

void look_up(const uint8_t table[256], const uint8_t *x, uint8_t *out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = table[x[i]];
}

}  // namespace generic
}  // namespace mobilenet
