/* SVG written by hand: self-contained, without scripts. */
#include "model/tools/svg.h"

#include <errno.h>
#include <string.h>

#include "model/spec.h"

void svg_text(FILE *out, const char *text)
{
    static const char *const escapes[128] = {['&'] = "&amp;", ['<'] = "&lt;", ['>'] = "&gt;", ['"'] = "&quot;"};
    while (*text != '\0') {
        const size_t length = rk_printable_bytes(text);
        if (length == 0 || strncmp(text, "\xef\xbf\xbe", 3) == 0 || strncmp(text, "\xef\xbf\xbf", 3) == 0)
            fputc('?', out); /* U+FFFE and U+FFFF are not for XML either */
        else if (length == 1 && escapes[(unsigned char)*text] != NULL)
            fputs(escapes[(unsigned char)*text], out);
        else
            fwrite(text, 1, length, out);
        text += length > 0 ? length : 1;
    }
}

double svg_text_width(const char *text)
{
    size_t letters = 0;
    for (; *text != '\0'; text++)
        letters += ((unsigned char)*text & 0xc0) != 0x80;
    return (double)letters * SVG_FONT * 0.58;
}

void svg_label(FILE *out, const char *class, const char *anchor, double x, double y, const char *text)
{
    fprintf(out, "<text class=\"%s\" text-anchor=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, anchor, x, y);
    svg_text(out, text);
    fputs("</text>\n", out);
}

static void print_style(FILE *out)
{
    fputs("<style>\n"
          "text { font-family: system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif; font-size: 12px; fill: "
          "#24292f; }\n"
          ".paper { fill: #ffffff; } .frame { fill: none; stroke: #8c959f; }\n"
          ".grid { stroke: #d8dee4; stroke-width: 1; } .zero { stroke: #8c959f; stroke-width: 1; stroke-dasharray: 4 "
          "3; }\n"
          ".title { font-size: 17px; font-weight: 600; } .panel { font-size: 14px; font-weight: 600; }\n"
          ".quiet { fill: #57606a; } .leader { stroke: #8c959f; stroke-width: 0.8; }\n"
          ".dot { fill: #0969da; stroke: #ffffff; stroke-width: 1.2; }\n"
          ".part { stroke: #ffffff; stroke-width: 1; } .inside { fill: #ffffff; }\n"
          ".c0 { fill: #0969da; } .c1 { fill: #1a7f37; } .c2 { fill: #bc4c00; } .c3 { fill: #8250df; }\n"
          ".c4 { fill: #bf3989; } .c5 { fill: #1b7c83; } .c6 { fill: #9a6700; } .c7 { fill: #57606a; }\n"
          "@media (prefers-color-scheme: dark) {\n"
          "text { fill: #e6edf3; } .paper { fill: #0d1117; } .frame { stroke: #6e7681; } .grid { stroke: #262c36; }\n"
          ".zero { stroke: #6e7681; } .quiet { fill: #9198a1; } .leader { stroke: #6e7681; }\n"
          ".dot { fill: #58a6ff; stroke: #0d1117; } .part { stroke: #0d1117; }\n"
          "}\n"
          "</style>\n",
          out);
}

FILE *svg_open(const char *path, const struct svg_page *page, struct rk_error *error)
{
    FILE *out = fopen(path, "we");
    if (out == NULL) {
        rk_error_set(error, RK_IO, "failed to open %s: %s", path, strerror(errno));
        return NULL;
    }
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
            "role=\"img\">\n",
            page->width, page->height, page->width, page->height);
    print_style(out);
    fprintf(out, "<rect class=\"paper\" width=\"%.0f\" height=\"%.0f\"/>\n", page->width, page->height);
    svg_label(out, "title", "start", page->left, 34, page->title);
    svg_label(out, "quiet", "start", page->left, 56, page->subtitle);
    return out;
}

enum rk_status svg_close(FILE *out, const char *path, struct rk_error *error)
{
    fputs("</svg>\n", out);
    const bool failed = ferror(out) != 0;
    return fclose(out) != 0 || failed ? rk_error_set(error, RK_IO, "failed to write %s: %s", path, strerror(errno))
                                      : RK_OK;
}
