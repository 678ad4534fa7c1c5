"""The page's server: files of the page, the study as JSON, brains as bytes."""

import gzip
import json
import logging
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline.explore.brains import BrainRequest
from pipeline.explore.downloads import Space, command, nifti
from pipeline.explore.engine import Engine
from pipeline.explore.film import MOST_FRAMES, FilmKind, film
from pipeline.explore.guards import MOST_BODY, Guards
from pipeline.explore.inference import PREVIEW_STEPS, SupersededError
from pipeline.explore.layouts import available_layouts, lay_out
from pipeline.explore.region_bars import RegionBars
from pipeline.explore.study import ExploreStudy
from schemas.errors import ContractError, PipelineError

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".gz": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FILM_TYPES: dict[FilmKind, str] = {"gif": "image/gif", "mp4": "video/mp4"}
log = logging.getLogger(__name__)

PAGE = files("pipeline.explore").joinpath("page")
INFO = "x-explore"
"""Header with the numbers that belong to a volume."""

Documents = dict[str, Any]


class BrainQuestion(BaseModel):
    """A brain, and who asks for it when: of one client, the highest number wins."""

    model_config = ConfigDict(extra="forbid")

    brain: BrainRequest
    client: str = Field(default="", max_length=64)
    number: int = Field(default=0, ge=0)


class DownloadQuestion(BaseModel):
    """A brain, and the space to write it in."""

    model_config = ConfigDict(extra="forbid")

    brain: BrainRequest
    space: Space = "mni"


class FilmQuestion(BaseModel):
    """The brains of a film, one a frame."""

    model_config = ConfigDict(extra="forbid")

    brains: list[BrainRequest] = Field(min_length=2, max_length=MOST_FRAMES)
    captions: list[str] = Field(min_length=2, max_length=MOST_FRAMES)
    voxel: tuple[int, int, int]
    kind: FilmKind = "gif"


class ExploreServer:
    """Answers of the page's server, each a method."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.study = engine.study
        self.bars: RegionBars | None = None
        self.bars_lock = threading.Lock()
        self.layouts: dict[str, Documents] = {}
        self.layout_lock = threading.Lock()

    def app(self, *, token: str, hosts: frozenset[str] | None) -> Guards:
        """Return the application, guarded."""
        gets: dict[str, Callable[[Request], Response]] = {
            "study": lambda _: JSONResponse(self.study_document()),
            "status": lambda _: JSONResponse(self.status()),
            "layout": lambda r: JSONResponse(self.layout(r.query_params.get("kind", "pca"))),
            "volume": lambda r: self.volume(r.query_params.get("scan", "")),
        }
        posts: dict[str, tuple[type[BaseModel], Callable[[Any], Response]]] = {
            "brain": (BrainQuestion, self.brain),
            "regions": (BrainQuestion, self.regions),
            "command": (DownloadQuestion, self.command),
            "nifti": (DownloadQuestion, self.nifti),
            "film": (FilmQuestion, self.film),
        }
        routes = [
            Route("/", _page_file("index.html")),
            *(Route(f"/page/{name}", _page_file(name)) for name in page_files()),
            *(Route(f"/api/{name}", _answering(answer)) for name, answer in gets.items()),
            *(
                Route(f"/api/{name}", _asked(question, answer), methods=["POST"])
                for name, (question, answer) in posts.items()
            ),
        ]
        return Guards(Starlette(routes=routes), token=token, hosts=hosts)

    def study_document(self) -> Documents:
        """Return what the page needs to be drawn."""
        return study_document(self.study, self.engine) | {"status": self.status()}

    def status(self) -> Documents:
        """Return whether brains can be made."""
        steps = self.engine.full_steps
        prior = self.engine.maker is not None and self.engine.maker.prior is not None
        return {
            "models": self.engine.state,
            "problem": self.engine.problem,
            "full_steps": steps,
            "preview_steps": steps and min(PREVIEW_STEPS, steps),
            "prior": prior,
            "grid": None if self.engine.maker is None else self.engine.grid().document(),
        }

    def layout(self, kind: str) -> Documents:
        """Return places of people; computed once."""
        with self.layout_lock:
            if kind not in self.layouts:
                self.layouts[kind] = layout_document(self.study, kind)
            return self.layouts[kind]

    def volume(self, scan: str) -> Response:
        """Return the preprocessed volume of a scan."""
        if scan not in self.study.scan_ids:
            raise ContractError(f"{scan[:80]}: not a scan of this study")
        return _volume_response(self.study.volume(scan), {})

    def brain(self, asked: BrainQuestion) -> Response:
        """Return the brain of a request."""
        made = self.engine.make(asked.brain, client=asked.client, number=asked.number)
        info = {"seconds": round(made.seconds, 3), "position": made.position}
        return _volume_response(levels(made.volume), info)

    def regions(self, asked: BrainQuestion) -> Response:
        """Return what changed from a brain's reference to it, by region."""
        before = self.engine.make(
            self.engine.reference(asked.brain), client=asked.client, number=asked.number
        )
        after = self.engine.make(asked.brain, client=asked.client, number=asked.number)
        with self.bars_lock:  # the grid is that of the models, which are loaded by now
            self.bars = self.bars or RegionBars(grid=self.engine.grid())
        return JSONResponse(self.bars.change(before.volume, after.volume))

    def command(self, asked: DownloadQuestion) -> Response:
        """Return the command that makes the same."""
        return JSONResponse({"command": command(self.engine, asked.brain, asked.space)})

    def nifti(self, asked: DownloadQuestion) -> Response:
        """Return a NIfTI file."""
        name, content = nifti(self.engine, asked.brain, asked.space)
        return _file_response(name, content, "application/gzip")

    def film(self, asked: FilmQuestion) -> Response:
        """Return a GIF or an MP4."""
        content = film(self.engine, asked.brains, asked.voxel, asked.captions, asked.kind)
        return _file_response(f"film.{asked.kind}", content, FILM_TYPES[asked.kind])


