"""The forms of a request: what is read out of each, and what is said of those that can't be read."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from handlers.forms import KSERVE_V2, SINGLE, Fields, KServeV1
from handlers.forms.base import Item
from handlers.requests import read


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def body(document: object, **inputs: object) -> Item:
    return Item({"body": document if isinstance(document, bytes) else json.dumps(document).encode(), **inputs})


def images(*photos: bytes, **more: object) -> dict[str, object]:
    tensor = {"name": "images", "shape": [len(photos)], "datatype": "BYTES", "data": [b64(p) for p in photos]}
    return {"id": "mine", "inputs": [tensor], **more}


def code(item: Item, **limits: int) -> str:
    request = read(item, **limits)
    assert len(request.photos) == 1
    return request.photos[0].code


def test_a_raw_body_is_one_photo_and_so_is_the_field_data():
    for item in (Item({"body": b"photo"}), Item({"data": bytearray(b"photo"), "other": b"x"})):
        request = read(item)
        assert (list(request.photos), request.form) == ([b"photo"], SINGLE)


def test_numbered_fields_are_several_photos_by_their_numbers():
    request = read(Item({"data10": b"c", "data2": b"b", "data1": b"a"}))
    assert (list(request.photos), type(request.form)) == ([b"a", b"b", b"c"], Fields)


@pytest.mark.parametrize("start", [b"", b" \r\n\t", b"\xef\xbb\xbf"], ids=["plain", "spaces", "byte order mark"])
def test_v1_instances_are_photos_in_each_of_their_usual_forms(start):
    photos = [{"b64": b64(b"one")}, {"data": b64(b"two")}, b64(b"three"), {"b64": "Zm91\ncg=="}]
    request = read(body(start + json.dumps({"instances": photos}).encode()))
    assert (list(request.photos), type(request.form)) == ([b"one", b"two", b"three", b"four"], KServeV1)


def test_v2_tensors_are_photos_with_the_callers_id_and_choice_of_outputs():
    request = read(body(images(b"one", b"two", outputs=[{"name": "logit"}, {"name": "status"}])))
    assert (list(request.photos), request.form, request.id) == ([b"one", b"two"], KSERVE_V2, "mine")
    assert request.outputs == ("logit", "status")
    assert not request.explain


@pytest.mark.parametrize("off", [False, "0", 0, "no"])
def test_switches_come_as_parameters_as_tensors_or_beside_the_body(off):
    flag = {"name": "use_calib", "shape": [1], "datatype": "BOOL", "data": [off]}
    tensors = images(b"one")
    tensors["inputs"].append(flag)
    asked = [
        body({"instances": [b64(b"one")], "parameters": {"use_calib": off, "explain": True}}),
        body(images(b"one", parameters={"use_calib": off, "explain": 1})),
        body(tensors, explain=b"1"),
        body(images(b"one", outputs=[{"name": "heatmap"}]), use_calib=b"0"),
    ]
    for item in asked:
        request = read(item)
        assert list(request.photos) == [b"one"]
        assert not request.use_calibrator
        assert request.explain


def test_what_is_no_base64_or_an_address_fails_in_its_own_place():
    sent = [
        b64(b"good"),
        "no base64",
        {"url": "http://x/y.jpg"},
        "https://x/y.jpg",
        "data:image/png;base64,AAAA",
        7,
        {"b64": "A"},
    ]
    photos = read(body({"instances": sent})).photos
    codes = [p.code if isinstance(p, Exception) else p for p in photos]
    invalid, address = "invalid_base64", "url_not_accepted"
    assert codes == [b"good", invalid, address, address, invalid, invalid, invalid]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b'{"instances": [', "bad_request"),
        (b'{"a":' * 100_000, "bad_request"),
        (b"{\xff\xfe}", "bad_request"),
        (b"{" + b"9" * 5000 + b"}", "bad_request"),
        ({}, "bad_request"),
        ({"url": "http://169.254.169.254/"}, "url_not_accepted"),
        ({"instances": []}, "bad_request"),
        ({"instances": "AAAA"}, "bad_request"),
        ({"inputs": {}}, "bad_request"),
        ({"inputs": [{"name": "pixels", "shape": [1], "datatype": "FP32", "data": [1.0]}]}, "bad_request"),
        ({"inputs": [{"name": "images", "shape": [2], "datatype": "BYTES", "data": ["AAAA"]}]}, "bad_request"),
        ({"inputs": [{"name": "images", "shape": ["1"], "datatype": "BYTES", "data": ["AAAA"]}]}, "bad_request"),
        ({"inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": []}]}, "missing_image"),
        (images(b"x", outputs=[{"name": "nothing"}]), "bad_request"),
        (images(b"x", outputs=[{"name": ["logit"]}]), "bad_request"),
        (images(b"x", outputs="logit"), "bad_request"),
        (images(b"x", parameters={"explain": "perhaps"}), "bad_parameter"),
    ],
)
def test_json_that_is_broken_or_of_no_known_form_is_refused_whole(document, expected):
    assert code(body(document)) == expected


def test_a_refused_v2_request_is_still_answered_as_one():
    request = read(body(images(b"x", parameters={"explain": "perhaps"})))
    assert (request.form, request.id) == (KSERVE_V2, "mine")
    assert read(Item({"body": b'{"inputs": 1}'}, tensors=True)).form is KSERVE_V2
    assert read(Item({}, tensors=True)).form is KSERVE_V2


def test_photos_are_bounded_by_number_and_all_together_by_size():
    several = [
        body({"instances": ["AAAA"] * 4}),
        body(images(*[b"x"] * 4)),
        Item({f"data{i}": b"x" for i in range(4)}),
    ]
    for item in several:
        assert len(read(item, max_photos=4).photos) == 4
        assert code(item, max_photos=3) == "too_many_photos"
    assert code(Item({"data1": b"x" * 6, "data2": b"x" * 6}), max_bytes=11) == "body_too_large"
    assert code(body({"instances": ["AAAA"]}), max_bytes=10) == "body_too_large"
