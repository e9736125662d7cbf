/* Workloads of benches/mips.sh, run as the guest's init: each between two marks on the console. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

static void mark(const char *edge, const char *name) {
    printf("mark %s %s\n", edge, name);
    fflush(stdout);
}

/* Arithmetic in registers: a xorshift generator and a few dependent operations. */
static uint64_t integer_loop(uint64_t rounds) {
    uint64_t x = 88172645463325252u, sum = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        if (x & 4)
            sum += x >> 3;
        else
            sum ^= i;
    }
    return sum;
}

/* Loads and stores all over 16 MiB. */
static uint64_t memory_loop(uint64_t rounds) {
    enum { WORDS = 2 << 20 };
    static uint64_t words[WORDS];
    uint64_t at = 1, sum = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        words[at] += i;
        sum += words[(at + 4099) % WORDS];
        at = (at * 5 + 12345) % WORDS;
    }
    return sum;
}

static uint32_t rotr(uint32_t v, int n) { return v >> n | v << (32 - n); }

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/* FIPS 180-4; the length is a multiple of 64. */
static void sha256(const uint8_t *data, size_t len, uint32_t h[8]) {
    static const uint32_t init[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(h, init, sizeof init);
    uint8_t last[64] = {0x80};
    for (int i = 0; i < 8; i++)
        last[56 + i] = (uint8_t)((uint64_t)len * 8 >> (56 - 8 * i));
    for (size_t block = 0; block <= len / 64; block++) {
        const uint8_t *p = block < len / 64 ? data + 64 * block : last;
        uint32_t w[64], s[8];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + w[i - 7] + (rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3) +
                   (rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10);
        memcpy(s, h, sizeof s);
        for (int i = 0; i < 64; i++) {
            uint32_t t1 = s[7] + (rotr(s[4], 6) ^ rotr(s[4], 11) ^ rotr(s[4], 25)) +
                          ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i];
            uint32_t t2 = (rotr(s[0], 2) ^ rotr(s[0], 13) ^ rotr(s[0], 22)) +
                          ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
            memmove(s + 1, s, 7 * sizeof *s);
            s[4] += t1;
            s[0] = t1 + t2;
        }
        for (int i = 0; i < 8; i++)
            h[i] += s[i];
    }
}

static void forks(int count) {
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            execl("/bin/busybox", "true", (char *)NULL);
            _exit(127);
        }
        int status;
        waitpid(pid, &status, 0);
        if (status != 0) {
            printf("busybox true ended with %#x\n", status);
            return;
        }
    }
}

int main(void) {
    mark("begin", "integer");
    uint64_t sum = integer_loop(20000000);
    mark("end", "integer");
    printf("integer sum %llx\n", (unsigned long long)sum);

    mark("begin", "memory");
    sum = memory_loop(10000000);
    mark("end", "memory");
    printf("memory sum %llx\n", (unsigned long long)sum);

    size_t len = 16 << 20;
    uint8_t *data = malloc(len);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 31 + (i >> 8));
    uint32_t h[8];
    mark("begin", "sha256");
    sha256(data, len, h);
    mark("end", "sha256");
    printf("sha256");
    for (int i = 0; i < 8; i++)
        printf("%s%08x", i ? "" : " ", h[i]);
    printf("\n");

    mark("begin", "forkexec");
    forks(300);
    mark("end", "forkexec");
    fflush(stdout);
    reboot(RB_POWER_OFF);
    return 0;
}
