"""Images in unusual forms: what can be read is read right, with a sentence where something is off."""

from __future__ import annotations

import io
import re
import resource
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from sa2va_host import media
from sa2va_host.errors import InvalidInput
from sa2va_host.machine.commands import extra_command, sa2va_command

CASES = Path(__file__).parents[1] / "cases"


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (45, 61, 3), dtype=np.uint8)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(width, height, bits, colour, rows, key=b"", level=9):
    """A PNG of these rows, each bytes, with a tRNS chunk where there is a key."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">2I5B", width, height, bits, colour, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows), level)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tRNS", key) if key else b"")
        + chunk(b"IDAT", content)
        + chunk(b"IEND", b"")
    )


def read(source):
    notes: list[str] = []
    return media.read_image(source, notes=notes), notes


# Transparency


@pytest.mark.parametrize(("bits", "key"), [(1, 1), (2, 1), (4, 5), (8, 77), (16, 1285)])
def test_a_transparent_value_of_grey_is_white(bits, key):
    """The value itself is white, its neighbour is not; PNG counts the value in the bits of the file."""
    values = [0, key, key + 1 if bits > 1 else 0, 0, 0, 0, 0, 0]
    row = bytes(0)
    if bits == 16:
        row = struct.pack(">8H", *values)
    else:
        row = int("".join(f"{value:0{bits}b}" for value in values), 2).to_bytes(bits, "big")
    found, notes = read(png(8, 1, bits, 0, [row], struct.pack(">H", key)))
    scale = 255 / (2**bits - 1)
    wanted = [0, 255, *(round(value * scale) for value in values[2:])]
    assert found[0, :, 0].tolist() == wanted
    assert (found[..., 0] == found[..., 2]).all()
    assert len(notes) == (bits == 16)  # all values are below 1/16 there


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_is_white(bits):
    form = ">6B" if bits == 8 else ">6H"
    scale = 1 if bits == 8 else 257
    row = struct.pack(form, *(value * scale for value in (200, 10, 30, 10, 30, 200)))
    key = struct.pack(">3H", *(value * scale for value in (200, 10, 30)))
    found, notes = read(png(2, 1, bits, 2, [row], key))
    assert found[0].tolist() == [[255, 255, 255], [10, 30, 200]]
    assert notes == []


def test_hidden_colours_are_hidden_in_every_format(picture):
    rgba = np.dstack([picture, np.zeros(picture.shape[:2], np.uint8)])
    image = Image.fromarray(rgba)
    for kind, options in {
        "PNG": {},
        "WEBP": {"lossless": True, "exact": True},
        "TIFF": {},
        "TGA": {},
    }.items():
        found, notes = read(encoded(image, kind, **options))
        assert (found == 255).all(), kind
        assert notes == []


# Size


def test_200_megapixels_are_read_and_pillow_keeps_its_limit():
    code = (
        "from PIL import Image; from sa2va_host import media; from sa2va_host.machine.processes import peak_memory;"
        f"path = {str(CASES / '200mp.png')!r}; size = media.image_size(path); pixels = media.read_pixels(path);"
        "print(*size, *pixels.shape, peak_memory() >> 20);"
        "Image.open(path)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    *sizes, peak = map(int, done.stdout.split())
    assert sizes == [12240, 16320, 12240, 16320, 3]
    assert peak < 1100  # MiB: its pixels at one byte, and as RGB
    assert "DecompressionBombError" in done.stderr


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "jpeg"])
def test_a_bomb_is_refused_from_its_header(kind, tmp_path):
    path = tmp_path / f"bomb.{kind}"
    if kind == "png":
        path.write_bytes(png(40_000, 40_000, 8, 2, [b""]))
    else:
        small = bytearray(encoded(Image.new("RGB", (8, 8)), kind.upper()))
        if kind == "bmp":
            small[18:26] = struct.pack("<2I", 40_000, 40_000)
        elif kind == "gif":
            small[6:10] = struct.pack("<2H", 40_000, 40_000)
        else:
            place = small.index(b"\xff\xc0") + 5
            small[place : place + 4] = struct.pack(">2H", 40_000, 40_000)
        path.write_bytes(small)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for attempt in (media.read_image, media.image_size, lambda name: media.read_image(name.read_bytes())):
        with pytest.raises(InvalidInput, match="40000 x 40000 pixels, more than 1024 MiB as RGB"):
            attempt(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_formats_that_ask_pillow_themselves_have_our_bound_too(tmp_path, monkeypatch):
    """WebP refuses by Pillow's limit before anybody else is asked."""
    paths = []
    for kind in ("webp", "ico", "mpo", "tiff"):
        paths.append(tmp_path / f"a.{kind}")
        Image.new("RGB", (64, 64)).save(paths[-1])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    for path in paths:
        with pytest.raises(Image.DecompressionBombError):
            Image.open(path).load()
        assert media.image_size(path) == media.read_image(path).shape[:2] == (64, 64)


