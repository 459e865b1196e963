"""A serialized grammar without what it says again for every rule.

xgrammar keeps the automata of all rules in one, of which each rule's is a part: its first state, its last ones, and all states.
In memory they share it. Serialized, each rule has all of it, so the text grows by the square: eight tools of four arguments are
seven megabytes, twenty are thirty-five, of which 1.8 and 4.7 stay (128,256 tokens). A matcher only ever follows a rule's
automaton from its first state on. So what cannot be reached from there is left out here; states keep their numbers, as masks are
found by them. A grammar that is not written so stays as it is.
Source: xgrammar 0.2.8, as it serializes; a test follows both forms side by side.
"""

import json
from typing import Any

_COMPLETE = '"complete_fsm":'
_EDGES, _START, _ENDS, _NUM_EDGES = 0, 1, 2, 4
"""Where they are in a rule's automaton."""


def trimmed(serialized: str) -> str:
    """The same grammar: what `CompiledGrammar.serialize` gave, for `CompiledGrammar.deserialize`."""
    at = serialized.find(_COMPLETE) + len(_COMPLETE)
    if at < len(_COMPLETE):
        return serialized
    complete, end = json.JSONDecoder().raw_decode(serialized, at)
    text = serialized[at:end]
    if not _is_known(complete) or serialized.count(text, end) == 0:
        return serialized
    # Taken out as text before anything is parsed: nearly all of it are these copies.
    grammar = json.loads(serialized[:end] + serialized[end:].replace(text, "null"))
    for rule in grammar["grammar"]["per_rule_fsms"]:
        if rule is not None and rule[0][_EDGES] is None:
            _trim(rule[0], complete)
    return json.dumps(grammar, separators=(",", ":"), ensure_ascii=False)


def _is_known(complete: Any) -> bool:
    return isinstance(complete, dict) and complete.keys() == {"edges", "edge_aux_data", "edge_num"}


def _trim(automaton: list[Any], complete: dict[str, Any]) -> None:
    """Give a rule's automaton its own states, in place.

    Args:
        automaton: without its edges.
        complete: all rules' edges, state by state: `data_` has them, of state *s* from `indptr_[s]` up to `indptr_[s + 1]`. The
            third member of an edge is the state that it leads to.
    """
    edges, begins = complete["edges"]["data_"], complete["edges"]["indptr_"]
    reached, waiting = {automaton[_START]}, [automaton[_START]]
    while waiting:
        state = waiting.pop()
        new = {edge[2] for edge in edges[begins[state] : begins[state + 1]]} - reached
        reached |= new
        waiting += new
    kept: list[Any] = []
    own_begins = [0]
    for state in range(max(reached.union(automaton[_ENDS])) + 1):
        if state in reached:
            kept += edges[begins[state] : begins[state + 1]]
        own_begins.append(len(kept))
    own = {"data_": kept, "indptr_": own_begins}
    automaton[_EDGES] = complete | {"edges": own, "edge_num": len(kept)}
    automaton[_NUM_EDGES] = len(kept)
