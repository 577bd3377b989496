"""What the warm pools' pods are made of now, by plugin and namespace: built once for each state of a plugin.

A reservation and each pass over a pool ask for it. Must not write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from linkis_ecm.controller.pool.secrets import beside
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod.spec import InvalidSpecError
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import PluginView
from linkis_ecm.engine.warm import fit
from linkis_ecm.engine.warm.members import AsMade, as_made
from linkis_ecm.engine.warm.seals import Seals
from linkis_ecm.model.agent_key import key_id

# Of members that this process has made. One that nobody took is replaced within a day, and there are 1,000 at most of a
# plugin; a pod that is forgotten is known by its seal, and its image is held against the template's.
IMAGES = 20_000


class Templates:
    """Of one operator with these master keys; the first makes seals."""

    def __init__(self, *, settings: PodSettings, master_keys: Sequence[bytes]) -> None:
        self._settings = settings
        self._key_ids = frozenset(map(key_id, master_keys))
        self.seals = Seals(master_keys)
        # By plugin and namespace: the plugin's state, and what follows from it.
        self._built: dict[tuple[str, str], tuple[tuple[str, int], dict[str, Any], AsMade]] = {}
        self._images: dict[str, str] = {}

    def of(self, plugin: PluginView, namespace: str) -> tuple[dict[str, Any], AsMade]:
        """The template, which nobody may change, and what its members must be like. Raises InvalidSpecError."""
        key, state = (plugin.name, namespace), (plugin.uid, plugin.generation)
        known = self._built.get(key)
        if known is None or known[0] != state:
            template = fit.template(plugin, namespace, self._settings)
            known = (
                state,
                template,
                as_made(
                    template, key_ids=self._key_ids, images=self._images, is_known=self.is_known,
                    default=fit.default_pod(plugin, namespace, self._settings),
                ),
            )  # fmt: skip
            self._built[key] = known
        return known[1], known[2]

    def as_made(self, plugin: PluginView | None, namespace: str) -> tuple[AsMade | None, str]:
        """What its members must be like, or why there can be none."""
        if plugin is None:
            return None, ""
        try:
            return self.of(plugin, namespace)[1], ""
        except InvalidSpecError as error:
            return None, str(error)

    def secrets_beside(self, plugin: PluginView | None, namespace: str) -> frozenset[str]:
        """The Secrets that containers beside the engine have variables from."""
        if plugin is None or plugin.spec.pod_template is None:
            return frozenset()
        try:
            return beside(self.of(plugin, namespace)[0])
        except InvalidSpecError:
            return frozenset()

    def forget(self, plugin: str) -> None:
        """The plugin was deleted."""
        self._built = {key: value for key, value in self._built.items() if key[0] != plugin}

    def record_made(self, pod: PodView) -> None:
        """The API server has taken this member, with this image."""
        self._images[pod.uid] = pod.image
        while len(self._images) > IMAGES:
            del self._images[next(iter(self._images))]

    def is_known(self, pod: PodView) -> bool:
        """Whether this process made the member and nobody wrote an enrolment into it, or whether it has its seal."""
        marked = pod.member is not None and pod.member.ready is not None
        return self.seals.holds(pod) or (pod.uid in self._images and not marked)

    @property
    def images(self) -> Mapping[str, str]:
        """Of the members that this process has made, by uid."""
        return self._images
