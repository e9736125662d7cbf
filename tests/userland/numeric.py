"""A numeric script whose output is the same on every correct processor.

Only operations whose result IEEE 754 or integer arithmetic defines to the last bit are printed in
full; results of the C library's elementary functions, which may differ by version in the last
bit, are rounded to twelve digits.
"""
import decimal
import fractions
import hashlib
import math
import random
import struct
import zlib


def show(name, value):
    print(name, value if not isinstance(value, float) else value.hex())


def rounded(value):
    return "%.11e" % value


def logistic(x, r, steps):
    for _ in range(steps):
        x = r * x * (1.0 - x)
    return x


def determinant(rows):
    rows = [row[:] for row in rows]
    result = 1.0
    for i in range(len(rows)):
        pivot = max(range(i, len(rows)), key=lambda k: abs(rows[k][i]))
        if pivot != i:
            rows[i], rows[pivot] = rows[pivot], rows[i]
            result = -result
        result *= rows[i][i]
        for k in range(i + 1, len(rows)):
            factor = rows[k][i] / rows[i][i]
            for j in range(i, len(rows)):
                rows[k][j] -= factor * rows[i][j]
    return result


def sieve(limit):
    marks = bytearray([1]) * (limit + 1)
    marks[0:2] = b"\0\0"
    for n in range(2, math.isqrt(limit) + 1):
        if marks[n]:
            marks[n * n :: n] = bytes(len(marks[n * n :: n]))
    return sum(marks), sum(i for i, m in enumerate(marks) if m)


FUNCTIONS = (math.sin, math.cos, math.tan, math.exp, math.log, math.gamma, math.erf, math.atan)

rng = random.Random(20250101)
show("logistic", logistic(0.3, 3.9999, 20000))
show("determinant", determinant([[rng.uniform(-1, 1) for _ in range(24)] for _ in range(24)]))
show("harmonic", math.fsum(1.0 / n for n in range(1, 20001)))
show("roots", sum(math.sqrt(n) for n in range(20000)))
show("denormal", 5e-324 * 3 / 2)
show("single", struct.unpack("<f", struct.pack("<f", 0.1))[0])
show("sieve", sieve(200000))
show("power", pow(0xDEADBEEF, 10**40 + 7, 2**521 - 1))
show("factorial", hashlib.sha256(str(math.factorial(1500)).encode()).hexdigest())
show("bernoulli", sum((fractions.Fraction(1, n * n) for n in range(1, 120)), fractions.Fraction(0)))
with decimal.localcontext() as context:
    context.prec = 200
    show("decimal", decimal.Decimal(2).sqrt() * decimal.Decimal(3).ln())
noise = bytes(rng.getrandbits(8) for _ in range(100000))
for name in ("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b"):
    show(name, hashlib.new(name, noise).hexdigest())
show("zlib", (zlib.crc32(noise), zlib.adler32(noise), zlib.decompress(zlib.compress(noise)) == noise))
show("sorted", hashlib.sha256(repr(sorted(rng.random() for _ in range(5000))).encode()).hexdigest())
for x in (0.5, 1.25, 10.0, 123.456):
    show("elementary", [rounded(f(x)) for f in FUNCTIONS])
