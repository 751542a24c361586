/* Reads the configuration with libyaml's event parser.
 *
 * Only a flat mapping is a configuration, so the events of a good file are: stream start, document start, mapping
 * start, then pairs of scalars, and the three ends. Everything else (lists, nesting, anchors, aliases, tags, a second
 * document) is refused where it stands. Values go through rk_option_set, as flags do. Runs before threads start. */
#include "server/config_yaml.h"

#include <stdbool.h>
#include <string.h>
#include <yaml.h>

#include "server/text_file.h"
#include "server/yaml_error.h"

#define MAX_OPTIONS 128

struct reader {
    const char *name;
    yaml_parser_t parser;
    struct rk_options *options;
    size_t seen_line[MAX_OPTIONS]; /* by position in the table: the line that set the option, 0 for none */
    struct rk_error *error;
};

/* The next event; a syntax error becomes ours. */
static enum rk_status next_event(struct reader *reader, yaml_event_t *event)
{
    if (yaml_parser_parse(&reader->parser, event))
        return RK_OK;
    const yaml_parser_t *parser = &reader->parser;
    if (parser->error == YAML_MEMORY_ERROR)
        return rk_error_set(reader->error, RK_NO_MEMORY, "%s: out of memory", reader->name);
    if (parser->error != YAML_READER_ERROR)
        return rk_yaml_fail(reader->error, reader->name, parser->problem_mark,
                            "%s%s%s; the file takes lines of 'option: value'",
                            parser->context != NULL ? parser->context : "", parser->context != NULL ? ": " : "",
                            parser->problem != NULL ? parser->problem : "not YAML");
    yaml_mark_t mark = parser->mark; /* the reader runs ahead of the marks: count the lines up to the bad byte */
    mark.line = mark.column = 0;
    const unsigned char *input = parser->input.string.start;
    for (size_t i = 0; i < parser->problem_offset && input + i < parser->input.string.end; i++) {
        mark.column++;
        if (input[i] == '\n') {
            mark.line++;
            mark.column = 0;
        }
    }
    return rk_yaml_fail(reader->error, reader->name, mark, "%s; the file takes UTF-8 text", parser->problem);
}

/* Takes an event that must be of one kind. */
static enum rk_status expect(struct reader *reader, yaml_event_type_t type, const char *allowed)
{
    yaml_event_t event;
    enum rk_status status = next_event(reader, &event);
    if (status != RK_OK)
        return status;
    if (event.type != type)
        status = rk_yaml_fail(reader->error, reader->name, event.start_mark, "%s", allowed);
    else if (type == YAML_MAPPING_START_EVENT &&
             (event.data.mapping_start.anchor != NULL || event.data.mapping_start.tag != NULL))
        status = rk_yaml_fail(reader->error, reader->name, event.start_mark,
                              "anchors and tags have no meaning here; write 'option: value'");
    yaml_event_delete(&event);
    return status;
}

/* Is this event a plain piece of text? `what` is "key" or the option's name. */
static enum rk_status check_scalar(struct reader *reader, const yaml_event_t *event, const char *what)
{
    if (event->type == YAML_ALIAS_EVENT)
        return rk_yaml_fail(reader->error, reader->name, event->start_mark,
                            "%s is an alias; aliases have no meaning here, write the value", what);
    if (event->type == YAML_MAPPING_START_EVENT)
        return rk_yaml_fail(reader->error, reader->name, event->start_mark,
                            "%s is a mapping; options are not nested, write 'option: value'", what);
    if (event->type == YAML_SEQUENCE_START_EVENT)
        return rk_yaml_fail(reader->error, reader->name, event->start_mark, "%s is a list; it takes one value", what);
    if (event->type != YAML_SCALAR_EVENT)
        return rk_yaml_fail(reader->error, reader->name, event->start_mark, "%s is missing; write 'option: value'",
                            what);
    if (event->data.scalar.anchor != NULL)
        return rk_yaml_fail(reader->error, reader->name, event->start_mark,
                            "%s has an anchor; anchors have no meaning here", what);
    if (event->data.scalar.tag != NULL)
        return rk_yaml_fail(reader->error, reader->name, event->start_mark, "%s has a tag; tags have no meaning here",
                            what);
    return RK_OK;
}

