/* Reads a recorded stream by the pages of FORMAT.md alone, with zstd and msgpack and nothing else, and prints the rows it ends with:

       reader DIRECTORY  ->  TABLE ID STEP WEIGHTS-AS-FLOAT32-HEX [COLUMN=HEX ...]   a line for each row, in any order
                             last line: position GENERATION CUT step STEP

   Whatever does not agree with the format ends it with a message and exit code 1. */
#include <dirent.h>
#include <inttypes.h>
#include <msgpack.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "codecs.h"
#include "xxh64.h"

#define MOST 64
#define MAX_BYTES (64u << 20)

typedef struct { char name[129]; uint32_t bytes; } Column;
typedef struct { char name[129], codec[129]; uint32_t dim, num_carried; Column carried[MOST]; } Table;
typedef struct { int used; uint32_t table; int64_t id, version; float *weights; uint8_t *columns; } Row;
typedef struct { uint64_t gen, cut; } Position;
typedef struct { msgpack_unpacked map; uint8_t *content; } Content; /* the map points into the content */
typedef struct { Position at; uint64_t next, rows, dead, digest; size_t num, room; Content *frames; } Staged;

static Table tables[MOST];
static uint32_t num_tables;
static Row *rows;
static size_t num_rows, capacity;
static Position applied;
static int64_t applied_step;
static Staged staged[2];
static ZSTD_DDict *dictionary;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void *room(void *old, size_t bytes) {
    void *new = realloc(old, bytes ? bytes : 1);
    if (!new) fail("no memory for %zu bytes", bytes);
    return new;
}

static int above(Position a, Position b) { return a.gen != b.gen ? a.gen > b.gen : a.cut > b.cut; }

/* Fields of a map. */

static const msgpack_object *find(const msgpack_object *map, const char *key) {
    for (uint32_t n = 0; n < map->via.map.size; n++) {
        const msgpack_object *k = &map->via.map.ptr[n].key;
        if (k->type == MSGPACK_OBJECT_STR && k->via.str.size == strlen(key) && !memcmp(k->via.str.ptr, key, k->via.str.size))
            return &map->via.map.ptr[n].val;
    }
    return NULL;
}

static const msgpack_object *field(const msgpack_object *map, const char *key, msgpack_object_type type) {
    const msgpack_object *value = find(map, key);
    if (!value || value->type != type) fail("field %s is missing or of another type", key);
    return value;
}

static uint64_t number(const msgpack_object *map, const char *key) { return field(map, key, MSGPACK_OBJECT_POSITIVE_INTEGER)->via.u64; }

static int flag(const msgpack_object *map, const char *key) {
    const msgpack_object *value = find(map, key);
    return value && value->type == MSGPACK_OBJECT_BOOLEAN && value->via.boolean;
}

static void text(const msgpack_object *value, char *to) {
    if (value->type != MSGPACK_OBJECT_STR || value->via.str.size > 128) fail("a name was expected");
    memcpy(to, value->via.str.ptr, value->via.str.size);
    to[value->via.str.size] = 0;
}

static int is(const msgpack_object *value, const char *word) {
    return value->via.str.size == strlen(word) && !memcmp(value->via.str.ptr, word, value->via.str.size);
}

/* Rows by (table, id). */

static Row *place(Row *in, size_t size, uint32_t table, int64_t id) {
    size_t at = (size_t)(((uint64_t)id * 0x9E3779B97F4A7C15u) ^ table) & (size - 1);
    while (in[at].used && (in[at].table != table || in[at].id != id)) at = (at + 1) & (size - 1);
    return &in[at];
}

static Row *row_of(uint32_t table, int64_t id) {
    if (2 * num_rows >= capacity) {
        size_t size = capacity ? 2 * capacity : 1024;
        Row *grown = calloc(size, sizeof(Row));
        if (!grown) fail("no memory for %zu rows", size);
        for (size_t n = 0; n < capacity; n++)
            if (rows[n].used) *place(grown, size, rows[n].table, rows[n].id) = rows[n];
        free(rows);
        rows = grown, capacity = size;
    }
    Row *row = place(rows, capacity, table, id);
    if (!row->used) *row = (Row){1, table, id, 0, NULL, NULL}, num_rows++;
    return row;
}

