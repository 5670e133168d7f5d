"""What the board's script asks of TensorRT's Python package exists in each version, on the way that it takes there.

The table is from NVIDIA's binding sources, python/src of branches release/8.2, 8.6, 10.3, 10.16 and 11.1.
"""

from __future__ import annotations

import ast
from importlib import resources

import pytest

SCRIPT = resources.files("edgepress") / "targets" / "remote" / "board" / "trt_api.py"
VERSIONS = ((8, 2), (8, 6), (10, 3), (10, 16), (11, 1))
ALWAYS = frozenset(
    {
        "Logger", "ERROR", "Runtime", "deserialize_cuda_engine", "create_execution_context", "init_libnvinfer_plugins",
        "__version__",
    }
)  # fmt: skip
# Bindings by place: gone with 10.0.
BINDINGS = frozenset(
    {
        "num_bindings", "get_binding_name", "get_binding_dtype", "get_binding_shape", "set_binding_shape",
        "binding_is_input", "execute_async_v2",
    }
)  # fmt: skip
# Tensors by name: since 8.5.
NAMES = frozenset(
    {
        "num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_dtype", "get_tensor_shape",
        "set_tensor_address", "set_input_shape", "execute_async_v3", "TensorIOMode", "INPUT",
    }
)  # fmt: skip
SWITCH = "by_name"  # what the script remembers of hasattr(engine, "num_io_tensors")


def exists(name: str, version: tuple[int, int]) -> bool:
    if name in ALWAYS:
        return True
    return version < (10, 0) if name in BINDINGS else version >= (8, 5)


def asked(nodes: list[ast.stmt] | ast.AST, *, by_name: bool) -> set[str]:
    """Attributes that are reached where the switch stands so; what is called on the way is followed."""
    found: set[str] = set()
    for node in nodes if isinstance(nodes, list) else [nodes]:
        if isinstance(node, (ast.If, ast.IfExp)) and _is_switch(node.test):
            found |= asked(node.body if by_name else node.orelse, by_name=by_name)
            continue
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        for child in ast.iter_child_nodes(node):
            found |= asked(child, by_name=by_name)
        if isinstance(node, ast.If) and _is_switch(node.test):
            break
    return found


def _is_switch(test: ast.AST) -> bool:
    return isinstance(test, ast.Attribute) and test.attr == SWITCH


def reached(*, by_name: bool) -> set[str]:
    """Of the session of an engine: from its beginning, and from an answer, through the methods that they call."""
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    (session,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Session")
    methods = {node.name: node for node in session.body if isinstance(node, ast.FunctionDef)}
    found: set[str] = set()
    todo = ["__init__", "answer"]
    while todo:
        names = _of(methods[todo.pop()], by_name=by_name)
        todo += [name for name in names & methods.keys() if name not in found]
        found |= names
    return found


def _of(method: ast.FunctionDef, *, by_name: bool) -> set[str]:
    found: set[str] = set()
    for place, statement in enumerate(method.body):
        if isinstance(statement, ast.If) and _is_switch(statement.test) and not statement.orelse:
            ends = any(isinstance(inner, ast.Return) for inner in statement.body)
            found |= asked(statement.body, by_name=by_name) if by_name else set()
            if ends:
                rest = [] if by_name else method.body[place + 1 :]
                return found | asked(rest, by_name=by_name)
        else:
            found |= asked([statement], by_name=by_name)
    return found


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_every_name_that_is_reached_exists_in_that_version(version: tuple[int, int]) -> None:
    names = reached(by_name=exists("num_io_tensors", version))
    of_tensorrt = names & (ALWAYS | BINDINGS | NAMES)
    # asked with hasattr before it is used, so it may be missing
    assert {name for name in of_tensorrt - {"num_io_tensors"} if not exists(name, version)} == set()
    assert ("execute_async_v3" in names) == (version >= (8, 5))
    assert ("execute_async_v2" in names) == (version < (8, 5))


def test_nothing_of_tensorrt_is_asked_that_the_table_does_not_hold() -> None:
    """Attributes of the engine, the context, the runtime and the package, whatever the switch says."""
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    owners = {"engine", "context", "runtime", "trt", "Logger", "TensorIOMode"}
    found = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (getattr(node.value, "attr", None) in owners or getattr(node.value, "id", None) in owners)
    }
    assert found <= ALWAYS | BINDINGS | NAMES
    assert len(found) > 12
