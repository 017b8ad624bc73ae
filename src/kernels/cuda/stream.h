/* stream.h - one GPU as the layers above see it: its memory, and the queue that kernels are put on.  No CUDA header is needed.
 *
 * Every call but those that say `waits` puts its work on the queue and returns.  Launches cannot fail visibly: the first error is
 * kept and fm_stream_wait reports it, after which the stream is lost.  One thread at a time. */
#ifndef FM_KERNELS_CUDA_STREAM_H
#define FM_KERNELS_CUDA_STREAM_H

#include "kernels/draw.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fm_stream fm_stream;
typedef struct fm_graph fm_graph; /* a captured run of launches and copies, to be put on the queue at once */

typedef struct fm_gpu_info {
    char name[128];
    int index, major, minor;   /* of the device, and its compute capability */
    int n_sm, driver, runtime; /* driver and runtime as 13000 for 13.0 */
    size_t memory, memory_free, l2;
} fm_gpu_info;

/* How many devices there are; negative: no driver, and *why says so (static). */
int fm_gpu_count(const char **why);
bool fm_gpu_describe(fm_gpu_info *out, int index, const char **why);

/* What a stream computes with; fixed while a graph is in use. */
typedef struct fm_stream_options {
    bool f32;       /* activations enter products in f32, with no TF32 anywhere; default: rounded to bf16 */
    bool invariant; /* products of many tokens take kernels whose bits are those of few tokens */
} fm_stream_options;

/* NULL: *why says what failed (static or inside the stream's thread, until the next call). */
fm_stream *fm_stream_open(int device, const fm_stream_options *o, const char **why);
/* One that answers what things take, and nothing else: no device is looked for. */
fm_stream *fm_stream_plan(const fm_stream_options *o, const char **why);
void fm_stream_close(fm_stream *s);
/* Waits; false: *why names the first error and the call that met it. */
bool fm_stream_wait(fm_stream *s, const char **why);

/* Memory of the device, aligned to 256 bytes; NULL: not enough.  These wait. */
void *fm_stream_alloc(fm_stream *s, size_t bytes);
void fm_stream_free(fm_stream *s, void *p);
/* Memory of the host from which copies run at full speed and beside the host's work; NULL: not enough. */
void *fm_stream_alloc_host(fm_stream *s, size_t bytes);
void fm_stream_free_host(fm_stream *s, void *p);
/* Whole pages of the host that kernels, too, may read and write where they are (tests); false: the device cannot.  They wait. */
bool fm_stream_register(fm_stream *s, void *p, size_t bytes);
void fm_stream_unregister(fm_stream *s, void *p);

/* Copies on the queue: host memory must stay as it is until a wait. */
void fm_stream_upload(fm_stream *s, void *to, const void *from, size_t bytes);
void fm_stream_download(fm_stream *s, void *to, const void *from, size_t bytes);
void fm_stream_copy(fm_stream *s, void *to, const void *from, size_t bytes); /* both on the device */
void fm_stream_zero(fm_stream *s, void *p, size_t bytes);

/* A place in the queue that can be waited for: `reach` returns once all that was put there before the mark is done. */
enum { FM_STREAM_MARKS = 2 };
void fm_stream_mark(fm_stream *s, unsigned which);
void fm_stream_reach(fm_stream *s, unsigned which);

/* Between begin and end nothing runs: what would have been put on the queue is recorded.  end gives NULL when the recording
 * failed; the error is the stream's.  Nothing may be allocated in between, so fm_stream_reserve comes first. */
void fm_stream_record_begin(fm_stream *s);
fm_graph *fm_stream_record_end(fm_stream *s);
void fm_graph_launch(fm_stream *s, fm_graph *g);
void fm_graph_free(fm_graph *g);
size_t fm_graph_launches(const fm_graph *g); /* kernels in it */

/* Scratch of products (expanded weights, split sums): at least so many bytes; waits when it grows. */
bool fm_stream_reserve(fm_stream *s, size_t bytes);
/* What a product of n rows with W takes of it. */
size_t fm_cuda_work_bytes(const fm_stream *s, const fm_tensor *W, size_t n);
/* What libraries take of the device's memory beside it, once there is a product of n rows. */
size_t fm_cuda_library_bytes(const fm_stream *s, size_t n);
/* And its backward; half: what comes back are rows of bf16. */
size_t fm_cuda_back_work_bytes(const fm_stream *s, const fm_tensor *W, size_t n, bool half);

/* Weights as the kernels want them: every row in a place of its own of so many bytes, a multiple of 16; 0: no kernel for it.
 * fm_tensor.row_bytes of a stored tensor is that number, and its data are on the device. */
size_t fm_cuda_row_bytes(fm_dtype type, size_t cols);
/* Takes `rows` rows as they lie in a file, already on the device, to their stored form. */
void fm_cuda_store(fm_stream *s, void *out, const void *raw, fm_dtype type, size_t rows, size_t cols);

/* One token of each of n rows of logits (vocab <= INT32_MAX); everything is on the device, and only ids need to come back.  The
 * likeliest has the lowest id of equals; what is not a number is as unlikely as can be.  Where a logit of the row is not finite
 * the bits of the id are turned (~id), which makes it negative. */
void fm_cuda_argmax(fm_stream *s, int32_t *ids, const float *logits, size_t stride, size_t n, size_t vocab);
void fm_cuda_sample(fm_stream *s, int32_t *ids, const float *logits, size_t stride, const fm_draw *draws, size_t n,
                    size_t vocab);

/* The table: the entries of kernels.h, launched on fm_run.stream with pointers to the device. */
void fm_kernels_fill_cuda(fm_kernels *k);

/* What the device can do at most: bytes/s of reading, operations/s of a large bf16 product; 0 where it could not be measured.
 * These wait. */
typedef struct fm_gpu_peaks {
    double read, bf16;
} fm_gpu_peaks;
fm_gpu_peaks fm_cuda_peaks(fm_stream *s);

#ifdef __cplusplus
}
#endif

#endif
