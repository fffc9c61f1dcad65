"""The wheel, away from the checkout: configurations and templates shipped, trains, analyses, reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*words: str | Path, **keys) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **keys)
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done


def test_a_wheel_trains_and_analyses_away_from_the_checkout(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*build, "--disable-pip-version-check", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("dynalab-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"dynalab/conf/train.yaml", "dynalab/conf/task/grokking.yaml"} <= set(names)
    for folder in (
        "dynalab/report/templates/",
        "dynalab/show/templates/",
        "dynalab/cli/templates/probe/blank.py",
    ):
        assert any(name.startswith(folder) for name in names)
    assert not any(name.startswith(("tests/", "scripts/", "outputs/")) for name in names)

    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    python = tmp_path / "env/bin/python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    # Sees the installed dependencies, but not the editable dynalab: a .pth inside an added folder is not followed.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DYNALAB"))
    }

    def dynalab(*words: str) -> str:
        return run(python, "-m", "dynalab", *words, cwd=tmp_path, env=environment).stdout

    where = run(python, "-c", "import dynalab; print(dynalab.__file__)", cwd=tmp_path, env=environment).stdout
    assert str(tmp_path) in where
    tiny = ["task.modulus=11", "model.width=16", "train.steps=300", "snapshots.at=never"]
    trained = json.loads(dynalab("train", "task=grokking", "seed=0..4", *tiny, "--json"))
    assert [item["status"] for item in trained["ensembles"][0]["runs"]] == ["done"] * 5
    assert Path(trained["ensembles"][0]["path"]).is_relative_to(tmp_path / "outputs")
    result = json.loads(dynalab("analyze", "hmm", "max_states=2", "restarts=1", "folds=2", "--json"))
    assert result["analyses"][0]["n_states"] in (1, 2)
    assert Path(dynalab("report").strip()).is_file()
