"""What a hostile client or a hostile bundle looks like: bombs, mutations, odd forms.

Everything is made here from a seed; nothing is read from disk. The long campaign
(`benchmarks/abuse.py`) and the short tests take the same generators.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image

BLOWN_BYTES = 64 << 20
BOUNDARY = b"hostile"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY.decode()}"


def seeds() -> list[tuple[str, bytes]]:
    """Small good pictures of every accepted format, to mutate."""
    generator = np.random.default_rng(7)
    coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC)
    frames = [picture.rotate(a) for a in (0, 90, 180)]
    kinds: list[tuple[str, dict[str, object]]] = [
        ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}),
        ("WEBP", {"lossless": True}), ("BMP", {}), ("GIF", {}),
        ("GIF", {"save_all": True, "append_images": frames}), ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("PNG", {"save_all": True, "append_images": frames}),
    ]  # fmt: skip
    found = []
    for format, options in kinds:
        stream = io.BytesIO()
        picture.save(stream, format, **options)
        found.append((format, stream.getvalue()))
    for mode in ("P", "L", "RGBA", "1", "I;16"):
        stream = io.BytesIO()
        other = picture.convert("L").convert("I;16") if mode == "I;16" else picture.convert(mode)
        other.save(stream, "PNG")
        found.append(("PNG", stream.getvalue()))
    return found


def mutations(count: int, seed: int = 0) -> Iterator[bytes]:
    """Pictures with bytes flipped, cut, repeated, swapped, grown or set to extremes."""
    generator = np.random.default_rng(seed)
    originals = [data for _, data in seeds()]
    for number in range(count):
        data = bytearray(originals[number % len(originals)])
        for _ in range(int(generator.integers(1, 9))):
            mutate(data, generator)
        yield bytes(data)


def mutate(data: bytearray, generator: np.random.Generator) -> None:
    """One change, in place; the beginning is hit more often, because headers stand there."""
    if not data:
        data += b"\x00"
    span = len(data) if generator.random() < 0.5 else min(len(data), 64)
    at, kind = int(generator.integers(span)), int(generator.integers(7))
    if kind == 0:
        data[at] ^= 1 << int(generator.integers(8))
    elif kind == 1:
        data[at] = int(generator.integers(256))
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        width = int(generator.integers(1, 64))
        data[at:at] = data[at : at + width] * int(generator.integers(1, 5))
    elif kind == 4:
        extreme = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00")
        data[at : at + 4] = extreme[int(generator.integers(3))]
    elif kind == 5:
        del data[at : at + int(generator.integers(1, 32))]
    else:
        data[at:at] = generator.bytes(int(generator.integers(1, 32)))


def png(width: int, height: int, *, chunks: bytes = b"", rows: int = 0, colour: int = 2) -> bytes:
    """A PNG of any claimed size whose data are `rows` rows of zeros, deflated."""
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    pixels = zlib.compressobj(1)
    data = b""
    if rows:
        row = b"\x00" * (1 + width * (3 if colour == 2 else 1))
        data = b"".join(pixels.compress(row) for _ in range(rows))
    data += pixels.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunks + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def gif(width: int, height: int, frames: int) -> bytes:
    """A GIF of many frames of one pixel on a large canvas."""
    head = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\x00\x00" + b"\x00" * 6
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\x00\x02\x02\x44\x01\x00"
    return head + frame * frames + b"\x3b"


def bmp(width: int, height: int, compression: int = 0) -> bytes:
    """A BMP header that claims any size; 1 is RLE8."""
    bits = 8 if compression else 24
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 256, 0)
    palette = b"\x00\x00\x00\x00" * 256 if compression else b""
    offset = 14 + len(info) + len(palette)
    data = b"\xff\x00" * 5000 + b"\x00\x01"
    return b"BM" + struct.pack("<IHHI", offset, 0, 0, offset) + info + palette + data


def tiff(width: int, height: int, pages: int = 1, compression: int = 1) -> bytes:
    """A TIFF whose pages claim any size and hold next to nothing."""
    pieces = [b"II*\x00", struct.pack("<I", 8)]
    at = 8
    entries = 9
    for page in range(pages):
        size = 2 + entries * 12 + 4
        tags = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression),
            (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height),
            (279, 4, 1, 0xFFFFFFF0),
        ]  # fmt: skip
        after = 0 if page == pages - 1 else at + size
        pieces.append(struct.pack("<H", entries))
        pieces.extend(struct.pack("<HHII", *tag) for tag in tags)
        pieces.append(struct.pack("<I", after))
        at += size
    return b"".join(pieces)


def jpeg(width: int, height: int, scans: int = 0) -> bytes:
    """A JPEG with its size in the header replaced, and scans repeated."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "JPEG", progressive=bool(scans))
    data = bytearray(stream.getvalue())
    start = data.find(b"\xff\xc2" if scans else b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    if scans:
        first = data.rfind(b"\xff\xda")
        body = bytes(data[first:-2])
        data[first:] = body * scans + b"\xff\xd9"
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    """A WebP whose canvas claims any size up to 2^24."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\x00\x00\x00" + canvas
    body += b"ANIM" + struct.pack("<I", 6) + b"\x00" * 6
    return b"RIFF" + struct.pack("<I", len(body)) + body


@cache
def bombs() -> list[tuple[str, bytes]]:
    """Thirty files that are small and would become huge."""
    blown = zlib.compress(b"\x00" * BLOWN_BYTES, 9)
    text = chunk(b"zTXt", b"note\x00\x00" + blown)
    profile = chunk(b"iCCP", b"profile\x00\x00" + blown)
    international = chunk(b"iTXt", b"note\x00\x01\x00\x00\x00" + blown)
    return [
        ("png 100000x100000", png(100_000, 100_000)),
        ("png 2^31 wide", png(2**31 - 1, 1)),
        ("png 2^31 high", png(1, 2**31 - 1)),
        ("png grey 65535x65535", png(65_535, 65_535, colour=0, rows=200)),
        ("png 30000x30000 with rows", png(30_000, 30_000, rows=300)),
        ("png 10000x5000", png(10_000, 5_000, rows=500)),
        ("png 0x0", png(0, 0)),
        ("png zTXt blown up", png(16, 16, chunks=text, rows=16)),
        ("png iCCP blown up", png(100_000, 500, chunks=profile)),
        ("png iTXt blown up", png(16, 16, chunks=international, rows=16)),
        ("png of 60000 text chunks", png(16, 16, chunks=text_chunks(60_000), rows=16)),
        ("apng of 2^31 frames", png(16, 16, chunks=chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
                                    rows=16)),
        ("gif of 100000 frames", gif(16, 16, 100_000)),
        ("gif 65535x65535", gif(65_535, 65_535, 1)),
        ("gif 65535x65535 of 200 frames", gif(65_535, 65_535, 200)),
        ("gif 6000x6000 of 101 frames", gif(6000, 6000, 101)),
        ("bmp 100000x100000", bmp(100_000, 100_000)),
        ("bmp of negative height", bmp(60_000, -60_000)),
        ("bmp rle 30000x30000", bmp(30_000, 30_000, 1)),
        ("bmp rle 2^31", bmp(2**31 - 1, 2**31 - 1, 1)),
        ("tiff 2^32 square", tiff(2**32 - 1, 2**32 - 1)),
        ("tiff 100000x100000 deflate", tiff(100_000, 100_000, compression=8)),
        ("tiff 60000x60000 lzw", tiff(60_000, 60_000, compression=5)),
        ("tiff of 20000 pages", tiff(16, 16, pages=20_000)),
        ("tiff packbits 50000x50000", tiff(50_000, 50_000, compression=32_773)),
        ("jpeg 65535x65535", jpeg(65_535, 65_535)),
        ("jpeg progressive 65500x65500", jpeg(65_500, 65_500, scans=500)),
        ("jpeg progressive 20000x20000", jpeg(20_000, 20_000, scans=2000)),
        ("webp 2^24 square", webp(2**24, 2**24)),
        ("webp 16383x16383", webp(16_383, 16_383)),
    ]  # fmt: skip


def text_chunks(count: int) -> bytes:
    """Many small text chunks."""
    return chunk(b"tEXt", b"a\x00b") * count


def form(*parts: tuple[bytes, bytes], end: bool = True) -> bytes:
    """A multipart body of (head, content) parts."""
    body = b"".join(
        b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    )
    return body + (b"--" + BOUNDARY + b"--\r\n" if end else b"")


def file_part(
    content: bytes, name: bytes = b"a.png", field: bytes = b"files"
) -> tuple[bytes, bytes]:
    """A part that holds a file."""
    head = b'Content-Disposition: form-data; name="' + field + b'"; filename="' + name + b'"'
    return head, content


def odd_forms(picture: bytes) -> list[tuple[str, bytes]]:
    """Forms that a parser may choke on; none of them may give a 5xx."""
    good = file_part(picture)
    return [
        ("5000 empty parts", form(*[file_part(b"")] * 5000)),
        ("5000 fields", form(*[(b'Content-Disposition: form-data; name="x"', b"1")] * 5000)),
        ("a part with a head of 1 MB", form((b"X: " + b"a" * (1 << 20), picture))),
        ("a part with 5000 headers", form((b"\r\n".join([b"X: y"] * 5000), picture))),
        ("no end", form(good, end=False)),
        ("no parts", form()),
        ("nothing", b""),
        ("no disposition", form((b"Content-Type: image/png", picture))),
        ("another boundary", form(good).replace(BOUNDARY, b"other")),
        ("a boundary without line ends", b"--" + BOUNDARY + b"--" + b"a" * 1000),
        ("base64", form((good[0] + b"\r\nContent-Transfer-Encoding: base64", b"aGVsbG8="))),
        ("a name of 7 kB", form(file_part(picture, b"a" * 7000 + b".png"))),
        ("a name of nonsense", form(file_part(picture, b"\xff\xfe\x00\x01%00\\..\\x"))),
        ("nested multipart", form((good[0] + b"\r\nContent-Type: multipart/mixed; boundary=b",
                                   b"--b\r\n\r\n" + picture + b"\r\n--b--"))),
        ("garbage", bytes(range(256)) * 40),
    ]  # fmt: skip


TRAVERSALS = (
    b"../../../etc/passwd.png", b"..\\..\\windows\\system.ini", b"/etc/passwd", b"C:\\boot.ini",
    b"....//....//x.png", b"%2e%2e%2fx.png", b"x\x00.png", b"..", b".", b"", b"~/.ssh/id_rsa",
    b"file:///etc/passwd", b"|ls", b"$(id).png", b"a\r\nX-Injected: 1.png", b"con.png",
)  # fmt: skip
