// The yardstick of the bench on CPUs: one fused OpenMP loop per operator, fp32, int32 indices.
// Rows are destinations: the edges of row i are index[indptr[i] .. indptr[i + 1]).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

using Index = std::int32_t;
using Size = std::int64_t;

inline float dot(const float* a, const float* b, Size n) {
    float total = 0;
    for (Size d = 0; d < n; ++d) total += a[d] * b[d];
    return total;
}

inline void add(float* to, float scale, const float* from, Size n) {
    for (Size d = 0; d < n; ++d) to[d] += scale * from[d];
}

}  // namespace

extern "C" {

// y[i, :] = sum of weight[e] x[index[e], :]; weight may be null.
void row_sum(const Index* indptr, const Index* index, const float* weight, const float* x, float* y, Size rows,
             Size width) {
#pragma omp parallel for schedule(dynamic, 64)
    for (Size i = 0; i < rows; ++i) {
        float* out = y + i * width;
        std::memset(out, 0, width * sizeof(float));
        for (Index e = indptr[i]; e < indptr[i + 1]; ++e)
            add(out, weight ? weight[e] : 1.0f, x + Size(index[e]) * width, width);
    }
}

// y[i, :] = max of x[index[e], :], ties to the lowest edge; source: where it came from, -1 in empty rows (y = 0).
void row_max(const Index* indptr, const Index* index, const float* x, float* y, Index* source, Size rows,
             Size width) {
#pragma omp parallel for schedule(dynamic, 64)
    for (Size i = 0; i < rows; ++i) {
        float* out = y + i * width;
        Index* from = source + i * width;
        const bool empty = indptr[i] == indptr[i + 1];
        for (Size d = 0; d < width; ++d) {
            out[d] = empty ? 0.0f : std::numeric_limits<float>::lowest();
            from[d] = -1;
        }
        for (Index e = indptr[i]; e < indptr[i + 1]; ++e) {
            const Index j = index[e];
            const float* row = x + Size(j) * width;
            for (Size d = 0; d < width; ++d) {
                const bool wins = row[d] > out[d] || from[d] < 0;
                out[d] = wins ? row[d] : out[d];
                from[d] = wins ? j : from[d];
            }
        }
    }
}

// dx[source[i, d], d] += g[i, d]; each thread owns columns: no atomics, one order.
void row_max_backward(const Index* source, const float* g, float* dx, Size rows, Size width) {
    const Size block = 16;
#pragma omp parallel for schedule(dynamic, 1)
    for (Size first = 0; first < width; first += block) {
        const Size last = std::min(first + block, width);
        for (Size i = 0; i < rows; ++i)
            for (Size d = first; d < last; ++d)
                if (const Index j = source[i * width + d]; j >= 0) dx[Size(j) * width + d] += g[i * width + d];
    }
}

// Attention: o = sum p h, o_n = sum p n h, q_n = sum p n with n = (1 - slope)[score < 0]; lse for the way back.
// h: [N, H, F]; el, er, lse, q_n: [N, H].
void gat(const Index* indptr, const Index* index, const float* h, const float* el, const float* er, float slope,
         float* o, float* o_n, float* lse, float* q_n, Size rows, Size heads, Size width) {
    const Size cells = heads * width;
#pragma omp parallel
    {
        std::vector<float> total(heads), peak(heads);
#pragma omp for schedule(dynamic, 64)
        for (Size i = 0; i < rows; ++i) {
            float *out = o + i * cells, *lost = o_n + i * cells;
            std::memset(out, 0, cells * sizeof(float));
            std::memset(lost, 0, cells * sizeof(float));
            for (Size k = 0; k < heads; ++k) {
                peak[k] = std::numeric_limits<float>::lowest();
                total[k] = q_n[i * heads + k] = 0;
            }
            for (Index e = indptr[i]; e < indptr[i + 1]; ++e)
                for (Size k = 0; k < heads; ++k) {
                    const float s = el[Size(index[e]) * heads + k] + er[i * heads + k];
                    peak[k] = std::max(peak[k], s < 0 ? slope * s : s);
                }
            for (Index e = indptr[i]; e < indptr[i + 1]; ++e) {
                const Size j = index[e];
                for (Size k = 0; k < heads; ++k) {
                    const float s = el[j * heads + k] + er[i * heads + k];
                    const float p = std::exp((s < 0 ? slope * s : s) - peak[k]);
                    const float n = s < 0 ? p * (1 - slope) : 0.0f;
                    const float* row = h + j * cells + k * width;
                    total[k] += p;
                    q_n[i * heads + k] += n;
                    for (Size d = 0; d < width; ++d) {
                        out[k * width + d] += p * row[d];
                        lost[k * width + d] += n * row[d];
                    }
                }
            }
            for (Size k = 0; k < heads; ++k) {
                const float scale = total[k] > 0 ? 1 / total[k] : 0.0f;
                lse[i * heads + k] = total[k] > 0 ? peak[k] + std::log(total[k]) : 0.0f;
                q_n[i * heads + k] *= scale;
                for (Size d = 0; d < width; ++d) {
                    out[k * width + d] *= scale;
                    lost[k * width + d] *= scale;
                }
            }
        }
    }
}

// delta = <g, o>, der = delta q_n - <g, o_n>, per destination.
void gat_nodes(const float* g, const float* o, const float* o_n, const float* q_n, float* delta, float* der, Size rows,
               Size heads, Size width) {
#pragma omp parallel for
    for (Size r = 0; r < rows * heads; ++r) {
        delta[r] = dot(g + r * width, o + r * width, width);
        der[r] = delta[r] * q_n[r] - dot(g + r * width, o_n + r * width, width);
    }
}

// Over the transpose, one gather of g: dh = sum p g, del = <dh - sum p n g, h> - sum p (1 - n) delta.
void gat_backward(const Index* indptr, const Index* index, const float* h, const float* el, const float* er,
                  const float* lse, const float* delta, const float* g, float slope, float* dh, float* del, Size rows,
                  Size heads, Size width) {
    const Size cells = heads * width;
#pragma omp parallel
    {
        std::vector<float> kept(cells);
#pragma omp for schedule(dynamic, 64)
        for (Size j = 0; j < rows; ++j) {
            float* out = dh + j * cells;
            std::memset(out, 0, cells * sizeof(float));
            std::fill(kept.begin(), kept.end(), 0.0f);
            for (Size k = 0; k < heads; ++k) del[j * heads + k] = 0;
            for (Index e = indptr[j]; e < indptr[j + 1]; ++e) {
                const Size i = index[e];
                for (Size k = 0; k < heads; ++k) {
                    const float s = el[j * heads + k] + er[i * heads + k];
                    const float p = std::exp((s < 0 ? slope * s : s) - lse[i * heads + k]);
                    const float q = s < 0 ? p * slope : p;
                    const float* row = g + i * cells + k * width;
                    del[j * heads + k] -= q * delta[i * heads + k];
                    for (Size d = 0; d < width; ++d) {
                        out[k * width + d] += p * row[d];
                        kept[k * width + d] += q * row[d];
                    }
                }
            }
            for (Size k = 0; k < heads; ++k)
                del[j * heads + k] += dot(kept.data() + k * width, h + j * cells + k * width, width);
        }
    }
}

// inverse[i] = 1 / |x_i|, 0 for a zero row.
void inverse_norm(const float* x, float* inverse, Size rows, Size width) {
#pragma omp parallel for
    for (Size i = 0; i < rows; ++i) {
        const float square = dot(x + i * width, x + i * width, width);
        inverse[i] = square > 0 ? 1 / std::sqrt(square) : 0.0f;
    }
}

// Structure KL with the cosine kernel, both softmaxes in one pass; s, t: [E] log-probabilities up to lse, kl: [N].
void cosine_kl(const Index* indptr, const Index* index, const float* x, const float* x_inv, const float* y,
               const float* y_inv, float* s, float* t, float* s_lse, float* t_lse, float* kl, Size rows, Size x_width,
               Size y_width) {
#pragma omp parallel for schedule(dynamic, 64)
    for (Size i = 0; i < rows; ++i) {
        float s_sum = 0, t_sum = 0;  // cosines lie in [-1, 1]: no shift is needed
        for (Index e = indptr[i]; e < indptr[i + 1]; ++e) {
            const Size j = index[e];
            s[e] = dot(x + i * x_width, x + j * x_width, x_width) * x_inv[i] * x_inv[j];
            t[e] = dot(y + i * y_width, y + j * y_width, y_width) * y_inv[i] * y_inv[j];
            s_sum += std::exp(s[e]);
            t_sum += std::exp(t[e]);
        }
        s_lse[i] = s_sum > 0 ? std::log(s_sum) : 0.0f;
        t_lse[i] = t_sum > 0 ? std::log(t_sum) : 0.0f;
        float total = 0;
        for (Index e = indptr[i]; e < indptr[i + 1]; ++e) {
            const float log_t = t[e] - t_lse[i];
            total += std::exp(log_t) * (log_t - (s[e] - s_lse[i]));
        }
        kl[i] = total;
    }
}

// Gradient in x on a symmetric graph, one pass: scores are symmetric, so that p_ji = exp(s_ij - lse_j).
void cosine_kl_backward(const Index* indptr, const Index* index, const float* x, const float* x_inv, const float* s,
                        const float* t, const float* s_lse, const float* t_lse, float scale, float* dx, Size rows,
                        Size width) {
#pragma omp parallel for schedule(dynamic, 64)
    for (Size i = 0; i < rows; ++i) {
        float* out = dx + i * width;
        std::memset(out, 0, width * sizeof(float));
        float along = 0;
        for (Index e = indptr[i]; e < indptr[i + 1]; ++e) {
            const Size j = index[e];
            const float forth = std::exp(s[e] - s_lse[i]) - std::exp(t[e] - t_lse[i]);
            const float back = std::exp(s[e] - s_lse[j]) - std::exp(t[e] - t_lse[j]);
            const float w = scale * (forth + back);
            along += w * s[e];
            add(out, w * x_inv[j], x + j * width, width);
        }
        for (Size d = 0; d < width; ++d) out[d] = x_inv[i] * (out[d] - along * x_inv[i] * x[i * width + d]);
    }
}
}
