"""Group level: the participants' stores as one study, which the later stages read."""

import logging
from pathlib import Path

import pandas as pd

from pipeline.bids_app.selection import participants_of
from pipeline.bids_app.work import ParticipantWork, collect
from pipeline.bids_export.study import StudyFiles
from pipeline.cohort.contrast import study_contrast
from pipeline.cohort.manifest import read_manifest, write_manifest
from pipeline.runtime.progress import few
from pipeline.stores.merge import merge_stores
from schemas.errors import ContractError
from schemas.params import CohortParams

log = logging.getLogger(__name__)

GROUP = "group"


def gather(bids_dir: Path, work: Path, params: CohortParams) -> StudyFiles:
    """Write the study of all finished participants to `<work>/group`; return its files.

    Labels and split are those of the dataset as it is now; rows of stores are copied.

    Raises
    ------
    ContractError
        If no participant is finished, or two were made otherwise.
    """
    everyone = [ParticipantWork(name, work / name) for name in participants_of(bids_dir)]
    finished = [one for one in everyone if (one.folder / "done.json").is_file()]
    if not finished:
        raise ContractError(
            f"{work}: no participant is finished here; run the participant level first, with the"
            " same -w"
        )
    absent = [one.participant for one in everyone if one not in finished]
    if absent:
        log.warning("not finished at participant level, left out: %s", few(absent))
    contrast = study_contrast(params)
    for one in finished:
        one.check_contrast(contrast)
    files = StudyFiles.of_folder(work / GROUP, source=bids_dir, leave_out=tuple(params.leave_out))
    data = files.volumes.parent
    merge_stores([one.volumes for one in finished], files.volumes)
    merge_stores([one.latents for one in finished], data / "latents.zarr")
    merge_stores([one.semantics for one in finished], files.semantics)
    present = [one.participant for one in finished]
    table = collect(bids_dir, params, present, [], fresh=False).manifest
    digests = {
        row["scan_id"]: row["source_digest"]
        for one in finished
        for row in read_manifest(one.manifest).to_dict("records")
    }
    # Images that came after the participant level have no volume yet.
    table = table[table["scan_id"].isin(list(digests))]
    table = table.assign(source_digest=[digests[scan] for scan in table["scan_id"]])
    files.manifest.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(table, files.manifest)
    for name in ("qc.csv", "quarantine.csv"):
        parts = [pd.read_csv(one.data / name, dtype=str) for one in finished]
        pd.concat(parts, ignore_index=True).to_csv(data / name, index=False)
    return files