static void forget(Row *row) { /* it keeps its place, as a row that was never updated */
    free(row->weights), free(row->columns);
    row->weights = NULL, row->columns = NULL, row->version = 0;
}

/* Frames. */

static uint32_t table_of(const char *name) {
    for (uint32_t t = 0; t < num_tables; t++)
        if (!strcmp(tables[t].name, name)) return t;
    fail("the header names no table %s", name);
    return 0;
}

static uint32_t column_bytes(const char *dtype, uint64_t width) {
    uint32_t bits = !strcmp(dtype, "bfloat16") ? 16 : !strcmp(dtype, "bool") ? 8 : (uint32_t)atoi(dtype + strcspn(dtype, "0123456789"));
    if (!bits) fail("dtype %s", dtype);
    return (uint32_t)width * bits / 8;
}

static void take_header(const msgpack_object *map) {
    const msgpack_object *array = field(map, "tables", MSGPACK_OBJECT_ARRAY), *bytes = find(map, "dictionary");
    if (array->via.array.size > MOST) fail("this reader takes %d tables", MOST);
    num_tables = array->via.array.size;
    for (uint32_t t = 0; t < num_tables; t++) {
        const msgpack_object *given = &array->via.array.ptr[t], *columns = field(given, "columns", MSGPACK_OBJECT_ARRAY);
        const msgpack_object *carries = find(given, "carries");
        Table *table = &tables[t];
        text(field(given, "name", MSGPACK_OBJECT_STR), table->name);
        text(field(given, "codec", MSGPACK_OBJECT_STR), table->codec);
        table->dim = (uint32_t)columns->via.array.ptr[0].via.array.ptr[2].via.u64;
        table->num_carried = carries ? carries->via.array.size : 0;
        for (uint32_t c = 0; c < table->num_carried; c++) {
            text(&carries->via.array.ptr[c], table->carried[c].name);
            for (uint32_t k = 0; k < columns->via.array.size; k++) {
                char name[129], dtype[129];
                const msgpack_object *column = columns->via.array.ptr[k].via.array.ptr;
                text(&column[0], name), text(&column[1], dtype);
                if (!strcmp(name, table->carried[c].name)) table->carried[c].bytes = column_bytes(dtype, column[2].via.u64);
            }
        }
    }
    if (bytes) {
        ZSTD_freeDDict(dictionary);
        dictionary = ZSTD_createDDict(bytes->via.bin.ptr, bytes->via.bin.size);
    }
}

static int names(const msgpack_object *map, const char *key, const char *part) {
    const msgpack_object *parts = find(map, key);
    int found = 0;
    for (uint32_t n = 0; parts && n < parts->via.array.size; n++) found |= is(&parts->via.array.ptr[n], part);
    return found;
}

static uint8_t *unshuffled(const msgpack_object *map, const char *part, const uint8_t *from, size_t items, size_t width) {
    uint8_t *to = room(NULL, items * width);
    if (!names(map, "shuffled", part)) return memcpy(to, from, items * width);
    for (size_t n = 0; n < items; n++)
        for (size_t b = 0; b < width; b++) to[n * width + b] = from[b * items + n];
    return to;
}

static uint64_t row_hash(const char *name, int64_t id, int64_t step, const void *data, size_t bytes) {
    int64_t words[2] = {id, step};
    return xxh64(data, bytes, xxh64(words, sizeof words, xxh64(name, strlen(name), 0)));
}

static int64_t *int64s(const msgpack_object *map, const char *key, size_t count) {
    const msgpack_object *value = find(map, key);
    size_t bytes = value ? value->via.bin.size : 0;
    if (bytes != 8 * count) fail("%s has %zu bytes, %zu numbers were expected", key, bytes, count);
    uint64_t *numbers = (uint64_t *)unshuffled(map, key, value ? (const uint8_t *)value->via.bin.ptr : NULL, count, 8);
    for (size_t n = 1; n < count && names(map, "delta", key); n++) numbers[n] += numbers[n - 1];
    return (int64_t *)numbers;
}

