/* The forward pass of a BERT classifier for one kind of processor: token embeddings → logits.

Hidden states are (T, D), those of all tokens of all texts one after the other: only attention sees texts. Each sum is
taken in one order, whatever else is computed beside it and by however many threads, so that a text's logits are its own
to the last bit. Weights lie in panels of PANEL outputs, [panel][input][output]; in int8 [panel][input / 4][output][4]
with a scale for each output, and activations are rounded token by token. layout.py has the same structs. */

#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

/* 24 of the 32 vector registers, or 12 of the 16, hold sums: BLOCK rows by the VECTORS of a panel. */
#ifdef __AVX512VNNI__
enum { LANES = 16, VECTORS = 4 };
#define MAX _mm512_max_ps
#else
enum { LANES = 8, VECTORS = 2 };
#define MAX _mm256_max_ps
#endif
enum { PANEL = LANES * VECTORS, BLOCK = 6, QUERIES = 8, LINE = 64, SPINS = 2000 };
const long shape[] = {LANES, PANEL, QUERIES + 1};

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
#define INLINE static inline __attribute__((always_inline))
/* Whole: what is indexed by constants alone is held in registers. */
#ifdef __clang__
#define UNROLLED _Pragma("clang loop unroll(full)") for
#else
#define UNROLLED _Pragma("GCC unroll 8") for
#endif

/* `out` is a multiple of PANEL. `zero_points` are 128 times the sum of an output's codes. float32 has no scales. */
typedef struct { long in, out; const char *weights; const float *bias, *scales; const int32_t *zero_points; } Linear;
typedef struct { const float *scale, *bias; } Norm;
typedef struct { Linear qkv, attention, inner, output; Norm attention_norm, output_norm; } Layer;

/* `tanh`: what the pooler ends in, if not in relu. */
typedef struct {
    long layers, width, heads, tanh;
    float epsilon;
    const float *positions;
    Norm norm;
    const Layer *layer;
    Linear pooler, classifier;
} Model;

/* Threads that compute a call together. */
typedef struct Team {
    long size, workers, generation;
    atomic_long arrived;
    pthread_mutex_t lock;
    pthread_cond_t begin;
    const struct Call *call;
} Team;

/* `starts`: where each text begins, and last the number of tokens. `x` are the words' embeddings, then hidden states;
`y` and `wide` what products give; `scratch` is memory of each thread, `scratch_size` floats; `codes` are activations
in int8, and `scales` their scales. */
typedef struct Call {
    const Model *model;
    Team *team;
    long texts, scratch_size;
    const int32_t *starts;
    float *x, *y, *wide, *scratch, *scales, *logits;
    uint8_t *codes;
} Call;

static long members(const Call *call) { return call->team ? call->team->size : 1; }

/* A thread's part of so many. */
#define FOR_PART(AT, COUNT) \
    for (long AT = (COUNT) * rank / members(call), end_ = (COUNT) * (rank + 1) / members(call); AT < end_; AT++)

static void barrier(const Call *call) {
    /* Whoever comes last goes on, and the call may be over before the others look again: they look at the team. */
    Team *team = call->team;
    long all = team ? (atomic_fetch_add(&team->arrived, 1) / team->size + 1) * team->size : 0;
    for (long spins = 0; team && atomic_load_explicit(&team->arrived, memory_order_acquire) < all; spins++)
        spins < SPINS ? _mm_pause() : spins < 2 * SPINS ? (void)sched_yield() : (void)usleep(50);
}

INLINE floats load(const float *from) { return *(const floats *)from; }
INLINE void store(float *to, floats x) { *(floats *)to = x; }
INLINE floats blend(ints mask, floats a, floats b) { return (floats)((mask & (ints)a) | (~mask & (ints)b)); }
INLINE floats absolute(floats x) { return (floats)((ints)x & INT32_MAX); }
INLINE floats rounded(floats x) { return x + 12582912.f - 12582912.f; } /* whole number, of |x| < 2^22 */

/* All lanes into one, by halves. */
#define REDUCE(NAME, JOINED)                                                                                         \
    INLINE float NAME(floats x) {                                                                                    \
        float lanes[LANES];                                                                                          \
        store(lanes, x);                                                                                             \
        UNROLLED(int half = LANES / 2; half; half /= 2)                                                              \
            UNROLLED(int at = 0; at < half; at++) {                                                                  \
                float a = lanes[at], b = lanes[at + half];                                                           \
                lanes[at] = JOINED;                                                                                  \
            }                                                                                                        \
        return lanes[0];                                                                                             \
    }
