"""What a page must hold to: parsable, closed, ordered, named, and loading nothing."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "img", "br", "hr", "link", "input", "rect", "circle", "polyline", "polygon"}
ALLOWED = {
    *("html", "head", "title", "style", "body", "a", "div", "header", "p", "h1", "h2", "h3", "h4"),
    *("bdi", "nav", "details", "summary", "ol", "ul", "li", "main", "section", "footer", "span"),
    *("b", "strong", "small", "i", "code", "dl", "dt", "dd", "table", "caption", "thead", "tbody"),
    *("tr", "th", "td", "figure", "figcaption", "svg", "text", "pre", *VOID),
}
ATTRIBUTES_THAT_LOAD = {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}


class Page(HTMLParser):
    """Collects a page's tags, and complains of what does not fit together."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert tag in ALLOWED, f"unexpected <{tag}> inside {self.open[-3:]}"
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def of(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]

    def check(self) -> None:
        levels = [int(tag[1]) for tag, _ in self.tags if tag in ("h1", "h2", "h3", "h4")]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in pairwise(levels)), levels
        ids = [a["id"] for _, a in self.tags if "id" in a]
        assert len(ids) == len(set(ids))
        for _, attributes in self.tags:
            for name in ATTRIBUTES_THAT_LOAD & set(attributes):
                value = attributes[name] or ""
                assert value.startswith(("#", "data:image/jpeg;base64,")), value
                assert not value.startswith("#") or value[1:] in ids, value
        assert all(a.get("alt") for a in self.of("img"))
        assert all(a.get("aria-label") for a in self.of("svg"))
        assert all(a.get("scope") in ("col", "row") for a in self.of("th"))
        assert self.of("html")[0]["lang"] == "en"
