"""The author's answers: `claim.yaml` in the run's folder.

A small part of YAML that needs no library: `key: text` lines, where the text may be quoted, may
go on in indented lines, or follow as a block (`|` keeps its lines, `>` joins them); lines that
begin with `#` are comments. Keys are the numbers of CLAIM's items and the words of `WORDS`.
"""

from __future__ import annotations

import re
from pathlib import Path

from headstart.errors import UsageError
from headstart.files import write_text

CLAIM_FILE = "claim.yaml"
WORDS = ("medical", "intended_use", "limits", "data_licence", "contact")
NUM_ITEMS = 44

QUOTES = ('"', "'")
_KEY = re.compile(r"^(?P<key>[A-Za-z_]+|\d+|\"\d+\"|'\d+')\s*:(?:\s+(?P<text>.*))?$")


def read_answers(folder: Path) -> dict[str, str]:
    """Answers by key, empty without a file.

    Raises:
        UsageError: a line or a key that means nothing; the message names it.
    """
    path = folder / CLAIM_FILE
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"'{path}' cannot be read ({error}). Save it as UTF-8 text.") from error
    return parse_answers(text, str(path))


def parse_answers(text: str, name: str) -> dict[str, str]:
    """Answers by key from the text of the file.

    Args:
        text: of the file.
        name: of the file, for messages.

    Raises:
        UsageError: a line that is neither `key: text`, its continuation nor a comment, an unknown
            key, or one that stands twice.
    """
    pieces: dict[str, list[str]] = {}
    key = ""
    for count, line in enumerate(text.splitlines(), start=1):
        if line[:1] == "#" or line.strip() == "---" or (not line.strip() and not key):
            continue
        if not line.strip() or line[0] in " \t":
            if not key:
                raise _refused(name, count, "is indented under nothing")
            pieces[key].append(line)
            continue
        found = _KEY.match(line.rstrip())
        if found is None:
            raise _refused(name, count, "is not `key: text`")
        key = found["key"].strip("\"'")
        _check_key(key, name, count)
        if key in pieces:
            raise _refused(name, count, f"answers '{key}' a second time")
        pieces[key] = [(found["text"] or "").strip()]
    answers = {key: _joined(lines) for key, lines in pieces.items()}
    return {key: answer for key, answer in answers.items() if answer}


def _check_key(key: str, name: str, count: int) -> None:
    known = 1 <= int(key) <= NUM_ITEMS if key.isdigit() else key in WORDS
    if not known:
        raise _refused(
            name, count, f"has the key '{key}', which is neither 1 to {NUM_ITEMS} nor one of "
            f"{', '.join(WORDS)}"
        )  # fmt: skip


def _refused(name: str, count: int, what: str) -> UsageError:
    return UsageError(
        f"Line {count} of '{name}' {what}. Write `NUMBER: text`, further lines indented."
    )


def _joined(lines: list[str]) -> str:
    """The text of one answer: a block with its lines, or one paragraph without its quotes."""
    head, rest = lines[0], [line.strip() for line in lines[1:]]
    # A comment behind the key, as the template has, is no answer.
    quoted = None if rest else re.match(r"^(['\"])(.*)\1\s*(#.*)?$", head)
    if quoted:
        head = f"{quoted[1]}{quoted[2]}{quoted[1]}"
    elif head[:1] not in QUOTES:
        head = re.sub(r"(^|\s+)#.*$", "", head)
    if head in ("|", "|-", "|+"):
        return "\n".join(rest).strip()
    if head in (">", ">-", ">+"):
        head = ""
    paragraph = " ".join(part for part in [head, *rest] if part)
    for quote in QUOTES:
        if len(paragraph) > 1 and paragraph[0] == paragraph[-1] == quote:
            return paragraph[1:-1].replace(quote * 2 if quote == "'" else '\\"', quote)
    return paragraph


def write_template(folder: Path, items: list[tuple[int, str]]) -> Path:
    """Write a `claim.yaml` to fill in; one that is there already stays as it is.

    Raises:
        UsageError: there is one already.
    """
    path = folder / CLAIM_FILE
    if path.exists():
        raise UsageError(f"'{path}' is there already. Edit it, or move it away for a new one.")
    lines = [
        "# Answers of the author for model_card.md and the CLAIM 2024 checklist.",
        "# Take the # away before an item and write behind it; further lines are indented.",
        "",
        "# medical: yes            # whether the images are medical; guessed without an answer",
        "# intended_use:           # who should use the model for what",
        "# limits:                 # where it must not be used",
        "# data_licence:           # of the images",
        "# contact:                # whom to ask",
        "",
        *[f"# {number}:  # {title}" for number, title in items],
    ]
    write_text(path, "\n".join(lines) + "\n")
    return path
