/* The row codecs of the format: how many bytes a row has, and its weights as float32. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t encoded_bytes(const char *codec, uint32_t dim) {
    if (!strcmp(codec, "fp32")) return 4 * (size_t)dim;
    if (!strcmp(codec, "fp16")) return 2 * (size_t)dim;
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

static void decode(const char *codec, const uint8_t *from, uint32_t dim, float *to) {
    for (uint32_t d = 0; d < dim; d++) {
        uint32_t bits;
        if (!strcmp(codec, "fp32")) memcpy(&bits, from + 4 * d, 4);
        else bits = single_of_half((uint16_t)(from[2 * d] | from[2 * d + 1] << 8));
        memcpy(to + d, &bits, 4);
    }
}
