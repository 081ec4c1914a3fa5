//! Beside a peer.

pub fn figures() {}
