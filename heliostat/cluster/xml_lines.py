"""XML as a tree of elements that know the line they were written on, which the standard library's tree does not."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from heliostat.errors import UserError


@dataclass(frozen=True, kw_only=True, eq=False)
class Element:
    """One element. Equality is identity: two elements may well read the same."""

    tag: str
    line: int
    attributes: dict[str, str]
    children: list["Element"] = field(default_factory=list)

    def all(self, tag: str) -> Iterator["Element"]:
        """The children with `tag`."""
        return (child for child in self.children if child.tag == tag)


def read_xml(text: str, source: str) -> Element:
    """The root element of `text`.

    Raises:
        UserError: the text is not well-formed, cut for example, or it declares a document type.
    """
    root = Element(tag="", line=0, attributes={})
    path = [root]
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag=tag, line=parser.CurrentLineNumber, attributes=attributes)
        path[-1].children.append(element)
        path.append(element)

    def end(_: str) -> None:
        path.pop()

    # entities are the one way in which a small XML text can take all memory, and topologies need none
    def doctype(*_: object) -> None:
        raise UserError("a topology file must not declare a document type", where=source)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text, True)  # noqa: FBT003 expat takes no keyword here
    except expat.ExpatError as error:
        open_tags = " > ".join(element.tag for element in path[1:])
        raise UserError(
            f"this is not well-formed XML: {expat.ErrorString(error.code)}",
            where=f"line {error.lineno} of {source}",
            got=f"inside {open_tags}" if open_tags else None,
            causes=["the file was cut"] if open_tags else [],
            next_step="take the whole file again; NCCL writes it to the path in NCCL_TOPO_DUMP_FILE",
        ) from None
    return root.children[0]
