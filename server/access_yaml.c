/* Reads access rules with libyaml's document loader: nodes with their places, in one table, however they are nested.
 * The shape is fixed and three levels deep, so nothing here recurses, and an alias is no more than another way to a
 * node. */
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "server/access_rules.h"
#include "server/yaml_error.h"

struct reader {
    const char *name;
    yaml_document_t document;
    struct rk_access_rules *rules;
    struct rk_error *error;
};

static enum rk_status no_memory(const struct reader *reader)
{
    return rk_error_set(reader->error, RK_NO_MEMORY, "%s: out of memory", reader->name);
}

/* A piece of text without NUL, at most 255 bytes; `what` names it. */
static enum rk_status text_of(struct reader *reader, int index, const char *what, const char **text)
{
    const yaml_node_t *node = yaml_document_get_node(&reader->document, index);
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.length == 0)
        return rk_yaml_fail(reader->error, reader->name, node->start_mark, "%s has to be a piece of text", what);
    *text = (const char *)node->data.scalar.value;
    if (node->data.scalar.length > 255 || strlen(*text) != node->data.scalar.length)
        return rk_yaml_fail(reader->error, reader->name, node->start_mark,
                            "%s takes text of at most 255 bytes without NUL", what);
    *text = rk_arena_string(&reader->rules->arena, *text, node->data.scalar.length);
    return *text != NULL ? RK_OK : no_memory(reader);
}

/* A node's items: of a list, or itself alone. */
static const yaml_node_item_t *items_of(const yaml_node_t *node, const yaml_node_item_t *self, size_t *count)
{
    if (node->type != YAML_SEQUENCE_NODE) {
        *count = 1;
        return self;
    }
    *count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    return node->data.sequence.items.start;
}

/* ---- tokens ---- */

static int digit_of(char letter)
{
    if (letter >= '0' && letter <= '9')
        return letter - '0';
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : letter >= 'A' && letter <= 'F' ? letter - 'A' + 10 : -1;
}

static enum rk_status read_hash(struct reader *reader, int index, const char *name)
{
    const yaml_node_t *node = yaml_document_get_node(&reader->document, index);
    struct rk_access_token *token = &reader->rules->tokens[reader->rules->num_tokens];
    const bool is_text = node->type == YAML_SCALAR_NODE && node->data.scalar.length == 2 * RK_TOKEN_HASH_BYTES;
    const char *text = is_text ? (const char *)node->data.scalar.value : NULL;
    for (size_t i = 0; text != NULL && i < RK_TOKEN_HASH_BYTES; i++) {
        int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);
        if (high < 0 || low < 0)
            text = NULL;
        else
            token->hash[i] = (uint8_t)(high << 4 | low);
    }
    if (text == NULL)
        return rk_yaml_fail(
            reader->error, reader->name, node->start_mark,
            "token '%s' takes its SHA-256 in 64 hexadecimal digits; make it with: printf %%s \"$TOKEN\" | "
            "sha256sum",
            name);
    token->name = name;
    reader->rules->num_tokens++;
    return RK_OK;
}

static enum rk_status read_tokens(struct reader *reader, const yaml_node_t *map)
{
    size_t count = 0, part;
    for (const yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top; pair++) {
        items_of(yaml_document_get_node(&reader->document, pair->value), &pair->value, &part);
        count += part;
    }
    reader->rules->tokens = rk_arena_array(&reader->rules->arena, count + 1, sizeof *reader->rules->tokens);
    if (reader->rules->tokens == NULL)
        return no_memory(reader);
    enum rk_status status = RK_OK;
    for (const yaml_node_pair_t *pair = map->data.mapping.pairs.start;
         status == RK_OK && pair < map->data.mapping.pairs.top; pair++) {
        const char *name;
        status = text_of(reader, pair->key, "a token's name", &name);
        const yaml_node_item_t *items =
            items_of(yaml_document_get_node(&reader->document, pair->value), &pair->value, &part);
        for (size_t i = 0; status == RK_OK && i < part; i++)
            status = read_hash(reader, items[i], name);
    }
    return status;
}

/* ---- services ---- */

/* A name in a certificate; a star stands for a whole first label only. */
static enum rk_status read_names(struct reader *reader, const yaml_node_item_t *items, size_t count,
                                 struct rk_access_service *service)
{
    service->names = rk_arena_array(&reader->rules->arena, count, sizeof *service->names);
    if (service->names == NULL)
        return no_memory(reader);
    for (size_t i = 0; i < count; i++) {
        const char *name = NULL;
        enum rk_status status = text_of(reader, items[i], "a name", &name);
        if (status != RK_OK)
            return status;
        const char *star = strrchr(name, '*');
        if (star != NULL && (star != name || name[1] != '.' || name[2] == '\0'))
            return rk_yaml_fail(reader->error, reader->name,
                                yaml_document_get_node(&reader->document, items[i])->start_mark,
                                "name '%s' has a star; it may stand for a whole first label only: *.example.com", name);
        service->names[service->num_names++] = name;
    }
    return RK_OK;
}

