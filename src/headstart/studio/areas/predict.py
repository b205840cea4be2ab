"""Predict: drop pictures, read the answers, take them along as a table."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from headstart.bundle import Classifier
from headstart.bundle.classifier import WHOLE_PICTURES
from headstart.inference import FeatureExtractor
from headstart.studio import caching
from headstart.studio.answering import (
    MOST_BARS,
    Answer,
    Upload,
    answer_uploads,
    answers_csv,
    card_of,
    promise,
    upload_of,
)
from headstart.studio.drawing import put
from headstart.studio.notices import PageProgress, pages, turn_below
from headstart.studio.places import Entry
from headstart.studio.plain import as_text

UPLOADS, ANSWERS, REFUSED = "uploads", "answers", "refused"
ROUND, DROPPED = "upload round", "dropped"  # of the drop zone, and what lies in it
PAGE, EVERY = "kept.predict.page", "kept.predict.every"
MOST_UPLOADS = 200
MOST_BYTES = 300 * 2**20
MOST_ANSWERS = 2000
CARDS = 10  # a page
Answers = dict[tuple[str, str, str], Answer]


def show(entry: Entry) -> None:
    """Draw the area."""
    state = st.session_state
    state.setdefault(UPLOADS, [])
    state.setdefault(ANSWERS, {})
    state.setdefault(ROUND, 0)
    classifier = caching.open_classifier(entry.folder)
    state.setdefault(DROPPED, {})
    key = f"upload {state[ROUND]}"
    if not state.get(key):  # a new drop zone, empty after a look at another area
        state[DROPPED].clear()
    st.file_uploader(
        "Drop pictures here. They are looked at on this computer and kept nowhere.",
        accept_multiple_files=True, key=key, on_change=take_uploads, args=(key,),
    )  # fmt: skip
    put("model.html", model=about_model(entry, classifier))
    if classifier.learnt_on_boxes:
        st.warning(f"{WHOLE_PICTURES[:1].upper()}{WHOLE_PICTURES[1:]}.")
    if state.get(REFUSED):
        st.warning(as_text(state[REFUSED]))
    if state[UPLOADS]:
        show_answers(classifier, answers_for(classifier, state[UPLOADS]))


def take_uploads(key: str) -> None:
    """Add to the pictures of this visit what was dropped, take away what was taken out again.

    The pictures outlive the drop zone, which Streamlit forgets when another area is drawn.
    """
    state = st.session_state
    dropped: dict[str, tuple[str, str]] = state[DROPPED]
    files = state.get(key) or []
    gone = {dropped.pop(id_) for id_ in set(dropped) - {file.file_id for file in files}}
    kept = [upload for upload in state[UPLOADS] if (upload.name, upload.digest) not in gone]
    known = {(upload.name, upload.digest) for upload in kept}
    filled = sum(len(upload.content) for upload in kept)
    refused = 0
    taken: list[Upload] = []
    for file in files:
        if file.file_id in dropped:
            continue
        upload = upload_of(file.name, file.getvalue())
        dropped[file.file_id] = (upload.name, upload.digest)
        if (upload.name, upload.digest) in known:
            continue
        filled += len(upload.content)
        if len(kept) + len(taken) >= MOST_UPLOADS or filled > MOST_BYTES:
            refused += 1
            continue
        known.add((upload.name, upload.digest))
        taken.append(upload)
    state[UPLOADS] = [*taken, *kept]
    state[PAGE] = 0
    state[REFUSED] = (
        f"{refused:,} files were not taken: the page holds at most {MOST_UPLOADS} pictures and "
        f"{MOST_BYTES // 2**20} MiB. Clear it first, or use `headstart predict` for many pictures."
        if refused
        else ""
    )


def clear() -> None:
    """Forget all pictures and answers; another key makes the drop zone empty."""
    st.session_state[ROUND] += 1
    for name in (UPLOADS, ANSWERS, REFUSED):
        st.session_state.pop(name, None)


def answers_for(classifier: Classifier, uploads: Sequence[Upload]) -> list[Answer]:
    """Answers of this model for all pictures; only the new ones are computed."""
    known: Answers = st.session_state[ANSWERS]
    keys = [(classifier.root_digest, upload.name, upload.digest) for upload in uploads]
    new = [i for i, key in enumerate(keys) if key not in known]
    if new:
        found = answer_uploads(classifier, [uploads[i] for i in new], progress=PageProgress())
        known.update(zip([keys[i] for i in new], found, strict=True))
    answers = [known[key] for key in keys]
    for old in [key for key in known if key not in set(keys)][: max(0, len(known) - MOST_ANSWERS)]:
        del known[old]
    return answers


def show_answers(classifier: Classifier, answers: Sequence[Answer]) -> None:
    """A card a picture, and what can be done with all of them."""
    good = sum(not answer.row.problems[0] for answer in answers)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button("Download all answers (CSV)", answers_csv(answers), "answers.csv",
                           "text/csv", on_click="ignore", icon=":material/download:")  # fmt: skip
        st.button("Clear", on_click=clear, icon=":material/close:")
        if len(classifier.class_names) > MOST_BARS:
            st.checkbox("Show all classes", key=EVERY)
    if good < len(answers):
        bad = [answer.row for answer in answers if answer.row.problems[0]]
        put("unread.html", files=[(row.paths[0], row.problems[0]) for row in bad])
    shown = [answer for answer in answers if not answer.row.problems[0]]
    every = bool(st.session_state.get(EVERY))
    rows = pages(PAGE, len(shown), CARDS, "pictures")
    decision = classifier.confidence.decision
    put("answers.html", promise=promise(classifier) if shown else "",
        threshold=None if decision is None else decision.threshold,
        cards=[card_of(shown[i], all_classes=every) for i in rows])  # fmt: skip
    turn_below(PAGE, len(shown), CARDS)


def describe_engine(classifier: Classifier) -> str:
    """What computes, in words."""
    extractor = classifier.extractor
    if isinstance(extractor, FeatureExtractor):
        return extractor.execution.describe()
    return f"ONNX Runtime ({classifier.engine})"


def about_model(entry: Entry, classifier: Classifier) -> dict[str, object]:
    """Which model answers."""
    about, backbone = classifier.about, classifier.about["backbone"]
    preprocessing = classifier.extractor.preprocessing
    data = about.get("about", {}).get("data", {})
    temperature = classifier.confidence.temperature
    return {
        "name": entry.name,
        "digest": classifier.root_digest,
        "backbone": backbone["name"],
        "licence": backbone["weights"]["licence"],
        "code_licence": backbone["code_licence"],
        "classes": classifier.class_names,
        "data": data.get("name", ""),
        "num_images": data.get("num_images"),
        "pictures": classifier.confidence.describe_pictures(preprocessing),
        "engine": describe_engine(classifier),
        "temperature": temperature,
        "decision": classifier.confidence.decision,
    }
