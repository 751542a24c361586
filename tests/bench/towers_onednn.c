/* Towers through oneDNN 2: an inner product or a matmul a layer, with weights in the layout that it chooses, bias and
 * ReLU fused, and activations written in the next layer's format. Bytes are unsigned with a zero of 0, as ReLU leaves
 * them, and scaled per output channel. */
#include <stdlib.h>
#include <string.h>

#include "tests/bench/towers.h"

#ifdef RANKD_HAVE_ONEDNN
#include <dnnl.h>
#include <math.h>
#include <omp.h>

enum { NUM_ARGUMENTS = 4 };

struct onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitives[NUM_LAYERS];
    dnnl_memory_t activations[NUM_LAYERS + 1], weights[NUM_LAYERS], bias[NUM_LAYERS];
    dnnl_exec_arg_t arguments[NUM_LAYERS][NUM_ARGUMENTS];
};

/* What a layer is made of while it is built. */
struct parts {
    dnnl_memory_desc_t source, weights, bias, result;
    dnnl_primitive_attr_t attributes;
};

static const struct {
    dnnl_data_type_t activations, weights;
} types[RK_DENSE_FORMAT_COUNT] = {[RK_DENSE_F32] = {dnnl_f32, dnnl_f32},
                                  [RK_DENSE_BF16] = {dnnl_bf16, dnnl_bf16},
                                  [RK_DENSE_INT8] = {dnnl_u8, dnnl_s8}};

static bool describe(dnnl_memory_desc_t *desc, uint32_t rows, uint32_t columns, dnnl_data_type_t type,
                     dnnl_format_tag_t tag)
{
    const dnnl_dims_t dims = {rows, columns};
    return dnnl_memory_desc_init_by_tag(desc, 2, dims, type, tag) == dnnl_success;
}

static bool allocate(const struct onednn *onednn, const dnnl_memory_desc_t *desc, dnnl_memory_t *memory)
{
    return dnnl_memory_create(memory, desc, onednn->engine, DNNL_MEMORY_ALLOCATE) == dnnl_success;
}

static void *values_of(dnnl_memory_t memory)
{
    void *values = NULL;
    dnnl_memory_get_data_handle(memory, &values);
    return values;
}

static bool choose(const struct onednn *onednn, const struct parts *parts, bool matmul, dnnl_primitive_desc_t *chosen)
{
    dnnl_inner_product_desc_t inner;
    dnnl_matmul_desc_t product;
    if (matmul)
        return dnnl_matmul_desc_init(&product, &parts->source, &parts->weights, &parts->bias, &parts->result) ==
                   dnnl_success &&
               dnnl_primitive_desc_create(chosen, &product, parts->attributes, onednn->engine, NULL) == dnnl_success;
    return dnnl_inner_product_forward_desc_init(&inner, dnnl_forward_inference, &parts->source, &parts->weights,
                                                &parts->bias, &parts->result) == dnnl_success &&
           dnnl_primitive_desc_create(chosen, &inner, parts->attributes, onednn->engine, NULL) == dnnl_success;
}

/* Stored weights, [out][in], to the layout that the primitive asks for. */
static bool place_weights(struct onednn *onednn, int l, const struct parts *given, const dnnl_memory_desc_t *wanted,
                          void *elements)
{
    dnnl_memory_t from;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t reorder;
    if (dnnl_memory_create(&from, &given->weights, onednn->engine, elements) != dnnl_success ||
        !allocate(onednn, wanted, &onednn->weights[l]) ||
        dnnl_reorder_primitive_desc_create(&desc, &given->weights, onednn->engine, wanted, onednn->engine, NULL) !=
            dnnl_success)
        return false;
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, onednn->weights[l]}};
    const bool good = dnnl_primitive_create(&reorder, desc) == dnnl_success &&
                      dnnl_primitive_execute(reorder, onednn->stream, 2, arguments) == dnnl_success &&
                      dnnl_stream_wait(onednn->stream) == dnnl_success;
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(desc);
    dnnl_memory_destroy(from);
    return good;
}

