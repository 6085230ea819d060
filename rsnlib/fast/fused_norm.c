/* What native.py has compiled for the CPU that trains, with BFLOAT16 or without it (float): batch norm with what follows
   it, branches side by side, images and targets. Batch norms and branches have images as rows of `channels` numbers,
   channels last; sums are float within a block of rows and double beyond it. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#ifdef __AVX512F__
#pragma GCC target("prefer-vector-width=512")
#endif

#define BLOCK 16384  /* numbers: they stay in the cache between two readings */
#define COLUMNS 512  /* numbers that an inner loop is to have, or about as many */
#define FEW (1 << 15) /* numbers that are not worth a second thread */

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

static inline long least(long a, long b) { return a < b ? a : b; }

/* How many rows are taken as one, so that the inner loops are long: a divisor of `rows`. */
static long tile(long rows, long channels) {
    long many = 1;
    while (2 * many * channels <= COLUMNS && rows % (2 * many) == 0) many *= 2;
    return many;
}

/* Adds `count` more numbers with that mean and that sum of squared deviations to what is known of others. */
static inline void merge(double *mean, double *squares, double known, double more_mean, double more_squares,
                         double count) {
    double difference = more_mean - *mean, share = count / (known + count);
    *mean += difference * share;
    *squares += more_squares + difference * difference * known * share;
}

/* Mean and sum of squared deviations of each column. */
static void moments(const element *restrict x, long rows, long columns, double *restrict mean,
                    double *restrict squares, float *restrict sums) {
    float *restrict middle = sums, *restrict spread = sums + columns;
    long block = BLOCK / columns + 1;
    for (long c = 0; c < columns; c++) mean[c] = squares[c] = 0;
    for (long first = 0; first < rows; first += block) {
        long last = least(first + block, rows), count = last - first;
        for (long c = 0; c < columns; c++) middle[c] = spread[c] = 0;
        for (long r = first; r < last; r++)
            for (long c = 0; c < columns; c++) middle[c] += get(x[r * columns + c]);
        for (long c = 0; c < columns; c++) middle[c] /= count;
        for (long r = first; r < last; r++)
            for (long c = 0; c < columns; c++) {
                float deviation = get(x[r * columns + c]) - middle[c];
                spread[c] += deviation * deviation;
            }
        for (long c = 0; c < columns; c++) merge(&mean[c], &squares[c], first, middle[c], spread[c], count);
    }
}

/* The passes over one line are compiled for each case: a condition inside would keep them from vectors. */
#define BY_CASE(function, a, b, c, ...)                                                      \
    (a ? b ? c ? function(__VA_ARGS__, 1, 1, 1) : function(__VA_ARGS__, 1, 1, 0)             \
         : c ? function(__VA_ARGS__, 1, 0, 1) : function(__VA_ARGS__, 1, 0, 0)               \
       : b ? c ? function(__VA_ARGS__, 0, 1, 1) : function(__VA_ARGS__, 0, 1, 0)             \
         : c ? function(__VA_ARGS__, 0, 0, 1) : function(__VA_ARGS__, 0, 0, 0))
#define LINE static inline __attribute__((always_inline)) void

LINE norm_line(const element *restrict x, const element *restrict other, const element *restrict then,
               element *restrict y, element *restrict sum, long columns, const float *restrict scale,
               const float *restrict shift, int relu, int added, int summed) {
    for (long c = 0; c < columns; c++) {
        float value = get(x[c]) * scale[c] + shift[c];
        if (added) value += get(other[c]);
        y[c] = put(relu && value < 0 ? 0 : value);
        if (summed) sum[c] = put(get(y[c]) + get(then[c]));
    }
}

/* y = relu(norm(x) + other) and sum = y + then: the ReLU if `relu`, other if `added`, sum and then if `summed`.

   x, other, then, y, sum: (rows, channels); before: what the running mean counts and x has not, (channels), or NULL;
   batches: counts them, or NULL; saved: mean and 1 / deviation, (2, channels), for `backward`; threads: at most
   -> whether there was memory to work in */
int forward(const element *restrict x, const element *restrict other, const element *restrict then, element *restrict y,
            element *restrict sum, long rows, long channels, const float *restrict weight, const float *restrict bias,
            float *restrict running_mean, float *restrict running_variance, const float *restrict before,
            int64_t *restrict batches, double momentum, double epsilon, int relu, int added, int summed,
            float *restrict saved, int threads) {
    if (rows * channels <= FEW) threads = 1;
    long columns = channels * tile(rows, channels), lines = rows * channels / columns;
    long share = (lines + threads - 1) / threads;
    double *restrict workspace = malloc(3 * (threads + 1) * columns * sizeof(double));
    if (!workspace) return 0;
    if (batches) ++*batches;
    float *restrict scale = (float *)(workspace + 3 * threads * columns), *restrict shift = scale + columns;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static, 1)
        for (int t = 0; t < threads; t++) {
            double *mean = workspace + 3 * t * columns;
            long first = least(t * share, lines), last = least(first + share, lines);
            moments(x + first * columns, last - first, columns, mean, mean + columns, (float *)(mean + 2 * columns));
        }
