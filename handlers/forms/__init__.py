"""The forms that a request can have, each in a module of its own: how its photos are read and how it is answered."""

from __future__ import annotations

from handlers.forms.base import Form
from handlers.forms.fields import Fields
from handlers.forms.kserve_v1 import KServeV1
from handlers.forms.kserve_v2 import KServeV2
from handlers.forms.single import Single

SINGLE, KSERVE_V2 = Single(), KServeV2()
# A request has the first of these that accepts it.
FORMS: tuple[Form, ...] = (KServeV1(), KSERVE_V2, Fields(), SINGLE)
