//! Swaps e-cash notes for Lightning payments.
