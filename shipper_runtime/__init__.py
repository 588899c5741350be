# SPDX-License-Identifier: GPL-3.0-or-later
"""Ships log lines of many hosts, host by host and in order, over NATS into plain files."""

from __future__ import annotations

__version__ = "0.2.0"
