//! Amounts, ids, transactions, module traits, public configuration and invite codes; no I/O.
