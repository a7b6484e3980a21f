"""The allow-list: what a pickle names is not loaded. (The exploit is real; it would make a file.)"""

import os
import pickle
from pathlib import Path
from typing import Any

import pysyncobj.journal
import pysyncobj.pickle
import pytest

from cluster.consensus_unpickler import Refusals, Unpicklable, install, safe_loads


class Exploit:
    """Unpickling this with the standard library runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    "value",
    [
        {"type": "append_entries", "entries": [(b"\0x\xff", 2, 1)], "prevLogIdx": None},
        (b"key" * 11, {"type": "keepalive"}),
        b"",
        [True, -1, 1 << 70, 1.5, "text", ()],
        (0, (bytes(range(256)),)),
    ],
)
def test_protocol_messages_come_back_as_they_were(value: Any) -> None:
    """PySyncObj writes protocol 2; all its messages need no more than two globals."""
    assert safe_loads(pysyncobj.pickle.dumps(value)) == value


def test_an_exploit_is_refused_counted_and_not_run(tmp_path: Path) -> None:
    """T8. First shown to work against pickle itself, so that the refusal means something."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        pickle.loads(pickle.dumps(Exploit(tmp_path / "proof"), protocol))
        before = Refusals.count

        with pytest.raises(Unpicklable, match=r"posix.system|nt.system"):
            safe_loads(pickle.dumps(Exploit(tmp_path / "pwned"), protocol))

        assert Refusals.count == before + 1
    assert (tmp_path / "proof").exists()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"c_codecs\ndecode\n.",
        b"c_codecs\nencode\n(V\nVzlib\ntR.",  # another codec than latin-1
        b"cbuiltins\nbytes\n(I1000000000\ntR.",  # an allocation on request
        b"ccluster.state\nClusterState\n)R.",
        b"P1\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"",
        b"not a pickle",
        b"\x80\x02(",
    ],
)
def test_foreign_globals_and_malformed_pickles_are_refused(data: bytes) -> None:
    """Neither code nor codecs nor sizes."""
    with pytest.raises(Unpicklable):
        safe_loads(data)


def test_pysyncobj_uses_the_allow_list_everywhere() -> None:
    """Wire, log entries, its own journal's meta; files are not read at all."""
    install()

    assert pysyncobj.pickle.loads is safe_loads
    assert pysyncobj.journal.loads is safe_loads
    with pytest.raises(Unpicklable):
        pysyncobj.pickle.load(object())
