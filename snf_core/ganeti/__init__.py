"""The cluster manager's side: what Ganeti calls, and with what."""
