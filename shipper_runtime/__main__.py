# SPDX-License-Identifier: GPL-3.0-or-later
import sys

from shipper_runtime.cli import main

sys.exit(main())
