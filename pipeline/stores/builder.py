"""Build a store unit by unit beside its final path, resume after a kill, then swap it in.

A unit is the run of rows that one writer owns (a whole chunk or shard of the main array). After
each unit, flushed to the disk, a mark keeps the sha256 of its content; a later start skips only
units of the very same plan whose content still has that digest. Units of another plan may be set
aside, so that their rows can be copied (`build_units.former_rows`). Readers never see a store that
is not complete.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import zarr

from pipeline.runtime.digests import digest_file, digest_of
from pipeline.runtime.files import real_path, write_json, writing_to
from pipeline.runtime.progress import few
from pipeline.stores.build_units import (
    MARKS,
    STORE,
    BuildPlan,
    EncodeSettings,
    UnitMark,
    content_digest,
    flush,
    mark_path,
    read_plan,
    read_whole_unit,
    recover_swap,
    set_former_aside,
    settings_columns,
    write_plan,
)
from pipeline.stores.record_copy import write_copy
from schemas.errors import ContractError
from schemas.stores import StoreAttributes, StoreKind, UnitRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """One array of a store; its first axis is the scan."""

    name: str
    row_shape: tuple[int, ...]
    dtype: str
    dimension_names: tuple[str, ...]
    rows_per_chunk: int
    rows_per_shard: int | None = None
    fill_value: float = 0
    compressors: Sequence[Any] = field(default_factory=tuple)


def check_target(out: Path, kind: StoreKind) -> None:
    """Refuse a path that exists and is no store of this kind.

    A store of this project whose metadata are too damaged to name its kind may be overwritten.
    """
    try:
        if not out.exists():
            return
    except OSError as error:
        raise ContractError(f"{out}: {error.strerror}; choose another --out") from error
    if not (out / "zarr.json").is_file():
        raise ContractError(f"{out}: exists and is no Zarr store; choose another --out")
    try:
        attributes = json.loads((out / "zarr.json").read_text())["attributes"]
        kind_there = attributes.get("kind")
    except (OSError, ValueError, KeyError, AttributeError):
        return
    damaged = "record_sha256" in attributes and kind_there not in get_args(StoreKind)
    if kind_there != kind and not damaged:
        raise ContractError(
            f"{out}: exists and holds {kind_there or 'something else'}, not {kind}; choose another"
            " --out"
        )


class StoreBuilder:
    """Builder of one store, unit by unit; hold `lock_store` around it."""

    def __init__(
        self,
        out: Path,
        attributes: StoreAttributes,
        arrays: Sequence[ArraySpec],
        *,
        unit_rows: int,
        settings: Mapping[str, Any] | None = None,
        set_aside: bool = False,
        join: bool = False,
    ) -> None:
        """Open the unfinished store of this plan, or begin it.

        `settings` are written with the plan; a later start reads them back (`self.settings`). With
        `set_aside`, finished units of another plan are kept in the work folder until `finish`.
        With `join`, the leading process must have begun the store already.
        """
        check_target(out, attributes.kind)
        self.out = out = real_path(out)
        self.work = out.with_name(out.name + ".building")
        self.attributes = attributes
        self.unit_rows = unit_rows
        self.num_rows = len(attributes.scan_ids)
        plan = attributes.model_dump() | {
            "arrays": [(a.name, a.row_shape, a.dtype, a.rows_per_chunk) for a in arrays],
            "unit_rows": unit_rows,
        }
        self.plan_digest = digest_of(plan)
        with writing_to(out):
            recover_swap(out)
            self.settings, self.group = self._open_or_create(
                arrays, settings or {}, set_aside=set_aside, join=join
            )

    @property
    def _partial(self) -> Path:
        return self.work / STORE

    def _open_or_create(
        self,
        arrays: Sequence[ArraySpec],
        settings: Mapping[str, Any],
        *,
        set_aside: bool,
        join: bool,
    ) -> tuple[dict[str, Any], zarr.Group]:
        plan = read_plan(self.work)
        if plan is not None and plan.digest == self.plan_digest:
            group = self._open_partial(arrays)
            if group is not None:
                return plan.settings, group
        if join:
            raise ContractError(
                f"{self.work}: the store that is being built is not there; every machine and"
                " process must see the same files under the same paths"
            )
        if set_aside and plan is not None and (self.work / MARKS).exists():
            set_former_aside(self.work)
        elif not set_aside or plan is None:
            shutil.rmtree(self.work, ignore_errors=True)
        shutil.rmtree(self._partial, ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)
        group = zarr.open_group(self._partial, mode="w", zarr_format=3)
        for spec in arrays:
            group.create_array(
                spec.name,
                shape=(self.num_rows, *spec.row_shape),
                dtype=spec.dtype,
                chunks=(spec.rows_per_chunk, *spec.row_shape),
                shards=None
                if spec.rows_per_shard is None
                else (spec.rows_per_shard, *spec.row_shape),
                fill_value=spec.fill_value,
                compressors=list(spec.compressors) or None,
                dimension_names=("scan", *spec.dimension_names),
            )
        fingerprints = self.attributes.fingerprints
        write_plan(
            self.work, BuildPlan(self.plan_digest, dict(settings), self.unit_rows, fingerprints)
        )
        return dict(settings), group

    def _open_partial(self, arrays: Sequence[ArraySpec]) -> zarr.Group | None:
        """Return the unfinished store, if all its arrays can still be opened."""
        try:
            group = zarr.open_group(self._partial, mode="r+")
            whole = all(isinstance(group[a.name], zarr.Array) for a in arrays)
        except (ValueError, KeyError, TypeError, OSError):
            return None
        return group if whole else None

    def pending(self) -> list[range]:
        """Return the units that are not written, or are damaged, as ranges of rows."""
        units = [
            range(start, min(start + self.unit_rows, self.num_rows))
            for start in range(0, self.num_rows, self.unit_rows)
        ]
        return [
            rows
            for i, rows in enumerate(units)
            if read_whole_unit(self.work, self.group, i, rows) is None
        ]

    def write(
        self,
        rows: range,
        content: Mapping[str, np.ndarray],
        *,
        encode_settings: Sequence[EncodeSettings] | None = None,
    ) -> None:
        """Write one whole unit, then its mark with the settings of each row.

        Raises
        ------
        ContractError
            If a float array holds NaN or infinity, or the disk cannot be written.
        """
        for name, values in content.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
                names = few([self.attributes.scan_ids[rows[i]] for i in bad])
                raise ContractError(f"{self.out}: {name} is NaN or infinite for {names}")
            array = self.group[name]
            assert isinstance(array, zarr.Array)
            with writing_to(self.out):
                array[rows.start : rows.stop] = values
                flush(self._partial, name, array, rows)
        settings = None if encode_settings is None else list(encode_settings)
        mark = UnitMark(rows, content_digest(content), settings)
        with writing_to(self.out):
            write_json(mark_path(self.work, rows.start // self.unit_rows), mark.document())

    def unit_digests(self) -> list[str]:
        """Return the recorded digest of every unit written."""
        return [mark.sha256 for mark in self._marks()]

    def _marks(self) -> list[UnitMark]:
        files = [mark_path(self.work, i) for i in range(-(-self.num_rows // self.unit_rows))]
        return [UnitMark.from_document(json.loads(file.read_text())) for file in files]

    def metadata(self, name: str) -> bytes:
        """Return the zarr.json of one array."""
        return (self._partial / name / "zarr.json").read_bytes()

    def discard(self) -> None:
        """Delete the unfinished store; the one at the final path stays as it is."""
        shutil.rmtree(self.work)

    def finish(self) -> None:
        """Check that every unit is there, write the attributes, and swap the store into place."""
        with writing_to(self.out):
            for orphan in self._partial.rglob("*.partial"):
                orphan.unlink()
            self.group.attrs.put(self._group_attributes())
            write_copy(self._partial)
            old = self.work / "old.zarr"
            if self.out.exists():
                self.out.rename(old)
            self._partial.rename(self.out)
            shutil.rmtree(self.work)

    def _group_attributes(self) -> dict[str, Any]:
        """Return the group's attributes, with digests of all in the store and of themselves."""
        marks = self._marks()
        settings = [mark.settings for mark in marks]
        columns: dict[str, list[int]] = {}
        if all(settings):
            columns = settings_columns([row for rows in settings if rows for row in rows])
        units = UnitRecord(
            rows=self.unit_rows,
            sha256=[mark.sha256 for mark in marks],
            batch_sizes=columns.get("batch_sizes"),
            threads=columns.get("threads"),
            metadata_sha256={
                name: digest_file(self._partial / name / "zarr.json")
                for name in sorted(self.group.array_keys())
            },
        )
        record = self.attributes.model_copy(update={"complete": True}).model_dump()
        record["units"] = units.model_dump(exclude_none=True)
        plain = json.loads(json.dumps(record))
        return {**plain, "record_sha256": digest_of(plain)}
