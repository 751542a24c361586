/* Timeouts, percent-encoding and base64, as pure functions over texts. Any thread. */
#include "server/grpc/text.h"

#include <stdio.h>

/* From fine to coarse: rk_timeout_print takes the first that fits. */
static const struct unit {
    char letter;
    uint64_t ns;
} units[] = {
    {'n', 1},
    {'u', 1000},
    {'m', 1000000},
    {'S', UINT64_C(1000000000)},
    {'M', UINT64_C(60000000000)},
    {'H', UINT64_C(3600000000000)},
};
#define NUM_UNITS  (sizeof units / sizeof *units)
#define MAX_DIGITS 8
#define MAX_NUMBER 99999999u

bool rk_timeout_parse(const char *text, size_t length, uint64_t *timeout_us)
{
    if (length < 2 || length > MAX_DIGITS + 1)
        return false;
    uint64_t number = 0;
    for (size_t i = 0; i + 1 < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        number = 10 * number + (uint64_t)(text[i] - '0');
    }
    for (size_t u = 0; u < NUM_UNITS; u++) {
        if (units[u].letter != text[length - 1])
            continue;
        /* Only nanoseconds are finer than what we count in; 8 digits of hours in microseconds fit 64 bits. */
        *timeout_us = units[u].ns < 1000 ? (number + 999) / 1000 : number * (units[u].ns / 1000);
        return true;
    }
    return false;
}

void rk_timeout_print(uint64_t timeout_us, char text[RK_TIMEOUT_TEXT_BYTES])
{
    for (size_t u = 1; u < NUM_UNITS; u++) {
        uint64_t unit_us = units[u].ns / 1000;
        uint64_t number = timeout_us / unit_us + (timeout_us % unit_us != 0);
        bool last = u + 1 == NUM_UNITS;
        if (number > MAX_NUMBER && !last)
            continue;
        if (number > MAX_NUMBER)
            number = MAX_NUMBER;
        snprintf(text, RK_TIMEOUT_TEXT_BYTES, "%u%c", (unsigned)number, units[u].letter);
        return;
    }
}

size_t rk_percent_encode(const char *text, size_t length, char *encoded)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t written = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte >= 0x20 && byte <= 0x7e && byte != '%') {
            encoded[written++] = (char)byte;
            continue;
        }
        encoded[written++] = '%';
        encoded[written++] = digits[byte >> 4];
        encoded[written++] = digits[byte & 15];
    }
    return written;
}

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    return -1;
}

size_t rk_percent_decode(const char *text, size_t length, char *decoded)
{
    size_t written = 0;
    for (size_t i = 0; i < length; i++) {
        bool escape = text[i] == '%' && length - i > 2 && hex_value(text[i + 1]) >= 0 && hex_value(text[i + 2]) >= 0;
        if (!escape) {
            decoded[written++] = text[i];
            continue;
        }
        decoded[written++] = (char)(hex_value(text[i + 1]) << 4 | hex_value(text[i + 2]));
        i += 2;
    }
    return written;
}

static bool is_base64_digit(char byte)
{
    return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') ||
           byte == '+' || byte == '/';
}

static bool is_base64(const char *text, size_t length)
{
    size_t digits = 0;
    while (digits < length && is_base64_digit(text[digits]))
        digits++;
    size_t padding = length - digits;
    for (size_t i = digits; i < length; i++) {
        if (text[i] != '=')
            return false;
    }
    if (digits % 4 == 1) /* 6 bits are no byte */
        return false;
    return padding == 0 || (digits % 4 != 0 && digits % 4 + padding == 4);
}

bool rk_binary_header_check(const char *text, size_t length)
{
    for (size_t begin = 0, end; begin <= length; begin = end + 1) {
        end = begin;
        while (end < length && text[end] != ',')
            end++;
        size_t first = begin, last = end;
        while (first < last && text[first] == ' ')
            first++;
        while (last > first && text[last - 1] == ' ')
            last--;
        if (!is_base64(text + first, last - first))
            return false;
    }
    return true;
}
