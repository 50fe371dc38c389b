/* xxh64, as its specification says it; little-endian machines. */
#include <stdint.h>
#include <string.h>

static const uint64_t P1 = 0x9E3779B185EBCA87u, P2 = 0xC2B2AE3D27D4EB4Fu, P3 = 0x165667B19E3779F9u, P4 = 0x85EBCA77C2B2AE63u,
                      P5 = 0x27D4EB2F165667C5u;

static uint64_t turned(uint64_t x, int by) { return x << by | x >> (64 - by); }

static uint64_t lane(const uint8_t *at) { uint64_t value; memcpy(&value, at, 8); return value; }

static uint64_t mixed(uint64_t sum, uint64_t word) { return turned(sum + word * P2, 31) * P1; }

static uint64_t xxh64(const void *data, uint64_t length, uint64_t seed) {
    const uint8_t *at = data, *end = at + length;
    uint64_t hash = seed + P5;
    if (length >= 32) {
        uint64_t sum[4] = {seed + P1 + P2, seed + P2, seed, seed - P1};
        for (; end - at >= 32; at += 32)
            for (int k = 0; k < 4; k++) sum[k] = mixed(sum[k], lane(at + 8 * k));
        hash = turned(sum[0], 1) + turned(sum[1], 7) + turned(sum[2], 12) + turned(sum[3], 18);
        for (int k = 0; k < 4; k++) hash = (hash ^ mixed(0, sum[k])) * P1 + P4;
    }
    hash += length;
    for (; end - at >= 8; at += 8) hash = turned(hash ^ mixed(0, lane(at)), 27) * P1 + P4;
    if (end - at >= 4) {
        uint32_t word;
        memcpy(&word, at, 4);
        hash = turned(hash ^ word * P1, 23) * P2 + P3, at += 4;
    }
    for (; at < end; at++) hash = turned(hash ^ *at * P5, 11) * P1;
    hash = (hash ^ hash >> 33) * P2;
    hash = (hash ^ hash >> 29) * P3;
    return hash ^ hash >> 32;
}
