//! The regtest harness and the end-to-end tests.
