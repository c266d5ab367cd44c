//! The Core Lightning plugin: a whole guardian and gateway inside lightningd.
