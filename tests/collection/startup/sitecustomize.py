# SPDX-License-Identifier: GPL-3.0-or-later
"""Python runs this as it starts, where this folder is on its path: what was compiled once is not compiled again.

Ansible sends each task's module as a zip file of sources, of which Python keeps no compiled code: more than half of a
task's time went into compiling the same ones, each twice. Here that is kept, below the folder that COMPILED names.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
import zipimport
from importlib.util import source_hash
from types import CodeType


class Importer(zipimport.zipimporter):
    """As Python's own, which compiles a module to say what its file is, and again to run it."""

    def get_filename(self, fullname: str) -> str:
        return self.archive + self._name(fullname)

    def get_code(self, fullname: str) -> CodeType:
        name, source = self._name(fullname), self.get_source(fullname)
        if source is None:
            return super().get_code(fullname)
        # The archive is another one for each task, and so is no part of the name.
        key = source_hash(("%s\n%s" % (name, source)).encode()).hex()
        kept = os.path.join(os.environ["COMPILED"], key)
        with contextlib.suppress(FileNotFoundError), open(kept, "rb") as file:
            code: CodeType = marshal.loads(file.read())
            return code
        code = compile(source, name, "exec", dont_inherit=True)
        fresh = "%s.%d" % (kept, os.getpid())
        with open(fresh, "wb") as file:
            file.write(marshal.dumps(code))
        os.replace(fresh, kept)
        return code

    def _name(self, fullname: str) -> str:
        end = "/__init__.py" if self.is_package(fullname) else ".py"
        return "/%s%s%s" % (self.prefix, fullname.rpartition(".")[2], end)


if "COMPILED" in os.environ:
    sys.path_hooks[sys.path_hooks.index(zipimport.zipimporter)] = Importer
