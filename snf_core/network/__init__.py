"""Host networking: what a NIC should have on the host, and making it so."""
