//! E-cash notes: the mint module's shared types, server and client.
