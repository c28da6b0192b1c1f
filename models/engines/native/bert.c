/* The forward pass of a BERT classifier on x86-64 processors with AVX-512 and VNNI: embeddings → logits.

Hidden states are (T, D), those of all tokens of all texts one after the other: only attention sees texts. Each sum is
taken in one order, whatever else is computed beside it and by however many threads, so that a text's logits are its own
to the last bit. Weights lie in panels of 64 outputs, [panel][input][output]; in int8 [panel][input / 4][output][4] with
a scale for each output, and activations are rounded token by token. layout.py has the same structs. */

#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16, PANEL = 64, VECTORS = PANEL / LANES, LINE = 64, BLOCK = 6, QUERIES = 8, SPINS = 2000 };
#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 8") for
typedef __m512 floats;
typedef __m512i wholes;

/* In float32 there are no scales. `zeros` are 128 times the sum of each output's codes. */
typedef struct { long in, out; const void *weights; const float *bias, *scales; const int32_t *zeros; } Product;
typedef struct { const float *scale, *bias; } Norm;
typedef struct { Product qkv, attention, inner, output; Norm attention_norm, output_norm; } Layer;

/* `tanh`: what the pooler ends in, if not in relu. */
typedef struct {
    long layers, width, heads, tanh;
    float epsilon;
    const float *places;
    Norm norm;
    const Layer *layer;
    Product pooler, classifier;
} Model;

/* Threads that compute a call together. */
typedef struct Team {
    long size, helpers, turn;
    atomic_long arrived;
    pthread_mutex_t lock;
    pthread_cond_t begin;
    const struct Call *call;
} Team;

/* `starts`: where each text begins, and last the number of tokens. `x` are the words' embeddings, then hidden states;
`y` and `wide` what products give; `own` is memory of each thread, `own_size` for each; `scales` are of each token's
codes. */
typedef struct Call {
    const Model *model;
    Team *team;
    long texts, own_size;
    const int32_t *starts;
    float *x, *y, *wide, *own, *scales, *logits;
    uint8_t *codes;
} Call;

static long members(const Call *call) { return call->team ? call->team->size : 1; }

/* A thread's part of so many. */
#define FOR_PART(AT, COUNT) \
    for (long AT = (COUNT) * rank / members(call), end_ = (COUNT) * (rank + 1) / members(call); AT < end_; AT++)

/* Wait for the others. */
static void meet(const Call *call) {
    Team *team = call->team;
    if (!team)
        return;
    /* Whoever comes last goes on, and the call may be over before the others look again: they look at the team. */
    long all = (atomic_fetch_add(&team->arrived, 1) / team->size + 1) * team->size;
    for (long spins = 0; atomic_load_explicit(&team->arrived, memory_order_acquire) < all; spins++)
        spins < SPINS ? _mm_pause() : (void)sched_yield();
}

/* e^x for x ≤ 0, never so small that it is denormal, by e^x = 2^n e^r; ln 2 is in two parts. */
INLINE floats exponential(floats x) {
    const float taylor[] = {1.f / 5040, 1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, .5f, 1, 1};
    x = _mm512_max_ps(_mm512_set1_ps(-80), x);
    floats n = _mm512_roundscale_ps(x * _mm512_set1_ps(1.44269504f), 0), y = _mm512_set1_ps(taylor[0]);
    floats r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    UNROLLED(int at = 1; at < 8; at++) y = y * r + _mm512_set1_ps(taylor[at]);
    return _mm512_scalef_ps(y, n);
}

