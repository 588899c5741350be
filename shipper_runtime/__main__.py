# SPDX-License-Identifier: GPL-3.0-or-later
import sys

from shipper_runtime import signals

signals.hold()

from shipper_runtime.cli import main  # noqa: E402  # loading it is what takes time

sys.exit(main())