def test_other_threads_keep_pillow_s_limit_meanwhile(tmp_path, monkeypatch):
    from sa2va_host import opening

    path = tmp_path / "a.png"
    Image.new("RGB", (100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    raised = []

    def elsewhere():
        try:
            Image.open(path)
        except Image.DecompressionBombError as error:
            raised.append(error)

    with opening.own_bound("x"):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        Image.open(path).close()
    assert len(raised) == 1
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)


# JPEG without its end mark


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "grey": {},
    "best": {"quality": 100, "subsampling": 0},
}


@pytest.fixture(params=JPEGS)
def jpeg(request, picture):
    image = Image.fromarray(picture)
    return encoded(image.convert("L") if request.param == "grey" else image, "JPEG", **JPEGS[request.param])


@pytest.mark.parametrize("rest", [b"", b"\xff", bytes(2), bytes(4096)])
def test_a_jpeg_without_its_end_mark_has_all_its_pixels(jpeg, rest, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg.removesuffix(b"\xff\xd9") + rest)
    whole = media.read_image(jpeg)
    notes: list[str] = []
    assert np.array_equal(media.read_image(path, notes=notes), whole)
    assert notes == [f"{path} lacks the mark that ends a JPEG file; its pixels are all there."]
    with Image.open(path) as image:
        assert np.array_equal(media.read_image(image), whole)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("zeros", [0, 2, 5000])
def test_a_jpeg_that_is_cut_is_refused(jpeg, zeros):
    """Wherever it is cut: in the last bytes, at the restart marks, between scans."""
    data = jpeg.removesuffix(b"\xff\xd9")
    places = {len(data) - 4, len(data) - 8, len(data) - 40, len(data) // 2, len(data) * 9 // 10}
    places |= {match.start() for match in re.finditer(rb"\xff[\xd0-\xd7\xda]", data)}
    places |= {match.start() for match in re.finditer(rb"\xff\xc4", data)}
    for place in places:
        with pytest.raises(InvalidInput, match=r"damaged or cut short|not in an image format|cannot be read"):
            media.read_image(data[:place] + bytes(zeros))


# 12 bits in 16


@pytest.mark.parametrize("kind", ["grey.png", "grey.tif", "rgb.png", "rgb.tif", "array"])
@pytest.mark.parametrize(("brightest", "noted"), [(4095, True), (4096, False), (0, False)])
def test_twelve_bits_in_sixteen_are_a_note(kind, brightest, noted, tmp_path):
    import cv2

    values = np.zeros((6, 8, 3), np.uint16)
    values[2, 3] = brightest
    source = values
    if kind != "array":
        source = tmp_path / kind
        cv2.imwrite(str(source), values[:, :, 0] if "grey" in kind else values)
    found, notes = read(source)
    assert len(notes) == noted
    if noted:
        assert "below 1/16 of white" in notes[0]
    assert abs(int(found.max()) - brightest / 257) <= 1


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_both_orders_of_bytes_are_sixteen_bits(mode):
    values = np.arange(0, 65536, 257, dtype=np.uint16)
    image = Image.frombytes(mode, (256, 1), values.astype("<u2" if mode == "I;16" else ">u2").tobytes())
    for source in (image, encoded(image, "TIFF")):
        found, notes = read(source)
        assert found[0, :, 0].tolist() == list(range(256))
        assert notes == []


def test_a_tiff_of_twelve_bits_is_scaled_by_its_own_range():
    """Two pixels, 4095 and 2048, in three bytes; the fields are those of TIFF 6.0, section 3."""
    fields = {
        256: (4, 2),
        257: (4, 1),
        258: (3, 12),
        259: (3, 1),
        262: (3, 1),
        273: (4, 8),
        277: (3, 1),
        278: (4, 1),
    }
    fields[279] = (4, 3)
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in fields.items())
    pixels = bytes((0xFF, 0xF8, 0x00))
    content = b"II*\0" + struct.pack("<I", 12) + pixels + b"\0"
    content += struct.pack("<H", len(fields)) + entries + bytes(4)
    found, notes = read(content)
    assert found[0, :, 0].tolist() == [255, 128]
    assert notes == []


# What else a file may be


