/* Plots of size against accuracy as SVG: self-contained, without scripts, in light or dark as its reader prefers. */
#ifndef RANKD_MODEL_TOOLS_PLOT_SVG_H
#define RANKD_MODEL_TOOLS_PLOT_SVG_H

#include <stddef.h>

#include "quant/base/status.h"

struct plot_point {
    double bytes, y;
    const char *label;
};

/* Panels stand one above the other and share the axis of bytes, which is logarithmic. */
struct plot_panel {
    const char *title;
    const struct plot_point *points; /* those whose y is NaN are left out */
};

struct plot {
    const char *title, *subtitle, *y_label;
    double y_linear; /* the y axis is linear from -y_linear to y_linear and logarithmic beyond */
    const struct plot_panel *panels;
    size_t num_panels, num_points; /* points in every panel */
};

enum rk_status plot_svg_write(const char *path, const struct plot *plot, struct rk_error *error);

#endif
