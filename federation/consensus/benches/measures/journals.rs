//! A journal that counts its flushes, and can be a slower disk than there is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use federation_consensus::journal::{Journal, Record};

/// What was written.
#[derive(Debug, Default)]
pub struct Written {
    flushes: AtomicU64,
    nanos: AtomicU64,
}

impl Written {
    /// How often the disk was waited for.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// How long was waited for the disk.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// A journal around another one.
pub struct Watched<J> {
    inner: J,
    delay: Duration,
    written: Arc<Written>,
}

impl<J> Watched<J> {
    /// Every flush takes `delay` longer.
    pub fn new(inner: J, delay: Duration) -> (Self, Arc<Written>) {
        let written = Arc::default();
        (Self { inner, delay, written: Arc::clone(&written) }, written)
    }
}

impl<J: Journal> Journal for Watched<J> {
    fn replay(&mut self) -> io::Result<Vec<Record>> {
        self.inner.replay()
    }

    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let started = Instant::now();
        self.inner.append(records)?;
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        self.written.flushes.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.written.nanos.fetch_add(nanos, Ordering::Relaxed);
        Ok(())
    }

    fn truncate(&mut self, epoch: u64) -> io::Result<()> {
        self.inner.truncate(epoch)
    }

    fn speaks_from(&mut self) -> io::Result<Option<u64>> {
        self.inner.speaks_from()
    }

    fn set_speaks_from(&mut self, epoch: u64) -> io::Result<()> {
        self.inner.set_speaks_from(epoch)
    }
}
