# The door to mini_docker. "make" lists what there is; README.md says where to begin.

MD     := labs/bin/mini_docker
PYTHON := .venv/bin/python
BOOK   := $(PYTHON) -m mini_docker.lab.book

CMD     ?= echo hello from a container
NB      ?=
PORT    ?= 8888
ADDRESS ?= $(shell cat /etc/mini_docker-address 2>/dev/null || echo 127.0.0.1)
PEERS   ?= --peers
PART    ?=
ROOM    ?= start

.DEFAULT_GOAL := help
.PHONY: help setup run lab test check doctor reset bench export carry text untext execute pictures screenshots clean soak
.PHONY: registry vm vm-run vm-shell vm-test box vagrant-test

help: ## list the targets
	@echo "make TARGET [CMD=...] [NB=06_uts] [PORT=8889] [PEERS=]"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## prepare this machine: packages, .venv, the command, the image busybox (twice does no harm)
	@labs/provision.sh --as "make $(or $(MAKECMDGOALS),setup)"
	@$(MD) setup

run: setup ## prepare, then run one container: make run CMD="sh -c 'id; ps'"
	$(MD) run --rm busybox $(CMD)
	@labs/next.sh

lab: setup ## open the notebooks in JupyterLab, on 127.0.0.1 only: make lab PORT=8889
	@labs/lab.sh $(PORT) $(ADDRESS)

test: ## prepare, then everything that CI checks; PEERS= goes without runc, dockerd, podman ...
	@labs/provision.sh $(PEERS) --as "make test"
	@$(MD) setup
	@labs/test.sh

check: $(PYTHON) ## the quick part of "make test": style, types, normal form, export
	@labs/test.sh --quick

doctor: ## which chapters can run on this machine, and what to do where they cannot
	@$(MD) doctor

reset: ## remove all containers and networks of ours; images stay
	@$(MD) reset

bench: setup ## how long a start takes, where the time goes, beside docker, podman, runc
	@/usr/bin/python3 tests/bench/start.py
	@$(PYTHON) tests/bench/imports.py
	@$(PYTHON) tests/bench/run.py
	@$(PYTHON) tests/bench/registry.py
	@$(PYTHON) tests/bench/execs.py
	@$(PYTHON) tests/bench/engine.py --quick
	@$(PYTHON) tests/bench/parts.py

soak: setup ## load and faults at full size (half an hour): runs, kills, 200 containers, 1 GB of output, two clients
	@MINI_DOCKER_SOAK=1000 .venv/bin/pytest -q -s tests/test_soak.py tests/test_daemon_kills.py tests/test_load.py tests/test_races.py
	@MINI_DOCKER_SOAK=1000 .venv/bin/pytest -q tests/test_mini_runc.py -k killed_at
	@MINI_DOCKER_SOAK=1000 .venv/bin/pytest -q tests/test_daemon_oracle.py tests/test_commands_oracle.py

registry: setup ## a registry with the lab's images, for a room without internet: make registry ROOM=stop
	@labs/registry $(ROOM)

vm: ## the virtual machine without Vagrant: packages for it here, and its image (twice does no harm)
	@labs/provision.sh --machine --as "make $(or $(MAKECMDGOALS),vm)"
	@labs/vm build

vm-run: export COMMAND = $(value CMD)
vm-run: vm ## run a command in it: make vm-run CMD='uname -r'
	@labs/vm run "$$COMMAND"

vm-shell: vm ## look around in it; PORT 8888 of this machine leads there with MINI_DOCKER_VM_PORT=8888
	@labs/vm shell

vm-test: vm ## run what asks the kernel, and every notebook, in it, under control groups v2
	@labs/vm-test.sh $(PART)

box: vm ## the same image as a Vagrant box, for libvirt: build/mini_docker.box
	@labs/provision.sh --vagrant --as "make $(MAKECMDGOALS)"
	@labs/vm box

vagrant-test: box ## "vagrant up" with that box, for real: about five minutes
	@labs/vagrant-test.sh

export: $(PYTHON) ## cells marked "#| export"  ->  mini_docker/**.py
	@$(BOOK) export

carry: $(PYTHON) ## edited mini_docker/**.py  ->  back into the cells they came from
	@$(BOOK) carry

text: need-NB $(PYTHON) ## a notebook as a text file to edit: make text NB=06_uts
	@$(BOOK) text notebooks/$(NB).ipynb

untext: need-NB $(PYTHON) ## carry the text file back into its notebook
	@$(BOOK) untext notebooks/$(NB).py

execute: $(PYTHON) ## run a notebook (without NB: all) and store its outputs in normal form
	@$(BOOK) execute $(if $(NB),notebooks/$(NB).ipynb,notebooks/*.ipynb)

pictures: ## docs/*.dot  ->  docs/*.svg
	@labs/pictures.sh

screenshots: ## docs/*.png, photographed in Chromium with JupyterLab (chapter 19e)
	@labs/provision.sh --peers --as "make screenshots"
	@$(PYTHON) -m tests.screenshots

clean: ## remove what was made in this folder, and the link to it; containers and packages stay
	@labs/clean.sh

need-NB:
	@test -f "notebooks/$(NB).ipynb" || test -f "notebooks/$(NB).py" || { echo "Which notebook? make $(MAKECMDGOALS) NB=06_uts"; exit 1; }
.PHONY: need-NB

$(PYTHON):
	@labs/provision.sh --as "make $(MAKECMDGOALS)"
