"""snf_core: from a raw disk and a NIC to a running, reachable, private virtual machine."""
