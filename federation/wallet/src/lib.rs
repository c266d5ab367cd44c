//! On-chain custody: the wallet module's shared types, server and client.
