"""What makes a store that is there be made anew, in words."""

import logging
from pathlib import Path

from pipeline.precompute.tasks import content_params
from pipeline.stores.reading import OpenStore
from schemas.changes import changes, listed
from schemas.errors import ContractError
from schemas.params import PreprocessParams

log = logging.getLogger(__name__)


def tell_other_preprocessing(store: OpenStore, params: PreprocessParams) -> None:
    """Warn that all scans of a volume store are done again, and of the parameters that differ."""
    recorded = store.attributes.params.get("preprocess", {})
    own = content_params(params)
    found = changes({key: recorded[key] for key in own if key in recorded}, own)
    why = listed(found) if found else "another version of the method"
    log.warning("%s: preprocessed otherwise (%s); every scan is done again", store.path, why)


def tell_other_ldae(out: Path, digest: str) -> None:
    """Warn that y_sem of another LDAE, at `out`, are replaced."""
    try:
        before = OpenStore(out, kind="semantics").attributes.digests.get("ldae")
    except ContractError:
        return
    if before is not None and before != digest:
        log.warning("%s: y_sem of another LDAE, made anew", out)
