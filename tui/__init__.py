"""The terminal user interface; it talks to the daemon through ``daemon.client`` only."""
