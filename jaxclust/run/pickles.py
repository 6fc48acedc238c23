"""Reads pickles of anybody's, without running anything that they hold, in bounded time and memory.

A pickle is a program: it names functions, calls them, and sets the state of what it has made. Here a name stands for
a `Call` or whatever else the reader of a format gives for it; only a `Built` takes a state, and checks it. Python's
own unpickler would let a pickle set the state of all that it makes, hash tuples of tuples for hours, and copy without
end.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any

MAX_STEPS = 2_000_000  # instructions, and members of what is given to calls: some seconds, some hundred megabytes
MAX_INT = 128  # bytes
KEYS = (str, bytes, int, float, type(None))  # what names in dicts and members of sets are; whose hash is quick
TEXT = (str, bytes)  # whose hash nobody can foresee
MAX_KEY = 16  # members of a tuple that is one

MARK = object()
CONSTANTS: dict[str, Callable[[], Any]] = {
    "MARK": lambda: MARK,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
PLAIN = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}  # of Python 2


class Broken(Exception):
    """The file is not whole, or was never right; the message says in what."""


class Refused(Exception):
    """The pickle names what nobody admitted; the message is its name."""


class Call:
    """A name that a pickle may call."""

    def __init__(self, call: Callable[..., Any]):
        self.call = call


class Built:
    """A value that takes its state later, if at all."""

    def build(self, state: Any) -> None:
        """Takes the state, which may be anything.

        Raises:
          Broken: it is none for this value.
        """


def load(
    stream: Any,
    names: Mapping[tuple[str, str], Any],
    persistent: Callable[[Any], Any] | None = None,
    string: Callable[[bytes], Any] = bytes,
) -> Any:
    """The object that is pickled next in `stream`, of dicts, lists, tuples, sets, numbers, strings and what names say.

    Args:
      stream: a binary file.
      names: what (module, name) stand for.
      persistent: what references to outside the pickle stand for.
      string: what strings of Python 2 are made.

    Raises:
      Broken: it is no pickle, or does what no honest one does.
      Refused: it names what `names` has not.
    """
    try:
        return _Machine(names, persistent, string).run(stream)
    except (Broken, Refused):
        raise
    except Exception as e:  # whatever nonsense makes Python say
        raise Broken(f"its pickle cannot be read: {str(e) or type(e).__name__}") from e


class _Machine:
    """The stack, the memory, and what is done to them."""

    def __init__(
        self,
        names: Mapping[tuple[str, str], Any],
        persistent: Callable[[Any], Any] | None,
        string: Callable[[bytes], Any],
    ):
        self.names, self.persistent, self.string = names, persistent, string
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.left = MAX_STEPS

    def run(self, stream: Any) -> Any:
        for op, arg, _ in pickletools.genops(stream):
            self.charge(1)
            if op.name == "STOP":
                return self.pop()
            self.step(op.name, arg)
        raise Broken("its pickle has no end")

    def charge(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise Broken(f"its pickle takes more than {MAX_STEPS:,} steps")

    def step(self, name: str, arg: Any) -> None:
        stack = self.stack
        if name in PLAIN:
            if isinstance(arg, int) and arg.bit_length() > 8 * MAX_INT:
                raise Broken(f"it has a number of more than {MAX_INT} bytes")
            stack.append(arg)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name in STRINGS:
            stack.append(self.string(arg.encode("latin-1")))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else arg] = self.top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[arg])
        elif name not in ("PROTO", "FRAME"):
            act = getattr(self, f"on_{name.lower()}", None)
            if act is None:
                raise Broken(f"its pickle has the instruction {name}, as none of this kind does")
            act(arg) if arg is not None else act()

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is MARK:
            raise Broken("its pickle takes a value where there is none")
        return self.stack[-1]

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def marked(self) -> list[Any]:
        """What lies above the last mark, which goes with it."""
        at = next(i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is MARK)
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def on_pop(self) -> None:
        self.stack.pop()

    def on_pop_mark(self) -> None:
        self.marked()

    def on_dup(self) -> None:
        self.stack.append(self.top())

    def on_tuple(self) -> None:
        self.stack.append(tuple(self.marked()))

    def on_tuple1(self) -> None:
        self.take(1)

    def on_tuple2(self) -> None:
        self.take(2)

    def on_tuple3(self) -> None:
        self.take(3)

    def take(self, n: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(n)][::-1]))

    def on_list(self) -> None:
        self.stack.append(self.marked())

    def on_append(self) -> None:
        self.extend([self.pop()])

    def on_appends(self) -> None:
        self.extend(self.marked())

    def extend(self, items: list[Any]) -> None:
        self.of(list).extend(items)

    def of(self, kind: type) -> Any:
        """The value on top, of that very type."""
        if type(self.top()) is not kind:
            raise Broken(f"its pickle adds to a {kind.__name__} that is none")
        return self.top()

    def on_dict(self) -> None:
        items = self.marked()
        self.stack.append({})
        self.update(items)

    def on_setitem(self) -> None:
        value, key = self.pop(), self.pop()
        self.update([key, value])

    def on_setitems(self) -> None:
        self.update(self.marked())

    def update(self, items: list[Any]) -> None:
        pairs = [(check_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True)]
        if not isinstance(self.top(), Built):  # whose items, if it has any, are nobody's concern
            self.of(dict).update(pairs)

    def on_additems(self) -> None:
        items = [check_key(item) for item in self.marked()]
        self.of(set).update(items)

    def on_frozenset(self) -> None:
        self.stack.append(frozenset([check_key(item) for item in self.marked()]))

    def on_global(self, arg: str) -> None:
        self.name(*arg.split(" ", 1))

    def on_stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def name(self, module: str, name: str) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Broken("it has a name that is no text")
        if (module, name) not in self.names:
            raise Refused(f"{module}.{name}")
        self.stack.append(self.names[module, name])

    def on_reduce(self) -> None:
        args, function = self.pop(), self.pop()
        if not isinstance(function, Call) or not isinstance(args, tuple):
            raise Broken("it calls what is no function")
        self.charge(sum(len(x) for x in (args, *args) if isinstance(x, list | tuple | dict | set | frozenset)))
        self.stack.append(function.call(*args))

    def on_build(self) -> None:
        state, made = self.pop(), self.top()
        if isinstance(made, Built):
            made.build(state)
        elif type(made) is not dict:  # an OrderedDict's attributes, which are dropped
            raise Broken("it changes a tensor or a function after it is made")

    def on_persid(self, arg: str) -> None:
        self.refer(arg)

    def on_binpersid(self) -> None:
        self.refer(self.pop())

    def refer(self, what: Any) -> None:
        if self.persistent is None:
            raise Broken("it refers to something outside it")
        self.stack.append(self.persistent(what))


def check_key(key: Any) -> Any:
    """`key`, whose hash is found at once.

    Raises:
      Broken: it is no text, number or short tuple of texts.
    """
    members = key if type(key) is tuple else (key,)
    allowed = TEXT if members is key else KEYS  # of numbers, many tuples have one hash, as -1 and -2 have
    for x in members if len(members) <= MAX_KEY else (members,):
        if not isinstance(x, allowed) or (isinstance(x, int) and x.bit_length() > 64):
            raise Broken("a dict or a set has a name or member that is no text, number or short tuple of texts")
    return key


def printable(text: str) -> str:
    """At most 200 characters of what a file says, without any that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text[:200])