#pragma omp for schedule(static)
        for (long c = 0; c < channels; c++) {
            double mean = 0, squares = 0, known = 0;
            for (int t = 0; t < threads; t++) {
                long count = least((t + 1) * share, lines) - least(t * share, lines);
                for (long k = 3 * t * columns + c; count && k < (3 * t + 1) * columns; k += channels, known += count)
                    merge(&mean, &squares, known, workspace[k], workspace[k + columns], count);
            }
            double inverse = 1 / sqrt(squares / rows + epsilon);
            running_mean[c] += momentum * (mean + (before ? before[c] : 0) - running_mean[c]);
            running_variance[c] += momentum * (squares / (rows - 1) - running_variance[c]);
            saved[c] = mean;
            saved[channels + c] = inverse;
            for (long k = c; k < columns; k += channels) {
                scale[k] = saved[channels + c] * weight[c];
                shift[k] = bias[c] - saved[c] * scale[k];
            }
        }
#pragma omp for schedule(static)
        for (long r = 0; r < lines; r++) {
            long i = r * columns;
            BY_CASE(norm_line, relu, added, summed, x + i, other + i, then + i, y + i, sum + i, columns, scale, shift);
        }
    }
    free(workspace);
    return 1;
}

/* The gradient in front of the ReLU, which let pass what made a positive output: y where something was added, else as
   known from the input. A second one goes to the same output. */
static inline float passed(const element *gradient, const element *second, float input, const element *y, float scale,
                           float shift, int relu, int added, int forked) {
    float output = added ? get(*y) : input * scale + shift;
    float value = forked ? get(*gradient) + get(*second) : get(*gradient);
    return relu && output <= 0 ? 0 : value;
}

LINE add_line(const element *restrict gradient, const element *restrict second, const element *restrict x,
              const element *restrict y, long columns, const float *restrict mean, const float *restrict scale,
              const float *restrict shift, float *restrict sum, float *restrict product, int relu, int added,
              int forked) {
    for (long c = 0; c < columns; c++) {
        float input = get(x[c]);
        float value = passed(gradient + c, second + c, input, y + c, scale[c], shift[c], relu, added, forked);
        sum[c] += value;
        product[c] += value * (input - mean[c]);
    }
}

LINE write_line(const element *restrict gradient, const element *restrict second, const element *restrict x,
                const element *restrict y, long columns, const float *restrict scale, const float *restrict shift,
                const float *restrict slope, const float *restrict offset, element *restrict of_x,
                element *restrict of_other, int relu, int added, int forked) {
    for (long c = 0; c < columns; c++) {
        float input = get(x[c]);
        float value = passed(gradient + c, second + c, input, y + c, scale[c], shift[c], relu, added, forked);
        if (added) of_other[c] = put(value);
        of_x[c] = put(value * scale[c] + input * slope[c] + offset[c]);
    }
}

/* The gradients of `forward`: of x, of other, of weight and bias.

   gradient: of y; second: what comes to it by another way, if `forked`; y and of_other are used if `added`, which need
   not be where there is no ReLU: the gradient of other is then that of y; threads and what is returned: as above */
int backward(const element *restrict gradient, const element *restrict second, const element *restrict x,
             const element *restrict y, element *restrict of_x, element *restrict of_other, long rows, long channels,
             const float *restrict weight, const float *restrict bias, const float *restrict saved, int relu, int added,
             int forked, float *restrict of_weight, float *restrict of_bias, int threads) {
    if (rows * channels <= FEW) threads = 1;
    long columns = channels * tile(rows, channels), lines = rows * channels / columns;
    long share = (lines + threads - 1) / threads;
    double *restrict workspace = malloc(3 * (threads + 1) * columns * sizeof(double));
    if (!workspace) return 0;
    long block = BLOCK / columns + 1;
    float *restrict mean = (float *)(workspace + 3 * threads * columns), *restrict scale = mean + columns;
    float *restrict shift = scale + columns, *restrict slope = shift + columns, *restrict offset = slope + columns;
    for (long k = 0; k < columns; k++) {
        long c = k % channels;
        mean[k] = saved[c];
        scale[k] = saved[channels + c] * weight[c]; /* as in forward, to the last bit */
        shift[k] = bias[c] - saved[c] * scale[k];
    }
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static, 1)
        for (int t = 0; t < threads; t++) {
            double *sums = workspace + 3 * t * columns, *products = sums + columns;
            float *restrict sum = (float *)(products + columns), *restrict product = sum + columns;
            for (long c = 0; c < columns; c++) sums[c] = products[c] = 0;
            long end = least((t + 1) * share, lines);
            for (long first = t * share; first < end; first += block) {
                for (long c = 0; c < columns; c++) sum[c] = product[c] = 0;
                for (long r = first; r < least(first + block, end); r++) {
                    long i = r * columns;
                    BY_CASE(add_line, relu, added, forked, gradient + i, second + i, x + i, y + i, columns, mean, scale,
                            shift, sum, product);
                }
                for (long c = 0; c < columns; c++) {
                    sums[c] += sum[c];
                    products[c] += product[c];
                }
            }
        }
