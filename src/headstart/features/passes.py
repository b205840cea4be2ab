"""One pass: the features of a table, read from the store or computed once and stored.

Every view of a picture (`headstart.data.views`) has a file of its own in the store. A picture is
decoded once for all the views that are missing of it.

The store is read `READ_ROWS` entries at a time, in the order of the table: that is mostly the order
in which they were written, and no second copy of all features is in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from os.path import splitext

import numpy as np
import numpy.typing as npt

from headstart.data.boxes import Box
from headstart.data.decoding import DECODER_VERSION, digest_of
from headstart.data.views import WHOLE, View
from headstart.errors import DataError
from headstart.features.scratch import new_array
from headstart.features.store import FeatureStore, Row
from headstart.inference import FeatureExtractor, ImageSource
from headstart.progress import Progress
from headstart.records import Features, ImageFacts, Integers

READ_ROWS = 4096
TOLD_ROWS = 64  # steps of a bar; drawing one costs more than reading a small file

Stores = Mapping[View, FeatureStore]
# Told of a picture's row, what decoding found, its views and their (V, D) features.
Taken = Callable[[int, ImageFacts, Sequence[View], npt.NDArray[np.float16]], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewFeatures:
    """Pooled features of some views of N images by one frozen network.

    Attributes:
        views: V of them.
        values: (N, V, D) float16, in a mapped file where they are large.
        computed: how many of the N V went through the network now; the rest came from the store.
    """

    views: tuple[View, ...]
    values: npt.NDArray[np.float16]
    computed: int


PILLOW_VERSION = version("pillow")  # brings the JPEG decoder and the resize
TIMM_VERSION = version("timm")  # has the forward path of its networks


def identity(extractor: FeatureExtractor, view: View = WHOLE) -> str:
    """Everything but the image that decides its features, readable."""
    network = extractor.network
    return " | ".join(
        [
            network.spec.name,
            network.digest,
            network.preprocessing.key,
            f"decoder {DECODER_VERSION}, pillow {PILLOW_VERSION}",
            *([f"timm {TIMM_VERSION}"] if network.spec.origin == "timm" else []),
            view.key,
            extractor.key,
        ]
    )


def store_keys(
    source: ImageSource, rows: Sequence[int], progress: Progress | None = None
) -> dict[int, str]:
    """The key of each row, see `store_key`; a row that cannot be read has none.

    Args:
        source: the images, each read once.
        rows: of them.
        progress: gets one step an image.
    """
    found = {}
    with (progress or Progress()).phase("Reading", len(rows)) as advance:
        for start in range(0, len(rows), TOLD_ROWS):
            part = rows[start : start + TOLD_ROWS]
            for row in part:
                with suppress(OSError):
                    digest = digest_of(source.read(row))
                    found[row] = store_key(digest, source.paths[row], source.box_of(row))
            advance(len(part))
    return found


def store_key(digest: str, path: str, box: Box | None) -> str:
    """Digest of an image's bytes, the ending of its name, and its box if it has one.

    The ending belongs to it because decoding looks at it: camera files are told by it, and a wrong
    one is noted. The box stands there bit by bit: one file with two boxes is two pictures.
    """
    region = "" if box is None else "@" + ",".join(share.hex() for share in box)
    return digest + splitext(path)[1].casefold() + region


def check_unchanged(record: ImageFacts, digest: str) -> None:
    """Refuse an image that is not what it was when it was read before.

    Args:
        record: what decoding found now.
        digest: of the bytes then.

    Raises:
        DataError: it cannot be decoded any more, or holds something else.
    """
    if not record.problem and record.digest == digest:
        return
    what = f"cannot now ({record.problem})" if record.problem else "holds something else now"
    raise DataError(
        f"'{record.path}' could be read a moment ago and {what}. Leave the files alone while a run "
        "reads them, and go on with --resume."
    )


def with_path(record: ImageFacts, path: str) -> ImageFacts:
    """The facts of an image under another name; `dataclasses.replace` takes four times as long."""
    return ImageFacts(**{**vars(record), "path": path})


def extract_features(
    source: ImageSource,
    extractor: FeatureExtractor,
    *,
    progress: Progress,
    store: FeatureStore | None = None,
    views: Mapping[View, Integers] | None = None,
) -> Features:
    """Features of every image, each computed at most once.

    Args:
        source: the images.
        extractor: network and device.
        progress: gets one step an image.
        store: where features are kept; None opens the user's.
        views: further views and the rows of which they are wanted. They are computed along with
            the whole pictures and stored; `extract_views` reads them.

    Raises:
        DataError: a file changed while it was read.
        StorageError: the disk is full; what was stored before stays.
    """
    begun = time.perf_counter()
    views = views or {}
    with open_stores(extractor, list(views), progress) as stores, ExitStack() as own:
        if store is None:
            store = own.enter_context(closing(open_store(extractor, WHOLE, progress)))
        return _fill(source, extractor, progress, {WHOLE: store, **stores}, views, begun)


def extract_views(
    source: ImageSource,
    facts: Sequence[ImageFacts],
    extractor: FeatureExtractor,
    views: Sequence[View],
    *,
    progress: Progress,
) -> ViewFeatures:
    """Features of some views of images that were decoded before, mostly from the store.

    Args:
        source: N images.
        facts: N records of them, without problems; no file is read where all is stored.
        extractor: network and device.
        views: V of them.
        progress: gets one step an image that is decoded again.

    Raises:
        DataError: one cannot be decoded any more.
        StorageError: the disk is full; what was stored before stays.
    """
    width = extractor.network.num_features
    values = new_array((len(source), len(views), width), np.float16)
    keys = {
        row: store_key(record.digest, source.paths[row], source.box_of(row))
        for row, record in enumerate(facts)
    }
    filled = np.zeros(values.shape[:2], dtype=bool)
    places = {view: place for place, view in enumerate(views)}

    def take(row: int, record: ImageFacts, made: Sequence[View], vectors: Row) -> None:
        check_unchanged(record, facts[row].digest)
        at = [places[view] for view in made]
        values[row, at], filled[row, at] = vectors, True

    with open_stores(extractor, views, progress) as stores:
        for view, place in places.items():
            filled[list(read_back(stores[view], keys, values[:, place])), place] = True
        missing = {
            row: tuple(view for view, place in places.items() if not filled[row, place])
            for row in range(len(source))
        }
        first_of = first_rows(keys, {row: lacks for row, lacks in missing.items() if lacks})
        wanted = {row: missing[row] for row in first_of.values()}
        _compute(source, extractor, progress, stores, wanted, keys, take)
    for row, place in zip(*np.nonzero(~filled), strict=True):
        values[row, place] = values[first_of[keys[row]], place]
    return ViewFeatures(
        views=tuple(views), values=values, computed=sum(len(lacks) for lacks in wanted.values())
    )


def open_store(extractor: FeatureExtractor, view: View, progress: Progress) -> FeatureStore:
    """The user's store of one view."""
    name, width = identity(extractor, view), extractor.network.num_features
    return FeatureStore(name, width, note=progress.note)


