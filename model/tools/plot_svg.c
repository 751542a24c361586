/* Writes SVG by hand: a frame with ticks per panel, and labelled dots.
 *
 * Labels are placed one after the other, each where it covers least: candidates lie around its dot, first close by,
 * then further away on a leader line; what a candidate covers of dots, labels and margins is summed as an area. Text is
 * measured by the mean width of a sans-serif letter, which is a little wide, so labels err on the side of too much
 * room.
 */
#include "model/tools/plot_svg.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/tools/svg.h"

enum {
    WIDTH = 860,
    LEFT = 96,
    RIGHT = 36,
    PANEL = 270,     /* of a panel's frame, */
    FEW_POINTS = 10, /* with so many points; PER_POINT more for each further one */
    PER_POINT = 12,
    PANEL_TITLE = 34, /* above each frame */
    BOTTOM = 62,
    RADIUS = 5,
    PAD = 26, /* between the outermost dots and the frame */
    MAX_TICKS = 64,
};

struct box {
    double left, top, right, bottom;
};

struct tick {
    double value;
    char label[24]; /* empty: a tick without words */
};

struct scale {
    double low, high; /* what the frame spans, transformed */
    double linear;    /* of y; 0: logarithmic, for bytes */
    double from, to;  /* pixels */
    struct tick ticks[MAX_TICKS];
    size_t num_ticks;
};

/* ---- scales ---- */

static double transform(const struct scale *scale, double value)
{
    return scale->linear > 0 ? asinh(value / scale->linear) : log2(value);
}

static double pixel(const struct scale *scale, double value)
{
    const double span = scale->high - scale->low;
    return scale->from + (transform(scale, value) - scale->low) / span * (scale->to - scale->from);
}

/* Spans [low, high] plus PAD pixels on both sides. */
static void set_range(struct scale *scale, double low, double high)
{
    scale->low = transform(scale, low);
    scale->high = transform(scale, high);
    const double room = fabs(scale->to - scale->from) - 2 * PAD, least = scale->linear > 0 ? 1 : 2;
    double pad = (scale->high - scale->low) * PAD / room;
    if (scale->high - scale->low < least)
        pad += (least - (scale->high - scale->low)) / 2;
    scale->low -= pad;
    scale->high += pad;
}

static void add_tick(struct scale *scale, double value, const char *label)
{
    const double at = transform(scale, value);
    if (at < scale->low || at > scale->high || scale->num_ticks == MAX_TICKS)
        return;
    struct tick *tick = &scale->ticks[scale->num_ticks++];
    tick->value = value;
    snprintf(tick->label, sizeof tick->label, "%s", label);
}

/* Powers of two, at most eight of them with words. */
static void set_byte_ticks(struct scale *scale)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    const int step = (int)ceil((scale->high - scale->low) / 8);
    for (int power = (int)ceil(scale->low); power <= scale->high; power++) {
        char label[24] = "";
        if (power >= 0 && power < 70 && power % step == 0)
            snprintf(label, sizeof label, "%d %s", 1 << power % 10, units[power / 10]);
        add_tick(scale, exp2(power), label);
    }
}

/* Zero, and the decades beyond the linear part on both sides; 2 and 5 times a decade where there is room. */
static void set_value_ticks(struct scale *scale)
{
    static const double steps[] = {1, 2, 5};
    add_tick(scale, 0, "0");
    const double decades = (scale->high - scale->low) / log(10);
    for (double decade = scale->linear; transform(scale, decade) <= fmax(scale->high, -scale->low); decade *= 10)
        for (int s = 0; s < 3; s++)
            for (int sign = 1; sign >= -1; sign -= 2) {
                char label[24] = "";
                if (s == 0 || decades < 2.5)
                    snprintf(label, sizeof label, "%s%.6g", sign < 0 ? "\xe2\x88\x92" : "", steps[s] * decade);
                add_tick(scale, sign * steps[s] * decade, label);
            }
}

/* ---- labels ---- */

static double overlap(const struct box *a, const struct box *b)
{
    const double width = fmin(a->right, b->right) - fmax(a->left, b->left);
    const double height = fmin(a->bottom, b->bottom) - fmax(a->top, b->top);
    return width > 0 && height > 0 ? width * height : 0;
}

