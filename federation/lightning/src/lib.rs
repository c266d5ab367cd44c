//! Payment contracts: the lightning module's shared types, server and client.
