"""Say what an ONNX file says in the operators, and the operator set, that an older TensorRT reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .graphs import STANDARD, Graph, opset_of
from .lowering import lowered
from .operator_tables import opset_limit, supported
from .spellings import SPELLINGS, Sheet


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """model: another one, which computes the same numbers. changes: what was said differently, in words.

    problems: nodes that kept the file at its operator set, each with the layer. What else TensorRT would refuse is
    for `operators.check` to say.
    """

    model: Any
    changes: Sequence[str]
    problems: Sequence[str]


def rewritten(model: Any, *, version: str) -> Rewritten:
    """The model for that TensorRT; the same object where there is nothing to change.

    Operators that it lacks are spelled out where that is exact, and an operator set that is too new is lowered.
    """
    import onnx

    known, limit = supported(version), opset_limit(version)
    opset = opset_of(model)
    foreign = [node for node in model.graph.node if node.domain in STANDARD and node.op_type not in known]
    if opset <= limit and not any(node.op_type in SPELLINGS for node in foreign):
        return Rewritten(model=model, changes=(), problems=())
    result = onnx.ModelProto()
    result.CopyFrom(model)
    target = min(opset, limit)
    spelled = _spell_out_(result, known, opset=target)
    problems = _lower_(result, opset, target) if target < opset else []
    if problems or not (spelled or target < opset):
        return Rewritten(model=model, changes=(), problems=tuple(problems))
    onnx.checker.check_model(result, full_check=True)
    changes = [f"{kind} ({count}) in operators that TensorRT {version} has" for kind, count in spelled.items()]
    if target < opset:
        changes.append(f"operator set {opset} as {target}")
    return Rewritten(model=result, changes=tuple(changes), problems=())


def _spell_out_(model: Any, known: frozenset[str], *, opset: int) -> Counter[str]:
    """Replace every operator that is missing and can be spelled out; how many of each kind."""
    graph = Graph(model)
    nodes: list[Any] = []
    spelled: Counter[str] = Counter()
    for node in model.graph.node:
        spell = SPELLINGS.get(node.op_type) if node.domain in STANDARD and node.op_type not in known else None
        sheet = Sheet(node, graph, opset=opset)
        result = spell(sheet) if spell is not None and sheet.has_one_output else None
        if result is None:
            nodes.append(node)
            continue
        sheet.finish(result)
        nodes.extend(sheet.nodes)
        model.graph.initializer.extend(sheet.constants)
        spelled[node.op_type] += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused_constants_(model.graph)
    return spelled


def _lower_(model: Any, opset: int, target: int) -> list[str]:
    """Say every node in an older operator set. What could not be said, and then nothing is changed that matters."""
    import onnx

    graph = Graph(model)
    nodes, problems = [], []
    for node in model.graph.node:
        if node.domain not in STANDARD:
            nodes.append(node)
            continue
        older = lowered(node, graph, opset=opset, target=target)
        if isinstance(older, str):
            problems.append(f"{graph.where([node])}: {older}")
        else:
            nodes.append(older)
    if problems:
        return problems
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused_constants_(model.graph)
    for entry in model.opset_import:
        if entry.domain in STANDARD:
            entry.version = target
    model.ir_version = min(model.ir_version, onnx.helper.find_min_ir_version_for(model.opset_import))
    return []


def _drop_unused_constants_(graph: Any) -> None:
    """Axes that became attributes, and what replaced nodes read."""
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    if any(attribute.g.node or attribute.graphs for node in graph.node for attribute in node.attribute):
        return  # a body may read them by name
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)
    nodes = [node for node in graph.node if node.op_type != "Constant" or node.output[0] in used]
    if len(nodes) < len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)
