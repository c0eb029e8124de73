"""Densities at a temperature: below 1 they keep to what is likely, above 1 they stray from it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any


class Tempered(ABC):
    """A density that has its like at every temperature."""

    def at_temperature(self, temperature: float) -> Any:
        """The density at a temperature T, of the same class; itself at 1.

        Args:
            temperature: above 0. Towards 0 only the likeliest frames are left, towards infinity
                all binary frames become equally likely, and continuous ones ever wider.

        Raises:
            ValueError: it is not above 0, or not finite.
        """
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature: expected a number above 0, got {temperature}")
        return self if temperature == 1 else self._at_temperature(temperature)

    @abstractmethod
    def _at_temperature(self, temperature: float) -> Any:
        """The same, of a temperature that has been checked."""
