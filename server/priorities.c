/* Reading priority_weights, at start; finding a class by name, for every request, from any thread. */
#include "server/priorities.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECTED "it takes NAME=WEIGHT,NAME=WEIGHT..., for example interactive=8,batch=1"

static bool good_name(const char *name, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_' && name[i] != '-')
            return false;
    return length > 0 && length < RK_PRIORITY_NAME_BYTES;
}

/* A whole number from 1 to RK_MAX_PRIORITY_WEIGHT, else 0. */
static uint32_t parse_weight(const char *text, size_t length)
{
    uint32_t weight = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        weight = weight * 10 + (uint32_t)(text[i] - '0');
        if (weight > RK_MAX_PRIORITY_WEIGHT)
            return 0;
    }
    return weight;
}

static const struct rk_priority *find(const struct rk_priorities *priorities, const char *name)
{
    for (uint32_t i = 0; i < priorities->count; i++)
        if (strcmp(priorities->classes[i].name, name) == 0)
            return &priorities->classes[i];
    return NULL;
}

enum rk_status rk_priorities_parse(const char *text, struct rk_priorities *priorities, struct rk_error *error)
{
    *priorities = (struct rk_priorities){0};
    for (const char *at = text;; at++) {
        const size_t length = strcspn(at, ","), name_length = strcspn(at, "=,");
        if (priorities->count == RK_MAX_PRIORITIES)
            return rk_error_set(error, RK_INVALID, "priority_weights is '%.100s': at most %d classes are served", text,
                                RK_MAX_PRIORITIES);
        struct rk_priority *next = &priorities->classes[priorities->count];
        if (!good_name(at, name_length) || name_length == length)
            return rk_error_set(error, RK_INVALID,
                                "priority_weights is '%.100s': '%.*s' is no class; " EXPECTED
                                ", with names of letters, digits, '_' and '-', at most %d of them",
                                text, (int)(length < 64 ? length : 64), at, RK_PRIORITY_NAME_BYTES - 1);
        struct rk_priority read = {.weight = parse_weight(at + name_length + 1, length - name_length - 1)};
        snprintf(read.name, sizeof read.name, "%.*s", (int)name_length, at);
        if (read.weight == 0)
            return rk_error_set(error, RK_INVALID,
                                "priority_weights is '%.100s': the weight of '%s' takes a whole number from 1 to %u",
                                text, read.name, RK_MAX_PRIORITY_WEIGHT);
        if (find(priorities, read.name) != NULL)
            return rk_error_set(error, RK_INVALID, "priority_weights is '%.100s': '%s' stands there twice", text,
                                read.name);
        *next = read;
        priorities->count++;
        at += length;
        if (*at == '\0')
            return RK_OK;
    }
}

enum rk_status rk_priorities_find(const struct rk_priorities *priorities, const char *name, uint32_t *index,
                                  struct rk_error *error)
{
    const struct rk_priority *found = name[0] == '\0' ? priorities->classes : find(priorities, name);
    if (found != NULL) {
        *index = (uint32_t)(found - priorities->classes);
        return RK_OK;
    }
    char names[RK_MAX_PRIORITIES * (RK_PRIORITY_NAME_BYTES + 2)];
    size_t end = 0;
    for (uint32_t i = 0; i < priorities->count; i++)
        end +=
            (size_t)snprintf(names + end, sizeof names - end, "%s%s", i > 0 ? ", " : "", priorities->classes[i].name);
    return rk_error_set(error, RK_INVALID, "priority is '%.64s'; this server has: %s", name, names);
}
