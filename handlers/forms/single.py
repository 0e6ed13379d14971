"""One photo: the whole body, the multipart field `data`, or the gRPC input of that name. The answer is its verdict."""

from __future__ import annotations

from collections.abc import Sequence

from detector.verdict import ModelIdentity
from handlers.forms.base import Body, Content, Form, Item, Request


class Single(Form):
    """One photo."""

    def accepts(self, content: Content) -> bool:
        """Whether the only field is no JSON document."""
        return content.document is None and len(content.fields) == 1

    def read(self, content: Content) -> Request:
        """The photo."""
        return Request(content.fields, self)

    def body(self, request: Request, item: Item, bodies: Sequence[Body], model: ModelIdentity) -> Body:
        """The photo's verdict."""
        return bodies[0]