/* GELU of a panel's columns in place, x Φ(x), by erf of Abramowitz & Stegun 7.1.26, whose error is at most 1.5e-7. Not
inlined: its constants would take the registers of the sums. */
static __attribute__((noinline)) void gelu(float *row) {
    const float terms[] = {1.061405429f, -1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    for (long at = 0; at < PANEL; at += LANES) {
        floats x = _mm512_loadu_ps(row + at), z = _mm512_abs_ps(x) * _mm512_set1_ps(0.70710678f);
        floats one = _mm512_set1_ps(1), t = one / (one + z * _mm512_set1_ps(0.3275911f)), y = _mm512_set1_ps(terms[0]);
        UNROLLED(int term = 1; term < 5; term++) y = y * t + _mm512_set1_ps(terms[term]);
        floats tail = _mm512_set1_ps(.5f) * y * t * exponential(-z * z);
        __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
        _mm512_storeu_ps(row + at, x * _mm512_mask_blend_ps(negative, one - tail, tail));
    }
}

/* So many rows times a panel; meanwhile the next panel is fetched, a line for each step. */
#define SUMS(NAME, ELEMENT, VECTOR, ZERO, BROADCAST, ADD)                                                            \
    INLINE void NAME(const int rows, const ELEMENT *x, const ELEMENT *panel, long steps, const char *next,           \
                     VECTOR out[BLOCK][VECTORS]) {                                                                   \
        VECTOR sums[BLOCK][VECTORS], w[VECTORS];                                                                     \
        UNROLLED(int row = 0; row < rows; row++) UNROLLED(int at = 0; at < VECTORS; at++) sums[row][at] = ZERO;      \
        for (long step = 0; step < steps; step++) {                                                                  \
            UNROLLED(int at = 0; at < VECTORS; at++) w[at] = *(const VECTOR *)(panel + step * PANEL + at * LANES);   \
            _mm_prefetch(next + step * LINE, _MM_HINT_T1);                                                           \
            UNROLLED(int row = 0; row < rows; row++) {                                                               \
                VECTOR each = BROADCAST(x[row * steps + step]);                                                      \
                UNROLLED(int at = 0; at < VECTORS; at++) sums[row][at] = ADD(sums[row][at], each, w[at]);            \
            }                                                                                                        \
        }                                                                                                            \
        UNROLLED(int row = 0; row < rows; row++)                                                                     \
            UNROLLED(int at = 0; at < VECTORS; at++) out[row][at] = sums[row][at];                                   \
    }
#define FLOAT_ADD(SUM, X, W) _mm512_fmadd_ps(X, W, SUM)
SUMS(float_sums, float, floats, _mm512_setzero_ps(), _mm512_set1_ps, FLOAT_ADD)
SUMS(whole_sums, int32_t, wholes, _mm512_setzero_si512(), _mm512_set1_epi32, _mm512_dpbusd_epi32)

/* The compiler knows the number of rows, and so has all sums in registers. */
#define FOR_ROWS(NAME, ROWS, ...)                                                                                    \
    switch (ROWS) {                                                                                                  \
        case 1: NAME(1, __VA_ARGS__); break;                                                                         \
        case 2: NAME(2, __VA_ARGS__); break;                                                                         \
        case 3: NAME(3, __VA_ARGS__); break;                                                                         \
        case 4: NAME(4, __VA_ARGS__); break;                                                                         \
        case 5: NAME(5, __VA_ARGS__); break;                                                                         \
        default: NAME(BLOCK, __VA_ARGS__);                                                                           \
    }

/* x (rows, in), in int8 its codes, times one panel → its columns of out (rows, out). */
static void multiply_panel(
    const Call *call, const Product *product, const float *x, long rows, float *out, int activate, long panel) {
    long steps = product->scales ? product->in / 4 : product->in, first = panel * PANEL;
    const char *weights = (const char *)product->weights + panel * steps * VECTORS * LINE;
    for (long row = 0; row < rows; row += BLOCK) {
        int count = rows - row < BLOCK ? rows - row : BLOCK;
        const char *next = weights + (VECTORS + row / BLOCK % VECTORS) * steps * LINE;
        floats sums[BLOCK][VECTORS];
        wholes whole[BLOCK][VECTORS];
        if (product->scales)
            FOR_ROWS(whole_sums, count, (const int32_t *)(call->codes + row * product->in), (const int32_t *)weights,
                     steps, next, whole)
        else
            FOR_ROWS(float_sums, count, x + row * product->in, (const float *)weights, steps, next, sums)
        for (int each = 0; each < count; each++) {
            float *to = out + (row + each) * product->out + first;
            for (long at = 0; at < PANEL; at += LANES) {
                long left = product->out - first - at;
                floats sum = sums[each][at / LANES];
                if (product->scales) {
                    wholes zeros = _mm512_load_si512(product->zeros + first + at);
                    sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(whole[each][at / LANES], zeros)) *
                          _mm512_load_ps(product->scales + first + at) * _mm512_set1_ps(call->scales[row + each]);
                }
                __mmask16 inside = left >= LANES ? 0xffff : left <= 0 ? 0 : (1 << left) - 1;
                _mm512_mask_storeu_ps(to + at, inside, sum + _mm512_load_ps(product->bias + first + at));
            }
            if (activate)
                gelu(to);
        }
    }
}