def test_animations_say_so(tmp_path):
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.apng", "a.png"):
        path = tmp_path / name
        frames[0].save(path, "PNG" if name.endswith("png") else None, save_all=True, append_images=frames[1:])
        found, notes = read(path)
        assert np.abs(found.astype(int) - (255, 0, 0)).max() <= 3
        assert notes == [
            f"{path} is animated, and its first frame is read. `{sa2va_command('video')}` reads them all."
        ]
        with Image.open(path) as image:
            image.seek(1)
            found, notes = read(image)
        assert np.abs(found.astype(int) - (0, 0, 255)).max() <= 3
        assert notes == []
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "a.tif")[1] == [
        f"{tmp_path / 'a.tif'} holds several images, of which the first one is read."
    ]
    frames[0].save(tmp_path / "b.gif")
    assert read(tmp_path / "b.gif")[1] == []


def test_videos_and_raw_files_are_sent_elsewhere(tmp_path):
    av = pytest.importorskip("av", reason="an optional extra")
    for name in ("a.mp4", "a.mkv", "no suffix"):
        path = tmp_path / name
        with av.open(str(path), "w", format="mp4" if "4" in name else "matroska") as container:
            stream = container.add_stream("mpeg4", rate=24)
            stream.width = stream.height = 64
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
            container.mux(stream.encode())
        with pytest.raises(InvalidInput, match=r"is a video file, not an image\. Use `\S*sa2va video`"):
            media.read_image(path)
    Image.new("RGB", (160, 120)).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "photo.NEF")  # with its thumbnail, which is a TIFF image
    with pytest.raises(InvalidInput, match="raw data"):
        media.read_image(tmp_path / "photo.NEF")


def test_urls_are_refused():
    for url in ("https://host/a.jpg", "http://host/a.jpg", "s3://bucket/a.png"):
        with pytest.raises(InvalidInput, match=r"is a URL; only files are read\. Download it first"):
            media.read_image(url)


@pytest.fixture
def heic(picture, tmp_path):
    """A HEIC file, written by a process of its own so that this one's Pillow does not know the format."""
    pytest.importorskip("pillow_heif", reason="an optional extra")
    Image.fromarray(picture).save(tmp_path / "plain.png")
    code = (
        "import sys; from PIL import Image; import pillow_heif; pillow_heif.register_heif_opener();"
        "Image.open(sys.argv[1]).save(sys.argv[2], quality=-1, chroma=444, matrix_coefficients=0)"
    )
    path = tmp_path / "photo.heic"
    subprocess.run([sys.executable, "-c", code, tmp_path / "plain.png", path], check=True)
    return path


def test_heic_is_read_with_its_library(heic, picture):
    assert media.image_size(heic) == picture.shape[:2]
    for source in (heic, heic.read_bytes()):
        found, notes = read(source)
        assert np.abs(found.astype(int) - picture).max() <= 3
        assert notes == []


def test_without_its_library_heic_says_what_to_install(heic, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    code = (
        "import sys, importlib.util as util; find = util.find_spec;"
        "util.find_spec = lambda name, *more: None if name == 'pillow_heif' else find(name, *more);"
        f"from sa2va_host import media; media.read_image({str(heic)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert f"is a HEIC image, which this installation cannot read. Run: {extra_command('heif')}" in last


# What Python programs hold


def test_content_and_open_files(picture, tmp_path):
    content = encoded(Image.fromarray(picture), "PNG")
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "PNG")  # which leaves it at its end
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "a.png")
    with (
        path.open("rb") as file,
        zipfile.ZipFile(tmp_path / "a.zip") as archive,
        archive.open("a.png") as member,
    ):
        for source in (
            content,
            bytearray(content),
            memoryview(content),
            written,
            written.getbuffer(),
            file,
            member,
            path,
        ):
            assert np.array_equal(media.read_image(source), picture)
            assert np.array_equal(np.asarray(media.read_pixels(source)), picture)
        assert not file.closed
    assert len(media.read_images([content, written, path])) == 3
    assert np.array_equal(media.read_image(Trickling(content)), picture)


def closed(file):
    file.close()
    return file


class Trickling(io.RawIOBase):
    """A stream without a way back that gives a little at a time, as a socket does."""

    def __init__(self, content):
        self._inner = io.BytesIO(content)

    def read(self, size=-1):
        return self._inner.read(min(size, 1000))


class Broken:
    def __array__(self, *arguments, **named):
        raise RuntimeError("no luck")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", "The image is empty"),
        (io.BytesIO, "The image is empty"),
        (lambda: b"words", "The image is not in an image format"),
        (lambda: io.StringIO("words"), r"opened as text.*open\(path, 'rb'\)"),
        (lambda: closed(io.BytesIO(b"x")), "cannot be read"),
        (lambda: iter([1]), "not list_iterator"),
        (lambda: {"image": 1}, "not dict"),
        (Broken, "cannot be read: no luck"),
    ],
)
def test_what_is_no_image_is_invalid_input(make, message):
    with pytest.raises(InvalidInput, match=message):
        media.read_image(make())


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="the host works without torch")


