"""Is a history of operations on one register linearizable?

Wing and Gong's search with the memory that Lowe added: take any operation that no other one ended before, see whether
the register allows its result, go on; come back where that leads nowhere, and never twice to the same set of
operations done with the same value. Histories are split by key first: registers do not know each other.

An operation is (kind, value, result, began, ended):

  write   value was written; result is the value that it replaced (None: no such key), or ANY where that is not known
  read    result is the value seen
  cas     value is (expected, new); result is True where it was swapped, else ("was", the value found) or False

One of which nobody knows what became of it has ended None: it may take effect at any time from its beginning on, or
never. Its result means nothing. Values are written once each, so one of these that nobody saw the effect of need not
be looked at: without them the search goes nearly straight through.
"""

from collections import namedtuple

Operation = namedtuple("Operation", "kind value result began ended")
NEVER = float("inf")
ANY = object()


def apply(operation, state):
    """(allowed, the register afterwards)."""
    unknown = operation.ended is None
    if operation.kind == "write":
        return unknown or operation.result is ANY or operation.result == state, operation.value
    if operation.kind == "read":
        return unknown or operation.result == state, state
    expected, new = operation.value
    swapped = state == expected
    if unknown:
        return True, new if swapped else state
    if isinstance(operation.result, tuple):
        return not swapped and operation.result == ("was", state), state
    return operation.result == swapped, new if swapped else state


def reveals_state(operation):
    """Whether the result says what the register held."""
    if operation.ended is None or operation.kind == "read":
        return True
    return operation.result is not ANY if operation.kind == "write" else operation.result is not False


def seen_values(history):
    seen = set()
    for operation in history:
        if operation.ended is None:
            continue
        if operation.kind == "cas":
            seen.add(operation.value[0])
        if isinstance(operation.result, tuple):
            seen.add(operation.result[1])
        elif operation.kind != "cas" and operation.result is not ANY:
            seen.add(operation.result)
    return seen


def matters(operation, seen, all_reveal):
    """Whether an operation can bear on the others' results."""
    if operation.ended is not None:
        return True
    if operation.kind == "read":
        return False
    value = operation.value if operation.kind == "write" else operation.value[1]
    return value in seen or not all_reveal


def is_linearizable(history, initial=None):
    """history: operations on one register."""
    seen_by_someone, all_reveal = seen_values(history), all(reveals_state(o) for o in history)
    operations = sorted(
        (o for o in history if matters(o, seen_by_someone, all_reveal)), key=lambda o: o.began)
    count = len(operations)
    ends = [NEVER if o.ended is None else o.ended for o in operations]
    certain = sum(1 << i for i, o in enumerate(operations) if o.ended is not None)
    seen = set()
    stack = [(0, initial, 0)]  # done, state, where the first that is not done lies
    while stack:
        done, state, first = stack.pop()
        while first < count and done >> first & 1:
            first += 1
        if done & certain == certain:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        # Those that began before any other one that is not done has ended.
        limit = NEVER
        candidates = []
        for i in range(first, count):
            if operations[i].began > limit:
                break
            if not done >> i & 1:
                candidates.append(i)
                limit = min(limit, ends[i])
        # What is certain goes first: one that never took effect would only be tried in vain, again and again.
        for i in sorted(candidates, key=lambda i: (operations[i].ended is not None, -i)):
            if operations[i].began <= limit:
                allowed, after = apply(operations[i], state)
                if allowed:
                    stack.append((done | 1 << i, after, first))
    return False


def check(histories):
    """histories: {key: operations}. The keys whose history no register can have had."""
    return [key for key, history in histories.items() if not is_linearizable(history)]
