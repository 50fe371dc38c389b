/* The row codecs of the format: how many bytes a row has, and its weights as float32. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int named(const char *codec, const char *name) { return !strcmp(codec, name); }

static size_t encoded_bytes(const char *codec, uint32_t dim) {
    if (named(codec, "fp32")) return 4 * (size_t)dim;
    if (named(codec, "fp16") || named(codec, "bf16")) return 2 * (size_t)dim;
    if (named(codec, "int8")) return 4 + (size_t)dim;
    if (named(codec, "int4")) return 4 + ((size_t)dim + 1) / 2;
    fprintf(stderr, "codec %s\n", codec);
    exit(1);
}

static uint32_t single_of_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) return sign | 0x7F800000 | fraction << 13;
    if (exponent) return sign | (exponent + 112) << 23 | fraction << 13;
    if (!fraction) return sign;
    for (exponent = 113; !(fraction & 1024); exponent--) fraction <<= 1;
    return sign | exponent << 23 | (fraction & 1023) << 13;
}

static uint16_t u16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }

static float number_of(uint32_t bits) { float number; memcpy(&number, &bits, 4); return number; }

static uint32_t code_of(const char *codec, const uint8_t *codes, uint32_t dim, uint32_t d) {
    uint32_t half = (dim + 1) / 2;
    if (named(codec, "int8")) return codes[d];
    return d < half ? codes[d] & 15u : codes[d - half] >> 4;
}

static uint32_t weight_of_code(const uint8_t *row, uint32_t code) {
    uint32_t scale = (uint32_t)u16(row) << 16, offset = (uint32_t)u16(row + 2) << 16, bits;
    if ((scale & 0x7FFFFFFF) >= 0x7B800000 || (offset & 0x7F800000) == 0x7F800000) return 0x7FC00000;
    float decoded = number_of(offset) + number_of(scale) * (float)code;
    memcpy(&bits, &decoded, 4);
    return bits;
}

static void decode(const char *codec, const uint8_t *from, uint32_t dim, float *to) {
    for (uint32_t d = 0; d < dim; d++) {
        uint32_t bits;
        if (named(codec, "fp32")) memcpy(&bits, from + 4 * d, 4);
        else if (named(codec, "fp16")) bits = single_of_half(u16(from + 2 * d));
        else if (named(codec, "bf16")) bits = (uint32_t)u16(from + 2 * d) << 16;
        else bits = weight_of_code(from, code_of(codec, from + 4, dim, d));
        memcpy(to + d, &bits, 4);
    }
}
