"""DICOM: windows as the standard says, white is white, a patient is a group and has no name."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from headstart.data import decode, formats, load_table
from headstart.data.decoding import DecodingError, upright_size
from headstart.errors import DataError, MissingExtraError

pydicom = pytest.importorskip("pydicom")

from headstart.data.dicom import header_codes, window  # noqa: E402

RAMP = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)


def dicom(values=RAMP, *, kind="MONOCHROME2", bits=12, signed=False, **entries):
    """A file of these stored values; more entries by keyword, None takes one away."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["test"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta[0x20002].value, meta[0x20003].value
    data.Rows, data.Columns = values.shape[-2:] if kind != "RGB" else values.shape[:2]
    data.SamplesPerPixel = 3 if kind == "RGB" else 1
    if kind == "RGB":
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = kind
    data.BitsAllocated = values.dtype.itemsize * 8
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(signed)
    if values.ndim == 3 and kind != "RGB":
        data.NumberOfFrames = len(values)
    data.PixelData = values.tobytes()
    for keyword, value in entries.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def grey(data, path="a.dcm"):
    image, facts = decode(data, path)
    pixels = np.asarray(image)
    assert image.mode == "RGB"
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0], facts


def test_without_a_window_values_are_scaled_by_their_depth():
    found, facts = grey(dicom())
    assert np.array_equal(found, np.rint(RAMP * (255 / 4095)).astype(np.uint8))
    assert (facts.format, facts.mode) == ("DICOM", "MONOCHROME2 12 bits")
    assert facts.treatment == "no window, 12 bits to 8"
    assert upright_size(dicom()) == (8, 8)


def test_white_is_white_in_both_kinds():
    plain, _ = grey(dicom())
    inverted, facts = grey(dicom(4095 - RAMP, kind="MONOCHROME1"))
    assert np.abs(plain.astype(int) - inverted).max() <= 1
    assert "MONOCHROME1 inverted" in facts.treatment
    exact, _ = grey(dicom(RAMP, kind="MONOCHROME1"))
    assert np.array_equal(exact, 255 - plain)


def test_a_window_in_hounsfield_units():
    stored = np.array([[0, 824, 864, 904, 944, 984, 1024, 1064, 1104, 1144, 1264, 4000]], np.uint16)
    data = dicom(
        *(stored,), RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400
    )
    found, facts = grey(data)
    units = stored.astype(float) - 1024
    expected = np.rint(np.clip((units - 39.5) / 399 + 0.5, 0, 1) * 255)  # PS3.3 C.11.2.1.2.1
    assert np.array_equal(found, expected)
    assert (found[0, 0], found[0, -1]) == (0, 255)
    assert facts.treatment == "rescaled as its header says; window 40 / 400"


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_agree_with_pydicom(function):
    from pydicom.pixels.processing import apply_windowing

    header = pydicom.Dataset()
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsStored, header.PixelRepresentation = 16, 0
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = 1800, 900, function
    values = np.arange(0, 4096, 7, dtype=np.uint16)
    theirs = apply_windowing(values, header) * (255 / 65535)
    ours = window(values.astype(float), 1800, 900, function)
    assert np.abs(ours - theirs).max() <= 0.51


def test_the_first_of_several_windows_and_frames():
    frames = np.stack([RAMP, RAMP[::-1], RAMP.T])
    data = dicom(frames, WindowCenter=[2048, 100], WindowWidth=[4096, 50])
    found, facts = grey(data)
    assert np.array_equal(found, window(RAMP.astype(float), 2048, 4096))
    assert facts.treatment == "window 2048 / 4096; first of 3 frames"


def test_a_table_of_values():
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 8]
    table.LUTData = np.array([*range(255, -1, -1)] * 16, np.uint16).tobytes()
    found, facts = grey(dicom(RAMP, VOILUTSequence=[table]))
    assert np.array_equal(found, 255 - RAMP % 256)
    assert facts.treatment == "table of its header"


def test_signed_values_without_a_window():
    stored = np.array([[-1000, 0, 1000]], np.int16)
    found, facts = grey(dicom(stored, bits=16, signed=True))
    assert found.tolist() == [[0, 128, 255]]
    assert facts.treatment == "no window, -1000 to 1000"


def test_few_bits_in_a_wide_type_do_not_come_out_black():
    assert np.array_equal(grey(dicom(RAMP, bits=16))[0], grey(dicom(RAMP, bits=12))[0])


def test_colour_stays_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image, facts = decode(dicom(pixels, kind="RGB", bits=8), "a.dcm")
    assert np.array_equal(np.asarray(image), pixels)
    assert (facts.width, facts.height, facts.treatment) == (6, 4, "")