def study_document(study: ExploreStudy, engine: Engine) -> Documents:
    """Return a study as the page reads it, without the state of the models."""
    people, grid = study.people, study.grid
    months = [float(m) if np.isfinite(m) else None for m in people["months_from_first"]]
    return {
        "title": study.title,
        "phantom": study.phantom,
        "notes": study.notes,
        "scans": study.scan_ids,
        "subjects": [str(subject) for subject in people["subject_id"]],
        "months": months,
        "labels": [label.document() for label in study.labels()],
        "layouts": available_layouts(study.y_sem),
        "directions": engine.directions.documents,
        "grid": None if grid is None else grid.document(),
        "has_volume": [
            study.volumes is not None and scan in study.volumes.row_of for scan in study.scan_ids
        ],
    }


def layout_document(study: ExploreStudy, kind: str) -> Documents:
    """Return places of people as the page reads them.

    Raises
    ------
    ContractError
        If the study has no y_sem.
    """
    if study.y_sem is None:
        raise ContractError(f"{study.paths.semantics}: no y_sem, so no map; run `pipeline embed`")
    found = lay_out(study.y_sem, kind)
    places = [
        [round(float(v), 4) for v in row] if np.isfinite(row).all() else None
        for row in found.places
    ]
    return {"kind": kind, "places": places, "axes": found.axes}


def levels(volume: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a volume in [0, 1] as 8-bit levels."""
    return np.rint(255 * volume).clip(0, 255).astype(np.uint8)


def page_files() -> list[str]:
    """Return the names of the page's files: what is served, and nothing else."""
    return sorted(p.name for p in PAGE.iterdir() if "." + p.name.rsplit(".", 1)[-1] in TYPES)


def _page_file(name: str) -> Callable[[Request], Response]:
    content = PAGE.joinpath(name).read_bytes()
    packed = name.endswith(".gz")
    kind = TYPES["." + name.rsplit(".", 1)[-1]]

    def answer(request: Request) -> Response:
        if packed and "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(gzip.decompress(content), media_type=kind)
        headers = {"content-encoding": "gzip"} if packed else {}
        return Response(content, headers=headers, media_type=kind)

    return answer


def _answering(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Return a handler whose errors are sentences."""

    def handler(request: Request) -> Response:
        try:
            return answer(request)
        except SupersededError:
            return JSONResponse({"superseded": True}, headers={INFO: '{"superseded": true}'})
        except PipelineError as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        except Exception:
            # Memory or disk ran out, or a bug: a sentence on the page, all of it on the terminal.
            log.exception("explore: %s", request.url.path)
            reason = "this could not be done; the terminal of `pipeline explore` shows why"
            return JSONResponse({"error": reason}, status_code=500)

    return handler


def _asked(question: type[BaseModel], answer: Callable[[Any], Response]) -> Any:
    """Return a handler of a question in JSON."""

    async def handler(request: Request) -> Response:
        body = b""
        try:
            async for part in request.stream():  # whatever length it states, or none
                body += part
                if len(body) > MOST_BODY:
                    reason = f"a request of more than {MOST_BODY} bytes"
                    return JSONResponse({"error": reason}, status_code=413)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        try:
            asked = question.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            return JSONResponse({"error": f"{where}: {first['msg']}"[:300]}, status_code=422)
        return await run_in_threadpool(_answering(lambda _: answer(asked)), request)

    return handler


def _volume_response(volume: NDArray[np.uint8], info: Documents) -> Response:
    """Return voxels with x fastest, as NIfTI has them."""
    document = json.dumps(info | {"shape": volume.shape})
    return Response(
        volume.tobytes(order="F"),
        media_type="application/octet-stream",
        headers={INFO: document},
    )


def _file_response(name: str, content: bytes, kind: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=kind, headers=headers)
