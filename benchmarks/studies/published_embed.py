"""The inner loop of `embed` with an encoder that reads volumes, against the bare network.

python -m benchmarks.studies.published_embed --study my-study --out embed.md

Both take the same batches in turn: the network alone has its volumes in memory, the command's loop
reads them from the store. The CPU's time is that of all threads, readers too, so that it holds on a
machine that others use.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks.framework.harness import machine
from pipeline.encoding.embed import check_volumes, y_sem_of
from pipeline.models.frozen import FrozenLdae, load_ldae
from pipeline.stores.latents import LatentStore, open_latents
from pipeline.stores.volumes import VolumeStore, open_volumes

BARE, LOOP = "network alone, volumes in memory", "`embed`'s loop, volumes.zarr"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="Holds data/ and models/ldae.")
    parser.add_argument("--scans", type=int, default=8, help="Read again where there are fewer.")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    ldae = load_ldae(options.study / "models" / "ldae", device=torch.device("cpu"))
    data = options.study / "data"
    latents, volumes = open_latents(data / "latents.zarr"), open_volumes(data / "volumes.zarr")
    check_volumes(ldae, volumes)
    known = latents.attributes.scan_ids
    ids = [known[i % len(known)] for i in range(options.scans)]
    ways = both_ways(ldae, latents, volumes, ids, options.batch_size)
    lines = report(ids, options.batch_size, measure(ways, options.rounds))
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def both_ways(
    ldae: FrozenLdae, latents: LatentStore, volumes: VolumeStore, ids: list[str], batch_size: int
) -> dict[str, Callable[[], Tensor]]:
    """Return functions that make y_sem (scan, dim): by the network alone, by `embed`'s loop."""
    mean, held = latents.load(ids).mean, volumes.load_unit_interval(ids)

    def bare() -> Tensor:
        with torch.inference_mode():
            return torch.cat([ldae.net.encoder(part) for part in torch.split(held, batch_size)])

    def loop() -> Tensor:
        return y_sem_of(ldae, mean, batch_size=batch_size, volumes=volumes, ids=ids)

    return {BARE: bare, LOOP: loop}


def measure(
    ways: dict[str, Callable[[], Tensor]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Return (wall, CPU) seconds of every round of each way, in turns, the order turned about.

    Raises
    ------
    AssertionError
        If the ways do not make the same y_sem.
    """
    timed: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    made = {}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            wall, processor = time.perf_counter(), time.process_time()
            made[name] = ways[name]()
            timed[name].append((time.perf_counter() - wall, time.process_time() - processor))
    first, second = made.values()
    assert first.equal(second), "both ways read the same volumes"
    return timed


def report(
    ids: list[str], batch_size: int, timed: dict[str, list[tuple[float, float]]]
) -> list[str]:
    """Return a table with the rate of each way and its share of the network's."""
    rounds = len(timed[BARE])
    lines = [
        f"{machine()}; {len(ids)} scans in batches of {batch_size}, {rounds} rounds in turn,"
        " medians\n",
        "| | s a scan | CPU-s a scan | rate by CPU time, of the network's |",
        "|---|---|---|---|",
    ]
    alone = median(processor for _, processor in timed[BARE])
    for name, values in timed.items():
        wall, processor = (median(column) / len(ids) for column in zip(*values, strict=True))
        share = alone / (processor * len(ids))
        lines.append(f"| {name} | {wall:.2f} | {processor:.2f} | {share:.1%} |")
    return lines


if __name__ == "__main__":
    main()