static enum rk_status use_tokens(struct reader *reader, const yaml_node_item_t *items, size_t count,
                                 struct rk_access_service *service)
{
    const struct rk_access_rules *rules = reader->rules;
    service->tokens = rk_arena_array(&reader->rules->arena, rules->num_tokens + count, sizeof *service->tokens);
    if (service->tokens == NULL)
        return no_memory(reader);
    for (size_t i = 0; i < count; i++) {
        const char *name;
        enum rk_status status = text_of(reader, items[i], "a token's name", &name);
        if (status != RK_OK)
            return status;
        bool found = false;
        for (uint32_t token = 0; token < rules->num_tokens; token++) {
            if (strcmp(rules->tokens[token].name, name) != 0)
                continue;
            found = true;
            bool again = false;
            for (uint32_t used = 0; used < service->num_tokens; used++)
                again |= service->tokens[used] == token;
            if (!again)
                service->tokens[service->num_tokens++] = token;
        }
        if (!found)
            return rk_yaml_fail(reader->error, reader->name,
                                yaml_document_get_node(&reader->document, items[i])->start_mark,
                                "there is no token '%s' in this file's tokens", name);
    }
    return RK_OK;
}

static const struct {
    const char *key;
    enum rk_status (*read)(struct reader *reader, const yaml_node_item_t *items, size_t count,
                           struct rk_access_service *service);
} ways_in[] = {{"names", read_names}, {"tokens", use_tokens}};
#define NUM_WAYS (sizeof ways_in / sizeof ways_in[0])

static enum rk_status read_ways(struct reader *reader, const yaml_node_t *map, struct rk_access_service *service)
{
    bool seen[NUM_WAYS] = {false};
    for (const yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(&reader->document, pair->key);
        const char *text;
        enum rk_status status = text_of(reader, pair->key, "what a service takes", &text);
        if (status != RK_OK)
            return status;
        size_t way = 0;
        while (way < NUM_WAYS && strcmp(text, ways_in[way].key) != 0)
            way++;
        if (way == NUM_WAYS)
            return rk_yaml_fail(reader->error, reader->name, key->start_mark,
                                "'%.64s' is no way in; a service takes names and tokens", text);
        if (seen[way])
            return rk_yaml_fail(reader->error, reader->name, key->start_mark, "%s are given twice; keep one list",
                                text);
        seen[way] = true;
        size_t count;
        const yaml_node_item_t *items =
            items_of(yaml_document_get_node(&reader->document, pair->value), &pair->value, &count);
        status = ways_in[way].read(reader, items, count, service);
        if (status != RK_OK)
            return status;
    }
    return RK_OK;
}

static enum rk_status read_service(struct reader *reader, const yaml_node_pair_t *pair)
{
    struct rk_access_rules *rules = reader->rules;
    const yaml_node_t *value = yaml_document_get_node(&reader->document, pair->value);
    const yaml_mark_t mark = yaml_document_get_node(&reader->document, pair->key)->start_mark;
    struct rk_access_service *service = &rules->services[rules->num_services];
    enum rk_status status = text_of(reader, pair->key, "a service's name", &service->name);
    if (status != RK_OK)
        return status;
    if (strchr(service->name, '/') != NULL)
        return rk_yaml_fail(reader->error, reader->name, mark,
                            "'%s' is a path; rules are for whole services: rankd.v1.Ranking", service->name);
    for (uint32_t i = 0; i < rules->num_services; i++)
        if (strcmp(rules->services[i].name, service->name) == 0)
            return rk_yaml_fail(reader->error, reader->name, mark, "%s has two rules; keep one of them", service->name);
    rules->num_services++;
    if (value->type == YAML_MAPPING_NODE)
        return read_ways(reader, value, service);
    const char *text;
    status = text_of(reader, pair->value, "a rule", &text);
    service->anyone = status == RK_OK && strcmp(text, "anyone") == 0;
    if (status == RK_OK && !service->anyone && strcmp(text, "nobody") != 0)
        status =
            rk_yaml_fail(reader->error, reader->name, value->start_mark,
                         "the rule of %s is '%s'; it takes anyone, nobody, or names and tokens", service->name, text);
    return status;
}

