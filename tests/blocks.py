"""Blocks of GGUF files read one value at a time, in fractions. Follows ggml's C, not verify."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

KVALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
Reader = Callable[[bytes], list[Fraction]]


def half(b: bytes) -> Fraction:
    bits = int.from_bytes(b, "little")
    sign, exponent, mantissa = -1 if bits >> 15 else 1, bits >> 10 & 31, bits & 1023
    assert exponent < 31
    if exponent == 0:
        return Fraction(sign * mantissa, 1 << 24)
    return Fraction(sign * (1024 + mantissa)) * Fraction(2) ** (exponent - 25)


def signed(x: int) -> int:
    return x - 256 if x > 127 else x


def q4_0(b: bytes) -> list[Fraction]:
    d, qs = half(b[:2]), b[2:]
    return [d * ((q & 15) - 8) for q in qs] + [d * ((q >> 4) - 8) for q in qs]


def q4_1(b: bytes) -> list[Fraction]:
    d, m, qs = half(b[:2]), half(b[2:4]), b[4:]
    return [d * (q & 15) + m for q in qs] + [d * (q >> 4) + m for q in qs]


def five(qh: bytes, qs: bytes) -> list[int]:
    high = int.from_bytes(qh, "little")
    low = [q & 15 | (high >> j & 1) << 4 for j, q in enumerate(qs)]
    return low + [q >> 4 | (high >> (j + 16) & 1) << 4 for j, q in enumerate(qs)]


def q5_0(b: bytes) -> list[Fraction]:
    return [half(b[:2]) * (q - 16) for q in five(b[2:6], b[6:])]


def q5_1(b: bytes) -> list[Fraction]:
    return [half(b[:2]) * q + half(b[2:4]) for q in five(b[4:8], b[8:])]


def q8_0(b: bytes) -> list[Fraction]:
    return [half(b[:2]) * signed(q) for q in b[2:]]


def q2_k(b: bytes) -> list[Fraction]:
    scales, qs, d, low = b[:16], b[16:80], half(b[80:82]), half(b[82:84])
    y, i = [], 0
    for n in (0, 32):
        for shift in (0, 2, 4, 6):
            for part in (0, 16):
                dl, ml = d * (scales[i] & 15), low * (scales[i] >> 4)
                y += [dl * (q >> shift & 3) - ml for q in qs[n + part : n + part + 16]]
                i += 1
    return y


def q3_k(b: bytes) -> list[Fraction]:
    hmask, qs, packed, d = b[:32], b[32:96], b[96:108], half(b[108:110])
    a0, a1, tmp = (int.from_bytes(packed[i : i + 4], "little") for i in (0, 4, 8))
    k1, k2 = 0x03030303, 0x0F0F0F0F
    words = (
        a0 & k2 | (tmp & k1) << 4,
        a1 & k2 | (tmp >> 2 & k1) << 4,
        a0 >> 4 & k2 | (tmp >> 4 & k1) << 4,
        a1 >> 4 & k2 | (tmp >> 6 & k1) << 4,
    )
    scales = b"".join(w.to_bytes(4, "little") for w in words)
    y, i, m = [], 0, 1
    for n in (0, 32):
        for shift in (0, 2, 4, 6):
            for part in (0, 16):
                dl = d * (scales[i] - 32)
                for x in range(part, part + 16):
                    y.append(dl * ((qs[n + x] >> shift & 3) - (0 if hmask[x] & m else 4)))
                i += 1
            m <<= 1
    return y


def scale_min(j: int, q: bytes) -> tuple[int, int]:
    if j < 4:
        return q[j] & 63, q[j + 4] & 63
    return q[j + 4] & 15 | q[j - 4] >> 6 << 4, q[j + 4] >> 4 | q[j] >> 6 << 4


def q4_k(b: bytes) -> list[Fraction]:
    d, low, scales, qs = half(b[:2]), half(b[2:4]), b[4:16], b[16:]
    y = []
    for j in range(8):
        s, m = scale_min(j, scales)
        run = qs[j // 2 * 32 :][:32]
        y += [d * s * (q >> 4 if j % 2 else q & 15) - low * m for q in run]
    return y


def q5_k(b: bytes) -> list[Fraction]:
    d, low, scales, qh, qs = half(b[:2]), half(b[2:4]), b[4:16], b[16:48], b[48:]
    y = []
    for j in range(8):
        s, m = scale_min(j, scales)
        for x, q in enumerate(qs[j // 2 * 32 :][:32]):
            y.append(d * s * ((q >> 4 if j % 2 else q & 15) + (16 if qh[x] >> j & 1 else 0)) - low * m)
    return y


def q6_k(b: bytes) -> list[Fraction]:
    y: list[Fraction] = []
    d = half(b[208:210])
    for n in (0, 1):
        ql, qh, sc = b[64 * n :][:64], b[128 + 32 * n :][:32], [signed(x) for x in b[192 + 8 * n :][:8]]
        part = [Fraction(0)] * 128
        for x in range(32):
            i = x // 16
            q1 = (ql[x] & 15 | (qh[x] & 3) << 4) - 32
            q2 = (ql[x + 32] & 15 | (qh[x] >> 2 & 3) << 4) - 32
            q3 = (ql[x] >> 4 | (qh[x] >> 4 & 3) << 4) - 32
            q4 = (ql[x + 32] >> 4 | (qh[x] >> 6 & 3) << 4) - 32
            for place, (q, s) in enumerate(((q1, sc[i]), (q2, sc[i + 2]), (q3, sc[i + 4]), (q4, sc[i + 6]))):
                part[x + 32 * place] = d * s * q
        y += part
    return y


def iq4_nl(b: bytes) -> list[Fraction]:
    d, qs = half(b[:2]), b[2:]
    return [d * KVALUES[q & 15] for q in qs] + [d * KVALUES[q >> 4] for q in qs]


def iq4_xs(b: bytes) -> list[Fraction]:
    d, high, low, qs = half(b[:2]), int.from_bytes(b[2:4], "little"), b[4:8], b[8:]
    y = []
    for i in range(8):
        s = (low[i // 2] >> 4 * (i % 2) & 15 | (high >> 2 * i & 3) << 4) - 32
        run = qs[16 * i : 16 * i + 16]
        y += [d * s * KVALUES[q & 15] for q in run] + [d * s * KVALUES[q >> 4] for q in run]
    return y


# Kind -> (values of a block, where its halves stand, reader).
READERS: dict[str, tuple[int, tuple[int, ...], Reader]] = {
    "Q4_0": (32, (0,), q4_0),
    "Q4_1": (32, (0, 2), q4_1),
    "Q5_0": (32, (0,), q5_0),
    "Q5_1": (32, (0, 2), q5_1),
    "Q8_0": (32, (0,), q8_0),
    "Q2_K": (256, (80, 82), q2_k),
    "Q3_K": (256, (108,), q3_k),
    "Q4_K": (256, (0, 2), q4_k),
    "Q5_K": (256, (0, 2), q5_k),
    "Q6_K": (256, (208,), q6_k),
    "IQ4_NL": (32, (0,), iq4_nl),
    "IQ4_XS": (256, (0,), iq4_xs),
}
