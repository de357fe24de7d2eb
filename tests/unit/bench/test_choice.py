from __future__ import annotations

from typing import Any, cast

import pytest

from daemon.bench.choice import check_models
from daemon.bench.plan import QUICK, Plan
from daemon.client.answers import Model
from daemon.errors import SpecRefusedError


def plan(*tables: str, model: str = "small", image_model: str = "brush") -> Plan:
    return Plan(tables=tables, model=model, image_model=image_model, size=QUICK, repeats=1)


def model(name: str, form: str | None, **values: Any) -> Model:
    given = {"name": name, "format": form, "state": "ready", "error": None, "remedy": None}
    return cast("Model", {**given, **values})


MODELS = (
    model("small", "hf"),
    model("brush", "diffusers"),
    model("smollm2", None, state="available"),
    model("torn", "gguf", state="unusable", error="torn.gguf is cut short", remedy="copy it again"),
)


def test_models_of_the_right_kinds_and_unknown_names_pass() -> None:
    check_models(plan("train", "infer", "diffuse"), MODELS)
    check_models(plan("infer", "diffuse", model="org/new", image_model="org/newer"), MODELS)
    check_models(plan("train", model="smollm2"), MODELS)
    check_models(plan("train", image_model="small"), MODELS)


@pytest.mark.parametrize(
    ("named", "message", "remedy"),
    [
        (
            {"image_model": "small"},
            "small is a language model, and --image-model needs an image model",
            "name an image model: brush",
        ),
        (
            {"image_model": "smollm2"},
            "smollm2 is a language model, and --image-model needs an image model",
            "name an image model: brush",
        ),
        (
            {"model": "brush"},
            "brush is an image model, and --model needs a language model",
            "name a language model: small, smollm2",
        ),
        ({"model": "torn"}, "torn.gguf is cut short", "copy it again"),
    ],
)
def test_a_model_that_no_table_can_use_is_refused(
    named: dict[str, str], message: str, remedy: str
) -> None:
    with pytest.raises(SpecRefusedError) as caught:
        check_models(plan("train", "diffuse", **named), MODELS)
    assert (caught.value.message, caught.value.remedy) == (message, remedy)


def test_where_no_model_would_do_the_folder_for_one_is_told() -> None:
    with pytest.raises(SpecRefusedError) as caught:
        check_models(plan("diffuse", image_model="small"), MODELS[:1])
    assert "studioq models path" in str(caught.value.remedy)
