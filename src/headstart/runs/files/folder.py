"""The folder of a run: whose it is, what may be in it, whether the run in it is finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headstart.bundle.classifier import MODEL_FOLDER
from headstart.bundle.format import read_bundle
from headstart.errors import UsageError, quoted
from headstart.files import LOCK_NAME, check_vacant, locked, make_folder
from headstart.records import ImageTable
from headstart.runs.files import outputs
from headstart.runs.files.checkpoints import FOLDER as CHECKPOINTS
from headstart.runs.files.record import RUN_FILE, RunFile, table_digest
from headstart.runs.settings.run import RunSettings

FINISHED = "finished"
LOCKED = "locked"  # by a comparison, which keeps the test part closed
AUDIT_FILES = ("audit.json", "audit.txt", "duplicates.png")


@contextmanager
def owned_run(
    settings: RunSettings, table: ImageTable, *, resume: bool
) -> Iterator[tuple[RunFile, bool]]:
    """The run's folder and record as nobody else's while the block runs.

    Args:
        settings: what the user decided.
        table: the images.
        resume: a run may be there already.

    Yields:
        The record, and whether it was there before; what a refused new run wrote is taken away.

    Raises:
        UsageError: the folder is another's, or of other settings or data.
    """
    folder = Path(settings.out)
    check_vacant(folder, RUN_FILE, "run", resume=resume)
    existed = folder.exists()
    make_folder(folder)
    with locked(folder):  # only its owner looks what is in it, writes and removes
        check_vacant(folder, RUN_FILE, "run", resume=resume)
        begun = (folder / RUN_FILE).exists()
        run_file: RunFile | None = None
        try:
            run_file = (
                RunFile.reopen(folder, settings) if begun else RunFile.begin(folder, settings)
            )
            run_file.check_table(table_digest(table))
            if not begun:
                run_file.update(table_digest=table_digest(table))
            yield run_file, begun
        except UsageError:
            # From the split on there is work to lose, and the error may pass: a disk that was away.
            if not begun and not (run_file is not None and "splits" in run_file.record):
                remove_begun(folder, existed=existed)
            raise


def remove_begun(folder: Path, *, existed: bool) -> None:
    """Take away what a refused run wrote, and nothing else; the folder where the run made it."""
    ours = (outputs.IMAGES, outputs.SPLITS, outputs.SUMMARY, outputs.TRAINS)
    for name in (*ours, *AUDIT_FILES, RUN_FILE, LOCK_NAME):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    if not existed:
        with suppress(OSError):  # somebody put a file there meanwhile
            folder.rmdir()


def is_finished(run_file: RunFile) -> bool:
    """Whether the record says so and the model and the figures are there.

    Raises:
        UsageError: it is a comparison's candidate, whose test part the comparison opens or nobody.
    """
    status = run_file.record["status"]
    if status == LOCKED:
        raise UsageError(unfinished(run_file.folder, status))
    if status != FINISHED:
        return False
    try:
        read_bundle(run_file.folder / MODEL_FOLDER)
        outputs.read_metrics(run_file.folder)
    except UsageError:  # a BundleError is one
        return False
    return True


def unfinished(folder: Path, status: object) -> str:
    """Why a run that is not finished has no figures, and what to do: two sentences."""
    if status == LOCKED:
        return (
            f"'{folder}' is a candidate whose test part its comparison keeps closed. "
            "To open that of all candidates, which is stamped: headstart compare --resume "
            f"--test-all --out {quoted(folder.resolve().parent)}"
        )
    return (
        f"The run '{folder}' is not finished. Go on with: headstart run --resume --out "
        f"{quoted(folder)}"
    )
