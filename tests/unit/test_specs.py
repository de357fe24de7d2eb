"""What is said of a refused spec: field, value, what is allowed, and where to correct it."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.errors import SpecRefusedError
from daemon.specs import ConvertSpec, load_spec, parse_request, parse_spec

FILE = {"name": "rows.jsonl", "sha256": "0" * 64}
TRAIN = {"model": "m", "data": {"rows": FILE}}
INFER = {"model": "m", "prompt": "x"}


def refused_spec(kind: str, spec: object) -> SpecRefusedError:
    with pytest.raises(SpecRefusedError) as caught:
        parse_spec(kind, spec)
    return caught.value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iters": 0}, "iters = 0: allowed are whole numbers from 1 to 10,000,000"),
        ({"iters": 10**8}, "iters = 100000000: allowed are whole numbers from 1 to 10,000,000"),
        ({"iters": 1.5}, "iters = 1.5: allowed are whole numbers from 1 to 10,000,000"),
        ({"iters": "a"}, "iters = 'a': allowed are whole numbers from 1 to 10,000,000"),
        ({"learning_rate": 0}, "learning_rate = 0: allowed are numbers above 0 and up to 10"),
        ({"dropout": 1}, "dropout = 1: allowed are numbers from 0 and below 1"),
        ({"scale": float("inf")}, "scale = inf: allowed are numbers above 0 and up to 10,000"),
        (
            {"num_layers": "x"},
            "num_layers = 'x': allowed are whole numbers from 1 to 10,000, or all",
        ),
        ({"fine_tune_type": "x"}, "fine_tune_type = 'x': allowed are lora, dora, full"),
        ({"test": "perhaps"}, "test = 'perhaps': allowed are true and false"),
        (
            {"keys": ["a b"]},
            "--keys 1 = 'a b': allowed are names of layers (1 to 100 letters, digits, _ and dots)",
        ),
        ({"resume": "x"}, "resume: 'x' does not name a job: write job:N or job:N@STEP"),
        ({"data": 5}, "data = 5: allowed are objects with train, valid, test, rows"),
        (
            {"data": {"rows": FILE | {"sha256": "0"}}},
            "data.rows.sha256 = '0': allowed are the 64 hex digits of a SHA-256",
        ),
        (
            {"data": {"rows": FILE | {"name": ""}}},
            "data.rows.name = '': allowed are texts of 1 to 255 characters",
        ),
    ],
)
def test_a_value_is_refused_with_what_is_allowed(options: dict[str, Any], message: str) -> None:
    error = refused_spec("train", TRAIN | options)
    (option,) = options
    assert error.message == message
    assert error.remedy == f"correct --{option.replace('_', '-')}"
    assert str(error.field).startswith(option)


def test_a_long_value_is_shortened_and_a_length_is_said() -> None:
    error = refused_spec("train", TRAIN | {"sample_prompt": "x" * 100_001})
    assert len(error.message) < 200
    assert error.message.endswith("…: allowed are texts of at most 100,000 characters")


def test_lists_say_how_long_they_may_be() -> None:
    assert "lists of at most 64 texts" in refused_spec("infer", INFER | {"stop": "a"}).message


def test_each_way_to_give_a_value_is_said() -> None:
    message = refused_spec("infer", INFER | {"adapter": 5}).message
    assert "texts (job:N, job:N@STEP, or uploaded files), or objects with weights" in message


def test_a_missing_option_is_called_as_on_the_command_line() -> None:
    error = refused_spec("train", {"data": {"rows": FILE}})
    assert (error.message, error.field) == ("model is missing", "model")
    assert error.remedy == "give --model, in a spec model"


def test_an_unknown_option_lists_the_known_ones() -> None:
    error = refused_spec("infer", INFER | {"tempo": 1})
    assert error.message == "tempo: there is no such option"
    assert "max_tokens, temp, top_p" in str(error.remedy)
    assert "\n" not in refused_spec("infer", INFER | {"a\nb": 1}).message


def test_one_prompt_or_one_file_is_needed() -> None:
    assert "neither given" in refused_spec("infer", {"model": "m"}).message
    assert "both given" in refused_spec("infer", INFER | {"prompts": FILE}).message


@pytest.mark.parametrize(
    ("request_", "message", "remedy"),
    [
        ({"priority": "x"}, "priority = 'x': allowed are low, normal, high", "correct --priority"),
        ({"after": [0]}, "--after 1 = 0: allowed are whole numbers from 1", "correct --after"),
        ({"begin_at": "x"}, "begin_at = 'x': allowed are numbers", "correct --begin"),
        (
            {"time_limit_seconds": 0},
            "time_limit_seconds = 0: allowed are numbers above 0 and up to 31,622,400",
            "correct --time-limit",
        ),
        ({"spec": 3}, "spec = 3: allowed are objects", "correct spec"),
        ({"q": 1}, "q: there is no such option", "there are: kind, spec, name,"),
    ],
)
def test_the_request_is_refused_likewise(
    request_: dict[str, Any], message: str, remedy: str
) -> None:
    with pytest.raises(SpecRefusedError) as caught:
        parse_request({"kind": "noop", "spec": {}} | request_)
    assert caught.value.message == message
    assert str(caught.value.remedy).startswith(remedy)


@pytest.mark.parametrize("body", [5, None, [], "x"])
def test_what_is_no_object_is_no_job(body: object) -> None:
    with pytest.raises(SpecRefusedError, match=r": allowed are objects with kind"):
        parse_request(body)


DIFFUSE = {"prompt": "a red circle"}
PICTURE = {"name": "photo.png", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prompt": " \n"},
            "prompt = ' \\n': it is empty; allowed are texts of at most 10,000 characters that "
            "say something",
        ),
        ({"prompt": 5}, "prompt = 5: allowed are texts of at most 10,000 characters"),
        ({"n_images": 0}, "n_images = 0: allowed are whole numbers from 1 to 1,000"),
        ({"n_images": 10_000}, "n_images = 10000: allowed are whole numbers from 1 to 1,000"),
        (
            {"width": 100},
            "width = 100: allowed are multiples of 8 from 8 to 16,384; nearest: 96 and 104",
        ),
        ({"height": 3}, "height = 3: allowed are multiples of 8 from 8 to 16,384; nearest: 8"),
        (
            {"height": 20_001},
            "height = 20001: allowed are multiples of 8 from 8 to 16,384; nearest: 16,384",
        ),
        ({"width": 0}, "width = 0: allowed are multiples of 8 from 8 to 16,384"),
        (
            {"width": 16_384, "height": 8192},
            "width = 16384 and height = 8192 make 134 megapixels; allowed are at most 100",
        ),
        (
            {"image": PICTURE, "strength": 1.5},
            "strength = 1.5: allowed are numbers from 0 to 1",
        ),
        (
            {"strength": 0.5},
            "strength = 0.5: there is no image to start from; pictures from a text alone know no "
            "strength",
        ),
        (
            {"mask": PICTURE},
            "mask = 'photo.png': there is no image of which it could be the mask",
        ),
        ({"lora": [{}]}, "file of --lora 1 is missing"),
        (
            {"lora": [{"file": PICTURE, "scale": 50}]},
            "scale of --lora 1 = 50: allowed are numbers from -10 to 10",
        ),
        ({"batch_size": 0}, "batch_size = 0: allowed are whole numbers from 1 to 256, or auto"),
        (
            {"sampler": "plms"},
            "sampler = 'plms': allowed are ddim, euler, euler-a, dpm++2m, dpm++2m-karras, lcm",
        ),
        (
            {"prediction_type": "x"},
            "prediction_type = 'x': allowed are epsilon, v_prediction",
        ),
    ],
)
def test_a_diffusion_is_refused_with_field_value_and_what_is_allowed(
    options: dict[str, Any], message: str
) -> None:
    error = refused_spec("diffuse", DIFFUSE | options)
    assert error.message == message
    assert error.remedy
    assert any(str(error.field).startswith(option) for option in options)


def test_no_more_than_sixteen_loras_fit() -> None:
    error = refused_spec("diffuse", DIFFUSE | {"lora": [{"file": PICTURE}] * 17})
    assert error.message.endswith("allowed are lists of at most 16 objects with file, scale")


def test_the_remedy_calls_an_option_as_the_command_line_does() -> None:
    assert refused_spec("diffuse", {}).remedy == "give PROMPT, in a spec prompt"
    assert refused_spec("diffuse", DIFFUSE | {"metadata": "x"}).remedy == "correct --no-metadata"


def test_files_in_lists_have_places() -> None:
    lora = [{"file": PICTURE}, {"file": PICTURE | {"name": "b"}, "scale": -0.5}]
    spec = parse_spec("diffuse", DIFFUSE | {"image": PICTURE, "lora": lora})
    files = {place: file.name for place, file in spec.input_files().items()}
    assert files == {"image": "photo.png", "lora.0.file": "photo.png", "lora.1.file": "b"}
    assert spec.job_references() == {}


def test_a_recorded_diffusion_fits_again_as_it_was() -> None:
    spec = parse_spec("diffuse", DIFFUSE)
    recorded = spec.model_dump(mode="json")
    assert recorded["strength"] == 0.7
    assert load_spec("diffuse", recorded) == spec
    assert parse_spec("diffuse", recorded) == spec


def test_a_seed_below_zero_is_told_how_to_have_a_random_one() -> None:
    error = refused_spec("diffuse", DIFFUSE | {"seed": -1})
    assert error.message == "seed = -1: allowed are whole numbers from 0 to 4,294,967,295"
    assert error.remedy == "leave --seed out for a random one, which is drawn and recorded"


@pytest.mark.parametrize("path", ["./sd", "../sd", "/models/sd", "~/sd", "models\\sd"])
def test_a_path_is_no_model(path: str) -> None:
    error = refused_spec("diffuse", DIFFUSE | {"model": path})
    assert error.message.startswith(f"model = {path!r} is a path; a model is named")
    assert "studioq models path" in str(error.remedy)
    assert error.field == "model"


CONVERT = {"model": "m", "to": "new"}


@pytest.mark.parametrize(
    ("options", "message", "remedy"),
    [
        (
            {"to": "ann/new"},
            "to = 'ann/new' has a slash; the model is always called USER/NAME, after the one who "
            "submits the job",
            "give the last part alone: --to new",
        ),
        (
            {"to": "/models/.x"},
            "to = '/models/.x' has a slash; the model is always called USER/NAME, after the one "
            "who submits the job",
            "give the last part alone: --to NAME",
        ),
        (
            {"to": "new.gguf"},
            "to = 'new.gguf' is the name of a file; a folder in MLX's layout is written",
            "leave the ending out: --to new",
        ),
        ({"quantize": "7"}, "quantize = '7': allowed are 2, 3, 4, 5, 6, 8, mixed_2_6", "correct"),
        ({"quantize": 7}, "quantize = '7': allowed are 2, 3, 4, 5, 6, 8, mixed_2_6", "correct"),
        ({"quantize": True}, "quantize = True: allowed are 2, 3,", "correct --quantize"),
        (
            {"quantize": 4, "group_size": 48},
            "group_size = 48: allowed are 16, 32, 64, 128",
            "correct --group-size",
        ),
        (
            {"group_size": 32},
            "group_size = 32: nothing is quantized, so nothing has groups",
            "give --quantize too, or leave --group-size out",
        ),
        (
            {"quantize": "mxfp4", "group_size": 64},
            "group_size = 64: mxfp4 has groups of 32, and no others",
            "leave --group-size out; mxfp4 brings its own",
        ),
        (
            {"quantize": "nvfp4", "group_size": 32},
            "group_size = 32: nvfp4 has groups of 16, and no others",
            "leave --group-size out",
        ),
        (
            {"quantize": "mixed_3_6", "group_size": 16},
            "group_size = 16: groups of 16 are nvfp4's alone; with --quantize mixed_3_6 allowed "
            "are 32, 64 and 128",
            "correct --group-size",
        ),
        ({"dtype": "float16"}, "dtype = 'float16': allowed are bf16, fp16, fp32", "correct"),
        ({"fuse": "x"}, "fuse: 'x' does not name a job: write job:N or job:N@STEP", "correct"),
    ],
)
def test_a_conversion_is_refused_with_field_value_and_what_is_allowed(
    options: dict[str, Any], message: str, remedy: str
) -> None:
    error = refused_spec("convert", CONVERT | options)
    assert error.message.startswith(message)
    assert str(error.remedy).startswith(remedy)
    assert error.field in options


@pytest.mark.parametrize("name", ["", ".hidden", "a..b", "a b", "-x", "naïve", "x" * 101, "a\n"])
def test_what_cannot_be_a_models_name_cannot_be_written(name: str) -> None:
    error = refused_spec("convert", CONVERT | {"to": name})
    assert error.message.startswith(f"to = {name!r} cannot be a model's name; allowed are 1 to 100")
    assert error.remedy == "choose another --to"


def test_the_source_is_called_as_on_the_command_line() -> None:
    assert refused_spec("convert", {"to": "new"}).remedy == "give SRC, in a spec model"
    assert refused_spec("convert", {"model": "m"}).remedy == "give --to, in a spec to"


def conversion(**options: Any) -> ConvertSpec:
    spec = parse_spec("convert", CONVERT | options)
    assert isinstance(spec, ConvertSpec)
    return spec


def test_bits_may_be_a_number_and_are_recorded_as_a_text() -> None:
    spec = conversion(quantize=4, seed=1)
    assert spec == conversion(quantize="4", seed=1)
    assert spec.model_dump(mode="json")["quantize"] == "4"


@pytest.mark.parametrize(
    ("options", "grouping"),
    [
        ({}, None),
        ({"quantize": "4"}, 64),
        ({"quantize": "mixed_2_6"}, 64),
        ({"quantize": "4", "group_size": 128}, 128),
        ({"quantize": "mxfp4"}, 32),
        ({"quantize": "mxfp8", "group_size": 32}, 32),
        ({"quantize": "nvfp4"}, 16),
        ({"quantize": "nvfp4", "group_size": 16}, 16),
    ],
)
def test_each_way_to_quantise_has_its_groups(options: dict[str, Any], grouping: int | None) -> None:
    assert conversion(**options).grouping == grouping


def test_an_adapter_to_merge_is_a_job_or_files() -> None:
    assert conversion(fuse="job:3@20").job_references() == {"fuse": "job:3@20"}
    files = {"weights": PICTURE, "config": FILE}
    spec = conversion(fuse=files)
    assert list(spec.input_files()) == ["fuse.weights", "fuse.config"]
    assert load_spec("convert", spec.model_dump(mode="json")) == spec
