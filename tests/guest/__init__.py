"""Tests over real file systems in a real appliance. They need root and QEMU; minutes at most."""
