"The reader of photographs: what a phone, a scanner, an editor or a broken download brings, against OpenCV and Pillow; and changed bytes."
import hashlib, io, os, struct
from functools import cache

import cv2, numpy as np, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image, ImageOps

import p2net.people.photographs as photographs
from p2net.errors import InputError
from p2net.people.photographs import MAX_PIXELS, orientation, photo_size, uniform_colour, read_photo
from samples import sample

H, W = 30, 42
PIXELS = cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8), (W, H), interpolation=cv2.INTER_CUBIC)
PICTURE = Image.fromarray(PIXELS)


def coded(kind, picture=PICTURE, tag=None, **more):
    "A file's bytes, with an orientation tag if wanted."
    if tag: (exif := Image.Exif())[274] = tag; more['exif'] = exif
    picture.save(out := io.BytesIO(), kind, **more)
    return out.getvalue()


def by_cv2(ending, pixels): return cv2.imencode(ending, pixels)[1].tobytes()


def read(tmp_path, data, name='a.jpg'):
    "Pixels of a file with these bytes; header and pixels must agree, and the hash is the file's."
    (tmp_path/name).write_bytes(data)
    pixels, sha = read_photo(tmp_path/name)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and photo_size(tmp_path/name) == pixels.shape[:2]
    assert sha == hashlib.sha256(data).hexdigest()
    return pixels


def refused(tmp_path, data, name='a.jpg'):
    "The one line that a file with these bytes is refused in."
    (tmp_path/name).write_bytes(data)
    with pytest.raises(InputError) as caught: read_photo(tmp_path/name)
    assert '\n' not in str(caught.value) and str(caught.value).startswith(str(tmp_path/name)) and caught.value.remedy
    return str(caught.value)


# ---- ordinary photographs: the pixels that records of runs rest on

ORDINARY = {'jpeg': coded('JPEG'), 'progressive': coded('JPEG', progressive=True), 'grey jpeg': coded('JPEG', PICTURE.convert('L')),
            'jpeg 4:4:4': coded('JPEG', quality=97, subsampling=0), 'png': coded('PNG'), 'grey png': coded('PNG', PICTURE.convert('L')),
            'tag 1': coded('JPEG', tag=1), 'restarts': coded('JPEG', restart_marker_blocks=1), 'comment': coded('JPEG', comment=b'\xff\xd9')}

situation = pytest.mark.situation

@pytest.mark.parametrize('name', ORDINARY)
def test_ordinary_files_are_decoded_by_opencv_bit_for_bit(tmp_path, name):
    data = ORDINARY[name]
    plainly = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[..., ::-1]
    assert (read(tmp_path, data) == plainly).all()


def test_ordinary_files_are_decoded_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(photographs.cv2, 'imdecode', lambda *a, to=cv2.imdecode: calls.append(a) or to(*a))
    monkeypatch.setattr(photographs.Image, 'open', lambda *a, **k: pytest.fail('Pillow was asked'))
    for data in ORDINARY.values(): read(tmp_path, data)
    assert len(calls) == len(ORDINARY)


def test_the_photographs_of_the_field(tmp_path):
    "COCO's own files: not a pixel differs from OpenCV's."
    for path in sorted(sample('data/coco-people/images').rglob('*.jpg'))[:40]:
        assert (read_photo(path)[0] == cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[..., ::-1]).all()


# ---- orientation

