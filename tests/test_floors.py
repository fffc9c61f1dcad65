"""The floors of the house: what `scripts/test` checks with import-linter, and that it would notice."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

import networkx as nx
import pytest

# On the lowest versions it is not installed: it asks for a newer rich.
pytest.importorskip("importlinter")

import grimp
from importlinter import api
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.layers import LayersContract

CONTRACTS = {"floors": LayersContract, "circles": AcyclicSiblingsContract}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("dynalab", exclude_type_checking_imports=True, cache_dir=None)


def kept(graph: grimp.ImportGraph, contract: str, *more: tuple[str, str]) -> bool:
    """Check a contract of pyproject.toml, with some imports (importer, imported) added."""
    read = api.read_configuration(str(Path(__file__).parent.parent / "pyproject.toml"))
    (options,) = [options for options in read["contracts_options"] if options["id"] == contract]
    changed = copy.deepcopy(graph)
    for importer, imported in more:
        changed.add_import(importer=importer, imported=imported)
    checked = CONTRACTS[contract](options["name"], read["session_options"], options)
    return checked.check(changed, verbose=False).kept


def test_the_house_stands(graph):
    assert kept(graph, "floors") and kept(graph, "circles")


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("dynalab.core.streams", "dynalab.config.schema"),
        ("dynalab.models.mlp", "dynalab.tasks.base"),
        ("dynalab.store.reader", "dynalab.analysis.base"),
        ("dynalab.models.mlp", "dynalab.optim.rates"),
        ("dynalab.analysis.base", "dynalab.imports.table"),
    ],
)
def test_an_import_up_or_sideways_is_noticed(graph, importer, imported):
    assert not kept(graph, "floors", (importer, imported))


def test_a_module_without_a_floor_is_noticed(graph):
    changed = copy.deepcopy(graph)
    changed.add_module("dynalab.attic")
    assert not kept(changed, "floors")


def test_a_circle_in_a_folder_is_noticed(graph):
    assert not kept(graph, "circles", ("dynalab.store.runfile", "dynalab.store.stored"))


def test_no_modules_import_each_other(graph):
    # A folder's face and what lies in it neither, where import-linter does not look.
    arrows = {(one, other) for one in graph.modules for other in graph.find_modules_directly_imported_by(one)}
    loops = nx.strongly_connected_components(nx.DiGraph([*arrows]))
    assert [sorted(loop) for loop in loops if len(loop) > 1] == []


def test_nothing_in_the_package_imports_its_face(graph):
    assert graph.find_modules_that_directly_import("dynalab") == set()


# A plug-in's source is in the ids of its ensembles: it cannot be asked to import from elsewhere.
PATHS = {
    "dynalab.errors": "ConfigError DynalabError Interrupted Locked NothingMatched RunsFailed StoreError",
    "dynalab.tasks.base": "Batch First InputSpec OwnsModel Task TaskConfig TaskData counted",
    "dynalab.models.base": "Context Matrix",
    "dynalab.probes.base": "Objective Probe ProbeState Setting Upcoming",
    "dynalab.training.streams": "NAMES Streams",
    "dynalab.analysis.base": "Convergence Group Run Trajectories Trajectory",
    "dynalab.analysis.convergence": "ConvergenceKeys converge convergence_step follow resolve",
    "dynalab.analysis.rates": "decay_a_step drag learning_rates rate_changes rate_factors",
}


@pytest.mark.parametrize("path", PATHS)
def test_what_plug_ins_import_stays_where_it_was(path):
    module = importlib.import_module(path)
    assert [name for name in PATHS[path].split() if not hasattr(module, name)] == []
