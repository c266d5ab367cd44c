//! The user's wallet as a library, and the ecash command line.