/* Count and hash a rows frame; with `write`, put its rows where they belong. */
static void walk_rows(const msgpack_object *map, Staged *cut, int write) {
    const msgpack_object *runs = field(map, "runs", MSGPACK_OBJECT_ARRAY), *columns = find(map, "columns");
    const msgpack_object *bin = field(map, "rows", MSGPACK_OBJECT_BIN);
    size_t count = 0, num_dead = 0, row = 0, dead = 0, byte = 0;
    for (uint32_t r = 0; r < runs->via.array.size; r++) {
        const msgpack_object *run = runs->via.array.ptr[r].via.array.ptr;
        count += run[1].via.u64, num_dead += run[3].via.u64;
    }
    int64_t *ids = int64s(map, "ids", count), *versions = int64s(map, "versions", count), *gone = int64s(map, "dead", num_dead);
    for (uint32_t r = 0; r < runs->via.array.size; r++) {
        const msgpack_object *run = runs->via.array.ptr[r].via.array.ptr;
        size_t here = run[1].via.u64, width = run[2].via.u64, here_dead = run[3].via.u64;
        char name[129], column_name[260];
        text(&run[0], name);
        uint32_t t = table_of(name);
        Table *table = &tables[t];
        if (byte + here * width > bin->via.bin.size) fail("rows of %s reach beyond the frame", name);
        if (here && width != encoded_bytes(table->codec, table->dim)) fail("rows of %s have %zu bytes", name, width);
        uint8_t *encoded = unshuffled(map, "rows", (const uint8_t *)bin->via.bin.ptr + byte, here, width);
        const uint8_t *carried[MOST] = {0};
        for (uint32_t c = 0; here && c < table->num_carried; c++) {
            for (uint32_t k = 0; columns && k < columns->via.array.size; k++) {
                const msgpack_object *column = columns->via.array.ptr[k].via.array.ptr;
                if (column[0].via.u64 == r && is(&column[1], table->carried[c].name)) {
                    if (column[2].via.bin.size != here * table->carried[c].bytes) fail("column %s", table->carried[c].name);
                    carried[c] = (const uint8_t *)column[2].via.bin.ptr;
                }
            }
            if (!carried[c]) fail("a run of %s lacks its column %s", name, table->carried[c].name);
        }
        for (size_t n = 0; n < here; n++, row++) {
            int64_t step = versions[row] & (((int64_t)1 << 40) - 1);
            float *weights = room(NULL, 4 * table->dim);
            decode(table->codec, encoded + n * width, table->dim, weights);
            cut->digest += row_hash(name, ids[row], step, weights, 4 * table->dim);
            Row *to = write ? row_of(t, ids[row]) : NULL;
            if (write) forget(to), to->version = versions[row], to->weights = weights;
            else free(weights);
            size_t all = 0, at = 0;
            for (uint32_t c = 0; c < table->num_carried; c++) all += table->carried[c].bytes;
            if (write) to->columns = room(NULL, all);
            for (uint32_t c = 0; c < table->num_carried; at += table->carried[c++].bytes) {
                const uint8_t *value = carried[c] + n * table->carried[c].bytes;
                snprintf(column_name, sizeof column_name, "%s/%s", name, table->carried[c].name);
                cut->digest += row_hash(column_name, ids[row], step, value, table->carried[c].bytes);
                if (write) memcpy(to->columns + at, value, table->carried[c].bytes);
            }
        }
        for (size_t n = 0; n < here_dead; n++, dead++) {
            cut->digest += row_hash(name, gone[dead], 0, "", 0);
            if (write) forget(row_of(t, gone[dead]));
        }
        byte += here * width;
        free(encoded);
    }
    cut->rows += count, cut->dead += num_dead;
    free(ids), free(versions), free(gone);
}

