"""Labelled pictures: any source is imported once into one folder form, which everything else reads.

`read_source` finds the pictures of an image folder, a manifest, a COCO file or a Hugging Face dataset,
`import_pictures` converts them and writes the folder form, and `read_split` reads that.
"""

from __future__ import annotations

from candling.data.decode import Decoded, Unreadable, decode, decode_mask
from candling.data.importing import ImportReport, Prepare, import_pictures
from candling.data.labels import LabelMap, map_labels
from candling.data.pictures import Pictures, read_picture, read_split, split_digest
from candling.data.samples import Alternative, Label, Sample, Samples
from candling.data.sampling import stratified, unit
from candling.data.source import DataFormat, DataSource, read_source, split_revision

__all__ = [
    "Alternative",
    "DataFormat",
    "DataSource",
    "Decoded",
    "ImportReport",
    "Label",
    "LabelMap",
    "Pictures",
    "Prepare",
    "Sample",
    "Samples",
    "Unreadable",
    "decode",
    "decode_mask",
    "import_pictures",
    "map_labels",
    "read_picture",
    "read_source",
    "read_split",
    "split_digest",
    "split_revision",
    "stratified",
    "unit",
]
