# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from .settings import FleetSettings


def since(text: str | None) -> float | None:
    raise NotImplementedError


async def run(settings: FleetSettings, host: str, begin: float | None, *, follow: bool) -> None:
    raise NotImplementedError
