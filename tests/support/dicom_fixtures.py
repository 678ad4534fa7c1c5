"""DICOM files made on the spot: classic single slices and multi-frame (Enhanced MR)."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from pipeline.sources.dicom_source import dicom_records

FRAME = (12, 10)
"""Rows and columns."""
STUDY = "1.2.3"


def _header(kind: str, description: str, number: int, **more: object) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.StudyInstanceUID = "Known^Jane", "MRN7", STUDY
    dataset.SeriesInstanceUID = f"{STUDY}.{number}"
    dataset.PatientPosition, dataset.Modality, dataset.Manufacturer = "HFS", "MR", "GE"
    dataset.SeriesNumber, dataset.SeriesDescription = number, description
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.ImageComments = "Known^Jane came late"
    dataset.Rows, dataset.Columns = FRAME
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    for name, value in more.items():
        setattr(dataset, name, value)
    return dataset


def _pixels(position: int) -> np.ndarray:
    return (position * 20 + np.arange(FRAME[0] * FRAME[1]).reshape(FRAME)).astype(np.uint16)


def series(
    folder: Path,
    description: str = "t1_mprage",
    number: int = 3,
    *,
    slices: Iterable[int] = range(12),
    step: float = 1.0,
    preamble: bool = True,
    suffix: str = "",
    **more: object,
) -> Path:
    """Write one file a slice, at positions in steps of `step` mm; `more` are other elements."""
    folder.mkdir(parents=True, exist_ok=True)
    for count, position in enumerate(slices):
        dataset = _header(MRImageStorage, description, number, **{"EchoTime": 2.9, **more})
        dataset.InstanceNumber = position + 1
        dataset.PixelSpacing, dataset.SliceThickness = [1.0, 1.0], step
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-5, -6, position * step]
        dataset.PixelData = _pixels(position).tobytes()
        path = folder / f"IM{number:02d}_{count:03d}{suffix}"
        if preamble:
            dataset.save_as(path, enforce_file_format=True)
        else:
            del dataset.file_meta
            dataset.save_as(path, implicit_vr=True, little_endian=True)
            assert ImplicitVRLittleEndian.is_implicit_VR
    return folder


def multiframe(
    path: Path,
    description: str = "t1_mprage",
    number: int = 4,
    *,
    slices: Sequence[int] = range(12),
) -> Path:
    """Write one Enhanced MR file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = _header(EnhancedMRImageStorage, description, number)
    dataset.NumberOfFrames = len(slices)
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1.0, 1.0], 1.0
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = (
        Items([measures]),
        Items([plane]),
    )
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    frames = []
    for count, position in enumerate(slices, 1):
        frame, place, content = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [-5, -6, float(position)]
        content.DimensionIndexValues, content.InStackPositionNumber = [1, count], count
        content.StackID = "1"
        frame.PlanePositionSequence, frame.FrameContentSequence = Items([place]), Items([content])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Items(frames)
    dataset.PixelData = np.stack([_pixels(position) for position in slices]).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def look(root: Path, **params: object) -> tuple[str | None, dict[str, str], str]:
    """Return which series is taken of sub-1, why others are not, and its notes."""
    found = dicom_records(root, None, **params)[0]
    rows = dicom_records(root, None, **params)[1]
    reasons = {}
    for row in rows:
        name, _, why = row["reason"].removeprefix("series ").partition(": ")
        reasons[name.partition(" ")[2]] = why
    if not found:
        return None, {"": " / ".join(row["reason"] for row in rows)}, ""
    import pydicom

    taken = str(pydicom.dcmread(found[0].path, stop_before_pixels=True).SeriesDescription)
    return taken, reasons, "; ".join(found[0].notes)