REDUCE(horizontal_sum, a + b)
REDUCE(horizontal_max, a > b ? a : b)

/* e^x for x ≤ 0, never so small that it is denormal, by e^x = 2^n e^r; ln 2 is in two parts. */
INLINE floats exponential(floats x) {
    const float taylor[] = {1.f / 5040, 1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, .5f, 1, 1};
    x = MAX((floats){} - 80, x); /* in this order what is no number stays so */
    floats n = rounded(x * 1.44269504f), r = x - n * 0.693359375f - n * -2.12194440e-4f, y = (floats){} + taylor[0];
    UNROLLED(int at = 1; at < 8; at++) y = y * r + taylor[at];
    return (floats)((ints)y + (__builtin_convertvector(n, ints) << 23));
}

/* GELU of a panel's columns in place, x Φ(x), by erf of Abramowitz & Stegun 7.1.26, whose error is at most 1.5e-7. Not
inlined: its constants would take the registers of the sums. */
static __attribute__((noinline)) void gelu(float *row) {
    const float terms[] = {1.061405429f, -1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    for (long at = 0; at < PANEL; at += LANES) {
        floats x = load(row + at), z = absolute(x) * 0.70710678f, t = 1 / (1 + z * 0.3275911f);
        floats y = (floats){} + terms[0];
        UNROLLED(int term = 1; term < 5; term++) y = y * t + terms[term];
        floats tail = .5f * y * t * exponential(-z * z);
        store(row + at, x * blend(x < 0, tail, 1 - tail));
    }
}

/* Four codes of an activation times four of each lane's weights, added to each lane's sum. */
INLINE ints dot(ints sum, ints codes, ints weights) {
#ifdef __AVX512VNNI__
    return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, (__m512i)weights);
#else /* Pairs are added in 16 bits, which those of 8 and 7 bits never leave. */
    __m256i pairs = _mm256_maddubs_epi16((__m256i)codes, (__m256i)weights);
    return sum + (ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
}

/* So many rows times a panel; of the next panel, meanwhile, a line is fetched for each step. */
#define SUMS(NAME, ELEMENT, VECTOR, ADDED)                                                                           \
    INLINE void NAME(const int rows, const ELEMENT *x, const ELEMENT *panel, long steps, const char *next,           \
                     VECTOR out[BLOCK][VECTORS]) {                                                                   \
        VECTOR sums[BLOCK][VECTORS] = {}, w[VECTORS];                                                                \
        for (long step = 0; step < steps; step++) {                                                                  \
            UNROLLED(int at = 0; at < VECTORS; at++) w[at] = *(const VECTOR *)(panel + step * PANEL + at * LANES);   \
            _mm_prefetch(next + step * LINE, _MM_HINT_T0);                                                           \
            UNROLLED(int row = 0; row < rows; row++) {                                                               \
                ELEMENT each = x[row * steps + step];                                                                \
                UNROLLED(int at = 0; at < VECTORS; at++) sums[row][at] = ADDED;                                      \
            }                                                                                                        \
        }                                                                                                            \
        UNROLLED(int row = 0; row < rows; row++)                                                                     \
            UNROLLED(int at = 0; at < VECTORS; at++) out[row][at] = sums[row][at];                                   \
    }
SUMS(float_sums, float, floats, sums[row][at] + each * w[at])
SUMS(int_sums, int32_t, ints, dot(sums[row][at], (ints){} + each, w[at]))

/* The compiler knows the number of rows, and so has all sums in registers. */
#define FOR_ROWS(NAME, ROWS, ...)                                                                                    \
    switch (ROWS) {                                                                                                  \
        case 1: NAME(1, __VA_ARGS__); break; case 2: NAME(2, __VA_ARGS__); break;                                    \
        case 3: NAME(3, __VA_ARGS__); break; case 4: NAME(4, __VA_ARGS__); break;                                    \
        case 5: NAME(5, __VA_ARGS__); break;                                                                         \
        default: NAME(BLOCK, __VA_ARGS__);                                                                           \
    }

/* x (rows, in), in int8 its codes, times one panel → its columns of out (rows, out). */
static void linear_panel(
    const Call *call, const Linear *product, const float *x, long rows, float *out, int activate, long panel) {
    long steps = product->in / (product->scales ? 4 : 1), size = steps * PANEL * 4, first = panel * PANEL;
    const char *weights = product->weights + panel * size;
    long height = (rows - 1) / ((rows - 1) / BLOCK + 1) + 1; /* of blocks alike: small ones would wait for their sums */
    for (long row = 0; row < rows; row += height) {
        int count = rows - row < height ? rows - row : height;
        const char *next = weights + size + row / height * steps * LINE % size;
        floats sums[BLOCK][VECTORS];
        if (product->scales) {
            ints whole[BLOCK][VECTORS];
            const int32_t *codes = (const int32_t *)(call->codes + row * product->in);
            FOR_ROWS(int_sums, count, codes, (const int32_t *)weights, steps, next, whole)
            for (int each = 0; each < count; each++)
                for (int at = 0; at < VECTORS; at++) {
                    long column = first + at * LANES;
                    ints sum = whole[each][at] - *(const ints *)(product->zero_points + column);
                    sums[each][at] = __builtin_convertvector(sum, floats) * load(product->scales + column) *
                                     call->scales[row + each];
                }
        } else
            FOR_ROWS(float_sums, count, x + row * product->in, (const float *)weights, steps, next, sums)
        for (int each = 0; each < count; each++) {
            float *to = out + (row + each) * product->out + first;
            UNROLLED(int at = 0; at < VECTORS; at++)
                store(to + at * LANES, sums[each][at] + load(product->bias + first + at * LANES));
            if (activate)
                gelu(to);
        }
    }
}

/* x (D) → codes of x / scale around 128, and the scale: the largest |x| / 127, and NaN where an x is not finite. */
static void quantize(const float *x, long width, uint8_t *codes, float *scale) {
    floats most = (floats){} + 127e-30f, nothing = {};
    for (long at = 0; at < width; at += LANES) {
        most = MAX(most, absolute(load(x + at)));
        nothing += load(x + at) * 0;
    }
    *scale = horizontal_max(most) / 127 + horizontal_sum(nothing);
    float inverse = 1 / *scale;
    for (long at = 0; at < width; at += LANES)
        *(bytes *)(codes + at) =
            __builtin_convertvector(__builtin_convertvector(rounded(load(x + at) * inverse), ints) + 128, bytes);
}

/* x (rows, in) times the weights with their bias, and GELU of that if it is asked for → out (rows, out). */
static void linear(
    const Call *call, long rank, const Linear *product, const float *x, long rows, float *out, int activate) {
    long in = product->in;
    if (product->scales) {
        FOR_PART(row, rows) quantize(x + row * in, in, call->codes + row * in, call->scales + row);
        barrier(call);
    }
    FOR_PART(panel, product->out / PANEL) linear_panel(call, product, x, rows, out, activate, panel);
    barrier(call);
}

/* Layer norm of x + y (D), into x. */
static void layer_norm(const Model *model, const Norm *norm, float *x, const float *y) {
    floats sum = {}, squares = {};
    for (long at = 0; at < model->width; at += LANES) {
        store(x + at, load(x + at) + load(y + at));
        sum += load(x + at);
    }
    float mean = horizontal_sum(sum) / model->width;
    for (long at = 0; at < model->width; at += LANES)
        squares += (load(x + at) - mean) * (load(x + at) - mean);
    float factor = 1 / sqrtf(horizontal_sum(squares) / model->width + model->epsilon);
    for (long at = 0; at < model->width; at += LANES)
        store(x + at, (load(x + at) - mean) * factor * load(norm->scale + at) + load(norm->bias + at));
}

/* p (padded) → e^(p − the largest). Returns 1 / their sum, the rest of softmax. Padding is −∞ and adds nothing. */
static float softmax(float *p, long padded) {
    floats most = (floats){} - INFINITY, sum = {};
    for (long token = 0; token < padded; token += LANES)
        most = MAX(most, load(p + token));
    float zero = horizontal_max(most);
    for (long token = 0; token < padded; token += LANES) {
        floats e = exponential(load(p + token) - zero);
        store(p + token, e);
        sum += e;
    }
    return 1 / horizontal_sum(sum);
}

#define EACH UNROLLED(int each = 0; each < QUERIES; each++)

/* One head: the first queries of a text's tokens attend to all. qkv (T, 3 D) and y (T, D) begin at the head. */
static void attention(const float *qkv, float *y, long tokens, long queries, long width, long size, float *scratch) {
    long padded = (tokens + LANES - 1) / LANES * LANES;
    float *keys = scratch, *mask = keys + size * padded, *p = mask + padded, root = 1 / sqrtf(size);
    for (long token = 0; token < padded; token++)
        mask[token] = token < tokens ? 0 : -INFINITY;
    for (long at = 0; at < size; at++)
        for (long token = 0; token < padded; token++)
            keys[at * padded + token] = token < tokens ? qkv[token * 3 * width + width + at] : 0;
    for (long query = 0; query < queries; query += QUERIES) {
        const float *q[QUERIES];
        float factors[QUERIES];
        floats z[QUERIES];
        EACH q[each] = qkv + (query + each < queries ? query + each : queries - 1) * 3 * width;
        for (long token = 0; token < padded; token += LANES) {
            EACH z[each] = (floats){};
            for (long at = 0; at < size; at++)
                EACH z[each] += q[each][at] * load(keys + at * padded + token);
            EACH store(p + each * padded + token, z[each] * root + load(mask + token));
        }
        for (int each = 0; each < QUERIES; each++)
            factors[each] = softmax(p + each * padded, padded);
        for (long at = 0; at < size; at += LANES) {
            EACH z[each] = (floats){};
            for (long token = 0; token < tokens; token++)
                EACH z[each] += p[each * padded + token] * load(qkv + token * 3 * width + 2 * width + at);
            for (int each = 0; each < QUERIES && query + each < queries; each++)
                store(y + (query + each) * width + at, z[each] * factors[each]);
        }
    }
}

/* One thread's part of a call. */
static void run(const Call *call, long rank) {
    const Model *model = call->model;
    const int32_t *starts = call->starts;
    long width = model->width, heads = model->heads, size = width / heads, texts = call->texts, rows = starts[texts];
    FOR_PART(text, texts)
        for (long row = starts[text]; row < starts[text + 1]; row++)
            layer_norm(model, &model->norm, call->x + row * width, model->positions + (row - starts[text]) * width);
    barrier(call);
    for (const Layer *layer = model->layer; layer < model->layer + model->layers; layer++) {
        int last = layer == model->layer + model->layers - 1;
        linear(call, rank, &layer->qkv, call->x, rows, call->wide, 0);
        FOR_PART(each, texts * heads) {
            long text = each / heads, at = each % heads * size, first = starts[text], tokens = starts[text + 1] - first;
            attention(call->wide + first * 3 * width + at, call->y + (last ? text : first) * width + at, tokens,
                      last ? 1 : tokens, width, size, call->scratch + rank * call->scratch_size);
        }
        barrier(call);
        if (last) { /* The pooler reads the first token of each text; before x is read there is a barrier. */
            for (long text = 0; rank == 0 && text < texts; text++)
                __builtin_memmove(call->x + text * width, call->x + starts[text] * width, width * sizeof(float));
            rows = texts;
        }
        linear(call, rank, &layer->attention, call->y, rows, call->wide, 0);
        FOR_PART(row, rows) layer_norm(model, &layer->attention_norm, call->x + row * width, call->wide + row * width);
        barrier(call);
        linear(call, rank, &layer->inner, call->x, rows, call->wide, 1);
        linear(call, rank, &layer->output, call->wide, rows, call->y, 0);
        FOR_PART(row, rows) layer_norm(model, &layer->output_norm, call->x + row * width, call->y + row * width);
        barrier(call);
    }
    linear(call, rank, &model->pooler, call->x, rows, call->y, 0);
    FOR_PART(at, rows * width) call->y[at] = model->tanh ? tanhf(call->y[at]) : call->y[at] < 0 ? 0 : call->y[at];
    barrier(call);
    linear(call, rank, &model->classifier, call->y, rows, call->logits, 0);
}

static void *work(void *argument) {
    Team *team = argument;
    pthread_mutex_lock(&team->lock);
    for (long generation = 0, rank = ++team->workers;;) {
        while (team->generation == generation)
            pthread_cond_wait(&team->begin, &team->lock);
        generation = team->generation;
        const Call *call = team->call;
        pthread_mutex_unlock(&team->lock);
        run(call, rank);
        pthread_mutex_lock(&team->lock);
    }
    return 0;
}

/* A team of at most so many, the thread that calls `compute` among them; it never ends. NULL without memory. */
Team *make_team(long threads) {
    Team *team = calloc(1, sizeof *team);
    if (!team)
        return 0;
    *team = (Team){.size = 1, .lock = PTHREAD_MUTEX_INITIALIZER, .begin = PTHREAD_COND_INITIALIZER};
    pthread_t thread;
    while (team->size < threads && !pthread_create(&thread, 0, work, team)) {
        pthread_detach(thread);
        team->size++;
    }
    return team;
}

/* Token states → logits (texts, K). A team has one call at a time. */
void compute(const Call *call) {
    if (call->team) {
        pthread_mutex_lock(&call->team->lock);
        call->team->generation++;
        call->team->call = call;
        pthread_cond_broadcast(&call->team->begin);
        pthread_mutex_unlock(&call->team->lock);
    }
    run(call, 0);
}
