"""The volume store of an earlier run: its outcomes, and its undamaged rows."""

import json
import logging
from pathlib import Path

from pipeline.preprocessing.finished_scans import ScanOutcome
from pipeline.preprocessing.scan_task import ScanTask, preprocessing_digest
from pipeline.runtime.files import write_atomic
from pipeline.stores.verify import verify_store
from pipeline.stores.volumes import VolumeRow, VolumeStore, open_volumes
from schemas.changes import changes, listed
from schemas.errors import ContractError
from schemas.params import PreprocessParams

log = logging.getLogger(__name__)


class FormerVolumes:
    """The complete store at `out`, and the outcome of every image that was tried for it."""

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(out.name + ".records.json")
        self.store: VolumeStore | None = None
        self.rows: dict[str, int] = {}
        """Fingerprint → row of each undamaged volume."""
        self.damaged: dict[str, str] = {}
        """Scan id → fault."""
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
        self.outcomes: dict[tuple[str, str], ScanOutcome] = {
            (outcome["scan_id"], outcome["fingerprint"]): outcome for outcome in content
        }

    def write_outcomes(self, outcomes: list[ScanOutcome]) -> None:
        """Write the outcomes without transient errors, so that these scans are tried again."""
        kept = [outcome for outcome in outcomes if not outcome.get("transient")]
        write_atomic(self.path, "[\n" + ",\n".join(json.dumps(o) for o in kept) + "\n]\n")

    def holds(self, task: ScanTask) -> bool:
        """Return whether the store holds this scan's volume undamaged."""
        return task.fingerprint in self.rows

    def read_row(self, task: ScanTask) -> VolumeRow:
        """Read this scan's volume."""
        assert self.store is not None
        return self.store.read_row(self.rows[task.fingerprint])

    def warn_of_other_preprocessing(self, params: PreprocessParams) -> None:
        """Warn that all scans are preprocessed again if parameters or method differ; name them."""
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
