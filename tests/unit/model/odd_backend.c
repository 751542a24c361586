/* Plug-ins that rankd must refuse, one for each ODD_... that this file is compiled with. */
#include "model/backend.h"

#ifdef ODD_UNDEFINED
const char *odd_describe(const struct rk_device *device);

/* Calls rankd by name. */
const char *odd_describe(const struct rk_device *device)
{
    (void)device;
    return rk_engine_describe();
}
#endif

#ifndef ODD_NAMELESS
static void close_device(struct rk_device *device)
{
    (void)device;
}

const struct rk_backend rankd_backend = {
#ifdef ODD_ABI
    .abi = RK_BACKEND_ABI + 1,
    .bytes = sizeof(struct rk_backend),
    .layout = RK_BACKEND_LAYOUT,
#elif defined ODD_LAYOUT
    .abi = RK_BACKEND_ABI,
    .bytes = sizeof(struct rk_backend),
    .layout = RK_BACKEND_LAYOUT + 1,
#elif defined ODD_BYTES
    .abi = RK_BACKEND_ABI,
    .bytes = sizeof(struct rk_backend) + 8,
    .layout = RK_BACKEND_LAYOUT,
#else
    RK_BACKEND_COMPILED,
#endif
    .name = "odd",
    .close = close_device,
};
#endif
