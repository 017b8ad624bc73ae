// blas.cu - see blas.cuh.
#include "kernels/cuda/blas.cuh"
#include "kernels/cuda/linear.cuh"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// Splitting k and some of Hopper's algorithms take scratch; the library's own advice for this card is 32 MiB.
#define WORKSPACE ((size_t)32 << 20)
#define N_PLANS   256 // shapes remembered; the oldest goes
#define ALIGNED   16 // bytes: what vector loads and the copy engine want; more is not asked, so that places do not decide plans

#define FUNCTIONS(X)                                                                                                           \
    X(Create)                                                                                                                  \
    X(Destroy)                                                                                                                 \
    X(Matmul)                                                                                                                  \
    X(MatmulAlgoGetHeuristic)                                                                                                  \
    X(MatmulDescCreate)                                                                                                        \
    X(MatmulDescDestroy)                                                                                                       \
    X(MatmulDescSetAttribute)                                                                                                  \
    X(MatmulPreferenceCreate)                                                                                                  \
    X(MatmulPreferenceDestroy)                                                                                                 \
    X(MatmulPreferenceSetAttribute)                                                                                            \
    X(MatrixLayoutCreate)                                                                                                      \
    X(MatrixLayoutSetAttribute)                                                                                                \
    X(MatrixLayoutDestroy)

extern "C" size_t fm_cuda_library_bytes(const fm_stream *s, size_t n)
{
    return fm_cuda_is_few(s, FM_X_BF16, n) ? 0 : WORKSPACE;
}

// All that decides a plan; compared as bytes.
typedef struct shape {
    size_t m, n, k, lda, ldb, ldc, plan_m, pieces, c_piece;
    unsigned a_align, b_align, c_align;
    unsigned flags;
} shape;

typedef struct plan {
    shape of;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
} plan;

typedef struct blas {
#define X(name) decltype(&cublasLt##name) name;
    FUNCTIONS(X)
#undef X
    void *library;
    cublasLtHandle_t handle;
    void *workspace;
    size_t n_plans; // ever made
    plan plans[N_PLANS];
} blas;

static bool load(blas *b)
{
    b->library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!b->library) b->library = dlopen("libcublasLt.so", RTLD_NOW | RTLD_LOCAL);
    if (!b->library) return false;
