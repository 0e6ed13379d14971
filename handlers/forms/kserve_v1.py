"""KServe v1: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detector.verdict import ModelIdentity
from handlers.errors import BadRequest, UrlNotAccepted
from handlers.forms.base import Body, Content, Data, Form, Item, Request, check_count, decoded, parameters_of


class KServeV1(Form):
    """JSON with `instances`."""

    example = '{"instances": [{"b64": "…"}, …]}'
    protocol = "v1"

    def accepts(self, content: Content) -> bool:
        """Whether there are `instances`."""
        return content.document is not None and "instances" in content.document

    def read(self, content: Content) -> Request:
        """The photos and `parameters`."""
        document = content.document or {}
        instances = document["instances"]
        if not isinstance(instances, list) or not instances:
            raise BadRequest(f"instances must be a list of at least one photo, as in {KServeV1.example}")
        check_count(instances, content)
        return Request([_photo(instance) for instance in instances], self, parameters_of(document))

    def body(self, request: Request, item: Item, bodies: Sequence[Body], model: ModelIdentity) -> Body:
        """A verdict for each photo."""
        return {"predictions": list(bodies)}


def _photo(instance: Any) -> Data | Exception:
    if not isinstance(instance, dict):
        return decoded(instance)
    return UrlNotAccepted() if "url" in instance else decoded(instance.get("b64", instance.get("data")))
