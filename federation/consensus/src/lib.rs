//! Ordered batches by HoneyBadger: sans-IO engine, links between guardians, journal and coin key generation.
