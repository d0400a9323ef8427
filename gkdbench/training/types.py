"""Ranges of hyper-parameters, checked when a method is made."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Rate = Annotated[float, Field(gt=0)]


Weight = Annotated[float, Field(ge=0)]


Share = Annotated[float, Field(ge=0, le=1)]


Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