/* x (D) → codes of x / scale around 128, and the scale: the largest |x| / 127. */
static void quantize(const float *x, long width, uint8_t *codes, float *scale) {
    floats largest = _mm512_set1_ps(127e-30f);
    for (long at = 0; at < width; at += LANES)
        largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_loadu_ps(x + at)));
    *scale = _mm512_reduce_max_ps(largest) / 127;
    floats inverse = _mm512_set1_ps(1 / *scale);
    for (long at = 0; at < width; at += LANES) {
        wholes code = _mm512_cvtps_epi32(_mm512_loadu_ps(x + at) * inverse);
        _mm_storeu_si128((__m128i *)(codes + at), _mm512_cvtepi32_epi8(_mm512_add_epi32(code, _mm512_set1_epi32(128))));
    }
}

/* x (rows, in) times the weights with their bias, and GELU of that if it is asked for → out (rows, out). */
static void multiply(
    const Call *call, long rank, const Product *product, const float *x, long rows, float *out, int activate) {
    long in = product->in;
    if (product->scales) {
        FOR_PART(row, rows) quantize(x + row * in, in, call->codes + row * in, call->scales + row);
        meet(call);
    }
    FOR_PART(panel, (product->out + PANEL - 1) / PANEL) multiply_panel(call, product, x, rows, out, activate, panel);
    meet(call);
}

/* Layer norm of x + y (D), into x. */
static void normalize(const Model *model, const Norm *norm, float *x, const float *y) {
    floats sum = _mm512_setzero_ps(), squares = sum;
    for (long at = 0; at < model->width; at += LANES) {
        floats z = _mm512_loadu_ps(x + at) + _mm512_loadu_ps(y + at);
        _mm512_storeu_ps(x + at, z);
        sum = sum + z;
    }
    floats mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / model->width);
    for (long at = 0; at < model->width; at += LANES) {
        floats z = _mm512_loadu_ps(x + at) - mean;
        squares = squares + z * z;
    }
    floats factor = _mm512_set1_ps(1 / sqrtf(_mm512_reduce_add_ps(squares) / model->width + model->epsilon));
    for (long at = 0; at < model->width; at += LANES) {
        floats z = (_mm512_loadu_ps(x + at) - mean) * factor;
        _mm512_storeu_ps(x + at, z * _mm512_load_ps(norm->scale + at) + _mm512_load_ps(norm->bias + at));
    }
}

static void normalize_rows(const Call *call, long rank, const Norm *norm, const float *y, long rows) {
    long width = call->model->width;
    FOR_PART(row, rows) normalize(call->model, norm, call->x + row * width, y + row * width);
    meet(call);
}

#define INSIDE(TOKEN) (tokens - (TOKEN) >= LANES ? 0xffff : (1 << (tokens - (TOKEN))) - 1)
#define EACH UNROLLED(int each = 0; each < QUERIES; each++)

