"""The volume store of an earlier run: its records, and its rows that are sound."""

import json
import logging
from pathlib import Path

from pipeline.preprocessing.finished_scans import ScanOutcome
from pipeline.preprocessing.scan_task import Task, preprocessing_digest
from pipeline.runtime.files import write_atomic
from pipeline.stores.verify import verify_store
from pipeline.stores.volumes import VolumeRow, VolumeStore, open_volumes
from schemas.changes import changes, listed
from schemas.errors import ContractError
from schemas.params import PreprocessParams

log = logging.getLogger(__name__)


class FormerVolumes:
    """The complete store at `out`, and one record for every image that was tried for it."""

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(out.name + ".records.json")
        self.store: VolumeStore | None = None
        self.rows: dict[str, int] = {}
        """Fingerprint → row of each sound volume."""
        self.damaged: dict[str, str] = {}
        """Scan id → what is wrong."""
        try:
            self.store = open_volumes(out)
            # A missing shard reads as black volumes.
            self.damaged = verify_store(out)
            self.rows = {
                fingerprint: row
                for fingerprint, row in self.store.fingerprint_rows().items()
                if self.store.attributes.scan_ids[row] not in self.damaged
            }
            if self.damaged:
                log.warning("%s: %d scans are damaged; preprocessed again", out, len(self.damaged))
        except ContractError:
            if out.exists():
                log.warning("%s: not usable as it is, made anew", out)
        try:
            content = json.loads(self.path.read_text())
        except (OSError, ValueError):
            content = []
        self.records: dict[tuple[str, str], ScanOutcome] = {
            (record["scan_id"], record["fingerprint"]): record for record in content
        }

    def write_records(self, records: list[ScanOutcome]) -> None:
        """Keep the records; transient errors are left out, so that they are tried again."""
        kept = [record for record in records if not record.get("transient")]
        write_atomic(self.path, "[\n" + ",\n".join(json.dumps(r) for r in kept) + "\n]\n")

    def holds(self, task: Task) -> bool:
        """Return whether the store has this scan's volume, undamaged."""
        return task.fingerprint in self.rows

    def read_row(self, task: Task) -> VolumeRow:
        """Read this scan's volume."""
        assert self.store is not None
        return self.store.read_row(self.rows[task.fingerprint])

    def warn_of_other_preprocessing(self, params: PreprocessParams) -> None:
        """Warn that all scans are done again where parameters or method differ, and name them."""
        if self.store is None:
            return
        if self.store.attributes.digests.get("preprocessing") == preprocessing_digest(params):
            return
        recorded = self.store.attributes.params.get("preprocess", {})
        asked = params.content()
        differing = changes({key: recorded[key] for key in asked if key in recorded}, asked)
        why = listed(differing) if differing else "another version of the method"
        log.warning(
            "%s: preprocessed otherwise (%s); every scan is done again", self.store.path, why
        )
