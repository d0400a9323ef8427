"""Ranges of hyper-parameters, for the annotations of a method's fields.

Values from suites and configuration files are checked against them when a method is made (`resolve`), and an error
names the field, the value and the range. ``field: PositiveFloat = 0.01`` is a float to every other reader.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

PositiveFloat = Annotated[float, Field(gt=0)]
"""A number above 0: a learning rate, a temperature."""

NonNegativeFloat = Annotated[float, Field(ge=0)]
"""A number from 0: weight decay, the weight of a term of the loss, where 0 switches it off."""

UnitFloat = Annotated[float, Field(ge=0, le=1)]
"""A number in [0, 1]: dropout, the weight of labels against the teacher."""

PositiveInt = Annotated[int, Field(ge=1)]
"""A whole number from 1: epochs, layers, the size of a batch."""

NonNegativeInt = Annotated[int, Field(ge=0)]
"""A whole number from 0: hops, columns of an encoding, where 0 means none."""
