/* What inspect --plan draws: for every shard one bar of bytes and one of reads, cut into its tables. A table has the
 * same colour wherever it lies; those that are wide enough carry their name, all say it when pointed at. */
#include <math.h>

#include "model/tools/shards_view.h"
#include "model/tools/svg.h"

enum { WIDTH = 860, LEFT = 96, RIGHT = 36, BAR_HEIGHT = 22, BAR_GAP = 4, SHARD_GAP = 20, BOTTOM = 30, RIGHT_TEXT = 80 };

struct bar {
    double x, y, per_unit; /* pixels */
};

static void draw_part(FILE *out, const struct shards_view *view, const struct rk_piece *piece, struct bar *bar,
                      double units, const char *amount)
{
    const uint32_t table = rk_model_item_table(view->spec, piece->item);
    const char *name = view->spec->tables[table].name;
    const double width = units * bar->per_unit;
    fprintf(out, "<rect class=\"part c%u\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\"><title>",
            table % SVG_COLOURS, bar->x, bar->y, width, BAR_HEIGHT);
    svg_text(out, name);
    if (piece->item >= view->spec->num_tables)
        fputs(", which rows are kept", out);
    else
        fprintf(out, ", rows %llu to %llu", (unsigned long long)piece->first_row,
                (unsigned long long)(piece->first_row + piece->num_rows - 1));
    fprintf(out, ": %s</title></rect>\n", amount);
    if (svg_text_width(name) + 8 < width)
        svg_label(out, "inside", "middle", bar->x + width / 2, bar->y + BAR_HEIGHT - 7, name);
    bar->x += width;
}

static void draw_shard(FILE *out, const struct shards_view *view, uint32_t shard, double top, double per_byte,
                       double per_line)
{
    const struct rk_placement *placement = &view->placement;
    struct bar bytes = {LEFT, top, per_byte}, reads = {LEFT, top + BAR_HEIGHT + BAR_GAP, per_line};
    char text[48];
    snprintf(text, sizeof text, "shard %u", shard);
    svg_label(out, "panel", "end", LEFT - 12, top + BAR_HEIGHT + BAR_GAP, text);
    for (size_t p = 0; p < placement->num_pieces; p++) {
        const struct rk_piece *piece = &placement->pieces[p];
        if (piece->shard != shard)
            continue;
        draw_part(out, view, piece, &bytes, (double)piece->bytes, cli_bytes(piece->bytes));
        snprintf(text, sizeof text, "%.1f cache lines per request", piece->load);
        draw_part(out, view, piece, &reads, piece->load, text);
    }
    svg_label(out, "quiet", "start", bytes.x + 6, bytes.y + BAR_HEIGHT - 7, cli_bytes(placement->shards[shard].bytes));
    snprintf(text, sizeof text, "%.1f%%", view->load > 0 ? 100 * placement->shards[shard].load / view->load : 0);
    svg_label(out, "quiet", "start", reads.x + 6, reads.y + BAR_HEIGHT - 7, text);
}

enum rk_status shards_view_plot(const struct shards_view *view, const char *path, struct rk_error *error)
{
    const struct rk_placement *placement = &view->placement;
    const double step = 2 * BAR_HEIGHT + BAR_GAP + SHARD_GAP, room = WIDTH - LEFT - RIGHT - RIGHT_TEXT;
    double most_bytes = fmax((double)view->capacity_bytes, 1), most_load = 1e-9;
    for (uint32_t s = 0; s < placement->num_shards; s++) {
        most_bytes = fmax(most_bytes, (double)placement->shards[s].bytes);
        most_load = fmax(most_load, placement->shards[s].load);
    }
    char title[192], subtitle[160];
    snprintf(title, sizeof title, "%s: rows on %u shard%s", view->spec->name, placement->num_shards,
             placement->num_shards == 1 ? "" : "s");
    snprintf(subtitle, sizeof subtitle, "above bytes%s%s; below cache lines read by a request of %.4g candidates",
             view->capacity_bytes > 0 ? ", of " : "", view->capacity_bytes > 0 ? cli_bytes(view->capacity_bytes) : "",
             view->candidates);
    const struct svg_page page = {.width = WIDTH,
                                  .height = SVG_PAGE_TOP + 10 + placement->num_shards * step + BOTTOM,
                                  .left = LEFT,
                                  .title = title,
                                  .subtitle = subtitle};
    FILE *out = svg_open(path, &page, error);
    if (out == NULL)
        return RK_IO;
    for (uint32_t s = 0; s < placement->num_shards; s++) {
        const double top = SVG_PAGE_TOP + 10 + s * step;
        if (view->capacity_bytes > 0)
            fprintf(out, "<rect class=\"frame\" x=\"%d\" y=\"%.1f\" width=\"%.2f\" height=\"%d\"/>\n", LEFT, top,
                    (double)view->capacity_bytes * room / most_bytes, BAR_HEIGHT);
        draw_shard(out, view, s, top, room / most_bytes, room / most_load);
    }
    return svg_close(out, path, error);
}