static enum rk_status find_key(struct reader *reader, const yaml_event_t *event, const struct rk_option **option)
{
    enum rk_status status = check_scalar(reader, event, "the key");
    if (status != RK_OK)
        return status;
    const char *key = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;
    *option = memchr(key, '-', length) == NULL ? rk_option_find(key, length) : NULL;
    if (*option == NULL) {
        const char *suggestion = rk_option_suggest(key, length);
        return rk_yaml_fail(reader->error, reader->name, event->start_mark, "there is no option '%.*s'; %s",
                            (int)(length < 64 ? length : 64), key,
                            suggestion[0] != '\0' ? suggestion : "rankd --help lists them");
    }
    size_t count;
    size_t position = (size_t)(*option - rk_options_table(&count));
    if (reader->seen_line[position] != 0)
        return rk_yaml_fail(reader->error, reader->name, event->start_mark,
                            "%s is set twice, first on line %zu; keep one of them", (*option)->name,
                            reader->seen_line[position]);
    reader->seen_line[position] = event->start_mark.line + 1;
    return RK_OK;
}

static enum rk_status set_value(struct reader *reader, const yaml_event_t *event, const struct rk_option *option)
{
    enum rk_status status = check_scalar(reader, event, option->name);
    if (status != RK_OK)
        return status;
    const char *text = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;
    bool quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (!quoted && (length == 0 || (length == 1 && text[0] == '~') || (length == 4 && memcmp(text, "null", 4) == 0)))
        return rk_yaml_fail(reader->error, reader->name, event->start_mark,
                            "%s has no value; leave the line out to keep the default", option->name);
    struct rk_error wrong = {0};
    if (option->type == RK_OPTION_NUMBER && quoted)
        return rk_yaml_fail(reader->error, reader->name, event->start_mark,
                            "%s is quoted text; it takes a whole number without quotes", option->name);
    if (rk_option_set(reader->options, option, text, length, &wrong) != RK_OK)
        return rk_yaml_fail(reader->error, reader->name, event->start_mark, "%s", wrong.text);
    return RK_OK;
}

static enum rk_status read_pairs(struct reader *reader)
{
    for (;;) {
        yaml_event_t event;
        const struct rk_option *option = NULL;
        enum rk_status status = next_event(reader, &event);
        if (status != RK_OK)
            return status;
        bool end = event.type == YAML_MAPPING_END_EVENT;
        if (!end)
            status = find_key(reader, &event, &option);
        yaml_event_delete(&event);
        if (end || status != RK_OK)
            return status;
        status = next_event(reader, &event);
        if (status != RK_OK)
            return status;
        status = set_value(reader, &event, option);
        yaml_event_delete(&event);
        if (status != RK_OK)
            return status;
    }
}

static enum rk_status read_stream(struct reader *reader)
{
    yaml_event_t event;
    enum rk_status status = expect(reader, YAML_STREAM_START_EVENT, "not YAML");
    if (status == RK_OK)
        status = next_event(reader, &event);
    if (status != RK_OK)
        return status;
    bool empty = event.type == YAML_STREAM_END_EVENT;
    yaml_event_delete(&event);
    if (empty)
        return RK_OK;
    static const char *const shape = "the file takes a mapping: lines of 'option: value'";
    status = expect(reader, YAML_MAPPING_START_EVENT, shape);
    if (status == RK_OK)
        status = read_pairs(reader);
    if (status == RK_OK)
        status = expect(reader, YAML_DOCUMENT_END_EVENT, shape);
    if (status == RK_OK)
        status = expect(reader, YAML_STREAM_END_EVENT, "a second document starts here; the file takes one");
    return status;
}

enum rk_status rk_config_parse(const char *name, const char *text, size_t length, struct rk_options *options,
                               struct rk_error *error)
{
    struct reader reader = {.name = name, .options = options, .error = error};
    size_t count;
    rk_options_table(&count);
    if (count > MAX_OPTIONS || !yaml_parser_initialize(&reader.parser))
        return rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", name);
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, length);
    struct rk_options before = *options;
    enum rk_status status = read_stream(&reader);
    if (status != RK_OK)
        *options = before;
    yaml_parser_delete(&reader.parser);
    return status;
}

enum rk_status rk_config_read(const char *path, struct rk_options *options, struct rk_error *error)
{
    struct rk_text_file file;
    enum rk_status status = rk_text_file_read(path, "the configuration file", &file, error);
    if (status == RK_OK)
        status = rk_config_parse(path, file.text, file.length, options, error);
    rk_text_file_free(&file);
    return status;
}
