"""Many runs of one homework: an experiment is arms x seeds, each run the homework's own command line in a
process of its own. Here in a pool by default, on a Slurm cluster through submitit, on a Ray cluster.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common import cli
from common.results import load_runs, write_csv
from common.session import is_finished
from common.types import UsageError, require

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Experiment:
    """What to run. `arms`: label -> preset and options, the label becomes the column `algo`; `extra`: keys
    of the evaluations that become columns as well."""

    arms: dict[str, tuple[str, ...]]
    seeds: tuple[int, ...] = (0, 1, 2)
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One run, and the directory it was begun in if it was."""

    argv: tuple[str, ...]
    directory: str | None = None


def find_run(config: cli.RunOptions, homework: str) -> tuple[Path | None, bool]:
    """The newest run with exactly these settings, and whether it is finished."""
    for path in sorted(cli.runs_of(config, homework).glob(f"*_seed_{config.seed}*"), reverse=True):
        try:
            same = not cli.differences(cli.stored({config.preset: config}, path), config) - cli.HARMLESS
        except UsageError:
            continue
        if same:
            return path, is_finished(path)
    return None, False


def run_job(module: str, job: Job) -> int:
    """Start or resume one run, one thread; its exit status."""
    flags = [*job.argv] if job.directory is None else ["--resume", job.directory]
    command = [sys.executable, "-m", module, *flags]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode


def _local(module: str, jobs: list[Job], workers: int, folder: Path) -> Iterator[int]:
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(lambda job: run_job(module, job), jobs)
        except KeyboardInterrupt:  # the runs got it too: they save and end
            pool.shutdown(cancel_futures=True)
            raise


def _submitit(module: str, jobs: list[Job], workers: int, folder: Path) -> Iterator[int]:
    import submitit

    executor = submitit.AutoExecutor(folder / "submitit")
    executor.update_parameters(slurm_array_parallelism=workers, cpus_per_task=1, timeout_min=24 * 60)
    yield from (task.result() for task in executor.map_array(run_job, [module] * len(jobs), jobs))


def _ray(module: str, jobs: list[Job], workers: int, folder: Path) -> Iterator[int]:
    import ray

    ray.init(include_dashboard=False, num_cpus=None if "RAY_ADDRESS" in os.environ else workers)
    remote = ray.remote(num_cpus=1)(run_job)
    yield from ray.get([remote.remote(module, job) for job in jobs])


BACKENDS: dict[str, Callable[[str, list[Job], int, Path], Iterator[int]]] = {
    "local": _local,
    "submitit": _submitit,
    "ray": _ray,
}


def sweep(
    homework: str,
    presets: dict[str, cli.RunOptions],
    experiment: Experiment,
    seeds: tuple[int, ...],
    out: Path,
    backend: str = "local",
    workers: int = 2,
) -> np.recarray:
    """Run what is missing, go on with what was begun, and return the tidy frame of all arms and seeds."""
    out = out.resolve()  # a worker may stand elsewhere
    configs = {
        (label, seed): replace(cli.parse(presets, argv[0], [*argv]), seed=seed, out=out)
        for label, argv in experiment.arms.items()
        for seed in seeds
    }
    jobs = []
    for (label, seed), config in configs.items():
        path, finished = find_run(config, homework)
        if not finished:
            argv = (*experiment.arms[label], "--seed", str(seed), "--out", str(out))
            jobs.append(Job(argv, str(path) if path else None))
    print(f"{len(jobs)} runs to do, {len(configs) - len(jobs)} finished before")
    out.mkdir(parents=True, exist_ok=True)
    try:
        statuses = list(BACKENDS[backend](f"{homework}.run", jobs, workers, out)) if jobs else []
    except ImportError as error:
        raise UsageError(f"backend {backend} needs: pip install {backend}") from error
    failed = [" ".join(job.argv) for job, status in zip(jobs, statuses, strict=True) if status]
    require(not failed, f"these runs did not finish; the same command goes on with them: {'; '.join(failed)}")
    found = ((label, find_run(config, homework)[0]) for (label, _), config in configs.items())
    return np.concatenate([load_runs(path, label, experiment.extra) for label, path in found]).view(
        np.recarray
    )


def main(
    homework: str, presets: dict[str, cli.RunOptions], experiments: dict[str, Experiment], folder: Path
) -> None:
    """python -m hwN_x.experiments [NAME...] --seeds 0 1 2: runs, then folder/NAME.csv."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {homework}.experiments", description=main.__doc__, allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(experiments)}; all if none")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of the experiment's own")
    parser.add_argument("--backend", choices=BACKENDS, default="local")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="run directories go under it")
    parser.add_argument("--results", type=Path, default=folder, help="NAME.csv goes there")
    args = parser.parse_args()
    try:
        for name in args.names or experiments:
            require(
                name in experiments, f"there is no experiment {name!r}; choose of {', '.join(experiments)}"
            )
        require(args.jobs >= 1, f"jobs must be at least 1, got {args.jobs}")
        for name in args.names or experiments:
            seeds = tuple(args.seeds or experiments[name].seeds)
            frame = sweep(homework, presets, experiments[name], seeds, args.out, args.backend, args.jobs)
            args.results.mkdir(parents=True, exist_ok=True)
            write_csv(args.results / f"{name}.csv", frame)
            print(args.results / f"{name}.csv")
    except UsageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(cli.INTERRUPTED)
