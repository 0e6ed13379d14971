"""Several photos in the multipart fields or gRPC inputs `data1`, `data2`, …, answered as KServe v1's."""

from __future__ import annotations

from collections.abc import Sequence

from detector.verdict import ModelIdentity
from handlers.forms.base import Body, Content, Form, Item, Request, check_count


class Fields(Form):
    """Numbered fields, in the order of their numbers."""

    def accepts(self, content: Content) -> bool:
        """Whether the fields are numbered."""
        return content.numbered

    def read(self, content: Content) -> Request:
        """The photos."""
        check_count(content.fields, content)
        return Request(content.fields, self)

    def body(self, request: Request, item: Item, bodies: Sequence[Body], model: ModelIdentity) -> Body:
        """A verdict for each photo."""
        return {"predictions": list(bodies)}