/* One head: the first queries of a text's tokens attend to all. qkv (T, 3 D) and y (T, D) begin at the head. */
static void attend(const float *qkv, float *y, long tokens, long queries, long width, long size, float *own) {
    long padded = (tokens + LANES - 1) / LANES * LANES, apart = 3 * width;
    float *keys = own, *p = own + size * padded;
    const wholes lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    wholes places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(apart));
    for (long token = 0; token < padded; token += LANES)
        for (long at = 0; at < size; at++) {
            const float *from = qkv + token * apart + width + at;
            floats key = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), INSIDE(token), places, from, sizeof(float));
            _mm512_store_ps(keys + at * padded + token, key);
        }
    for (long query = 0; query < queries; query += QUERIES) {
        const float *q[QUERIES];
        floats most[QUERIES], sum[QUERIES], z[QUERIES];
        EACH q[each] = qkv + (query + each < queries ? query + each : queries - 1) * apart;
        EACH most[each] = _mm512_set1_ps(-INFINITY), sum[each] = _mm512_setzero_ps();
        for (long token = 0; token < padded; token += LANES) {
            EACH z[each] = _mm512_setzero_ps();
            for (long at = 0; at < size; at++) {
                floats key = _mm512_load_ps(keys + at * padded + token);
                EACH z[each] = _mm512_fmadd_ps(_mm512_set1_ps(q[each][at]), key, z[each]);
            }
            EACH z[each] = _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY), INSIDE(token), z[each],
                                              _mm512_set1_ps(1 / sqrtf(size)));
            EACH most[each] = _mm512_max_ps(most[each], z[each]);
            EACH _mm512_store_ps(p + each * padded + token, z[each]);
        }
        EACH most[each] = _mm512_set1_ps(_mm512_reduce_max_ps(most[each]));
        for (long token = 0; token < padded; token += LANES)
            EACH {
                z[each] = exponential(_mm512_load_ps(p + each * padded + token) - most[each]);
                z[each] = _mm512_maskz_mov_ps(INSIDE(token), z[each]);
                _mm512_store_ps(p + each * padded + token, z[each]);
                sum[each] = sum[each] + z[each];
            }
        EACH sum[each] = _mm512_set1_ps(1 / _mm512_reduce_add_ps(sum[each]));
        for (long at = 0; at < size; at += LANES) {
            EACH z[each] = _mm512_setzero_ps();
            for (long token = 0; token < tokens; token++) {
                floats value = _mm512_loadu_ps(qkv + token * apart + 2 * width + at);
                EACH z[each] = _mm512_fmadd_ps(_mm512_set1_ps(p[each * padded + token]), value, z[each]);
            }
            for (int each = 0; each < QUERIES && query + each < queries; each++)
                _mm512_storeu_ps(y + (query + each) * width + at, z[each] * sum[each]);
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
            normalize(model, &model->norm, call->x + row * width, model->places + (row - starts[text]) * width);
    meet(call);
    for (const Layer *layer = model->layer; layer < model->layer + model->layers; layer++) {
        int last = layer == model->layer + model->layers - 1;
        multiply(call, rank, &layer->qkv, call->x, rows, call->wide, 0);
        FOR_PART(each, texts * heads) {
            long text = each / heads, at = each % heads * size, first = starts[text], tokens = starts[text + 1] - first;
            attend(call->wide + first * 3 * width + at, call->y + (last ? text : first) * width + at, tokens,
                   last ? 1 : tokens, width, size, call->own + rank * call->own_size);
        }
        meet(call);
        if (last) { /* The pooler reads the first token of each text, and the next meeting is before x is read. */
            for (long text = 0; rank == 0 && text < texts; text++)
                memmove(call->x + text * width, call->x + starts[text] * width, width * sizeof(float));
            rows = texts;
        }
        multiply(call, rank, &layer->attention, call->y, rows, call->wide, 0);
        normalize_rows(call, rank, &layer->attention_norm, call->wide, rows);
        multiply(call, rank, &layer->inner, call->x, rows, call->wide, 1);
        multiply(call, rank, &layer->output, call->wide, rows, call->y, 0);
        normalize_rows(call, rank, &layer->output_norm, call->y, rows);
    }
    multiply(call, rank, &model->pooler, call->x, rows, call->y, 0);
    FOR_PART(at, rows * width) call->y[at] = model->tanh ? tanhf(call->y[at]) : fmaxf(call->y[at], 0);
    meet(call);
    multiply(call, rank, &model->classifier, call->y, rows, call->logits, 0);
}

static void *help(void *argument) {
    Team *team = argument;
    pthread_mutex_lock(&team->lock);
    for (long turn = 0, rank = ++team->helpers;;) {
        while (team->turn == turn)
            pthread_cond_wait(&team->begin, &team->lock);
        turn = team->turn;
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
    while (team->size < threads && !pthread_create(&thread, 0, help, team)) {
        pthread_detach(thread);
        team->size++;
    }
    return team;
}

/* Token states → logits (texts, K). A team has one call at a time. */
void compute(const Call *call) {
    if (call->team) {
        pthread_mutex_lock(&call->team->lock);
        call->team->turn++;
        call->team->call = call;
        pthread_cond_broadcast(&call->team->begin);
        pthread_mutex_unlock(&call->team->lock);
    }
    run(call, 0);
}
