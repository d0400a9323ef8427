"""Pages described by TOML: errors name the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from gkdbench.errors import UserError, invalid
from gkdbench.text_files import read_toml

PageModel = TypeVar("PageModel", bound=BaseModel)


def read_page(path: Path, kind: type[PageModel]) -> PageModel:
    """The page of this kind that a TOML file describes.

    Raises:
        UserError: not valid TOML, an unknown key or a wrong type.
    """
    try:
        return kind.model_validate(read_toml(path, "page"))
    except ValidationError as error:
        wrong = "; ".join(invalid(".".join(map(str, e["loc"])), e["input"], e["msg"]) for e in error.errors())
        raise UserError(f"{path}: {wrong}") from None