/* What `label` covers that it should not: boxes, and everything outside the frame. */
static double covered(const struct box *label, const struct box *boxes, size_t num_boxes, const struct box *frame)
{
    const double area = (label->right - label->left) * (label->bottom - label->top);
    double sum = 4 * (area - overlap(label, frame));
    for (size_t i = 0; i < num_boxes; i++)
        sum += overlap(label, &boxes[i]);
    return sum;
}

/* Beside the dot, above or below it, or on such a side and some lines higher or lower. */
static struct box place_label(const char *text, double x, double y, const struct box *boxes, size_t num_boxes,
                              const struct box *frame)
{
    const double width = svg_text_width(text), height = SVG_FONT + 3;
    struct box best = {0};
    double least = INFINITY;
    for (int line = 0; line < 2 * (int)((frame->bottom - frame->top) / height); line++) {
        const int away = (line + 1) / 2, sign = line % 2 == 0 ? 1 : -1;
        for (int side = 0; side < 3; side++) { /* right, left, over or under */
            static const double across[3] = {1, -1, 0};
            const double middle_x = x + across[side] * (RADIUS + 4 + 2 * away + width / 2);
            const double middle_y = y + sign * away * height * (side == 2 ? 1.1 : 0.9);
            const struct box box = {middle_x - width / 2, middle_y - height / 2, middle_x + width / 2,
                                    middle_y + height / 2};
            const double cost = covered(&box, boxes, num_boxes, frame) + 0.4 * away + 0.02 * side;
            if (cost < least) {
                least = cost;
                best = box;
            }
        }
    }
    return best;
}

/* From the dot to the nearest edge of a label that lies away from it. */
static void print_leader(FILE *out, double x, double y, const struct box *label)
{
    const double to_x = fmin(fmax(x, label->left), label->right), to_y = fmin(fmax(y, label->top), label->bottom);
    const double length = hypot(to_x - x, to_y - y);
    if (length < RADIUS + 10)
        return;
    const double from = (RADIUS + 1) / length, until = 1 - 2 / length;
    fprintf(out, "<line class=\"leader\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x + from * (to_x - x),
            y + from * (to_y - y), x + until * (to_x - x), y + until * (to_y - y));
}

/* ---- the picture ---- */

static void print_axes(FILE *out, const struct scale *x, const struct scale *y, const struct box *frame,
                       const struct plot *plot)
{
    for (size_t i = 0; i < x->num_ticks; i++) {
        const double at = pixel(x, x->ticks[i].value);
        fprintf(out, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", at, frame->top, at,
                frame->bottom);
        svg_label(out, "quiet", "middle", at, frame->bottom + 18, x->ticks[i].label);
    }
    for (size_t i = 0; i < y->num_ticks; i++) {
        const double at = pixel(y, y->ticks[i].value);
        fprintf(out, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
                y->ticks[i].value == 0 ? "zero" : "grid", frame->left, at, frame->right, at);
        svg_label(out, "quiet", "end", frame->left - 8, at + 4, y->ticks[i].label);
    }
    fprintf(out, "<rect class=\"frame\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", frame->left,
            frame->top, frame->right - frame->left, frame->bottom - frame->top);
    const double middle = (frame->top + frame->bottom) / 2;
    fprintf(out, "<text class=\"quiet\" text-anchor=\"middle\" transform=\"translate(22 %.1f) rotate(-90)\">", middle);
    svg_text(out, plot->y_label);
    fputs("</text>\n", out);
}

