//! Guardian and gateway inside the plugin: each starts after `init`, and may be off, starting, running or failed.
//!
//! One that fails takes nothing along: the HTLC hook answers on, and the status commands say what is wrong.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::rpc::Failure;

pub mod gateway;
pub mod guardian;

/// Where a role stands.
pub struct Role<T: ?Sized> {
    name: &'static str,
    option: &'static str,
    state: Mutex<State<T>>,
}

enum State<T: ?Sized> {
    Off,
    Starting,
    Running(Arc<T>),
    Failed(String),
}

impl<T: ?Sized> Role<T> {
    /// A role that is off. `option` is what switches it on.
    pub fn new(name: &'static str, option: &'static str) -> Self {
        Self { name, option, state: Mutex::new(State::Off) }
    }

    /// It is switched on, and not ready yet.
    pub fn starting(&self) {
        self.set(State::Starting);
    }

    /// It is ready.
    pub fn running(&self, role: Arc<T>) {
        self.set(State::Running(role));
    }

    /// It has ended, or could not start.
    pub fn failed(&self, reason: String) {
        self.set(State::Failed(reason));
    }

    fn set(&self, state: State<T>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// What runs; the error says why nothing does, and what to do.
    pub fn get(&self) -> Result<Arc<T>, Failure> {
        let name = self.name;
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Running(role) => Ok(role.clone()),
            State::Off => {
                Err(Failure::off(format!("this node is no {name}: start it with {}=true", self.option)))
            }
            State::Starting => {
                Err(Failure::not_ready(format!("the {name} is starting: try again in a moment")))
            }
            State::Failed(reason) => Err(Failure::not_ready(format!("the {name} does not run: {reason}"))),
        }
    }

    /// `off`, `starting`, `running` or `failed`, with the reason.
    pub fn to_json(&self) -> Value {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Off => json!({ "state": "off" }),
            State::Starting => json!({ "state": "starting" }),
            State::Running(_) => json!({ "state": "running" }),
            State::Failed(reason) => json!({ "state": "failed", "reason": reason }),
        }
    }
}
