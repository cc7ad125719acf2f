"""What a customer is, and which values are allowed. Pure: no web, no database.

The page checks the same rules before it sends anything (web/src/customers/fields.ts); this module
is the one that counts.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

STATUSES = ("lead", "active", "former")
LIMITS = {"name": 120, "email": 254, "company": 120, "note": 2000}
COLUMNS = ("name", "email", "company", "status", "note")

# One @, no spaces, a dot in the domain. Whether it exists, only a letter to it can tell.
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # and halves of characters
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Fields:
    """What people enter about a customer: trimmed, within limits, the e-mail in lower case."""

    name: str
    email: str
    company: str
    status: str
    note: str

    def as_dict(self) -> dict[str, str]:
        """The fields by name."""
        return asdict(self)


class InvalidError(Exception):
    """Some values are not allowed; `errors` says for each field what is wrong."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = errors


def parse(values: Mapping[str, object]) -> Fields:
    """Check what a client sent. Raises InvalidError with every field that is wrong."""
    errors = {key: "There is no such field." for key in values if key not in COLUMNS}
    text: dict[str, str] = {}
    for field in COLUMNS:
        value = values.get(field, "lead" if field == "status" else "")
        if not isinstance(value, str):
            errors[field] = "Must be text."
            continue
        text[field] = unicodedata.normalize("NFC", value).replace("\r\n", "\n").strip()
        if field in LIMITS and len(text[field]) > LIMITS[field]:
            errors[field] = f"At most {LIMITS[field]} characters."
        elif _CONTROL.search(text[field]) or (field != "note" and "\n" in text[field]):
            errors[field] = "Must not hold control characters or line breaks."
    if text.get("name") == "":
        errors["name"] = "Enter a name."
    if "email" in text:
        text["email"] = text["email"].lower()
        if not text["email"]:
            errors["email"] = "Enter an e-mail address."
        elif "email" not in errors and not _EMAIL.fullmatch(text["email"]):
            errors["email"] = "Enter an address such as ada@example.com."
    if "status" in text and text["status"] not in STATUSES:
        errors["status"] = f"Choose one of {', '.join(STATUSES)}."
    if errors:
        raise InvalidError(errors)
    return Fields(**text)


def fold(text: str) -> str:
    """Text for comparing: without case and accents, so that `zoe` finds `Zoë`."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def search_text(fields: Fields) -> str:
    """What a search looks through."""
    return fold(f"{fields.name}\n{fields.email}\n{fields.company}")


def read_csv(text: str) -> Iterator[tuple[int, Fields | InvalidError]]:
    """The rows of a CSV file with a header, each with its line number (the header is line 1).

    Raises InvalidError if the header lacks name or e-mail, or holds a column we do not know.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        header = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise InvalidError({"file": f"This is not a CSV file: {error}."}) from None
    missing = [c for c in ("name", "email") if c not in header]
    unknown = [c for c in header if c not in COLUMNS]
    if missing or unknown:
        wrong = f"lacks {' and '.join(missing)}" if missing else f"has {unknown[0]!r}"
        allowed = ", ".join(COLUMNS)
        raise InvalidError({"file": f"The first line {wrong}; it may hold {allowed}."})
    reader.fieldnames = header
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
            if None in row or None in row.values():
                raise InvalidError({"line": "Has not as many values as the first line."})
            yield line, parse({k: _from_cell(v) for k, v in row.items() if v or k != "status"})
        except StopIteration:
            return
        except csv.Error as error:
            yield line, InvalidError({"line": f"Cannot be read: {error}."})
            return
        except InvalidError as error:
            yield line, error


def write_csv(rows: Iterable[Fields]) -> Iterator[str]:
    """A CSV file, header first, a chunk at a time."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for fields in rows:
        writer.writerow([_to_cell(value) for value in fields.as_dict().values()])
        if buffer.tell() > 8192:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _to_cell(value: str) -> str:
    """A cell that a spreadsheet does not take for a formula (OWASP, CSV Injection)."""
    return f"'{value}" if value.startswith(_FORMULA) else value


def _from_cell(value: str) -> str:
    """The value that `_to_cell` wrote."""
    return value[1:] if value[:1] == "'" and value[1:].startswith(_FORMULA) else value