static void print_points(FILE *out, const struct plot_panel *panel, size_t num_points, const struct scale *x,
                         const struct scale *y, const struct box *frame, struct box *boxes)
{
    size_t num_boxes = 0;
    for (size_t i = 0; i < num_points; i++) {
        const double at_x = pixel(x, panel->points[i].bytes), at_y = pixel(y, panel->points[i].y), r = RADIUS + 2;
        if (!isnan(panel->points[i].y))
            boxes[num_boxes++] = (struct box){at_x - r, at_y - r, at_x + r, at_y + r};
    }
    const size_t num_dots = num_boxes;
    for (size_t i = 0; i < num_points; i++) {
        const struct plot_point *point = &panel->points[i];
        if (isnan(point->y))
            continue;
        const double at_x = pixel(x, point->bytes), at_y = pixel(y, point->y);
        const struct box label = place_label(point->label, at_x, at_y, boxes, num_boxes, frame);
        boxes[num_boxes++] = label;
        print_leader(out, at_x, at_y, &label);
    }
    for (size_t i = num_dots; i < num_boxes; i++) /* no lines through the words */
        fprintf(out, "<rect class=\"paper\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", boxes[i].left,
                boxes[i].top, boxes[i].right - boxes[i].left, boxes[i].bottom - boxes[i].top);
    size_t dot = num_dots;
    for (size_t i = 0; i < num_points; i++) {
        const struct plot_point *point = &panel->points[i];
        if (isnan(point->y))
            continue;
        const double at_x = pixel(x, point->bytes), at_y = pixel(y, point->y);
        const struct box *label = &boxes[dot++];
        fprintf(out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"%d\"><title>", at_x, at_y, RADIUS);
        svg_text(out, point->label);
        fprintf(out, ": %.0f bytes, %.6g</title></circle>\n", point->bytes, point->y);
        if (label->left > at_x)
            svg_label(out, "label", "start", label->left + 1, label->bottom - 4, point->label);
        else if (label->right < at_x)
            svg_label(out, "label", "end", label->right - 1, label->bottom - 4, point->label);
        else
            svg_label(out, "label", "middle", (label->left + label->right) / 2, label->bottom - 4, point->label);
    }
}

static double panel_height(const struct plot *plot)
{
    return PANEL + (plot->num_points > FEW_POINTS ? (double)(plot->num_points - FEW_POINTS) * PER_POINT : 0);
}

static void print_panel(FILE *out, const struct plot *plot, const struct plot_panel *panel, double top,
                        struct box *boxes)
{
    const struct box frame = {LEFT, top, WIDTH - RIGHT, top + panel_height(plot)};
    const struct box inside = {frame.left + 3, frame.top + 3, frame.right - 3, frame.bottom - 3};
    struct scale x = {.from = frame.left, .to = frame.right};
    struct scale y = {.from = frame.bottom, .to = frame.top, .linear = plot->y_linear};
    double least = INFINITY, most = 0, low = 0, high = 0;
    for (size_t i = 0; i < plot->num_points; i++) {
        least = fmin(least, panel->points[i].bytes);
        most = fmax(most, panel->points[i].bytes);
        low = fmin(low, panel->points[i].y);
        high = fmax(high, panel->points[i].y);
    }
    set_range(&x, fmax(least, 1), fmax(most, 1));
    set_range(&y, low, high);
    set_byte_ticks(&x);
    set_value_ticks(&y);
    svg_label(out, "panel", "start", LEFT, top - 10, panel->title);
    print_axes(out, &x, &y, &frame, plot);
    print_points(out, panel, plot->num_points, &x, &y, &inside, boxes);
}

enum rk_status plot_svg_write(const char *path, const struct plot *plot, struct rk_error *error)
{
    const double panel = PANEL_TITLE + panel_height(plot) + BOTTOM;
    const struct svg_page page = {.width = WIDTH,
                                  .height = SVG_PAGE_TOP + (double)plot->num_panels * panel,
                                  .left = LEFT,
                                  .title = plot->title,
                                  .subtitle = plot->subtitle};
    struct box *boxes = calloc(2 * plot->num_points + 1, sizeof *boxes); /* of dots and labels */
    if (boxes == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for %s", path);
    FILE *out = svg_open(path, &page, error);
    for (size_t p = 0; out != NULL && p < plot->num_panels; p++) {
        const double top = (double)(SVG_PAGE_TOP + PANEL_TITLE) + (double)p * panel;
        print_panel(out, plot, &plot->panels[p], top, boxes);
        svg_label(out, "quiet", "middle", (LEFT + WIDTH - RIGHT) / 2.0, top + panel_height(plot) + 40,
                  "bytes of rows and weights (logarithmic)");
    }
    free(boxes);
    return out != NULL ? svg_close(out, path, error) : RK_IO;
}
