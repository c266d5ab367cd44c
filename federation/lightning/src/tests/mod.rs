//! Whole flows over four simulated guardians, and the parts.

#![cfg(all(feature = "server", feature = "client"))]

mod client;
mod encoding;
mod federation;
mod gateways;
mod incoming;
mod outgoing;
mod random;
