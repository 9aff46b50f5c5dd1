# Everything a newcomer or CI runs. "make demo" and "make test" install what they need.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
SNF := $(VENV)/bin/snf
PYTEST := $(PYTHON) -m pytest
DISTRIBUTIONS := . plugins/kvm plugins/xen plugins/os_linux plugins/os_windows
UNIT := tests/unit plugins/kvm/tests plugins/xen/tests plugins/os_linux/tests plugins/os_windows/tests

# What a node needs, then what only tests need: images, clusters, and peers to measure.
PACKAGES := python3-guestfs python3-nftables libguestfs0 libguestfs-xfs supermin \
	qemu-system-x86 qemu-utils nftables iproute2 linux-image-cloud-amd64
TEST_PACKAGES := python3-venv mmdebstrap openssh-client openssl gdisk fdisk e2fsprogs xfsprogs btrfs-progs \
	util-linux procps wine64
GANETI_PACKAGES := ganeti openssh-server busybox-static
BENCH_PACKAGES := ganeti-os-noop guestfs-tools iptables ebtables arptables iputils-arping

.PHONY: help setup check demo test test-unit test-system test-network test-machine test-guest \
	test-ganeti test-xen bench sample clean
help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.make/packages: Makefile
	@mkdir -p .make
	@./tests/install-packages $(PACKAGES) $(TEST_PACKAGES)
	@touch $@

.make/ganeti: .make/packages
	@./tests/install-packages $(GANETI_PACKAGES)
	@touch $@

.make/venv: .make/packages pyproject.toml setup.cfg $(wildcard plugins/*/setup.cfg)
	@echo "==> virtual environment with the core and the plugins ($(VENV))"
	@/usr/bin/python3 -m venv --system-site-packages $(VENV)
	@$(PYTHON) -m pip install --quiet --upgrade 'setuptools>=70.1'
	@$(PYTHON) -m pip install --quiet --no-build-isolation \
		$(foreach distribution,$(DISTRIBUTIONS),-e ./$(distribution)) \
		pytest hypothesis packaging scapy babel regipy tree-sitter tree-sitter-powershell \
		cloudbase-init 'ruff>=0.15' 'mypy>=1.18' lxml-stubs
	@touch $@

setup: .make/venv  ## install packages, and the project into a virtual environment
	@:

check: .make/venv  ## style, types and unit tests: seconds, no root
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy snf_core plugins/*/snf_* conftest.py tests plugins/*/tests docs
	$(PYTEST) -q $(UNIT)

demo:  ## an image becomes a running, reachable machine, and is taken down again
	@fresh=no; [ -e .make/venv ] || fresh=yes; start=$$(date +%s.%N); \
	$(MAKE) --no-print-directory setup && \
	SNF_DEMO_START=$$start SNF_DEMO_FRESH=$$fresh $(PYTHON) -m tests.demo

# The emulated machines take as long as everything else, and one processor.
test: check .make/ganeti  ## everything
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-emulated test-here

.PHONY: test-emulated test-here
test-emulated: setup
	$(MAKE) --no-print-directory test-xen
	$(MAKE) --no-print-directory test-machine

test-here: setup
	$(MAKE) --no-print-directory test-system
	$(MAKE) --no-print-directory test-network
	$(MAKE) --no-print-directory test-guest
	$(MAKE) --no-print-directory test-ganeti

test-unit: .make/venv  ## no root, no other programs
	$(PYTEST) $(UNIT)

test-system: setup  ## packaging, the command line, whole deployments
	$(PYTEST) tests/system

test-network: setup  ## host networking, in namespaces
	$(PYTEST) tests/network

test-machine: setup  ## the same, all of it, in a machine with Debian's kernel
	$(PYTHON) -m tests.kernel_machine tests/network

test-guest: setup  ## tasks on real file systems in a real appliance
	$(PYTEST) tests/guest

test-ganeti: setup .make/ganeti  ## a real cluster, from adding an instance to removing it
	$(PYTEST) tests/ganeti

test-xen: setup  ## a real Xen: its NICs, guests and appliance, and Ganeti on it
	$(PYTHON) -m tests.xen --wheels --timeout 1800

bench: setup .make/ganeti  ## figures, side by side with peers
	@./tests/install-packages $(BENCH_PACKAGES)
	@$(PYTHON) -m tests.bench

sample: setup  ## write etc/snf.conf.sample anew
	@$(SNF) --config /dev/null config sample > etc/snf.conf.sample.new
	@mv etc/snf.conf.sample.new etc/snf.conf.sample

clean:  ## remove what was made in the checkout
	rm -rf $(VENV) .make .mypy_cache .ruff_cache .pytest_cache .hypothesis build plugins/*/build
	find . -name '*.egg-info' -prune -exec rm -rf {} +
