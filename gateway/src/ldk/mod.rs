//! An embedded Lightning node on LDK.
