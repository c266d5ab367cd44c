//! The simulator is itself tested: with one protection switched off, it has to find a fault within 1,000 seeds.
