# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules document that run the installed program."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of plugins/module_utils/program.py."""

    DOCUMENTATION = r"""
options:
  program:
    description: The installed program.
    type: path
    default: /usr/local/bin/shipper
  python:
    description: The Python that runs O(program), 3.9 or newer. Without it, the C(python3) that is found.
    type: path
  env_file:
    description:
      - The settings that the program is run with.
      - On a broker it is the admin's, which may do everything about streams; on an archive host a consumer's, where the
        broker gives everybody the same permissions.
    type: path
    default: /etc/shipper/admin.env
attributes:
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
"""
