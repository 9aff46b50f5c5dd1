"""Tests on a real Xen hypervisor: they run inside its dom0 (``python -m tests.xen``)."""
