"""An HTML page as tests look at it: its elements in order, with attributes and text."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "img", "br", "link", "input"})


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list["Element"] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    @property
    def text(self) -> str:
        """All text inside, in no particular order of siblings and words."""
        return " ".join([*self.words, *(child.text for child in self.children)]).strip()

    def all(self, tag: str | None = None, **attributes: str) -> list["Element"]:
        """Elements inside of that name and with those attributes; `class_` needs one of them."""
        wanted = attributes.pop("class_", None)
        return [
            each
            for each in self._inside()
            if tag in {None, each.tag}
            and (wanted is None or wanted in each.classes)
            and attributes.items() <= each.attributes.items()
        ]

    def one(self, tag: str | None = None, **attributes: str) -> "Element":
        (found,) = self.all(tag, **attributes)
        return found

    def _inside(self) -> Iterator["Element"]:
        for child in self.children:
            yield child
            yield from child._inside()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)

    def handle_endtag(self, tag: str) -> None:
        closed = self.open.pop()
        assert closed.tag == tag, f"{closed.tag} is closed by {tag}"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.open[-1].words.append(data.strip())


def read(page: str) -> Element:
    """The page as a tree. Fails where elements are not closed in order."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    (root,) = reader.open
    return root


def loads_nothing(page: Element) -> bool:
    """Whether nothing but pictures in the page itself is referred to, and no script but ours."""
    sources = [each.attributes["src"] for each in page.all() if "src" in each.attributes]
    links = [each.attributes["href"] for each in page.all() if "href" in each.attributes]
    events = [name for each in page.all() for name in each.attributes if name.startswith("on")]
    inline = [each for each in page.all() if "style" in each.attributes]
    return (
        all(source.startswith("data:image/jpeg;base64,") for source in sources)
        and all(link.startswith("#") for link in links)
        and not events
        and not inline
        and len(page.all("script")) == 1
        and not page.all("link")
        and not page.all("iframe")
    )