#define X(name)                                                                                                                \
    b->name = (decltype(&cublasLt##name))dlsym(b->library, "cublasLt" #name);                                                  \
    if (!b->name) return false;
    FUNCTIONS(X)
#undef X
    return true;
}

extern "C" bool fm_cuda_blas_open(fm_stream *s)
{
    if (s->blas) return true;
    if (s->error != cudaSuccess) return false;
    blas *b = (blas *)calloc(1, sizeof *b);
    s->blas = b;
    if (!b)
        fm_cuda_note(s, cudaErrorMemoryAllocation, "cuBLASLt: no memory for its plans");
    else if (!load(b))
        fm_cuda_note(s, cudaErrorSharedObjectInitFailed,
                     "large products need libcublasLt.so.13 of the CUDA 13 toolkit; install it or put it on LD_LIBRARY_PATH");
    else if (b->Create(&b->handle) != CUBLAS_STATUS_SUCCESS)
        fm_cuda_note(s, cudaErrorInitializationError, "cublasLtCreate");
    else
        FM_CUDA(s, cudaMalloc(&b->workspace, WORKSPACE));
    if (s->error == cudaSuccess) return true;
    fm_cuda_blas_close(s);
    return false;
}

static void forget(blas *b, plan *p)
{
    if (p->op) b->MatmulDescDestroy(p->op);
    if (p->a) b->MatrixLayoutDestroy(p->a);
    if (p->b) b->MatrixLayoutDestroy(p->b);
    if (p->c) b->MatrixLayoutDestroy(p->c);
    memset(p, 0, sizeof *p);
}

void fm_cuda_blas_close(fm_stream *s)
{
    blas *b = (blas *)s->blas;
    s->blas = NULL;
    if (!b) return;
    for (size_t i = 0; i < N_PLANS; i++) forget(b, &b->plans[i]);
    if (b->workspace) cudaFree(b->workspace);
    if (b->handle) b->Destroy(b->handle);
    if (b->library) dlclose(b->library);
    free(b);
}

static unsigned alignment(const void *p)
{
    const uintptr_t v = (uintptr_t)p | ALIGNED;
    return (unsigned)(v & (~v + 1));
}

static shape shape_of(const fm_gemm *g)
{
    shape s; // compared as bytes, of which none is padding
    memset(&s, 0, sizeof s);
    s.m = g->m, s.n = g->n, s.k = g->k;
    s.lda = g->lda, s.ldb = g->ldb, s.ldc = g->ldc;
    s.plan_m = g->plan_m ? g->plan_m : g->m;
    s.pieces = g->pieces, s.c_piece = g->c_piece;
    s.a_align = alignment(g->a), s.b_align = alignment(g->b);
    s.c_align = alignment((const void *)((uintptr_t)g->c | (uintptr_t)g->old));
    s.flags = g->a_t | g->b_t << 1 | g->f32 << 2 | g->add << 3 | g->split << 4 | (g->bias != NULL) << 5 | g->half << 6;
    return s;
}

// The library's matrices are column-major: a row-major matrix is its transposed there, and C^T = op(B)^T op(A)^T.  So its first
// operand is our B, its rows are our columns, and what is to be transposed stays so.
static cublasLtMatrixLayout_t layout(const blas *b, cudaDataType_t type, size_t rows, size_t cols, size_t ld)
{
    cublasLtMatrixLayout_t l = NULL;
    b->MatrixLayoutCreate(&l, type, cols, rows, (int64_t)ld);
    return l;
}

// A list of `pieces` matrices, each so many elements after the one before.
static bool repeat(const blas *b, cublasLtMatrixLayout_t l, size_t pieces, size_t step)
{
    const int32_t count = (int32_t)pieces;
    const int64_t offset = (int64_t)step;
    return b->MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count) == CUBLAS_STATUS_SUCCESS &&
           b->MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &offset, sizeof offset) ==
               CUBLAS_STATUS_SUCCESS;
}

// Layouts of a product of m rows.  A piece of k begins so many columns further in each row.
static bool lay_out(const blas *b, plan *p, const fm_gemm *g, size_t m)
{
    const cudaDataType_t type = g->f32 ? CUDA_R_32F : CUDA_R_16BF;
    const size_t k = g->pieces ? g->k / g->pieces : g->k;
    p->a = g->a_t ? layout(b, type, k, m, g->lda) : layout(b, type, m, k, g->lda);
    p->b = g->b_t ? layout(b, type, g->n, k, g->ldb) : layout(b, type, k, g->n, g->ldb);
    p->c = layout(b, g->half ? CUDA_R_16BF : CUDA_R_32F, m, g->n, g->ldc);
    if (!p->a || !p->b || !p->c) return false;
    return !g->pieces ||
           (repeat(b, p->a, g->pieces, g->a_t ? k * g->lda : k) && repeat(b, p->b, g->pieces, g->b_t ? k : k * g->ldb) &&
            repeat(b, p->c, g->pieces, m == g->m ? g->c_piece : m * g->ldc));
}

static bool describe(const blas *b, plan *p, const fm_gemm *g)
{
    // Pedantic: every phase in f32, whatever the environment asks of TF32.
    const cublasComputeType_t compute = g->f32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
    const cublasOperation_t a = g->a_t ? CUBLAS_OP_T : CUBLAS_OP_N, w = g->b_t ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = g->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    const cudaDataType_t f32 = CUDA_R_32F;
    return b->MatmulDescCreate(&p->op, compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           b->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &w, sizeof w) == CUBLAS_STATUS_SUCCESS &&
           b->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &a, sizeof a) == CUBLAS_STATUS_SUCCESS &&
           b->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue) ==
               CUBLAS_STATUS_SUCCESS &&
           (!g->bias || b->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &f32, sizeof f32) ==
                            CUBLAS_STATUS_SUCCESS); // with rows of bf16 out there may be none
}

