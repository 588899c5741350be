# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in for the get-pip script that ansible-test would download: put pip in the empty virtual environment."""

import os
import subprocess
import sys

version = os.path.splitext(os.path.basename(__file__))[0].split("_", 2)[2].replace("_", ".")
env = {name: value for name, value in os.environ.items() if name != "GET_PIP"}
subprocess.run([sys.executable, "-m", "ensurepip", "--default-pip"], check=True, env=env, stdout=subprocess.DEVNULL)
subprocess.run(
    [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip==" + version],
    check=True,
    env=env,
)
