//! End-to-end scenarios in real virtual machines.