@contextmanager
def open_stores(
    extractor: FeatureExtractor, views: Sequence[View], progress: Progress
) -> Iterator[Stores]:
    """The user's stores of some views, closed afterwards."""
    with ExitStack() as stack:
        opened = {view: open_store(extractor, view, progress) for view in views}
        for store in opened.values():
            stack.enter_context(closing(store))
        yield opened


def read_back(
    store: FeatureStore, keys: Mapping[int, str], values: npt.NDArray[np.float16]
) -> dict[int, ImageFacts]:
    """Copy what is stored into the rows of `values`.

    Args:
        store: of one view.
        keys: of the rows that are wanted.
        values: (N, D).

    Returns:
        The facts of the rows that were there, without paths.
    """
    rows, found = list(keys), dict[int, ImageFacts]()
    for start in range(0, len(rows), READ_ROWS):
        part, beginnings = rows[start : start + READ_ROWS], store.num_beginnings
        known = store.get(sorted({keys[row] for row in part}))
        if store.num_beginnings > beginnings:  # the new file gets what was whole in the damaged one
            _put_back(store, keys, values, found)
        for row in part:
            if keys[row] in known:
                values[row], found[row] = known[keys[row]]
    return found


def _put_back(
    store: FeatureStore,
    keys: Mapping[int, str],
    values: npt.NDArray[np.float16],
    facts: Mapping[int, ImageFacts],
) -> None:
    """Store rows that were read before; arguments as in `read_back`."""
    rows = list(facts)
    for start in range(0, len(rows), READ_ROWS):
        part = rows[start : start + READ_ROWS]
        store.put((keys[row], values[row], facts[row]) for row in part)


