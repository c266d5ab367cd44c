//! Threshold blind BLS signatures, threshold encryption with labels, and the key generation of both.
