"""One request after the other on the models, the newest first; what was made last is kept."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.applications.generate import prior_of
from pipeline.applications.inputs import InputScan
from pipeline.applications.runner import Opener
from pipeline.applications.scan_names import check_names
from pipeline.explore.brains import MOST_PEOPLE_KEPT, BrainMaker, BrainRequest
from pipeline.explore.directions import StudyDirections
from pipeline.explore.inference import PageInference, SupersededError
from pipeline.explore.study import ExploreStudy
from schemas.errors import ContractError, PipelineError
from schemas.grid import Grid

log = logging.getLogger(__name__)

MOST_BYTES_KEPT = 256_000_000
"""Of volumes that were made last."""
MOST_CLIENTS = 32

Volume = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBrain:
    """The volume of a request."""

    volume: Volume
    """(X, Y, Z) in [0, 1]."""
    seconds: float
    """That it took; 0 where it was kept."""
    position: float | None
    """Place along the direction (SD), of a request that names one; None where y_sem is missing."""


@dataclass(slots=True, kw_only=True)
class Engine:
    """Loads the models in a thread of its own, and answers one request at a time."""

    study: ExploreStudy
    directions: StudyDirections
    load: Callable[[], Opener]
    """Opens models and stores; takes seconds."""
    options: Sequence[str] = ()
    """What the page was started with that a command needs too, to make the same brain."""
    problem: str | None = None
    """Why no brain can be made, in a sentence."""
    maker: BrainMaker | None = None
    opener: Opener | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _newest: dict[str, int] = field(default_factory=dict)
    _newest_lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False
    _current: tuple[str, int] = ("", 0)
    _scans: dict[str, InputScan] = field(default_factory=dict)
    _made: dict[BrainRequest, Volume] = field(default_factory=dict)

    def start(self) -> None:
        """Begin to load the models."""
        threading.Thread(target=self._open, name="models", daemon=True).start()

    def stop(self) -> None:
        """Give up what is under way at its next step, and all that waits."""
        self._stopped = True

    @property
    def state(self) -> str:
        """Return `loading`, `ready`, or `failed`."""
        if not self._ready.is_set():
            return "loading"
        return "failed" if self.problem else "ready"

    @property
    def full_steps(self) -> int | None:
        """Return the sampler steps of a full brain, once the models are loaded."""
        return None if self.maker is None else self.maker.models.num_inference_steps

    def make(self, request: BrainRequest, *, client: str = "", number: int = 0) -> MadeBrain:
        """Return the brain of a request; one of no client is never superseded.

        Raises
        ------
        SupersededError
            If the same client has asked for something newer meanwhile.
        PipelineError
            If it cannot be made.
        """
        self._note(client, number)
        maker = self._wait()
        with self._lock:
            self._current = (client, number)
            self._go_on()
            started = time.perf_counter()
            volume = self._made.get(request)
            kept = volume is not None
            if volume is None:
                scans = [self.scan(name) for name in request.scans]
                volume = maker.volume(request, scans)
            self._keep(request, volume)
            seconds = 0.0 if kept else time.perf_counter() - started
        return MadeBrain(volume=volume, seconds=seconds, position=self._position(request))

    def reference(self, request: BrainRequest) -> BrainRequest:
        """Return the request of what a brain is compared with: the person as the model has it.

        Raises
        ------
        ContractError
            If it is nobody's brain.
        """
        if request.kind == "move":
            return request.model_copy(update={"scale": 0.0})
        if request.kind == "between":
            return request.model_copy(update={"alpha": 0.0})
        if request.scan is None:
            raise ContractError("a brain drawn from noise has nothing that it is compared with")
        return BrainRequest(kind="scan", scan=request.scan, quality=request.quality)

    def scan(self, name: str) -> InputScan:
        """Return an opened scan of the study; the last few are kept.

        Raises
        ------
        ContractError
            If it is not one of the study's.
        """
        if name not in self.study.scan_ids:
            raise ContractError(f"{name[:80]}: not a scan of this study")
        self._wait()
        assert self.opener is not None
        with self._lock:
            scan = self._scans.pop(name, None)
            if scan is None:
                check_names([name], self.opener.latents)
                scan = self.opener.open(name)
            self._scans[name] = scan
            while len(self._scans) > 2 * MOST_PEOPLE_KEPT:
                self._scans.pop(next(iter(self._scans)))
        return scan

    def label(self, request: BrainRequest) -> str:
        """Return how the application calls the volume of a request, in its file's name."""
        maker = self._wait()
        with self._lock:
            self._current = ("", 0)
            return maker.generated(request, [self.scan(name) for name in request.scans]).labels[0]

    def grid(self) -> Grid:
        """Return the grid of the brains, once the models are loaded.

        Raises
        ------
        ContractError
            If they cannot be.
        """
        return self._wait().models.autoencoder.grid

    def _open(self) -> None:
        try:
            opener = self.load()
            _check_same_model(self.study, opener)
            models = PageInference.of(opener.models, self._go_on)
            paths = self.study.paths
            prior = None
            if self.study.ldae_digest is not None:
                prior = _or_none(partial(prior_of, paths.semantics, paths.manifest, models))
            self.opener = opener
            self.maker = BrainMaker(
                models=models, directions=self.directions.by_name, prior=prior, codes={}
            )
        except (PipelineError, OSError) as error:
            self.problem = f"{error}"
        except Exception:
            # A page that waits for ever would be worse than one that tells of a bug.
            log.exception("explore: the models could not be loaded")
            self.problem = "the models could not be loaded; the terminal shows why"
        finally:
            self._ready.set()

    def _wait(self) -> BrainMaker:
        self._ready.wait()
        if self.maker is None:
            raise ContractError(self.problem or "the models could not be loaded")
        return self.maker

    def _note(self, client: str, number: int) -> None:
        if not client:
            return
        with self._newest_lock:
            self._newest[client] = max(number, self._newest.pop(client, number))
            while len(self._newest) > MOST_CLIENTS:
                self._newest.pop(next(iter(self._newest)))

    def _go_on(self) -> None:
        client, number = self._current
        if self._stopped or number < self._newest.get(client, number):
            raise SupersededError

    def _keep(self, request: BrainRequest, volume: Volume) -> None:
        self._made.pop(request, None)
        self._made[request] = volume
        while len(self._made) * volume.nbytes > MOST_BYTES_KEPT and len(self._made) > 1:
            self._made.pop(next(iter(self._made)))

    def _position(self, request: BrainRequest) -> float | None:
        direction = self.directions.by_name.get(request.direction or "")
        if direction is None or self.study.y_sem is None or request.scan is None:
            return None
        row = self.study.scan_ids.index(request.scan)
        place = float(direction.position(self.study.y_sem[row][None])[0]) + request.scale
        return place if np.isfinite(place) else None


def _check_same_model(study: ExploreStudy, opener: Opener) -> None:
    """Refuse an LDAE that did not give the study's y_sem."""
    own = opener.models.ldae.digest
    if study.ldae_digest not in (None, own):
        raise ContractError(
            f"{study.paths.semantics}: y_sem of another LDAE ({str(study.ldae_digest)[:12]}) than"
            f" {opener.models.ldae.path} ({own[:12]}); run `pipeline embed` and `pipeline probe`"
        )


def _or_none(fit: Callable[[], Any]) -> Any:
    try:
        return fit()
    except PipelineError:
        return None