static enum rk_status read_services(struct reader *reader, const yaml_node_t *map)
{
    struct rk_access_rules *rules = reader->rules;
    const size_t count = (size_t)(map->data.mapping.pairs.top - map->data.mapping.pairs.start);
    rules->services = rk_arena_array(&rules->arena, count, sizeof *rules->services);
    if (rules->services == NULL)
        return no_memory(reader);
    enum rk_status status = RK_OK;
    for (size_t i = 0; status == RK_OK && i < count; i++)
        status = read_service(reader, &map->data.mapping.pairs.start[i]);
    return status;
}

/* ---- the file ---- */

/* Tokens before services, which name them, whichever stands first. */
static const struct {
    const char *key;
    enum rk_status (*read)(struct reader *reader, const yaml_node_t *map);
} sections[] = {{"tokens", read_tokens}, {"services", read_services}};
#define NUM_SECTIONS (sizeof sections / sizeof sections[0])

static enum rk_status read_document(struct reader *reader)
{
    const yaml_node_t *root = yaml_document_get_root_node(&reader->document);
    const yaml_node_t *found[NUM_SECTIONS] = {NULL};
    if (root == NULL || root->type != YAML_MAPPING_NODE)
        return rk_error_set(reader->error, RK_INVALID,
                            "%s: the file takes 'services:' and 'tokens:'; without rules nobody could call anything",
                            reader->name);
    for (const yaml_node_pair_t *pair = root->data.mapping.pairs.start; pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(&reader->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(&reader->document, pair->value);
        const char *text;
        enum rk_status status = text_of(reader, pair->key, "a section's name", &text);
        if (status != RK_OK)
            return status;
        size_t i = 0;
        while (i < NUM_SECTIONS && strcmp(text, sections[i].key) != 0)
            i++;
        if (i == NUM_SECTIONS)
            return rk_yaml_fail(reader->error, reader->name, key->start_mark,
                                "there is no section '%.64s'; it takes services and tokens", text);
        if (found[i] != NULL)
            return rk_yaml_fail(reader->error, reader->name, key->start_mark, "%s stand here twice; put them together",
                                text);
        if (value->type != YAML_MAPPING_NODE)
            return rk_yaml_fail(reader->error, reader->name, value->start_mark, "%s take lines of 'name: ...'", text);
        found[i] = value;
    }
    enum rk_status status = RK_OK;
    for (size_t i = 0; status == RK_OK && i < NUM_SECTIONS; i++)
        if (found[i] != NULL)
            status = sections[i].read(reader, found[i]);
    if (status == RK_OK && reader->rules->num_services == 0)
        status = rk_error_set(reader->error, RK_INVALID,
                              "%s: there are no services; without rules nobody could call "
                              "anything",
                              reader->name);
    return status;
}

static enum rk_status load(struct reader *reader, const char *text, size_t length)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return no_memory(reader);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    enum rk_status status = RK_OK;
    if (!yaml_parser_load(&parser, &reader->document)) {
        status = parser.error == YAML_MEMORY_ERROR
                     ? no_memory(reader)
                     : rk_yaml_fail(reader->error, reader->name, parser.problem_mark, "%s",
                                    parser.problem != NULL ? parser.problem : "not YAML");
    } else {
        yaml_document_t second;
        if (!yaml_parser_load(&parser, &second)) {
            status = rk_yaml_fail(reader->error, reader->name, parser.problem_mark, "%s",
                                  parser.problem != NULL ? parser.problem : "not YAML");
        } else {
            const yaml_node_t *root = yaml_document_get_root_node(&second);
            if (root != NULL)
                status = rk_yaml_fail(reader->error, reader->name, root->start_mark,
                                      "a second document starts here; the file takes one");
            yaml_document_delete(&second);
        }
        if (status == RK_OK)
            status = read_document(reader);
        yaml_document_delete(&reader->document);
    }
    yaml_parser_delete(&parser);
    return status;
}

enum rk_status rk_access_rules_parse(const char *name, const char *text, size_t length, struct rk_access_rules **result,
                                     struct rk_error *error)
{
    struct rk_arena arena;
    *result = NULL;
    rk_arena_init(&arena, 4096);
    struct rk_access_rules *rules = rk_arena_array(&arena, 1, sizeof *rules);
    if (rules == NULL) {
        rk_arena_deinit(&arena);
        return rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", name);
    }
    rules->arena = arena;
    struct reader reader = {.name = name, .rules = rules, .error = error};
    enum rk_status status = load(&reader, text, length);
    if (status != RK_OK) {
        rk_access_rules_destroy(rules);
        return status;
    }
    *result = rules;
    return RK_OK;
}
