//! A guardian: setup, main loop and REST API.
