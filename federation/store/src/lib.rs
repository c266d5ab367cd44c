//! The key-value store of guardians, clients and gateways, on SQLite or PostgreSQL.