#pragma omp for schedule(static)
        for (long c = 0; c < channels; c++) {
            double sum = 0, product = 0, inverse = saved[channels + c];
            for (int t = 0; t < threads; t++)
                for (long k = 3 * t * columns + c; k < (3 * t + 1) * columns; k += channels) {
                    sum += workspace[k];
                    product += workspace[k + columns];
                }
            of_bias[c] = sum;
            of_weight[c] = product * inverse;
            for (long k = c; k < columns; k += channels) {
                slope[k] = -scale[k] * inverse * inverse * product / rows;
                offset[k] = -scale[k] * sum / rows - slope[k] * mean[k];
            }
        }
#pragma omp for schedule(static)
        for (long r = 0; r < lines; r++) {
            long i = r * columns;
            BY_CASE(write_line, relu, added, forked, gradient + i, second + i, x + i, y + i, columns, scale, shift,
                    slope, offset, of_x + i, of_other + i);
        }
    }
    free(workspace);
    return 1;
}

/* `branches` images, (rows, channels) each, side by side in `whole`, (rows, branches * channels). */

void join(element *restrict whole, const element *const *parts, long rows, long channels, long branches, int threads) {
#pragma omp parallel for schedule(static) num_threads(rows *channels <= FEW ? 1 : threads)
    for (long r = 0; r < rows; r++)
        for (long b = 0; b < branches; b++)
            memcpy(whole + (r * branches + b) * channels, parts[b] + r * channels, channels * sizeof(element));
}

void split(const element *restrict whole, element *const *parts, long rows, long channels, long branches, int threads) {
#pragma omp parallel for schedule(static) num_threads(rows *channels <= FEW ? 1 : threads)
    for (long r = 0; r < rows; r++)
        for (long b = 0; b < branches; b++)
            memcpy(parts[b] + r * channels, whole + (r * branches + b) * channels, channels * sizeof(element));
}

#ifndef BFLOAT16

/* A copy for later: it takes no room in the cache, and is not read first. */
static inline void stream(float *restrict to, const float *restrict from, long count) {
#ifdef __SSE2__
    if ((uintptr_t)to % 16 == 0 && count % 4 == 0) {
        for (long c = 0; c < count; c += 4) _mm_stream_ps(to + c, _mm_loadu_ps(from + c));
        return;
    }
#endif
    memcpy(to, from, count * sizeof *to);
}

/* Before others read what was streamed. */
static inline void streamed(void) {
#ifdef __SSE2__
    _mm_sfence();
#endif
}

/* Pixels to what the network takes: lines of `length` numbers, each times its factor, plus its offset. */
void normalise(const uint8_t *restrict pixels, const float *restrict factor, const float *restrict offset,
               float *restrict lines, long count, long length, int threads) {
#pragma omp parallel num_threads(threads)
    {
        float line[length];
#pragma omp for schedule(static)
        for (long r = 0; r < count; r++) {
            for (long c = 0; c < length; c++) line[c] = pixels[r * length + c] * factor[c] + offset[c];
            stream(lines + r * length, line, length);
        }
        streamed();
    }
}

/* Heatmaps (people, kernels, keypoints, height, width): a row of `rows` (kernels, height, height), times the keypoint's
   peak, by one of `columns` (kernels, width, width). x, y, peaks: (people, keypoints), which of them */
void draw(const float *restrict rows, const float *restrict columns, const int64_t *restrict x,
          const int64_t *restrict y, const float *restrict peaks, float *restrict heatmaps, long people, long kernels,
          long keypoints, long height, long width, int threads) {
#pragma omp parallel num_threads(threads)
    {
        float line[width];
#pragma omp for schedule(static)
        for (long p = 0; p < people; p++)
            for (long k = 0; k < kernels; k++)
                for (long i = p * keypoints; i < (p + 1) * keypoints; i++) {
                    const float *restrict row = rows + (k * height + y[i]) * height;
                    const float *restrict column = columns + (k * width + x[i]) * width;
                    long place = (p * (kernels - 1) + k) * keypoints + i;
                    float *restrict heatmap = heatmaps + place * height * width;
                    for (long r = 0; r < height; r++) {
                        float value = row[r] * peaks[i];
                        for (long c = 0; c < width; c++) line[c] = value * column[c];
                        stream(heatmap + r * width, line, width);
                    }
                }
        streamed();
    }
}

#endif