def test_a_compressed_file():
    pixels = np.add.outer(np.arange(32) * 4, np.arange(32) * 2).astype(np.uint8)
    header = pydicom.dcmread(io.BytesIO(dicom(pixels, bits=8)))
    header.compress(pydicom.uid.RLELossless)
    stream = io.BytesIO()
    header.save_as(stream)
    assert np.array_equal(grey(stream.getvalue())[0], pixels)


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9, 0.99])
def test_truncated_files_are_refused(fraction):
    data = dicom()
    with pytest.raises(DecodingError, match="DICOM file"):
        decode(data[: int(len(data) * fraction)], "a.dcm")


@pytest.mark.parametrize(
    ("data", "clause"),
    [
        (dicom(PixelData=None), "without a picture"),
        (dicom(Rows=None), "without a picture"),
        (dicom(Rows=0), "no pixels: 8x0"),
        (dicom(Rows=60000, Columns=60000), "too large: 60000x60000"),
        (bytes(128) + b"DICM" + bytes(40), "DICOM file"),
    ],
    ids=["no-pixels", "no-rows", "zero-rows", "bomb", "zeros"],
)
def test_what_cannot_be_shown_is_named(data, clause):
    with pytest.raises(DecodingError, match=clause):
        decode(data, "a.dcm")


def test_a_wrong_ending_is_noted():
    assert decode(dicom(), "a.png")[1].treatment.startswith("DICOM named .png")
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    assert decode(stream.getvalue(), "a.dcm")[1].treatment == "PNG named .dcm"


@pytest.fixture
def ward(tmp_path):
    """Two classes, five patients with two pictures each."""
    for number in range(10):
        place = tmp_path / "ward" / ("ill" if number % 4 < 2 else "well") / f"{number}.dcm"
        place.parent.mkdir(parents=True, exist_ok=True)
        patient = f"Jane Doe {number // 2}"
        place.write_bytes(dicom(RAMP + number, PatientID=patient, PatientName=patient))
    return tmp_path / "ward"


def test_one_patient_is_one_group_and_stays_unknown(ward):
    table = load_table(ward, group_by="PatientID")
    assert table.class_names == ("ill", "well")
    number_of = {path: int(path.split("/")[1].split(".")[0]) for path in table.paths}
    groups = dict(zip(table.paths, table.groups, strict=True))
    for one in table.paths:
        for other in table.paths:
            same = number_of[one] // 2 == number_of[other] // 2
            assert (groups[one] == groups[other]) == same
    assert all(len(group) == 16 and int(group, 16) >= 0 for group in table.groups)
    assert "Doe" not in repr(table)
    assert load_table(ward, group_by="PatientID").groups == table.groups


def test_files_without_the_entry_are_counted(ward):
    (ward / "ill/none.dcm").write_bytes(dicom())
    with pytest.raises(DataError, match="no group to 1 of 11 images") as caught:
        load_table(ward, group_by="PatientID")
    assert "have no 'PatientID' in a DICOM header" in str(caught.value)
    assert "ill/none.dcm" in str(caught.value)
    with pytest.raises(DataError, match="no group"):
        load_table(ward, group_by="StudyID")


def test_a_manifest_of_files(ward):
    rows = [f"{path.relative_to(ward)},{path.parent.name}" for path in sorted(ward.rglob("*.dcm"))]
    (ward / "m.csv").write_text("\n".join(["path,label", *rows]))
    table = load_table(ward / "m.csv", group_by="PatientID")
    assert len(set(table.groups)) == 5


def test_codes_differ_by_what_they_stand_for(ward):
    data = dicom(PatientID="1", AccessionNumber="1")
    assert header_codes([data], "PatientID") != header_codes([data], "AccessionNumber")
    assert header_codes([b"", None, b"no picture"], "PatientID") == ["", "", ""]


def test_without_pydicom_the_extra_is_named(ward, monkeypatch):
    monkeypatch.setattr("headstart.data.formats.has_pydicom", lambda: False)
    with pytest.raises(DecodingError, match=r"pip install 'headstart\[dicom\]'"):
        decode(dicom(), "a.dcm")
    assert "DICOM" in formats.refusal(dicom(), "a.dcm")
    monkeypatch.setitem(__import__("sys").modules, "pydicom.datadict", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[dicom\]'"):
        load_table(ward, group_by="PatientID")


def test_a_header_that_rescales_by_nothing_changes_nothing():
    """pydicom makes floats of such values, and floats were stretched picture by picture."""
    narrow = RAMP // 64 + 1000
    plain, facts = grey(dicom(narrow))
    found, told = grey(dicom(narrow, RescaleSlope=1, RescaleIntercept=0))
    assert np.array_equal(found, plain)
    assert told.treatment == facts.treatment
