//! CPU time as the kernel counts it, from `/proc`: Linux only, as the plugin's own figures.

use std::fs;
use std::time::Duration;

/// The kernel reports in hundredths of a second (`USER_HZ`), whatever its own clock is.
const TICK: Duration = Duration::from_millis(10);

/// CPU time used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// In this program's code.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl Cpu {
    /// Of this process.
    pub fn own() -> Self {
        Self::of("self")
    }

    /// Of a process by its number; zero if it is gone.
    pub fn of(process: &str) -> Self {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The second field is the program's name in brackets, and may contain anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse().ok()).unwrap_or(0);
        Self { user: TICK * ticks(11), system: TICK * ticks(12) }
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    /// Both together.
    pub fn total(self) -> Duration {
        self.user + self.system
    }
}

impl std::ops::AddAssign for Cpu {
    fn add_assign(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
    }
}