def first_rows(keys: Mapping[int, str], rows: Mapping[int, object]) -> dict[str, int]:
    """The first of the rows with each key: identical files go through the network once."""
    found: dict[str, int] = {}
    for row in rows:
        found.setdefault(keys[row], row)
    return found


def _fill(
    source: ImageSource,
    extractor: FeatureExtractor,
    progress: Progress,
    stores: Stores,
    views: Mapping[View, Integers],
    begun: float,
) -> Features:
    count, audit_s = len(source), extractor.audit_s
    values = new_array((count, extractor.network.num_features), np.float16)
    facts: list[ImageFacts | None] = [None] * count
    key_by_row = store_keys(source, range(count), progress)
    stored = read_back(stores[WHOLE], key_by_row, values)
    for row, record in stored.items():
        facts[row] = with_path(record, source.paths[row])
    lacking = {row: (WHOLE,) for row, record in enumerate(facts) if record is None}
    wanted = _missing(key_by_row, lacking, stores, views)
    read_s = time.perf_counter() - begun

    def take(row: int, record: ImageFacts, made: Sequence[View], vectors: Row) -> None:
        if made[0] == WHOLE:
            values[row], facts[row] = vectors[0], record

    _compute(source, extractor, progress, stores, wanted, key_by_row, take)
    first_of = first_rows(key_by_row, {row: None for row in wanted if row in key_by_row})
    for row, key in key_by_row.items():
        if facts[row] is None:
            twin = first_of[key]
            values[row] = values[twin]
            facts[row] = with_path(facts[twin], source.paths[row])  # type: ignore[arg-type]
    complete = tuple(record for record in facts if record is not None)
    return Features(
        values=values,
        facts=complete,
        good=np.array([not record.problem for record in complete], dtype=bool),
        computed=sum(lacks[0] == WHOLE for lacks in wanted.values()),
        read_back=len(stored),
        computed_views=sum(len(lacks) - (lacks[0] == WHOLE) for lacks in wanted.values()),
        seconds={
            "read": round(read_s, 3),
            "compute": round(time.perf_counter() - begun - read_s, 3),
            "audit": round(extractor.audit_s - audit_s, 3),
        },
    )


def _missing(
    keys: Mapping[int, str],
    lacking: Mapping[int, Sequence[View]],
    stores: Stores,
    views: Mapping[View, Integers],
) -> dict[int, tuple[View, ...]]:
    """What is to be computed of which row, in their order, the whole picture first.

    Args:
        keys: of the rows that can be read.
        lacking: rows whose whole picture is wanted; those that cannot be read among them.
        stores: of all views.
        views: further ones and the rows of which they are wanted.
    """
    found: dict[int, list[View]] = {}
    of_key: dict[str, int] = {}
    for row in sorted(lacking):
        place = of_key.setdefault(keys[row], row) if row in keys else row
        found.setdefault(place, [WHOLE])
    for view, rows in views.items():
        asked = [row for row in sorted(rows.tolist()) if row in keys]
        stored = stores[view].known(sorted({keys[row] for row in asked}))
        for row in asked:
            if keys[row] not in stored:
                lacks = found.setdefault(of_key.setdefault(keys[row], row), [])
                if view not in lacks:
                    lacks.append(view)
    return {row: tuple(found[row]) for row in sorted(found)}


def _compute(
    source: ImageSource,
    extractor: FeatureExtractor,
    progress: Progress,
    stores: Stores,
    wanted: Mapping[int, tuple[View, ...]],
    keys: Mapping[int, str],
    take: Taken,
) -> None:
    """Send some views through the network, each picture decoded once, and store them."""
    alike: dict[tuple[View, ...], list[int]] = {}
    for row, views in wanted.items():
        alike.setdefault(views, []).append(row)
    with progress.phase(f"Features by {extractor.network.spec.name}", len(wanted)) as advance:
        for views, rows in alike.items():
            for batch, facts, values in extractor.extract_views(source, rows, views, isolated=True):
                fresh = []
                for row, record, vectors in zip(batch, facts, values, strict=True):
                    take(row, record, views, vectors)
                    if not record.problem and row in keys:
                        # the key is of a first reading: nothing else may be stored under it
                        check_unchanged(record, keys[row][: len(record.digest)])
                        fresh.append((keys[row], vectors, record))
                for place, view in enumerate(views):
                    entries = ((key, vectors[place], record) for key, vectors, record in fresh)
                    stores[view].put(entries)
                advance(len(batch))