def test_tensors_of_every_kind(torch, picture):
    whole = torch.from_numpy(picture)
    for dtype in (torch.float32, torch.float64):
        assert np.array_equal(media.read_image(whole.to(dtype) / 255), picture)
    for dtype in (torch.float16, torch.bfloat16):
        wanted = np.rint((whole.to(dtype) / 255).double().numpy() * 255)
        assert np.array_equal(media.read_image(whole.to(dtype) / 255), wanted)
    learned = (whole.float() / 255).requires_grad_()
    assert np.array_equal(media.read_image(learned), picture)
    assert np.array_equal(media.read_image(learned * 1), picture)
    turned = whole.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not turned.is_contiguous()
    assert np.array_equal(media.read_image(turned), picture)
    assert np.array_equal(media.read_image(whole[:, :, 0]), np.repeat(picture[:, :, :1], 3, 2))


@pytest.mark.gpu
def test_tensors_of_a_gpu(torch, picture):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    on_gpu = torch.from_numpy(picture).cuda()
    assert np.array_equal(media.read_image(on_gpu), picture)
    assert np.array_equal(media.read_image((on_gpu / 255).requires_grad_()), picture)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda torch: torch.zeros(3, 40, 50),
            r"\[3, 40, 50\]; \[height, width, 3\] is needed.*tensor.permute\(1, 2, 0\)",
        ),
        (lambda torch: torch.zeros(1, 40, 50, 3), "one picture of a batch"),
        (lambda torch: torch.zeros(4, 5, 3, dtype=torch.bool), "dtype bool"),
        (lambda torch: torch.zeros(4, 5, 3, dtype=torch.int32), "dtype int32"),
        (lambda torch: torch.zeros(4, 5, 3, dtype=torch.complex64), "dtype complex64"),
        (lambda torch: torch.zeros(4, 5, 3, device="meta"), "cannot be read"),
        (lambda torch: torch.zeros(4, 5).to_sparse(), "cannot be read"),
        (lambda torch: torch.full((4, 5, 3), 200, dtype=torch.bfloat16), r"0\.\.1 is needed"),
    ],
)
def test_tensors_that_are_no_images(torch, make, message):
    with pytest.raises(InvalidInput, match=message):
        media.read_image(make(torch))


def test_regions_and_guides_may_be_tensors(torch, picture):
    from sa2va_host.region_prompts import region_masks
    from sa2va_host.results import Segmentation

    box = torch.zeros(45, 61, dtype=torch.bool)
    box[3:9, 4:8] = True
    (mask,) = region_masks([box], [picture])
    assert mask.sum() == 24
    (mask,) = region_masks([torch.tensor([4, 3, 8, 9])], [picture])
    assert np.array_equal(mask, box.numpy())
    wrongs: list[Any] = [box.to_sparse(), box.bfloat16().requires_grad_(), object()]
    for wrong in wrongs:
        with pytest.raises(InvalidInput, match="Region 1"):
            region_masks([wrong], [picture])
    from sa2va_host.masks.refinement import Refinement

    found = Segmentation("", np.ones((1, 1, 8, 8), np.float32), (45, 61), 32)
    guides = [picture, torch.from_numpy(picture).bfloat16() / 255, encoded(Image.fromarray(picture), "PNG")]
    maps = [found.probabilities(Refinement(guide_radius=3), guide=guide) for guide in guides]
    assert np.abs(maps[0] - maps[1]).max() < 0.01
    assert np.array_equal(maps[0], maps[2])


def test_the_home_folder_is_expanded_as_on_the_command_line(picture, tmp_path, monkeypatch):
    Image.fromarray(picture).save(tmp_path / "shot.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in ("~/shot.png", Path("~/shot.png")):
        assert np.array_equal(media.read_image(name), picture)


@pytest.mark.parametrize(
    "content",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n", b"\xd7\xcd\xc6\x9a" + bytes(40)],
)
def test_formats_that_other_programs_would_run_are_not_opened_whatever_a_file_is_called(
    tmp_path, content, monkeypatch
):
    """PostScript is a program, which Pillow gives to Ghostscript; Windows metafiles call the system."""
    monkeypatch.setattr(
        "PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was called")
    )
    path = tmp_path / "image.png"
    path.write_bytes(content)
    for call in (media.read_image, media.image_size):
        with pytest.raises(InvalidInput, match="is not in an image format that is read here"):
            call(path)
    with pytest.raises(InvalidInput, match="format that is read here"):
        media.read_image(content)