static bool build_layer(struct onednn *onednn, const struct tower *tower, int l, enum rk_dense_format format,
                        bool matmul, uint32_t batch)
{
    const uint32_t in = tower->widths[l], out = tower->widths[l + 1];
    const bool last = l + 1 == NUM_LAYERS;
    const dnnl_data_type_t result_type = last ? dnnl_f32 : types[format].activations;
    struct parts any, given;
    void *elements = bench_memory((size_t)in * out * sizeof(float));
    float *scales = bench_memory(out * sizeof *scales), *bias = bench_memory(out * sizeof *bias);
    rk_dense_encode(format, tower->weights[l], out, in, elements, scales);
    memcpy(bias, tower->bias[l], out * sizeof *bias);
    dnnl_post_ops_t relu;
    bool good =
        dnnl_primitive_attr_create(&any.attributes) == dnnl_success && dnnl_post_ops_create(&relu) == dnnl_success;
    if (!last)
        good &= dnnl_post_ops_append_eltwise(relu, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f) == dnnl_success &&
                dnnl_primitive_attr_set_post_ops(any.attributes, relu) == dnnl_success;
    for (uint32_t o = 0; format == RK_DENSE_INT8 && o < out; o++) { /* result = scale * (sum + bias) */
        scales[o] *= tower->high[l] / 255.0f;
        bias[o] /= scales[o];
        scales[o] /= last ? 1.0f : tower->high[l + 1] / 255.0f;
    }
    if (format == RK_DENSE_INT8)
        good &= dnnl_primitive_attr_set_output_scales(any.attributes, out, 1 << 1, scales) == dnnl_success;
    good &= describe(&any.source, batch, in, types[format].activations, dnnl_ab) &&
            describe(&any.weights, matmul ? in : out, matmul ? out : in, types[format].weights, dnnl_format_tag_any) &&
            describe(&given.weights, matmul ? in : out, matmul ? out : in, types[format].weights,
                     matmul ? dnnl_ba : dnnl_ab) &&
            describe(&any.result, batch, out, result_type, dnnl_ab);
    const dnnl_dims_t flat = {out};
    good &= matmul ? describe(&any.bias, 1, out, dnnl_f32, dnnl_ab)
                   : dnnl_memory_desc_init_by_tag(&any.bias, 1, flat, dnnl_f32, dnnl_a) == dnnl_success;
    dnnl_primitive_desc_t desc;
    if (good && choose(onednn, &any, matmul, &desc)) {
        good =
            place_weights(onednn, l, &given, dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0), elements) &&
            allocate(onednn, &any.bias, &onednn->bias[l]) &&
            allocate(onednn, &any.result, &onednn->activations[l + 1]) &&
            (l > 0 || allocate(onednn, &any.source, &onednn->activations[0])) &&
            dnnl_primitive_create(&onednn->primitives[l], desc) == dnnl_success;
        dnnl_primitive_desc_destroy(desc);
        if (good)
            memcpy(values_of(onednn->bias[l]), bias, out * sizeof *bias);
        const dnnl_exec_arg_t arguments[NUM_ARGUMENTS] = {{DNNL_ARG_SRC, onednn->activations[l]},
                                                          {DNNL_ARG_WEIGHTS, onednn->weights[l]},
                                                          {DNNL_ARG_BIAS, onednn->bias[l]},
                                                          {DNNL_ARG_DST, onednn->activations[l + 1]}};
        memcpy(onednn->arguments[l], arguments, sizeof arguments);
    } else {
        good = false;
    }
    dnnl_post_ops_destroy(relu);
    dnnl_primitive_attr_destroy(any.attributes);
    free(elements);
    free(scales);
    free(bias);
    return good;
}

static void run(void *state)
{
    const struct onednn *onednn = state;
    for (int l = 0; l < NUM_LAYERS; l++)
        dnnl_primitive_execute(onednn->primitives[l], onednn->stream, NUM_ARGUMENTS, onednn->arguments[l]);
    dnnl_stream_wait(onednn->stream);
}

bool onednn_create(const struct tower *tower, enum rk_dense_format format, bool matmul, const float *x, uint32_t batch,
                   struct contender *contender)
{
    struct onednn *onednn = bench_memory(sizeof *onednn);
    *contender = (struct contender){.name = matmul ? "matmul" : "inner product", .run = run, .state = onednn};
    bool good = dnnl_engine_create(&onednn->engine, dnnl_cpu, 0) == dnnl_success &&
                dnnl_stream_create(&onednn->stream, onednn->engine, dnnl_stream_default_flags) == dnnl_success;
    for (int l = 0; good && l < NUM_LAYERS; l++)
        good = build_layer(onednn, tower, l, format, matmul, batch);
    if (!good) {
        onednn_destroy(contender);
        return false;
    }
    void *input = values_of(onednn->activations[0]);
    for (size_t i = 0; i < (size_t)batch * tower->widths[0]; i++) {
        if (format == RK_DENSE_F32)
            ((float *)input)[i] = x[i];
        else if (format == RK_DENSE_BF16)
            ((uint16_t *)input)[i] = rk_bf16_from_f32(x[i]);
        else
            ((uint8_t *)input)[i] = (uint8_t)fminf(255.0f, rintf(x[i] / (tower->high[0] / 255.0f)));
    }
    contender->scores = values_of(onednn->activations[NUM_LAYERS]);
    contender->score_stride = 1;
    return true;
}

void onednn_destroy(struct contender *contender)
{
    struct onednn *onednn = contender->state;
    for (int l = 0; l < NUM_LAYERS; l++) {
        dnnl_primitive_destroy(onednn->primitives[l]);
        dnnl_memory_destroy(onednn->weights[l]);
        dnnl_memory_destroy(onednn->bias[l]);
    }
    for (int l = 0; l <= NUM_LAYERS; l++)
        dnnl_memory_destroy(onednn->activations[l]);
    dnnl_stream_destroy(onednn->stream);
    dnnl_engine_destroy(onednn->engine);
    free(onednn);
}

void rivals_use_one_thread(void)
{
    omp_set_num_threads(1);
}

#else

bool onednn_create(const struct tower *tower, enum rk_dense_format format, bool matmul, const float *x, uint32_t batch,
                   struct contender *contender)
{
    (void)tower;
    (void)format;
    (void)matmul;
    (void)x;
    (void)batch;
    (void)contender;
    return false;
}

void onednn_destroy(struct contender *contender)
{
    (void)contender;
}

void rivals_use_one_thread(void)
{
}

#endif
