"""A config file is read with its bases, or refused with one message that names file and line."""

import time

import pytest

from d2_detr.config import load_config
from d2_detr.config.reading import MAX_BYTES, Setting, read_config
from d2_detr.utils.errors import InputError


@pytest.fixture
def write(tmp_path):
    def write(content, name="my.yaml"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


def test_settings_have_the_line_of_their_file(write):
    write("SOLVER:\n  MAX_ITER: 5\n  BASE_LR: 0.1\n", "base.yaml")
    path = write("# comment\n_BASE_: base.yaml\nSOLVER: {MAX_ITER: 6}\nSEED: 1\n")
    folder = path.parent
    assert read_config(path) == [
        Setting("SOLVER.MAX_ITER", 5, f"{folder / 'base.yaml'}, line 2"),
        Setting("SOLVER.BASE_LR", 0.1, f"{folder / 'base.yaml'}, line 3"),
        Setting("SOLVER.MAX_ITER", 6, f"{path}, line 3"),
        Setting("SEED", 1, f"{path}, line 4"),
    ]


def test_several_bases_are_merged_in_order(write):
    write("SEED: 1\nOUTPUT_DIR: first\n", "a.yaml")
    write("SEED: 2\n", "b.yaml")
    cfg = load_config(write("_BASE_: [a.yaml, b.yaml]\n"))
    assert (cfg.SEED, cfg.OUTPUT_DIR) == (2, "first")


def test_anchors_and_merge_keys_are_expanded(write):
    path = write("SOLVER: &s\n  MAX_ITER: &n 7\n  BASE_LR: 0.5\nTEST: {EVAL_PERIOD: *n}\n")
    assert load_config(path).TEST.EVAL_PERIOD == 7
    path = write("INPUT: {<<: {MAX_SIZE_TEST: 5, MAX_SIZE_TRAIN: 6}, MAX_SIZE_TEST: 7}\n")
    sizes = load_config(path).INPUT
    assert (sizes.MAX_SIZE_TEST, sizes.MAX_SIZE_TRAIN) == (7, 6)


def test_dates_and_byte_order_marks_are_text(write):
    assert load_config(write(b"\xef\xbb\xbfOUTPUT_DIR: 2026-05-01\n")).OUTPUT_DIR == "2026-05-01"


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 60))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))
MISTAKES = {
    "tab": ("SOLVER:\n\tMAX_ITER: 5\n", "my.yaml, line 2: not valid YAML: found character '\\t'"),
    "quote": ("SEED: 1\nOUTPUT_DIR: 'x\n", "my.yaml, line 3: not valid YAML: found unexpected end"),
    "indent": ("SOLVER:\n  MAX_ITER: 5\n BASE_LR: 1\n", "my.yaml, line 3: not valid YAML"),
    "cut": ("SOLVER:\n  MAX_ITER: 5\n  BASE", "my.yaml, line 3: not valid YAML"),
    "two_documents": ("SEED: 1\n---\nSEED: 2\n", "my.yaml, line 2: not valid YAML"),
    "empty": ("", "my.yaml: empty"),
    "comments": ("# SEED: 1\n", "my.yaml: empty"),
    "list": ("- SEED: 1\n", "my.yaml, line 1: expected sections"),
    "empty_section": ("SOLVER:\n#  MAX_ITER: 5\n", "my.yaml, line 1: SOLVER None: a section; set its keys"),
    "type": ("SOLVER:\n  MAX_ITER: many\n", "my.yaml, line 2: SOLVER.MAX_ITER 'many': expected a whole number"),
    "value": ("SOLVER: {MAX_ITER: 0}\n", "my.yaml, line 1: SOLVER.MAX_ITER 0: expected a whole number from 1"),
    "key": ("SEED: 1\nSOLVER:\n  MAX_ITR: 5\n", "my.yaml, line 3: SOLVER.MAX_ITR: no such config key; did you mean"),
    "section_for_value": ("MODEL: {WEIGHTS: {A: 1}}\n", "line 1: MODEL.WEIGHTS.A: no such config key"),
    "twice": ("SOLVER: {}\nSEED: 1\nSOLVER: {}\n", "my.yaml, line 3: SOLVER is already in line 1"),
    "no_key": ("? [a]\n: 1\n", "my.yaml, line 1: expected the name of a config key"),
    "latin_1": ("SEED: 1\nOUTPUT_DIR: größe\n".encode("latin-1"), "my.yaml, line 2: not UTF-8 text"),
    "utf_16": ("SEED: 1\n".encode("utf-16"), "my.yaml, line 1: not UTF-8 text"),
    "binary": (b"SEED: 1\nA: \0\1\n", "my.yaml, line 2: not text"),
    "python": ("SEED: 1\nA: !!python/object/apply:os.getcwd []\n", "my.yaml, line 2: A: the tag !!python/object"),
    "tag": ("SEED: !!int x\n", "my.yaml, line 1: SEED: the value does not match its tag"),
    "unknown_anchor": ("SEED: *a\n", "my.yaml, line 1: not valid YAML: found undefined alias"),
    "anchors": (LAUGHS, "my.yaml: more than 10000 values"),
    "merge_keys": (MERGES, "my.yaml: more than 10000 values"),
    "anchor_of_itself": ("A: &a [*a]\n", "my.yaml: more than 10000 values"),
    "section_of_itself": ("A: &a {<<: *a}\n", "my.yaml: more than 10000 values"),
    "chain": (CHAIN, "my.yaml: more than 10000 values"),
    "many_values": ("A:\n" + "- 1\n" * 20_000, "my.yaml: more than 10000 values"),
    "brackets": ("A: " + "[" * 100_000, "my.yaml: too deeply nested"),
    "braces": ("{" * 100_000, "my.yaml: too deeply nested"),
    "dashes": ("- " * 100_000, "my.yaml: too deeply nested"),
    "question_marks": ("? " * 100_000, "my.yaml: too deeply nested"),
    "number": ("SEED: " + "9" * 100_000, "my.yaml, line 1: SEED: the number is too long"),
    "sexagesimal": ("SEED: 1" + ":1" * 50_000, "my.yaml, line 1: SEED: the number is too long"),
    "large": ("# " + "x" * MAX_BYTES, "my.yaml: larger than 256 KB"),
    "base_missing": ("SEED: 1\n_BASE_: no.yaml\n", "my.yaml, line 2: _BASE_ no.yaml: no such file"),
    "base_folder": ("_BASE_: .\n", "my.yaml, line 1: _BASE_ .: no such file"),
    "base_device": ("_BASE_: /dev/zero\n", "my.yaml, line 1: _BASE_ /dev/zero: no such file"),
    "base_address": (
        "_BASE_: https://example.com/x.yaml\n",
        "my.yaml, line 1: _BASE_ https://example.com/x.yaml: an address",
    ),
    "base_number": ("_BASE_: 5\n", "my.yaml, line 1: _BASE_: expected the path"),
    "base_of_itself": ("_BASE_: my.yaml\n", "my.yaml: _BASE_ leads back to this file"),
    "version": ("VERSION: 1\n", "my.yaml, line 1: VERSION 1: expected 2"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_file_is_one_message_with_its_line(write, mistake):
    content, message = MISTAKES[mistake]
    path, start = write(content), time.monotonic()
    with pytest.raises(InputError) as error:
        load_config(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert time.monotonic() - start < 20


def test_mistake_in_a_base_has_the_name_of_the_base(write):
    write("SOLVER: {MAX_ITER: -1}\n", "base.yaml")
    with pytest.raises(InputError, match=r"base\.yaml, line 1: SOLVER\.MAX_ITER -1"):
        load_config(write("_BASE_: base.yaml\n"))


def test_bases_that_lead_back_are_refused(write):
    write("_BASE_: my.yaml\n", "base.yaml")
    with pytest.raises(InputError, match=r"_BASE_ leads back to this file"):
        load_config(write("_BASE_: base.yaml\n"))


def test_bases_that_multiply_are_refused(write):
    for i in range(30):
        write(f"_BASE_: [{i + 1}.yaml, {i + 1}.yaml]\n", f"{i}.yaml")
    write("SEED: 1\n", "30.yaml")
    with pytest.raises(InputError, match="more than 50 files"):
        load_config(write("_BASE_: 0.yaml\n"))
