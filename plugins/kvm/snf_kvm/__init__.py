"""The KVM hypervisor for snf-core."""
