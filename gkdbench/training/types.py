"""Ranges of hyper-parameters, checked when a method is made."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

PositiveFloat = Annotated[float, Field(gt=0)]


NonNegativeFloat = Annotated[float, Field(ge=0)]


UnitFloat = Annotated[float, Field(ge=0, le=1)]


PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