static bool prefer(const blas *b, cublasLtMatmulPreference_t want, const shape *s, bool split)
{
    const size_t workspace = WORKSPACE;
    // In f32 and out of place: the pieces are added in their order by a kernel of its own.
    const uint32_t schemes = split ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_NONE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } all[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &s->b_align, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &s->a_align, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &s->c_align, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &s->c_align, sizeof(uint32_t)},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (b->MatmulPreferenceSetAttribute(want, all[i].name, all[i].value, all[i].bytes) != CUBLAS_STATUS_SUCCESS)
            return false;
    return true;
}

// The library's first choice for plan_m rows, which it takes for the same shape every time.
static bool choose(const blas *b, plan *p, const fm_gemm *g)
{
    plan like = {};
    cublasLtMatmulPreference_t want = NULL;
    cublasLtMatmulHeuristicResult_t found = {};
    int n = 0;
    bool ok = lay_out(b, &like, g, p->of.plan_m) && b->MatmulPreferenceCreate(&want) == CUBLAS_STATUS_SUCCESS &&
              prefer(b, want, &p->of, g->split) &&
              b->MatmulAlgoGetHeuristic(b->handle, p->op, like.b, like.a, like.c, like.c, want, 1, &found, &n) ==
                  CUBLAS_STATUS_SUCCESS &&
              n == 1 && found.state == CUBLAS_STATUS_SUCCESS;
    if (want) b->MatmulPreferenceDestroy(want);
    forget((blas *)b, &like);
    p->algo = found.algo;
    return ok;
}

static plan *plan_for(fm_stream *s, blas *b, const fm_gemm *g)
{
    const shape of = shape_of(g);
    const size_t known = b->n_plans < N_PLANS ? b->n_plans : N_PLANS;
    for (size_t i = 0; i < known; i++)
        if (memcmp(&b->plans[i].of, &of, sizeof of) == 0) return &b->plans[i];
    plan *p = &b->plans[b->n_plans++ % N_PLANS];
    forget(b, p);
    p->of = of;
    if (describe(b, p, g) && lay_out(b, p, g, g->m) && choose(b, p, g)) return p;
    forget(b, p);
    fm_cuda_note(s, cudaErrorNotSupported, "cuBLASLt has no algorithm for a product of this shape");
    return NULL;
}

extern "C" void fm_cuda_gemm(fm_stream *s, const fm_gemm *g)
{
    if (g->m == 0 || g->n == 0 || !fm_cuda_blas_open(s)) return;
    if (g->k == 0) { // no sum: the old C, the bias or zeros, which cuBLASLt does not promise
        const size_t element = g->half ? sizeof(__nv_bfloat16) : sizeof(float), pitch = g->ldc * element, row = g->n * element;
        if (!g->add)
            FM_CUDA(s, cudaMemset2DAsync(g->c, pitch, 0, row, g->m, s->stream));
        else if (g->old)
            FM_CUDA(s, cudaMemcpy2DAsync(g->c, pitch, g->old, pitch, row, g->m, cudaMemcpyDeviceToDevice, s->stream));
        return;
    }
    blas *b = (blas *)s->blas;
    plan *p = plan_for(s, b, g);
    if (!p) return;
    if (g->bias) b->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g->bias, sizeof g->bias);
    const float one = 1.0f, old = g->add ? 1.0f : 0.0f;
    const cublasStatus_t status = b->Matmul(b->handle, p->op, &one, g->b, p->b, g->a, p->a, &old, g->old ? g->old : g->c, p->c,
                                            g->c, p->c, &p->algo, b->workspace, WORKSPACE, s->stream);
    if (status != CUBLAS_STATUS_SUCCESS) fm_cuda_note(s, cudaErrorLaunchFailure, "cublasLtMatmul");
}