static void let_go(Staged *cut) {
    for (size_t n = 0; n < cut->num; n++) msgpack_unpacked_destroy(&cut->frames[n].map), free(cut->frames[n].content);
    cut->num = 0, cut->next = cut->rows = cut->dead = cut->digest = 0;
}

/* "How to apply". Returns whether reading begins again: a snapshot was loaded. */
static int take_commit(const msgpack_object *map, Position at, Staged *cut, int snapshot) {
    const msgpack_object *previous = field(map, "previous", MSGPACK_OBJECT_ARRAY);
    Position before = {previous->via.array.ptr[0].via.u64, previous->via.array.ptr[1].via.u64}, begin = {0, 0};
    int64_t step = (int64_t)number(map, "step");
    int mine = above(at, applied) && (snapshot || !above(before, applied));
    int whole = cut->next == number(map, "frames") && (cut->next == 0 || (cut->at.gen == at.gen && cut->at.cut == at.cut));
    if (mine && !whole && above(applied, begin)) fail("cut %" PRIu64 " lacks frames", at.cut);
    if (mine && whole) {
        for (size_t n = 0; n < cut->num; n++) walk_rows(&cut->frames[n].map.data, cut, 0);
        if (cut->rows != number(map, "rows") || cut->dead != number(map, "dead")) fail("cut %" PRIu64 ": counts differ", at.cut);
        if (cut->digest != number(map, "digest")) fail("cut %" PRIu64 ": the digest differs", at.cut);
        int may_fall = at.gen > applied.gen && (snapshot || flag(map, "rewind"));
        if (step < applied_step && !may_fall) fail("cut %" PRIu64 ": the step falls", at.cut);
        for (size_t n = 0; snapshot && n < capacity; n++)
            if (rows[n].used) forget(&rows[n]);
        for (size_t n = 0; n < cut->num; n++) walk_rows(&cut->frames[n].map.data, cut, 1);
        applied = at, applied_step = step;
    }
    let_go(cut);
    return mine && whole && snapshot;
}

static int take(Content *frame) {
    const msgpack_object *map = &frame->map.data, *kind = field(map, "kind", MSGPACK_OBJECT_STR);
    if (is(kind, "header")) {
        take_header(map);
        return 0;
    }
    Position at = {number(map, "gen"), number(map, "cut")};
    int commits = is(kind, "commit"), snapshot = commits ? is(field(map, "type", MSGPACK_OBJECT_STR), "snapshot") : flag(map, "snapshot");
    Staged *cut = &staged[snapshot];
    if (commits) return take_commit(map, at, cut, snapshot);
    if (!above(at, applied)) return 0;
    if (cut->next && (cut->at.gen != at.gen || cut->at.cut != at.cut)) let_go(cut);
    uint64_t expected = number(map, "number");
    if (expected < cut->next) return 0;
    if (expected > cut->next) { /* its beginning was before what is left: leave it incomplete */
        if (above(applied, (Position){0, 0})) fail("cut %" PRIu64 ": frame %" PRIu64 " came too early", at.cut, expected);
        return 0;
    }
    cut->at = at, cut->next++;
    if (is(kind, "rows")) {
        if (cut->num == cut->room) cut->frames = room(cut->frames, (cut->room = 2 * cut->room + 4) * sizeof *cut->frames);
        cut->frames[cut->num++] = *frame;
        *frame = (Content){.content = NULL}; /* moved */
    }
    return 0;
}

static uint64_t u64(const uint8_t *at) { uint64_t value; memcpy(&value, at, 8); return value; }
static uint32_t u32(const uint8_t *at) { uint32_t value; memcpy(&value, at, 4); return value; }

