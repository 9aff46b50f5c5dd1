"""The Xen hypervisor, for snf_core."""