@pytest.mark.situation('a photograph with one of the eight EXIF orientations, as JPEG, PNG, WebP or TIFF', 'it is read upright, in every command')
@pytest.mark.parametrize('tag', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF', 'TIFF lzw', 'TIFF 16'])
def test_orientation_is_applied(tmp_path, kind, tag):
    "Against Pillow's own transposition of the untagged file."
    deep, how = Image.fromarray(PIXELS[..., 0].astype(np.uint16)*257), dict(lossless=True) if kind == 'WEBP' else {}
    if kind == 'TIFF lzw': how = dict(compression='tiff_lzw')
    picture = deep if kind == 'TIFF 16' else PICTURE
    data = coded(kind.split()[0], picture, tag, **how)
    expected = Image.fromarray(read(tmp_path, coded(kind.split()[0], picture, **how), 'untagged'))
    (exif := Image.Exif())[274] = tag
    expected.info['exif'] = exif.tobytes()
    assert (read(tmp_path, data) == np.asarray(ImageOps.exif_transpose(expected))).all()
    assert orientation(tmp_path/'a.jpg') == tag
    assert photo_size(tmp_path/'a.jpg') == ((H, W) if tag < 5 else (W, H))


def test_orientation_behind_the_pixels_of_a_png(tmp_path):
    data = coded('PNG')
    block = b'MM\0*' + struct.pack('>IHHHIHHI', 8, 1, 274, 3, 1, 6, 0, 0)
    import zlib
    chunk = struct.pack('>I', len(block)) + b'eXIf' + block + struct.pack('>I', zlib.crc32(b'eXIf' + block))
    assert (read(tmp_path, data[:-12] + chunk + data[-12:]) == np.rot90(PIXELS, -1)).all()


@pytest.mark.parametrize('tag', [0, 9, 255])
def test_an_orientation_that_does_not_exist_is_none(tmp_path, tag):
    assert (read(tmp_path, coded('PNG', tag=tag)) == PIXELS).all() and orientation(tmp_path/'a.jpg') == 1


def test_an_orientation_in_xmp_alone_is_ignored_as_browsers_do(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert read(tmp_path, coded('JPEG', xmp=xmp)).shape == (H, W, 3)


def test_avif_is_turned(tmp_path):
    if 'AVIF' not in photographs.formats(): pytest.skip('this Pillow has no AVIF')
    try: data = coded('AVIF', tag=6, quality=100)
    except (OSError, KeyError): pytest.skip('this Pillow writes no AVIF')
    assert read(tmp_path, data).shape == (W, H, 3) and orientation(tmp_path/'a.jpg') == 6


# ---- what stands behind, and what is cut off

@pytest.mark.situation('a JPEG or PNG with data behind its end: Motion Photo, gain map, zeros', 'the same picture as without')
@pytest.mark.parametrize('behind', [bytes(9), bytes(70_000), b'\xff', b'....ftypmp42' + bytes(range(256))*99, ORDINARY['jpeg']],
                         ids=['zeros', 'many zeros', 'ff', 'film', 'another jpeg'])
@pytest.mark.parametrize('name', ['jpeg', 'progressive', 'png', 'tag 1'])
def test_data_behind_the_end_is_no_part_of_the_picture(tmp_path, name, behind):
    "Motion Photos, gain maps, padding."
    assert (read(tmp_path, ORDINARY[name] + behind) == read(tmp_path, ORDINARY[name])).all()


@cache
def with_thumbnail(): # a JPEG whose EXIF holds a whole small JPEG
    small = coded('JPEG', PICTURE.resize((16, 12)))
    block = b'Exif\0\0II*\0' + bytes(12) + small
    data = coded('JPEG', quality=95)
    return data[:2] + b'\xff\xe1' + struct.pack('>H', len(block) + 2) + block + data[2:]


@pytest.mark.situation('a photograph that is cut at any place', 'one line with the file; `a JPEG that is cut short: its end is missing; restore the file or leave it out` and its like')
@pytest.mark.parametrize('data', [with_thumbnail(), *(ORDINARY[k] for k in ('jpeg', 'progressive', 'png', 'restarts')),
                                  *(coded(k) for k in ('TIFF', 'WEBP', 'GIF', 'BMP')), by_cv2('.png', PIXELS.astype(np.uint16)*257)],
                         ids=['thumbnail', 'jpeg', 'progressive', 'png', 'restarts', 'tiff', 'webp', 'gif', 'bmp', 'png16'])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path, data):
    read(tmp_path, data)
    for length in [*range(1, 40), *range(40, len(data) - 16, max(1, len(data)//60)), *range(len(data) - 16, len(data) - 1)]:
        try: pixels = read(tmp_path, data[:length])
        except InputError as error: assert 'a.jpg: ' in str(error)
        else: assert (pixels == read(tmp_path, data)).all() and data[:2] in (b'GI', b'II', b'BM'), length      # only padding is gone


def test_a_cut_jpeg_is_refused_where_opencv_paints_the_rest_grey(tmp_path, monkeypatch):
    "As OpenCV 4 does: the missing end is looked for behind the thumbnail, which has one of its own."
    monkeypatch.setattr(photographs.cv2, 'imdecode', lambda *a: np.full((H, W, 3), 128, np.uint8))
    data = with_thumbnail()
    for cut in (-2, -40, len(data)*2//3): assert 'a JPEG that is cut short: its end is missing' in refused(tmp_path, data[:cut])


# ---- bits, colours, transparency

@pytest.mark.situation('PNG and TIFF with 16 bits', 'read as 8 bits, rounded')
def test_sixteen_bits(tmp_path):
    deep = np.random.default_rng(1).integers(0, 65536, (H, W, 3)).astype(np.uint16)
    expected = np.rint(deep/257).astype(int)
    for ending in ('.png', '.tiff'):
        assert (read(tmp_path, by_cv2(ending, deep))[..., ::-1] == expected).all()
        assert (read(tmp_path, by_cv2(ending, deep[..., 0])) == expected[..., :1]).all()


def test_sixteen_bits_and_transparent(tmp_path):
    deep = np.full((H, W, 4), 40*257, np.uint16); deep[..., 3] = np.arange(W)/(W - 1)*65535
    for ending in ('.png', '.tiff'):
        pixels = read(tmp_path, by_cv2(ending, deep))
        assert (pixels[:, 0] == 255).all() and (pixels[:, -1] == 40).all() and (np.diff(pixels[0, :, 0].astype(int)) <= 0).all()


def test_a_tiff_in_which_zero_is_white(tmp_path):
    deep = (PIXELS[..., 0].astype(np.uint16)*257)
    assert (read(tmp_path, coded('TIFF', Image.fromarray(deep), tiffinfo={262: 0})) == 255 - PIXELS[..., :1]).all()
    assert (read(tmp_path, coded('TIFF', PICTURE.convert('1'), compression='group4')) % 255 == 0).all()


@pytest.mark.situation('a TIFF of floats in [0, 1] or [0, 255]', 'read as grey levels')
@pytest.mark.parametrize('kind', [np.float32, np.float64])
@pytest.mark.parametrize('most', [1, 255])
def test_floats(tmp_path, kind, most):
    for pixels in (PIXELS[..., ::-1], PIXELS[..., 0]):
        expected = PIXELS if pixels.ndim == 3 else PIXELS[..., :1]
        assert (read(tmp_path, by_cv2('.tiff', (pixels*(most/255)).astype(kind))) == expected).all()


@pytest.mark.situation('a TIFF of floats outside these ranges, or NaN', 'one line: `… not in [0, 1] or [0, 255]; save it with 8 or 16 bits`')
@pytest.mark.parametrize('low, high', [(-2, 2), (0, 4000), (0, np.nan), (0, np.inf)])
def test_floats_that_are_no_grey_levels(tmp_path, low, high):
    pixels = PIXELS[..., 0]/np.float32(255)*.5; pixels[0, :2] = low, high
    assert 'not in [0, 1] or [0, 255]; save it with 8 or 16 bits' in refused(tmp_path, by_cv2('.tiff', pixels))


@pytest.mark.situation('CMYK as JPEG or TIFF', 'the colours as they were')
def test_cmyk(tmp_path):
    "Colours as they were before CMYK, whether Adobe's marker is there or not, and in a TIFF, which isn't inverted."
    cmyk = PICTURE.convert('CMYK')
    data = coded('JPEG', cmyk, quality=98, subsampling=0)
    for data in (data, coded('TIFF', cmyk)): assert np.abs(read(tmp_path, data).astype(int) - PIXELS).max() < 12


def test_palette_one_bit_and_grey_levels(tmp_path):
    for picture in (PICTURE.quantize(16), PICTURE.convert('1'), PICTURE.convert('L').point(lambda v: v//85*85)):
        assert (read(tmp_path, coded('PNG', picture)) == np.asarray(picture.convert('RGB'))).all()


@pytest.mark.situation('transparent pictures', 'they stand in front of white')
def test_transparent_is_white(tmp_path):
    "Alpha, one transparent colour, a transparent entry of a palette, grey with alpha."
    alpha = np.zeros((H, W), np.uint8); alpha[5:20] = 255
    rgba = Image.fromarray(np.dstack([PIXELS, alpha]))
    for data in (coded('PNG', rgba), coded('WEBP', rgba, lossless=True, exact=True), coded('TIFF', rgba)):
        pixels = read(tmp_path, data)
        assert (pixels[5:20] == PIXELS[5:20]).all() and (pixels[:5] == 255).all()
    marked = PIXELS.copy(); marked[:5] = 1, 2, 3
    pixels = read(tmp_path, coded('PNG', Image.fromarray(marked), transparency=(1, 2, 3)))
    assert (pixels[:5] == 255).all() and (pixels[5:] == marked[5:]).all()
    grey = Image.fromarray(np.dstack([PIXELS[..., 0], alpha]), 'LA')
    assert (read(tmp_path, coded('PNG', grey))[:5] == 255).all()
    black = Image.new('P', (W, H), 0); black.putpalette([0, 0, 0, 9, 9, 9])
    for kind in ('PNG', 'GIF'): assert (read(tmp_path, coded(kind, black, transparency=0)) == 255).all()


@pytest.mark.situation('animated GIF, WebP or PNG', 'the first frame')
@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG'])
def test_the_first_frame_of_an_animation(tmp_path, kind):
    frames = [Image.new('RGB', (W, H), colour) for colour in ('red', 'lime', 'blue')]
    more = dict(lossless=True) if kind == 'WEBP' else {}
    data = coded(kind, frames[0], save_all=True, append_images=frames[1:], **more)
    assert (read(tmp_path, data) == [255, 0, 0]).all()


@pytest.mark.situation('a PNG, WebP or TIFF called .jpg', 'read by its content')
@pytest.mark.parametrize('kind', ['PNG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'JPEG2000', 'PPM'])
def test_the_content_decides_and_not_the_ending(tmp_path, kind): assert read(tmp_path, coded(kind), 'a.jpg').shape == (H, W, 3)


# ---- large ones

def png_of(h, w): # a PNG's header and end, without pixels
    return b'\x89PNG\r\n\x1a\n' + struct.pack('>I4sIIBBBBBI', 13, b'IHDR', w, h, 8, 2, 0, 0, 0, 0) + struct.pack('>I4sI', 0, b'IEND', 0)


@pytest.mark.situation('a picture of more than 250 million pixels', 'one line: `… pixels, more than 250 million; make it smaller`, before it is decoded')
def test_more_pixels_than_the_limit_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs.cv2, 'imdecode', lambda *a: pytest.fail('decoded'))
    side = int(MAX_PIXELS**.5) + 1
    jpeg = bytearray(ORDINARY['jpeg']); at = jpeg.index(b'\xff\xc0') + 5
    jpeg[at:at + 4] = struct.pack('>HH', side, side)
    bmp = bytearray(coded('BMP')); bmp[18:26] = struct.pack('<II', side, side)
    tiff = bytearray(coded('TIFF'))
    for tag in (256, 257):
        at = tiff.index(struct.pack('<HH', tag, 4)) + 8
        tiff[at:at + 4] = struct.pack('<I', side)
    for data in (png_of(side, side), bytes(jpeg), bytes(bmp), bytes(tiff)):
        assert f'{side} x {side} pixels, more than 250 million; make it smaller' in refused(tmp_path, data)


def test_pillows_own_limit_is_replaced_and_left_as_it_was(tmp_path, monkeypatch, recwarn):
    "A large GIF or TIFF is read without Pillow's warning or error, and other users of Pillow keep their limit."
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 500)
    for kind in ('GIF', 'TIFF', 'WEBP', 'BMP'): assert read(tmp_path, coded(kind)).shape == (H, W, 3)
    assert Image.MAX_IMAGE_PIXELS == 500 and not recwarn.list


# ---- what is not a photograph

@pytest.mark.situation("HEIC, a camera's raw file, a web page, a pointer of git-lfs, a PDF, a film under the name of a photograph", 'one line that says what it is and what to do: `a.jpg: HEIC; save it as JPEG …`')
@pytest.mark.parametrize('data, says', [
    (b'', 'empty: 0 bytes'), (bytes(3000), 'zeros'), (b'no picture', 'no picture that Pillow or OpenCV can read'),
    (b'\n<!DOCTYPE html><html>', 'a web page'), (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'SVG'), (b'%PDF-1.7', 'PDF'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9', 'PostScript'), (b'version https://git-lfs.github.com/spec/v1', 'git lfs pull'),
    (b'\0\5\x16\7\0\2\0\0Mac OS X        ', 'side file that macOS wrote'), (b'PK\3\4', 'ZIP'), (b'\0\0\0\x18ftypheic', 'HEIC; save it as JPEG'),
    (b'\0\0\0\x18ftypmif1', 'HEIC'), (b'\0\0\0\x18ftypisom', 'a film'), (b'RIFF\0\0\0\0AVI LIST', 'a film'), (b'\0\0\0\x18ftypcrx ', "camera's raw"),
    (b'\xff\xd8\xff\xe0', 'a JPEG that ends before its picture begins'), (png_of(0, 5), 'not a whole picture: a PNG'),
    (coded('TIFF', tiffinfo={254: 1}), "a camera's raw file, or a TIFF whose first picture is a thumbnail")])
def test_what_a_file_seems_to_be_is_said(tmp_path, data, says): assert says in refused(tmp_path, data)


def test_a_damaged_palette_or_size(tmp_path):
    "Pillow says SyntaxError for the one; the other has no pixels, which its header alone tells."
    data = bytearray(coded('PNG', PICTURE.quantize(16))); data[data.index(b'PLTE') + 8] ^= 255
    assert 'not a whole picture: a PNG' in refused(tmp_path, bytes(data))
    refused(tmp_path, png_of(0, 5))
    for function in (photo_size, orientation):
        with pytest.raises(InputError, match='a.jpg: not a whole picture'): function(tmp_path/'a.jpg')


def test_files_that_are_not_there_or_no_files(tmp_path):
    os.mkfifo(tmp_path/'pipe')                                            # must not hang
    for path, says in ((tmp_path/'none.jpg', 'there is no such photograph'), (tmp_path, 'not a file'), (tmp_path/'pipe', 'not a file'),
                       ('a\0b.jpg', 'null'), ('x'*400 + '.jpg', 'too long')):
        for function in (read_photo, photo_size, orientation):
            with pytest.raises(InputError, match=says): function(path)


def test_a_film_called_photograph_is_refused_unread(tmp_path):
    with open(tmp_path/'a.jpg', 'wb') as file: file.truncate(5*10**9)     # sparse: takes no space
    with pytest.raises(InputError, match='5.0 GB'): read_photo(tmp_path/'a.jpg')


@pytest.mark.parametrize('value, says', [(0, 'black'), (255, 'white'), (1, None), (254, None)])
def test_plain(value, says):
    pixels = np.full((H, W, 3), value, np.uint8)
    assert uniform_colour(pixels) == says
    if says:
        for place in ((0, 0, 0), (H//2, 3, 1), (H - 1, W - 1, 2)):
            other = pixels.copy(); other[place] ^= 1
            assert uniform_colour(other) is None
    assert uniform_colour(np.zeros((0, 3, 3), np.uint8)) is None


# ---- any bytes at all

@cache
def whole(): # many files
    files = {**ORDINARY, 'cmyk': coded('JPEG', PICTURE.convert('CMYK')), 'tagged': coded('JPEG', tag=6), 'thumbnail': with_thumbnail()}
    for kind in ('WEBP', 'GIF', 'BMP', 'PPM', 'JPEG2000', 'TIFF', 'SGI', 'PCX'): files[kind] = coded(kind)
    for how in ('tiff_lzw', 'tiff_adobe_deflate', 'packbits', 'jpeg'): files[how] = coded('TIFF', compression=how)
    files |= {'rgba': coded('PNG', PICTURE.convert('RGBA'), tag=8), 'palette': coded('PNG', PICTURE.quantize(16)), 'fax': coded('TIFF', PICTURE.convert('1'), compression='group4')}
    for ending in ('.png', '.tiff'): files[f'16{ending}'] = by_cv2(ending, PIXELS.astype(np.uint16)*257)
    files |= {'float': by_cv2('.tiff', PIXELS/np.float32(255)), 'animation': coded('GIF', save_all=True, append_images=[PICTURE.rotate(90)])}
    return files


changes = st.lists(st.tuples(st.sampled_from(['set', 'cut', 'insert', 'remove', 'number']), st.floats(0, 1), st.booleans(), st.binary(min_size=1, max_size=8)),
                   min_size=1, max_size=4)

def changed(data, changes):
    data = bytearray(data)
    for how, place, early, new in changes:
        at = int(place*min(len(data), 300 if early else len(data)))
        if how == 'set': data[at:at + 1] = new[:1]
        elif how == 'cut': del data[max(at, 4):]
        elif how == 'insert': data[at:at] = new
        elif how == 'remove': del data[at:at + 8*len(new)]
        else: data[at:at + 4] = struct.pack('>I', (0, 1, 2**16, 2**31 - 1, 2**32 - 1)[new[0] % 5])
    return bytes(data)


EXAMPLES = int(os.environ.get('P2NET_EXAMPLES', 400))

@situation('a photograph with damaged bytes', 'the picture, or one line; never a traceback')
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(whole())), changes=changes)
def test_changed_bytes_give_a_picture_or_one_line(name, changes):
    data = changed(whole()[name], changes)
    try: pixels, head = photographs.decode(data, 'a.jpg')
    except InputError as error: assert str(error).startswith('a.jpg: ') and '\n' not in str(error)
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.flags.c_contiguous
        assert head.size == pixels.shape[:2] and photographs.read_header(data, 'a.jpg') == head


@settings(max_examples=EXAMPLES//4, deadline=None, database=None)
@given(st.binary(max_size=400), st.sampled_from([b'', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'II*\0', b'MM\0*', b'GIF89a', b'BM', b'RIFF\0\0\0\0WEBP']))
def test_any_bytes_give_a_picture_or_one_line(data, start):
    for function in (photographs.decode, photographs.read_header):
        try: function(start + data, 'a.jpg')
        except InputError as error: assert str(error).startswith('a.jpg: ') and '\n' not in str(error)
