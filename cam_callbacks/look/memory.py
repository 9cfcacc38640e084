"""What one look leaves to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cam_callbacks.look import alerts, exchanged
from cam_callbacks.look.evidence import LookEvidence
from cam_callbacks.look.exchanged import Outcomes, outcomes_of
from cam_callbacks.look.reference import Policy
from cam_callbacks.look.tracking import Series, Track


@dataclass(frozen=True, eq=False)
class Memory:
    """Replaced as a whole, so that a look that fails leaves nothing half done.

    ``looks``: how many there were. ``tracks``: of each series. ``alerts``: the states of every rule. ``exchanged``: what
    followed what at the reference; None until then. ``exchanges``: is the model one that exchange tests can be made with? None
    until one was tried.
    """

    looks: int = 0
    tracks: Mapping[Series, Track] = field(default_factory=dict)
    alerts: alerts.States = field(default_factory=dict)
    exchanged: Mapping[str, Outcomes] | None = None
    exchanges: bool | None = None

    def to_plain(self) -> dict[str, Any]:
        """Tensors and primitives only, for a checkpoint."""
        return {
            "looks": self.looks,
            "tracks": [{"method": m, "layer": layer, **t.state_dict()} for (m, layer), t in self.tracks.items()],
            "alerts": alerts.to_plain(self.alerts),
            "exchanged": None if self.exchanged is None else exchanged.to_plain(self.exchanged),
        }

    @classmethod
    def from_plain(cls, state: Mapping[str, Any]) -> Memory:
        """Undo :meth:`to_plain`, also of a version that remembered less."""
        tracks = {
            (t["method"], t["layer"]): Track.from_state({k: v for k, v in t.items() if k not in ("method", "layer")})
            for t in state["tracks"]
        }
        outcomes = state.get("exchanged")
        return cls(
            state["looks"],
            tracks,
            alerts.from_plain(state.get("alerts", ())),
            None if outcomes is None else exchanged.from_plain(outcomes),
        )


def check_state(state: Mapping[str, Any], fingerprint: str, methods: list[str]) -> None:
    """May looks go on where those of a checkpoint ended?

    Raises:
        ValueError: They are of another probe, or by other methods.
    """
    if state["fingerprint"] != fingerprint:
        raise ValueError(
            f"the checkpoint's looks are of a probe with fingerprint {state['fingerprint'][:12]}, this one has "
            f"{fingerprint[:12]}: their numbers must not be mixed."
        )
    if state["methods"] != methods:
        raise ValueError(f"the checkpoint's looks are by {state['methods']}, these by {methods}.")


def exchanged_at_reference(
    before: Mapping[str, Outcomes] | None, evidence: LookEvidence, policy: Policy
) -> Mapping[str, Outcomes] | None:
    """The outcomes that later ones are compared with: of the first look at which the reference is due and the model is above
    chance; ``before`` where there has been one."""
    due = evidence.look >= policy if isinstance(policy, int) else policy == "first" or evidence.settled
    if before is not None or evidence.exchanged is None or evidence.at_chance or not due:
        return before
    return outcomes_of(evidence.exchanged)
