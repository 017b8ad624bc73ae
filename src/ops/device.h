/* device.h - where a model's numbers lie and its kernels run: the CPU, for which NULL stands everywhere, or one GPU.
 *
 * On a GPU work is queued; whatever hands numbers to the host waits.  An error on the way is kept, and the next wait returns it
 * (FM_ERR_DEVICE); the device is lost then, and everything on it.  One thread at a time. */
#ifndef FM_OPS_DEVICE_H
#define FM_OPS_DEVICE_H

#include "base/alloc.h"
#include "base/error.h"
#include "kernels/draw.h"
#include "kernels/kernels.h"

typedef struct fm_device fm_device;

typedef struct fm_device_options {
    bool f32;       /* activations enter products in f32 */
    bool invariant; /* the bits of a token do not depend on how many tokens a step has */
} fm_device_options;

/* `name` is "cpu" (*out is NULL then), "cuda" (the device with most free memory), "cuda:N", or "auto": cuda where there is one,
 * else the CPU.  Says in `note` (may be NULL; static) why auto chose as it did.  FM_ERR_DEVICE: none, or an old driver. */
fm_status fm_device_open(fm_device **out, const char *name, const fm_device_options *o, const char **note, fm_error *err);
/* A GPU that is not there: it answers what things take on one, and nothing else. */
fm_status fm_device_plan(fm_device **out, const fm_device_options *o, fm_error *err);
void fm_device_free(fm_device *d);

const char *fm_device_name(const fm_device *d); /* "cpu", or as the driver calls it */
struct fm_stream *fm_device_stream(const fm_device *d);
void fm_device_kernels(const fm_device *d, fm_kernels *out);
void fm_device_memory(const fm_device *d, size_t *bytes_free, size_t *bytes);
size_t fm_device_in_use(const fm_device *d); /* by how much the free memory shrank since it was opened */

/* Where memory is to be had: of a device, or, on the CPU, of an allocator. */
typedef struct fm_where {
    fm_device *device;
    const fm_allocator *a;
} fm_where;

/* Memory there, zeroed.  `what` is for the message, which says how much is left and what would help. */
fm_status fm_device_alloc(fm_where w, void **out, size_t count, size_t size, const char *what, fm_error *err);
void fm_device_release(fm_where w, void *p);
/* Memory of the host for copies from and to it. */
fm_status fm_device_alloc_host(fm_where w, void **out, size_t count, size_t size, const char *what, fm_error *err);
void fm_device_release_host(fm_where w, void *p);

/* Queued, so host memory stays as it is until a wait; on the CPU memcpy and memset. */
void fm_device_upload(fm_device *d, void *to, const void *from, size_t bytes);
void fm_device_copy(fm_device *d, void *to, const void *from, size_t bytes);
void fm_device_zero(fm_device *d, void *p, size_t bytes);
void fm_device_download(fm_device *d, void *to, const void *from, size_t bytes);
fm_status fm_device_wait(fm_device *d, fm_error *err);

/* One id of each of n rows of logits, queued; on a device only: drawn as `draws` (n) say, which lie there too, the likeliest
 * where it is NULL.  Turned (~id) where a logit of the row is not finite. */
void fm_device_choose(fm_device *d, int32_t *ids, const float *logits, const fm_draw *draws, size_t n, size_t vocab);

size_t fm_device_tensor_bytes(const fm_device *d, const fm_tensor *W); /* as its kernels want it; 0: none for its type */

/* Matrices as they lie in a file, on the host, go to a device in the form its kernels want (load.c); *out has no memory of W's.
 * The end waits until all are there, and takes back what the begin and the tensors took. */
typedef struct fm_load fm_load;
fm_status fm_load_begin(fm_load **out, fm_device *d, fm_error *err);
fm_status fm_load_tensor(fm_load *l, fm_tensor *out, void *place, const fm_tensor *W, fm_error *err);
fm_status fm_load_end(fm_load *l, fm_error *err); /* NULL is fine */

/* What products of n rows with W take on a device, of scratch; what libraries take for any of n rows. */
size_t fm_device_work_bytes(const fm_device *d, const fm_tensor *W, size_t n);
size_t fm_device_library_bytes(const fm_device *d, size_t n);
/* Scratch for products of n rows with W, before the first of them. */
fm_status fm_device_reserve(fm_device *d, const fm_tensor *W, size_t n, fm_error *err);
/* Bytes/s of reading and operations/s of bf16 products, at most; 0 where there is no memory to measure them in. */
void fm_device_peaks(fm_device *d, double *read, double *bf16);
/* And for their backward; half: what comes back are rows of bf16. */
size_t fm_device_back_work_bytes(const fm_device *d, const fm_tensor *W, size_t n, bool half);
fm_status fm_device_reserve_back(fm_device *d, const fm_tensor *W, size_t n, bool half, fm_error *err);

/* Steps that repeat are recorded once and put on the queue at once: between begin and end nothing runs. */
typedef struct fm_graph fm_graph;
void fm_device_record_begin(fm_device *d);
fm_graph *fm_device_record_end(fm_device *d);
void fm_device_launch(fm_device *d, fm_graph *g);
size_t fm_device_graph_launches(const fm_graph *g); /* kernels in it */
void fm_device_graph_free(fm_graph *g);

#endif
