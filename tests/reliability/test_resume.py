"""A training that is killed, and resumed as often as necessary, ends as if nothing had happened."""

import random

import pytest

from tests.reliability.runs import assert_same, finish, outcome, start, train_with_kills


@pytest.fixture(scope="module")
def uninterrupted(drawn_balloons, tmp_path_factory):
    """The outcome of a training that was not killed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish(start(folder))
    return outcome(folder)


# How a killed process dies: in the middle of the writing of a checkpoint, of metrics.json, or before a rename.
MOMENTS = {
    "checkpoint": """
import torch
save, saved = torch.save, []
def die(content, file):
    saved.append(0)
    if len(saved) == {n}:
        file.write(b"half"), file.flush(), os.kill(0, 9)
    save(content, file)
torch.save = die
""",
    "metrics": """
import json
dumps, lines = json.dumps, []
def die(value, **options):
    if options.get("sort_keys") and "iteration" in value:
        lines.append(0)
        if len(lines) == {n}:
            with open({metrics!r}, "a") as file:
                file.write('{{"bbox/AP": 1')
            os.kill(0, 9)
    return dumps(value, **options)
json.dumps = die
""",
    "rename": """
replace, renamed = os.replace, []
def die(*args):
    renamed.append(0)
    if len(renamed) == {n}:
        os.kill(0, 9)
    replace(*args)
os.replace = die
""",
}


@pytest.mark.parametrize(("moment", "n"), [("checkpoint", 3), ("metrics", 4), ("rename", 12)])
def test_killed_while_writing(uninterrupted, tmp_path, moment, n):
    code = MOMENTS[moment].format(n=n, metrics=str(tmp_path / "metrics.json"))
    process = start(tmp_path, before=f"import os\n{code}")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == -9, output
    finish(start(tmp_path, resume=True))
    assert_same(uninterrupted, outcome(tmp_path))
    assert not list(tmp_path.glob(".*tmp")), "what the killed process left is removed"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_killed_at_random_moments(uninterrupted, tmp_path, num_workers):
    train_with_kills(tmp_path, random.Random(num_workers), 1, "DATALOADER.NUM_WORKERS", str(num_workers))
    assert_same(uninterrupted, outcome(tmp_path))


@pytest.mark.slow
def test_killed_fifty_times(uninterrupted, tmp_path):
    rng, killed, number = random.Random(0), 0, 0
    while killed < 50:
        folder = tmp_path / str(number := number + 1)
        killed += train_with_kills(folder, rng, rng.randint(1, 4), "DATALOADER.NUM_WORKERS", str(number % 3))
        assert_same(uninterrupted, outcome(folder))
        print(f"{killed} kills survived")
