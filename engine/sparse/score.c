/* Regrowth scores. A is the mask of the survivors, a bipartite graph (dout, din).
 *
 * CH2-L3n and CH3-L3n (arXiv 2501.19107), matrix form:
 *   P = A A^T; B = [P != 0]; E = (d_z - P) B, d_z the degree of the intermediate node z, along
 * the columns of P; R = (P + B) / max(E, 1) on B, 0 elsewhere (CH3: B / max(E, 1)); scores = R
 * A, plus the same of A^T, transposed back.
 *
 * P counts common neighbours: the ones that two rows of bits share. R is rounded to multiples
 * of 2^-f, with f as large as keeps every sum of a matrix below 2^52 units. So all sums are
 * exact in double, whatever their order: any number of threads, any processor, any library's
 * product gives the same bits. For hidden 512 and 1:4, f is 33. R exists a panel of
 * REFRESH_PANEL rows at a time, transposed, so that a score needs only additions of contiguous
 * numbers. */
#include "engine/sparse/refresher.h"
#include "engine/sparse/score_kernel.h"
#include <assert.h>
#include <math.h>
#include <string.h>

enum { WORD_BITS = 64, MANTISSA_BITS = 52 };

/* Adding and subtracting 1.5 2^52 rounds a number below 2^51 as rint does, ties to even,
 * without a call; R in units of 2^-f is below, the bound of grid_scale being at least twice the
 * largest R. */
static const double ROUND = 0x1.8p52;

static_assert(REFRESH_PANEL % SCORE_LANES == 0, "a panel is whole vectors");

static size_t words_of(size_t bits) { return (bits + WORD_BITS - 1) / WORD_BITS; }

/* ---- A and A^T as bits ---- */

static void fill_row_bits(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct refresh_job *job = context;
    const struct nm *w = job->w;
    const size_t groups = nm_groups(w), words = words_of(w->din);
    for (size_t o = task * REFRESH_ROWS; o < refresh_row_end(job, task); o++) {
        uint64_t *row = job->scratch->row_bits + o * words;
        memset(row, 0, words * sizeof *row);
        for (size_t g = 0; g < groups; g++) {
            const uint64_t mask = job->scratch->survivors[o * groups + g];
            const size_t place = g * w->m, shift = place % WORD_BITS;
            row[place / WORD_BITS] |= mask << shift;
            if (shift + w->m > WORD_BITS)
                row[place / WORD_BITS + 1] |= mask >> (WORD_BITS - shift);
        }
    }
}

/* A task owns one word of every column: 64 rows. */
static void fill_col_bits(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct refresh_job *job = context;
    const struct nm *w = job->w;
    const size_t row_words = words_of(w->din), col_words = words_of(w->dout);
    uint64_t *cols = job->scratch->col_bits;
    for (size_t c = 0; c < w->din; c++)
        cols[c * col_words + task] = 0;
    for (size_t o = task * WORD_BITS; o < w->dout && o < (task + 1) * WORD_BITS; o++)
        for (size_t i = 0; i < row_words; i++)
            for (uint64_t bits = job->scratch->row_bits[o * row_words + i]; bits;
                 bits &= bits - 1) {
                const size_t c = i * WORD_BITS + (size_t)__builtin_ctzll(bits);
                cols[c * col_words + task] |= (uint64_t)1 << o % WORD_BITS;
            }
}

/* ---- one side: scores of X = A or A^T, (rows, cols) ---- */

struct side {
    const struct score_kernels *kernels;
    const uint64_t *x, *xt; /* X and X^T as bits: (rows, words), (cols, row_words) */
    size_t rows, cols, words, row_words;
    uint32_t *degree; /* (rows) */
    double *panel;  /* (rows, REFRESH_PANEL): R^T, columns first .. first + REFRESH_PANEL - 1 */
    double *scores; /* X[o, j] is at o * row_step + j * col_step */
    size_t row_step, col_step;
    double scale;     /* 2^f */
    bool count_links; /* CH2: P in the numerator */
    bool add;         /* to the scores that are there */
    size_t first;
};

static void fill_degree(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct side *s = context;
    for (size_t z = task * WORD_BITS; z < s->rows && z < (task + 1) * WORD_BITS; z++)
        s->degree[z] = s->kernels->common(s->x + z * s->words, s->x + z * s->words, s->words);
}

static void fill_panel(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct side *s = context;
    const double inverse = 1 / s->scale; /* a power of two: exact */
    for (size_t z = task * WORD_BITS; z < s->rows && z < (task + 1) * WORD_BITS; z++)
        for (size_t l = 0; l < REFRESH_PANEL; l++) {
            const size_t o = s->first + l;
            double r = 0;
            uint32_t common = 0;
            if (o < s->rows)
                common = s->kernels->common(s->x + o * s->words, s->x + z * s->words, s->words);
            if (common > 0) {
                const uint32_t external = s->degree[z] - common;
                const double internal = s->count_links ? common + 1.0 : 1.0;
                const double units = internal / (external > 1 ? external : 1) * s->scale;
                r = (units + ROUND - ROUND) * inverse;
            }
            s->panel[z * REFRESH_PANEL + l] = r;
        }
}

