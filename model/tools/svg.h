/* What all pictures share: a page with a title, in light or dark as its reader prefers, and text that is safe in it. */
#ifndef RANKD_MODEL_TOOLS_SVG_H
#define RANKD_MODEL_TOOLS_SVG_H

#include <stdio.h>

#include "quant/base/status.h"

/* What a page starts with; title and subtitle begin at `left`. Everything in pixels. */
struct svg_page {
    double width, height, left;
    const char *title, *subtitle;
};
#define SVG_PAGE_TOP 74 /* below the subtitle */
#define SVG_FONT     12
#define SVG_COLOURS  8 /* classes c0 to c7 */

/* NULL with an error when the file cannot be made. */
FILE *svg_open(const char *path, const struct svg_page *page, struct rk_error *error);
enum rk_status svg_close(FILE *out, const char *path, struct rk_error *error);

void svg_text(FILE *out, const char *text);
/* class: title, panel, quiet or label; anchor: start, middle or end. */
void svg_label(FILE *out, const char *class, const char *anchor, double x, double y, const char *text);
/* In pixels, by the mean width of a sans-serif letter, which is a little wide. */
double svg_text_width(const char *text);

#endif
