"""What pytest does around the tests."""

from __future__ import annotations

import gc
import weakref


def test_garbage_of_tests_is_collected_and_libraries_are_left_alone() -> None:
    class Node:
        own: Node

    node = Node()
    node.own = node
    seen = weakref.ref(node)
    del node
    gc.collect()
    assert gc.isenabled() and seen() is None
    assert gc.get_freeze_count() > 10_000