static void fill_scores(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct side *s = context;
    double sum[SCORE_LANES];
    for (size_t j = task * WORD_BITS; j < s->cols && j < (task + 1) * WORD_BITS; j++)
        for (size_t part = 0; part < REFRESH_PANEL; part += SCORE_LANES) {
            s->kernels->gather(sum, s->panel + part, REFRESH_PANEL, s->xt + j * s->row_words,
                               s->row_words);
            for (size_t l = 0; l < SCORE_LANES && s->first + part + l < s->rows; l++) {
                double *score =
                    s->scores + (s->first + part + l) * s->row_step + j * s->col_step;
                *score = s->add ? *score + sum[l] : sum[l];
            }
        }
}

static void run_side(struct side *s, struct pool *pool)
{
    pool_run(pool, words_of(s->rows), fill_degree, s);
    for (s->first = 0; s->first < s->rows; s->first += REFRESH_PANEL) {
        pool_run(pool, words_of(s->rows), fill_panel, s);
        pool_run(pool, words_of(s->cols), fill_scores, s);
    }
}

/* f: R <= degree + 1 (P <= degree, max(E, 1) >= 1), with row degrees at most din / m * n and
 * column degrees at most dout, so a score is at most dout (din / m * n + 1) + din (dout + 1).
 */
static double grid_scale(const struct nm *w)
{
    const uint64_t bound = w->dout * (nm_row_values(w) + 1) + w->din * (w->dout + 1);
    const int bits = WORD_BITS - __builtin_clzll(bound);
    assert(bits < MANTISSA_BITS);
    return ldexp(1, MANTISSA_BITS - bits);
}

static void fill_ch(struct refresh_job *job)
{
    const struct nm *w = job->w;
    const struct refresh_scratch *scratch = job->scratch;
    refresh_rows(job, fill_row_bits);
    pool_run(job->pool, words_of(w->dout), fill_col_bits, job);
    struct side side = {
        .kernels = score_kernels_best(),
        .x = scratch->row_bits,
        .xt = scratch->col_bits,
        .rows = w->dout,
        .cols = w->din,
        .words = words_of(w->din),
        .row_words = words_of(w->dout),
        .degree = scratch->degree,
        .panel = scratch->panel,
        .scores = scratch->cells,
        .row_step = w->din,
        .col_step = 1,
        .scale = grid_scale(w),
        .count_links = job->config->score == SCORE_CH2_L3N,
    };
    run_side(&side, job->pool);
    struct side other = side;
    other.x = side.xt;
    other.xt = side.x;
    other.rows = side.cols;
    other.cols = side.rows;
    other.words = side.row_words;
    other.row_words = side.words;
    other.row_step = side.col_step;
    other.col_step = side.row_step;
    other.add = true;
    run_side(&other, job->pool);
}

/* ---- chance ---- */

/* Soft regrowth multiplies by U (CPAL 2026, 3.2.3); the random score is U itself. Only groups
 * and blocks that lost a link need it. */
static void apply_chance(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct refresh_job *job = context;
    const struct nm *w = job->w;
    const struct philox stream = refresh_stream(job, PHILOX_REGROWTH);
    const bool random = job->config->score == SCORE_RANDOM;
    const size_t groups = nm_groups(w);
    double u[NM_M_MAX];
    for (size_t i = task * REFRESH_ROWS * groups; i < refresh_row_end(job, task) * groups;
         i++) {
        if (!refresh_lost(job, i / groups, i % groups))
            continue;
        double *score = (double *)job->scratch->cells + i * w->m;
        philox_uniform_fill(&stream, i * w->m, w->m, u);
        for (unsigned c = 0; c < w->m; c++)
            score[c] = random ? u[c] : score[c] * u[c];
    }
}

/* ---- gradient (Evci et al. 2020) ---- */

static void fill_gradient(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct refresh_job *job = context;
    const size_t din = job->w->din, end = refresh_row_end(job, task) * din;
    double *score = job->scratch->cells;
    for (size_t i = task * REFRESH_ROWS * din; i < end; i++)
        score[i] = fabs((double)job->scratch->gradient[i]);
}

void score_run(struct refresh_job *job)
{
    const bool random = job->config->score == SCORE_RANDOM;
    if (job->config->score == SCORE_GRADIENT)
        refresh_rows(job, fill_gradient);
    else if (!random)
        fill_ch(job);
    if (random || job->config->soft)
        refresh_rows(job, apply_chance);
}
