/* Calls `train` or `evaluate` of a lanes program on arrays from a file, and writes the arrays back behind the call.

   driver train|evaluate FILE. The file: number of arrays, number of integers (int64 each), the arrays' sizes in bytes,
   the integers, then the arrays. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *p;
typedef int64_t i;
void train(p, p, p, p, p, p, p, p, p, p, p, p, p, p, p, i, i, i, i, i);
void evaluate(p, p, p, p, p, p, p, i, i);

static void expect(int condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "driver: %s\n", what);
        exit(1);
    }
}

int main(int count, char **arguments) {
    int64_t head[2], sizes[15], n[5];
    void *a[15];
    expect(count == 3, "usage: driver train|evaluate FILE");
    FILE *file = fopen(arguments[2], "r+b");
    expect(file != NULL, "can't open the file");
    expect(fread(head, 8, 2, file) == 2 && head[0] <= 15 && head[1] <= 5, "bad head");
    expect(fread(sizes, 8, head[0], file) == (size_t)head[0] && fread(n, 8, head[1], file) == (size_t)head[1], "bad head");
    long start = ftell(file);
    for (int64_t k = 0; k < head[0]; k++) {
        a[k] = aligned_alloc(64, (sizes[k] + 63) / 64 * 64 + 64);
        expect(a[k] && fread(a[k], 1, sizes[k], file) == (size_t)sizes[k], "file too short");
    }
    if (!strcmp(arguments[1], "train"))
        train(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14],
              n[0], n[1], n[2], n[3], n[4]);
    else
        evaluate(a[0], a[1], a[2], a[3], a[4], a[5], a[6], n[0], n[1]);
    fseek(file, start, SEEK_SET);
    for (int64_t k = 0; k < head[0]; k++)
        expect(fwrite(a[k], 1, sizes[k], file) == (size_t)sizes[k], "can't write");
    return fclose(file);
}
