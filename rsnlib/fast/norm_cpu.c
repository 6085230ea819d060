/* Batch norm, addend and ReLU in one pass each way, for CPUs that train: compiled by norm_cpu.py, with BFLOAT16 for
   tensors of bfloat16, else for float.

   Tensors are (rows, channels), channels last in memory. Several rows are taken as one line of `columns` numbers, so
   that the inner loops are long enough for vectors. Sums are float within a block of lines and double beyond. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#pragma GCC target("prefer-vector-width=512")
#endif

#define BLOCK 32 /* lines */

enum { NORM, NORM_RELU, NORM_ADD_RELU, MOMENTS };

#ifdef BFLOAT16

typedef uint16_t element;

static inline float get(element x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline element put(float value) { /* to the nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    element rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return value == value ? rounded : 0x7fc0;
}

#else

typedef float element;

static inline float get(element x) { return x; }
static inline element put(float value) { return value; }

#endif

#define LINE static inline __attribute__((always_inline)) void

/* Compile a loop over one line for each mode: a condition inside would keep the loop from vectors. */
#define BY_MODE(line, ...)                                              \
    switch (mode) {                                                     \
        case NORM: line(NORM, __VA_ARGS__); break;                      \
        case NORM_RELU: line(NORM_RELU, __VA_ARGS__); break;            \
        case NORM_ADD_RELU: line(NORM_ADD_RELU, __VA_ARGS__); break;    \
        default: line(MOMENTS, __VA_ARGS__);                            \
    }

/* Return the gradient in front of the ReLU, which let pass what made a positive output. */
static inline float before_relu(int mode, element gradient, float x, element y, float scale, float shift) {
    float output = mode == NORM_ADD_RELU ? get(y) : x * scale + shift;
    return mode != NORM && output <= 0 ? 0 : get(gradient);
}

LINE norm_line(int mode, const element *restrict x, const element *restrict addend, element *restrict y, long columns,
               const float *restrict scale, const float *restrict shift) {
    for (long c = 0; c < columns; c++) {
        float value = get(x[c]) * scale[c] + shift[c];
        if (mode == NORM_ADD_RELU) value += get(addend[c]);
        y[c] = put(mode != NORM && value < 0 ? 0 : value);
    }
}

LINE gradient_line(int mode, const element *restrict gradient, const element *restrict x, const element *restrict y,
                   long columns, const float *restrict scale, const float *restrict shift, const float *restrict slope,
                   const float *restrict offset, element *restrict of_x, element *restrict of_addend) {
    for (long c = 0; c < columns; c++) {
        float input = get(x[c]), value = before_relu(mode, gradient[c], input, y[c], scale[c], shift[c]);
        if (mode == NORM_ADD_RELU) of_addend[c] = put(value);
        of_x[c] = put(value * scale[c] + input * slope[c] + offset[c]);
    }
}

LINE sum_line(int mode, const element *restrict gradient, const element *restrict x, const element *restrict y,
              long columns, const float *restrict center, const float *restrict scale, const float *restrict shift,
              float *restrict sum, float *restrict product) {
    for (long c = 0; c < columns; c++) {
        float input = get(x[c]), deviation = input - center[c];
        float value = mode == MOMENTS ? deviation : before_relu(mode, gradient[c], input, y[c], scale[c], shift[c]);
        sum[c] += value;
        product[c] += value * deviation;
    }
}

/* Sum, for each channel, `value` and `value` times the deviation of x from the center, `saved`'s first row: value is the
   gradient in front of the ReLU or, for MOMENTS, the deviation itself. totals: (threads, 2, columns); the results are
   its first `channels` numbers, and as many from `columns` on. */
static void sums(int mode, const element *gradient, const element *x, const element *y, long lines, long columns,
                 long channels, long threads, const float *saved, double *totals) {
    const float *center = saved, *scale = saved + 2 * columns, *shift = saved + 3 * columns;
    long share = (lines + threads - 1) / threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        double *total = totals + 2 * t * columns;
        float sum[2 * columns], *product = sum + columns;
        for (long c = 0; c < 2 * columns; c++) total[c] = 0;
        long end = (t + 1) * share < lines ? (t + 1) * share : lines;
        for (long first = t * share; first < end; first += BLOCK) {
            memset(sum, 0, sizeof sum);
            for (long i = first * columns; i < (first + BLOCK < end ? first + BLOCK : end) * columns; i += columns)
                BY_MODE(sum_line, gradient + i, x + i, y + i, columns, center, scale, shift, sum, product);
            for (long c = 0; c < 2 * columns; c++) total[c] += sum[c];
        }
    }
    for (int t = 0; t < threads; t++)
        for (long c = t ? 0 : channels; c < columns; c++) {
            totals[c % channels] += totals[2 * t * columns + c];
            totals[columns + c % channels] += totals[(2 * t + 1) * columns + c];
        }
}

/* y = norm(x), relu(norm(x)) or relu(norm(x) + addend). The running statistics move towards the batch's. saved: for
   `backward`, (4, columns): mean, 1 / deviation, and the scale and shift that make norm(x) of x; totals: see `sums` */
void forward(long mode, long lines, long columns, long channels, long threads, double momentum, double epsilon,
             const element *x, const element *addend, element *y, const float *weight, const float *bias,
             float *running_mean, float *running_variance, float *saved, double *totals) {
    double rows = lines * (columns / channels);
    float *mean = saved, *inverse = mean + columns, *scale = inverse + columns, *shift = scale + columns;
    for (long c = 0; c < columns; c++) mean[c] = get(x[c % channels]); /* near it: little is lost to rounding */
    sums(MOMENTS, x, x, x, lines, columns, channels, threads, saved, totals);
    for (long c = 0; c < columns; c++) {
        long channel = c % channels;
        double deviation = totals[channel] / rows, variance = totals[columns + channel] / rows - deviation * deviation;
        double exact = mean[c] + deviation;
        if (variance < 0) variance = 0;
        mean[c] = exact;
        inverse[c] = 1 / sqrt(variance + epsilon);
        scale[c] = inverse[c] * weight[channel];
        shift[c] = bias[channel] - mean[c] * scale[c];
        if (c < channels) {
            running_mean[c] += momentum * (exact - running_mean[c]);
            running_variance[c] += momentum * (variance * rows / (rows - 1) - running_variance[c]);
        }
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < lines * columns; i += columns)
        BY_MODE(norm_line, x + i, addend + i, y + i, columns, scale, shift);
}

/* The gradients of `forward` by x, addend, weight and bias, given the gradient by y. */
void backward(long mode, long lines, long columns, long channels, long threads, const element *gradient,
              const element *x, const element *y, element *of_x, element *of_addend, const float *saved,
              float *of_weight, float *of_bias, double *totals) {
    double rows = lines * (columns / channels);
    const float *mean = saved, *inverse = mean + columns, *scale = inverse + columns, *shift = scale + columns;
    float slope[columns], offset[columns];
    sums(mode, gradient, x, y, lines, columns, channels, threads, saved, totals);
    for (long c = 0; c < columns; c++) {
        double sum = totals[c % channels], product = totals[columns + c % channels], over = inverse[c];
        of_bias[c % channels] = sum;
        of_weight[c % channels] = product * over;
        slope[c] = -scale[c] * over * over * product / rows;
        offset[c] = -scale[c] * sum / rows - slope[c] * mean[c];
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < lines * columns; i += columns)
        BY_MODE(gradient_line, gradient + i, x + i, y + i, columns, scale, shift, slope, offset, of_x + i,
                of_addend + i);
}
