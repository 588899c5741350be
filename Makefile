# SPDX-License-Identifier: GPL-3.0-or-later
# An index: what is behind each word stands in tests/checkers, molecule/lab, demo and bench. Needs Python 3 and make, nothing else.

PYTHON ?= python3
CHECK = $(PYTHON) tests/checkers/check.py
BENCHES = peers compress latency idle trim many_hosts quiet_fleet connections growth plain_publisher

.PHONY: help test lint unit torture molecule demo bench rollout docs dist venv clean

help: ## these lines
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' $(MAKEFILE_LIST) | expand -t 12

test: ## every check, on every Python and ansible-core that this machine has
	@$(CHECK)

lint: ## ruff, mypy --strict, ansible-lint, documentation and changelog
	@$(CHECK) --main-only lint

unit: ## the runtime's tests on the main Python
	@$(CHECK) --main-only unit

torture: venv ## kills of everything, at random, and bytes counted; SEED=7 replays a schedule, ROUNDS=200 is long
	@.venv/bin/python -m tests.torture $(if $(SEED),--seed $(SEED)) --rounds $(or $(ROUNDS),20)

molecule: ## the scenarios on real systemd hosts of this machine, as root; SCENARIO=failure runs one
	@$(CHECK) --main-only molecule

demo: venv ## a fleet on this machine, shipping real logs; KEEP=1 leaves it running
	@.venv/bin/python demo/demo.py $(if $(KEEP),--keep)

bench: venv ## all figures of docs/performance, beside peers, limits and what was promised; half an hour
	@failed=0; for each in $(BENCHES); do echo; .venv/bin/python bench/$$each.py || failed=1; done; exit $$failed

rollout: venv ## tasks and seconds a host of a rollout to twenty real hosts of this machine, as root
	@.venv/bin/python bench/rollout.py

docs: venv ## README.md of the roles, and the docsite in docs/html
	@.venv/bin/python tests/checkers/role_readmes.py
	@.venv/bin/python tests/checkers/docsite.py docs/html

dist: venv ## the collection's tarball, in dist/
	@.venv/bin/ansible-galaxy collection build --force --output-path dist

venv: ## only .venv, the main environment
	@$(PYTHON) tests/checkers/environments.py

clean: ## away with everything that was made here
	rm -rf .venv .venvs .cache dist docs/html .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache tests/output
	find . -name __pycache__ -prune -exec rm -rf {} +