static int take_frame(const uint8_t *frame, size_t length) {
    if (length < 24 || memcmp(frame, "RSFR", 4) || u32(frame + 4) >> 16 > 2) fail("no frame that this reader knows");
    uint16_t version = (uint16_t)u32(frame + 4), compression = (uint16_t)(u32(frame + 4) >> 16);
    uint64_t size = u64(frame + 8);
    if (version != 2) fail("format version %u", version);
    if (size > MAX_BYTES) fail("%" PRIu64 " bytes of content", size);
    uint8_t *checked = room(NULL, length - 8);
    memcpy(checked, frame, 16), memcpy(checked + 16, frame + 24, length - 24);
    if (xxh64(checked, length - 8, 0) != u64(frame + 16)) fail("the checksum of a frame differs");
    free(checked);
    static ZSTD_DCtx *context;
    context = context ? context : ZSTD_createDCtx();
    uint8_t *content = room(NULL, size);
    size_t got = compression == 2 ? ZSTD_decompress_usingDDict(context, content, size, frame + 24, length - 24, dictionary)
                                  : ZSTD_decompressDCtx(context, content, size, frame + 24, length - 24);
    if (ZSTD_isError(got) || got != size) fail("zstd: %s", ZSTD_getErrorName(got));
    Content frame_content = {.content = content};
    size_t end = 0;
    if (msgpack_unpack_next(&frame_content.map, (char *)content, size, &end) != MSGPACK_UNPACK_SUCCESS || end != size) fail("msgpack");
    if (frame_content.map.data.type != MSGPACK_OBJECT_MAP) fail("the content is no map");
    int again = take(&frame_content);
    msgpack_unpacked_destroy(&frame_content.map);
    free(frame_content.content);
    return again;
}

static int read_segment(const char *path, int last) {
    FILE *file = fopen(path, "rb");
    uint8_t head[32], *payload = NULL;
    uint64_t offset = 0;
    int again = 0;
    if (!file) fail("cannot open %s", path);
    while (!again && fread(head, 1, 32, file) == 32) {
        uint32_t length = u32(head + 4);
        if (memcmp(head, "RSRC", 4) || xxh64(head, 24, offset) != u64(head + 24) || length > MAX_BYTES) fail("%s: record at %" PRIu64, path, offset);
        payload = room(payload, length);
        if (fread(payload, 1, length, file) != length) {
            if (!last) fail("%s ends in a record", path);
            break;
        }
        if (xxh64(payload, length, 0) != u64(head + 16)) fail("%s: payload at %" PRIu64, path, offset);
        again = take_frame(payload, length);
        offset += 32 + length;
    }
    free(payload);
    fclose(file);
    return again;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void print_hex(const uint8_t *bytes, size_t count) {
    for (size_t n = 0; n < count; n++) printf("%02x", bytes[n]);
}

int main(int argc, char **argv) {
    char *names[1 << 12];
    size_t num = 0;
    DIR *directory = argc == 2 ? opendir(argv[1]) : NULL;
    if (!directory) fail("usage: reader DIRECTORY");
    for (struct dirent *entry; (entry = readdir(directory)) && num < sizeof names / sizeof *names;)
        if (strlen(entry->d_name) == 14 && !strcmp(entry->d_name + 10, ".seg")) names[num++] = strdup(entry->d_name);
    qsort(names, num, sizeof *names, by_name);
    for (int again = 1; again;) {
        again = 0;
        for (size_t n = 0; n < num && !again; n++) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[1], names[n]);
            again = read_segment(path, n + 1 == num);
        }
        let_go(&staged[0]), let_go(&staged[1]);
    }
    for (size_t n = 0; n < capacity; n++) {
        if (!rows[n].used || !rows[n].weights) continue;
        const Table *table = &tables[rows[n].table];
        printf("%s %" PRId64 " %" PRId64 " ", table->name, rows[n].id, rows[n].version & (((int64_t)1 << 40) - 1));
        print_hex((uint8_t *)rows[n].weights, 4 * table->dim);
        const uint8_t *value = rows[n].columns;
        for (uint32_t c = 0; c < table->num_carried; value += table->carried[c++].bytes)
            printf(" %s=", table->carried[c].name), print_hex(value, table->carried[c].bytes);
        putchar('\n');
    }
    printf("position %" PRIu64 " %" PRIu64 " step %" PRId64 "\n", applied.gen, applied.cut, applied_step);
    return 0;
}
