"""How rows are put into the segments of a mixture of mixed columns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.segment_model import Arrays, Assignment
from erasmo_dagster.method.tables.layout import Floats, Layout
from erasmo_dagster.method.tables.mixture import Density, Rows, responsibilities
from erasmo_dagster.method.tables.normals import Diagonal, Tied
from erasmo_dagster.method.threads import one_thread

_CHUNK = 4096  # rows whose densities are taken at a time


@dataclass(frozen=True, eq=False)
class MixedRule:
    """By the posterior of a mixture of mixed columns; the largest one is the confidence.

    Points are those of a :class:`~erasmo_dagster.method.tables.space.TableSpace` with ``layout``.
    """

    kind: ClassVar[str] = "mixed"

    layout: Layout
    density: Density

    def place(self, points: Floats, centers: Floats) -> Assignment:
        """As :meth:`~erasmo_dagster.method.segment_model.Rule.place`; the density says all that the centres do."""
        memberships = np.empty((len(points), len(self.density.shares)), dtype=np.float32)
        with one_thread():  # several threads add up in another order
            for start in range(0, len(points), _CHUNK):
                rows = Rows(self.layout, points[start : start + _CHUNK])
                memberships[start : start + _CHUNK] = responsibilities(self.density.log_joint(rows))[0]
        labels = memberships.argmax(axis=1)
        return Assignment(labels, memberships[np.arange(len(labels)), labels], memberships)

    def subset(self, segments: npt.NDArray[np.int64]) -> MixedRule:
        """The same rule for some of its segments alone, in the order given."""
        density = self.density
        shares = density.shares[segments]
        numbers = density.numbers
        if isinstance(numbers, Diagonal):
            numbers = Diagonal(numbers.means[segments], numbers.variances[segments])
        elif numbers is not None:
            numbers = Tied(numbers.means[segments], numbers.covariance)
        dense = tuple(Tied(block.means[segments], block.covariance) for block in density.dense)
        return MixedRule(
            self.layout,
            Density(shares / shares.sum(), numbers, density.categories[segments], dense, density.widths),
        )

    def arrays(self) -> Arrays:
        """Every array of the density by a name of its own."""
        density = self.density
        arrays: Arrays = {"shares": density.shares, "categories": density.categories}
        if isinstance(density.numbers, Diagonal):
            arrays |= {"means": density.numbers.means, "variances": density.numbers.variances}
        elif density.numbers is not None:
            arrays |= {"means": density.numbers.means, "covariance": density.numbers.covariance}
        for at, block in enumerate(density.dense):
            arrays |= {f"dense{at}_means": block.means, f"dense{at}_covariance": block.covariance}
        return arrays

    def details(self) -> dict[str, Any]:
        """The layout."""
        return {"layout": asdict(self.layout)}

    @classmethod
    def from_saved(cls, layout: dict[str, Any], **arrays: npt.NDArray[Any]) -> MixedRule:
        """The rule whose :meth:`details` and :meth:`arrays` these are; KeyError or TypeError where they are none."""
        found = Layout(layout["numbers"], tuple(layout["categories"]), tuple(layout["dense"]))
        numbers: Diagonal | Tied | None = None
        if "variances" in arrays:
            numbers = Diagonal(arrays["means"], arrays["variances"])
        elif "covariance" in arrays:
            numbers = Tied(arrays["means"], arrays["covariance"])
        dense = tuple(
            Tied(arrays[f"dense{at}_means"], arrays[f"dense{at}_covariance"]) for at in range(len(found.dense))
        )
        return cls(found, Density(arrays["shares"], numbers, arrays["categories"], dense, found.categories))
