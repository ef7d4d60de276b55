"""Detect defocus in one large image with the workers of a cluster.

python cluster.py slide.ome.zarr --out /shared/results --jobs 20 --queue cpu    # SLURM
python cluster.py slide.tif --out results --local 2                             # this machine

SLURM needs ``pip install 'napari-defocus[cluster]' dask-jobqueue``. Image and results must be
seen by all workers under the same path.
"""

import argparse
from pathlib import Path
from typing import Any

from dask.distributed import Client

from napari_defocus import DetectionConfig, load_metric
from napari_defocus.io import open_source
from napari_defocus.tiled import TileConfig, detect_file_in_tiles, tasks_on


def start_cluster(options: argparse.Namespace) -> Any:
    """Start workers, of one thread each, on this machine or as SLURM jobs."""
    if options.local:
        from dask.distributed import LocalCluster

        return LocalCluster(n_workers=options.local, threads_per_worker=1, dashboard_address=None)
    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(queue=options.queue, cores=1, memory="4GB", walltime="02:00:00")
    cluster.scale(jobs=options.jobs)
    return cluster


def main() -> None:
    """Read the options, start the workers, detect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--local", type=int, metavar="WORKERS")
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--queue")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--detector", default="metric")
    options = parser.parse_args()
    source = open_source(options.image)
    stem = Path(options.image).name.split(".")[0]
    options.out.mkdir(parents=True, exist_ok=True)
    with start_cluster(options) as cluster, Client(cluster) as client, tasks_on(client) as tasks:
        run = detect_file_in_tiles(
            source,
            options.out / stem,
            load_metric(),
            DetectionConfig(detector=options.detector),
            TileConfig(options.tile, "zarr"),
            tasks,
        )
    print(*run.outputs, sep="\n")
    print(f"{sum(run.worked.values())} tiles worked")


if __name__ == "__main__":
    main()
